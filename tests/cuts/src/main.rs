//! `racklet-cuts`: the power-cut proof as a program; `cargo xtask sim` builds and runs it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use racklet_cuts::node::Backend;
use racklet_cuts::scenario::{ALL, Row};
use racklet_cuts::sweep::{Size, sweep};
use racklet_cuts::{report, story};

/// Cuts the power at every operation of every scenario.
#[derive(Parser)]
struct Cli {
    /// Only scenarios whose row contains this.
    #[arg(long)]
    only: Option<String>,
    /// Decides every draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Subsets drawn where not all of them are tried.
    #[arg(long, default_value_t = 24)]
    samples: usize,
    /// Of so many first cuts, one is followed by second cuts.
    #[arg(long, default_value_t = 50)]
    second_every: u64,
    /// Second cuts after one first cut.
    #[arg(long, default_value_t = 12)]
    second_cuts: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Where failing states are saved.
    #[arg(long, default_value = "target/sim")]
    out: PathBuf,
    /// Judges a saved state again and tells its story.
    #[arg(long)]
    replay: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(path) = &cli.replay {
        return Ok(if story::replay(path)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let size = Size {
        samples: cli.samples,
        second_every: cli.second_every,
        second_cuts: cli.second_cuts,
        seed: cli.seed,
    };
    let mut failed = 0;
    let mut states = 0;
    println!("{}", report::head());
    for scenario in ALL {
        for backend in Backend::ALL {
            let name = format!("{} / {}", scenario.name, backend.name());
            if cli.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            let row = match Row::new(scenario, backend) {
                Ok(row) => row,
                Err(why) => {
                    println!("{name}: cannot run uncut: {why}");
                    failed += 1;
                    continue;
                }
            };
            let found = sweep(&row, size, cli.threads);
            println!("{}", report::line(&row, &found));
            states += found.once + found.twice;
            failed += found.failed;
            for (nth, failure) in found.failures.iter().enumerate() {
                std::fs::create_dir_all(&cli.out)?;
                let file = cli.out.join(format!("{}-{nth}.json", name.replace([' ', '/'], "-")));
                story::save(&row, failure, &file)?;
                println!("  saved as {}", file.display());
                if nth == 0 {
                    for line in story::words(&row, failure) {
                        println!("  | {line}");
                    }
                }
            }
        }
    }
    println!("{states} distinct crash states, {failed} failures, seed {}", cli.seed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
