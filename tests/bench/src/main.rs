//! Our programs beside other people's, in one run, as one table of ratios; `cargo xtask bench` runs this program.
//!
//! ```text
//! images ─► signer ─► OCI layout ─► update-agent ─► slot      beside zstd|dd, SWUpdate, RAUC
//!               └──► repo-server ─► proxy that counts and cuts ─► update-agent
//!                    beside nginx, docker-registry          beside casync, zchunk
//! ```
//! Peers are those of Debian's testing where they can be had. Machines differ and this one is noisy:
//! ours and theirs alternate within one repetition, and only their ratio is held against the row's
//! goal. Every result is compared byte for byte with the image.
//! Every command has a time limit; a row that cannot be measured says why and ends nothing.

mod apply;
mod faults;
mod fleet;
mod growth;
mod load;
mod newest;
mod peers;
mod proxy;
mod publish;
mod report;
mod rig;
mod run;
mod serve;
mod server;
mod size;
mod table;
mod tls;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use racklet_tools::cmd::Cmd;
use racklet_tools::{debian, paths, programs, setup, show};

use self::newest::Peers;
use self::rig::Bench;
use self::table::{Row, Table};

/// Of the measurements; what is built and prepared once comes before.
const TIME: Duration = Duration::from_secs(30 * 60);

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Measure ours beside theirs and write docs/benchmarks.md",
    version
)]
struct Options {
    /// Small images, one repetition, no file written: shows that every row can be measured.
    #[arg(long)]
    quick: bool,
    /// Measure the programs in this folder instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Repetitions of what takes time.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Only these sections.
    #[arg(long, value_name = "SECTION")]
    only: Vec<Section>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    Size,
    Apply,
    Wire,
    Publish,
    Serve,
    Sparse,
    Growth,
    Fleet,
}

impl Options {
    fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }

    /// Whether a section is wanted that needs the published images.
    fn wants_images(&self) -> bool {
        let without = [Section::Size, Section::Growth, Section::Fleet];
        self.only.is_empty() || !self.only.iter().all(|section| without.contains(section))
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    setup::run(&setup::Options::without_python())?;
    setup::bench()?;
    let images = debian::images(&debian::Options { fallback: options.quick, rebuild: false })?;
    let programs = match &options.programs {
        Some(dir) => fs::canonicalize(dir).with_context(|| format!("find {}", dir.display()))?,
        None => programs::shipped()?,
    };
    let work = paths::target().join("bench");
    fs::create_dir_all(&work)?;
    run::sweep_loops(&work)?;
    let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&work)?;
    let v1 = images.path("v1");
    let peers = Peers::find()?;
    let prepared = prepared(&work, &images.name(), &peers.name())?;
    let same_kernel = if images.debian { Some(images.same_kernel()?) } else { None };
    let mut bench = Bench {
        dir: dir.path().to_path_buf(),
        prepared,
        peers,
        programs,
        v1,
        v2: images.path("v2"),
        v2_same_kernel: same_kernel,
        repetitions: if options.quick { 1 } else { options.repetitions.max(1) },
        quick: options.quick,
        deadline: Instant::now() + 2 * TIME,
    };
    if options.wants_images() {
        prepare(&bench)?;
    }

    let started = Instant::now();
    bench.deadline = started + TIME;
    let load = [load()?];
    let table = measured(&bench, options);
    let facts = format!(
        "{}\n\n{}\n\nLoad of the machine (1-minute average) when the measurements began: {}, when \
         they ended: {}; they took {}.\n",
        machine(&bench.peers)?,
        images.sentence(),
        load[0],
        self::load()?,
        show::time(started.elapsed()),
    );
    // What a command was given lies in folders of this machine.
    let neutral = |text: String| {
        let dirs = [&bench.dir, &bench.prepared, &bench.programs];
        dirs.iter().fold(text, |text, dir| text.replace(&format!("{}/", dir.display()), ""))
    };
    println!("\n{facts}\n{}\n{}", neutral(table.text()), table.sentence());
    if !options.quick && options.only.is_empty() {
        let file = paths::root().join("docs/benchmarks.md");
        fs::create_dir_all(file.parent().context("docs is a folder")?)?;
        fs::write(&file, neutral(document(&facts, &table)))?;
        println!("written: docs/benchmarks.md");
    }
    Ok(())
}

