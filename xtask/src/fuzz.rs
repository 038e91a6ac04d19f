//! `cargo xtask fuzz`: libFuzzer on every target of `racklet-fuzz`, for a while each.
//!
//! With a nightly toolchain, memory errors of the C code below us are findings as well (AddressSanitizer); the
//! stable one gives the same coverage and the same bounds of memory.
//!
//! New inputs are kept in `target/fuzz/corpus/TARGET`, findings in `target/fuzz/findings/TARGET-…`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use racklet_tools::cmd::{Cmd, Finished, which};
use racklet_tools::pulse::Pulse;
use racklet_tools::{paths, programs};

/// Instrumentation for libFuzzer: a counter for each edge, and what is compared with what. Stable options of rustc.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target is driven.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Only this target; may be given several times.
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// Run one target on this file instead: what a finding names.
    #[arg(long, value_name = "FILE", requires = "targets")]
    replay: Option<PathBuf>,
}

impl Options {
    /// Every target for so many seconds.
    pub(crate) fn all(seconds: u64) -> Self {
        Self { seconds, targets: Vec::new(), replay: None }
    }
}

/// What came of one target.
struct Row {
    target: String,
    executions: String,
    inputs: usize,
    /// Of the whole process, with libFuzzer's own.
    peak_mib: String,
    /// Empty: nothing was found.
    finding: String,
}

/// `cargo xtask fuzz`
pub(crate) fn run(options: &Options) -> Result<()> {
    let engine = build()?;
    let targets = chosen(&options.targets)?;
    if let Some(file) = &options.replay {
        let target = targets.first().context("a target to replay it on")?;
        return Cmd::new(&engine).env("FUZZ_TARGET", target).arg(file).watch();
    }
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let minutes = (targets.len() as u64 * options.seconds).div_ceil(60 * jobs as u64);
    println!(
        "{} targets, {} s each, {jobs} at a time: about {minutes} min",
        targets.len(),
        options.seconds
    );
    let rows = drive(&engine, &targets, options.seconds, jobs)?;
    println!("{:<20} {:>12} {:>8} {:>9}  result", "target", "executions", "inputs", "peak MiB");
    for row in &rows {
        let result = if row.finding.is_empty() { "nothing found" } else { &row.finding };
        println!(
            "{:<20} {:>12} {:>8} {:>9}  {result}",
            row.target, row.executions, row.inputs, row.peak_mib
        );
    }
    let found = rows.iter().filter(|row| !row.finding.is_empty()).count();
    ensure!(found == 0, "{found} of {} targets have a finding", rows.len());
    Ok(())
}

/// The names of all targets are the folders of their seeds.
fn chosen(wanted: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(paths::root().join("fuzz/corpus")).context("read fuzz/corpus")? {
        all.push(entry?.file_name().to_string_lossy().into_owned());
    }
    all.sort();
    for name in wanted {
        ensure!(all.contains(name), "there is no target {name}; there are {}", all.join(", "));
    }
    Ok(if wanted.is_empty() { all } else { wanted.to_vec() })
}

fn work() -> PathBuf {
    paths::target().join("fuzz")
}

/// Builds the engine; where it is.
fn build() -> Result<PathBuf> {
    if which("c++").is_none() {
        bail!("libFuzzer is C++: install a compiler (Debian: apt-get install g++)");
    }
    let nightly = which("rustup").is_some()
        && Cmd::new("rustup").args(["run", "nightly", "rustc", "-V"]).finish()?.code == 0;
    let mut flags: Vec<&str> = COVERAGE.to_vec();
    let cargo = if nightly {
        println!("nightly toolchain: memory errors are findings, too");
        flags.push("-Zsanitizer=address");
        Cmd::new("rustup").args(["run", "nightly", "cargo"])
    } else {
        Cmd::cargo()
    };
    let target = programs::host()?;
    let folder = work().join(if nightly { "build-nightly" } else { "build" });
    // With the target named, build scripts and macros are built without these flags.
    cargo
        .args(["build", "--release", "--locked", "--manifest-path", "fuzz/engine/Cargo.toml"])
        .args(["--target", &target])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", &folder)
        .current_dir(&paths::root())
        .watch()?;
    Ok(folder.join(target).join("release/fuzz-engine"))
}

/// Drives the targets, `jobs` at a time; the rows in the order of the targets.
fn drive(engine: &Path, targets: &[String], seconds: u64, jobs: usize) -> Result<Vec<Row>> {
    let pulse = Pulse::new(Duration::from_secs(45), |line| println!("{line}"));
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let nth = next.fetch_add(1, Ordering::Relaxed);
                        let Some(target) = targets.get(nth) else { return Ok(()) };
                        pulse.at(target);
                        let row = one(engine, target, seconds)?;
                        pulse.say(format!("   {target}: {} executions", row.executions));
                        rows.lock().unwrap_or_else(|e| e.into_inner()).push((nth, row));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("whoever drove a target panicked"))??;
        }
        Ok(())
    })?;
    let mut rows = rows.into_inner().unwrap_or_else(|e| e.into_inner());
    rows.sort_by_key(|(nth, _)| *nth);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

fn one(engine: &Path, target: &str, seconds: u64) -> Result<Row> {
    let (corpus, findings) = (work().join("corpus").join(target), work().join("findings"));
    for folder in [&corpus, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let done = Cmd::new(engine)
        .arg(&corpus)
        .arg(paths::root().join("fuzz/corpus").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .args(["-print_final_stats=1", "-max_len=65536", "-rss_limit_mb=2048", "-timeout=20"])
        .arg(format!("-artifact_prefix={}/{target}-", findings.display()))
        .env("FUZZ_TARGET", target)
        .env("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1")
        .finish()?;
    let inputs = fs::read_dir(&corpus)?.count();
    Ok(Row {
        target: target.to_owned(),
        executions: stat(&done, "number_of_executed_units"),
        inputs,
        peak_mib: stat(&done, "peak_rss_mb"),
        finding: finding(&done, target),
    })
}

/// One of libFuzzer's last lines: `stat::NAME: VALUE`.
fn stat(done: &Finished, name: &str) -> String {
    let line = done.stderr.lines().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
    line.map_or("?", |rest| rest.trim_start_matches(':').trim()).to_owned()
}

/// What to type to see it again; empty when all is well.
fn finding(done: &Finished, target: &str) -> String {
    if done.code == 0 {
        return String::new();
    }
    let file = done.stderr.lines().find_map(|line| line.split("Test unit written to ").nth(1));
    match file {
        Some(file) => format!("cargo xtask fuzz --target {target} --replay {file}"),
        None => {
            format!("ended with {}: {}", done.code, done.stderr.lines().last().unwrap_or_default())
        }
    }
}