/// The folder of what these peers make of these images; what others made of them is removed.
fn prepared(work: &Path, images: &str, peers: &str) -> Result<PathBuf> {
    let name = format!("{images}-by-{peers}");
    for entry in fs::read_dir(work)? {
        let entry = entry?;
        let other = entry.file_name().to_string_lossy().into_owned();
        if other != name && other.starts_with(images) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let dir = work.join(name);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// What is made once and kept, so that the measuring time is for measuring.
fn prepare(bench: &Bench) -> Result<()> {
    bench.publish_all()?;
    // Failures come again, and are told, in the rows that need these.
    drop(wire::prepare(bench));
    drop(peers::prepare(bench));
    Ok(())
}

fn measured(bench: &Bench, options: &Options) -> Table {
    let mut table = Table::default();
    let mut section = |which: Section, name: &str, rows: &dyn Fn() -> Result<Vec<Row>>| {
        if !options.wants(which) {
            return;
        }
        eprintln!("{name} …");
        let rows = if Instant::now() < bench.deadline {
            // The end of this line of errors is in the table: the rest is still worth measuring.
            rows().unwrap_or_else(|error| vec![Row::absent(name, format!("{error:#}"))])
        } else {
            vec![Row::absent(name, "the time of the run was used up")]
        };
        table.add(name, rows);
    };
    section(Section::Size, "Programs", &|| size::programs(bench));
    section(Section::Apply, "Apply, wall time", &|| apply::rows(bench));
    section(Section::Wire, "Bytes on the wire", &|| {
        let (mut rows, full) = wire::rows(bench)?;
        rows.extend(faults::rows(bench, full).unwrap_or_else(|error| {
            vec![Row::absent("20 cut connections and 5 kills", format!("{error:#}"))]
        }));
        Ok(rows)
    });
    section(Section::Publish, "Publish", &|| publish::rows(bench));
    section(Section::Serve, "repo-server", &|| {
        let www = bench.path("www");
        let mut rows = serve::rows(bench, &www)?;
        rows.extend(tls::rows(bench, &www).unwrap_or_else(|error| {
            vec![Row::absent("2 KiB blobs and polls over TLS", format!("{error:#}"))]
        }));
        Ok(rows)
    });
    section(Section::Sparse, "Very large images", &|| {
        let mut rows = size::sparse(bench)?;
        rows.extend(size::dense(bench).unwrap_or_else(|error| {
            vec![Row::absent("agent: peak memory, 4 GiB of random data", format!("{error:#}"))]
        }));
        Ok(rows)
    });
    section(Section::Growth, "Very many releases", &|| growth::rows(bench));
    section(Section::Fleet, "Reports of nodes", &|| fleet::rows(bench));
    table
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_string())
}

/// Date, commit, processor, memory, kernel and the peers' versions; no name of the machine.
fn machine(peers: &Peers) -> Result<String> {
    let line = |file: &str, name: &str| -> Result<String> {
        let text = fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        Ok(line.split_once(':').map_or("", |(_, value)| value).trim().to_string())
    };
    let processors = std::thread::available_parallelism()?;
    let memory = line("/proc/meminfo", "MemTotal")?;
    let memory: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    Ok(format!(
        "Measured {} at commit {} on {} × {}, {} of memory, Linux {}.\n\nPeers: {}.",
        Cmd::new("date").args(["-u", "+%F %H:%M UTC"]).read()?,
        Cmd::new("git")
            .args(["rev-parse", "--short", "HEAD"])
            .current_dir(&paths::root())
            .read()?,
        processors,
        line("/proc/cpuinfo", "model name")?,
        show::bytes(memory << 10),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        peers.sentence()?,
    ))
}

fn document(facts: &str, table: &Table) -> String {
    format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench`; do not edit. Ratios of ours to theirs, \
         measured in alternation in one run: the machine is noisy, its absolute figures mean \
         little. A goal is held against the median. Every image written was compared \
         byte for byte.\n\n{facts}\n{}\n{}.\n",
        table.markdown(),
        table.sentence(),
    )
}
