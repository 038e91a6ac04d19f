//! The project's own commands.
//!
//! ```text
//! cargo xtask setup    install the Debian and Python packages the other commands call
//! cargo xtask test     format, lints, docs, licences, purity, every test
//! cargo xtask prove    power cuts, I/O faults, faulty variants, virtual machines, release builds
//! cargo xtask night    every cell, long fuzzing, seed after seed
//! cargo xtask previous the agent of the previous landing and this one on the same nodes, both ways
//! cargo xtask clean    remove from the shared cache what was not used for 30 days
//! cargo xtask images   build the real Debian images and firmware blobs (cached)
//! cargo xtask demo     one release through everything, on a real Debian image
//! cargo xtask dist     build the programs as they are shipped: a small static agent; --target aarch64
//! cargo xtask package  Debian packages of the same programs, with units, manual pages and documents
//! cargo xtask release  publish them, and archives, as a release of product racklet-update
//! cargo xtask book     docs/ as a book for a browser, with every command of the programs
//! cargo xtask advisories DIR   copy the facts of the public advisory database
//! cargo xtask sim      cut the power of a simulated machine at every step, everywhere
//! cargo xtask vm       boot real machines under QEMU, cell by cell (tests/vm)
//! cargo xtask fuzz     drive every parser of outside bytes with libFuzzer
//! cargo xtask bench    our programs beside other people's, as a table of ratios (tests/bench)
//! ```
//!
//! Nothing here is shipped. What is shipped is driven only through its command line, as an
//! operator would, so that the demo is also a test of the contract.

mod book;
mod demo;
mod dist;
mod fuzz;
mod licences;
mod package;
mod previous;
mod release;
mod sbom;
mod sim;
mod suite;
mod tracked;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use racklet_tools::{cache, debian, programs, setup};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other commands call; without root, print the one command to run.
    Setup(setup::Options),
    /// Format, lints, docs, licences, advisories and every test; ends in one line `N passed, N failed`.
    Test(suite::TestOptions),
    /// Power cuts, I/O faults, faulty variants, virtual machines, release builds; ends in the same line.
    Prove(suite::ProveOptions),
    /// What takes hours: every cell, long fuzzing, power cuts with seed after seed.
    Night(suite::ProveOptions),
    /// Build the agent of the previous landing, and let each agent go on where the other one stopped.
    Previous(previous::Options),
    /// Remove images, tools and clients from the cache that all clones on this machine share.
    Clean(cache::Options),
    /// Build (or find in the cache) the images and firmware blobs of the demo.
    Images(debian::Options),
    /// Carry releases through signer, repo-server and update-agent, and check every step.
    Demo(demo::Options),
    /// Build the programs as they are shipped, into target/shipped; for another processor with --target.
    Dist(dist::Options),
    /// Build Debian packages of them, into target/packages.
    Package(package::Options),
    /// Publish packages and archives of this commit as a release of our own, by our own signer.
    Release(release::Options),
    /// Build docs/ as a book for a browser, into target/book.
    Book(book::Options),
    /// Copy the facts of the public advisory database out of a checkout of it.
    Advisories(suite::advisories::Options),
    /// Cut the power of a simulated machine everywhere, and judge every state that may be left.
    Sim(sim::Options),
    /// Boot real machines under QEMU: choosers, loaders, broken releases, power cuts.
    #[command(disable_help_flag = true)]
    Vm(Arguments),
    /// Drive every parser of bytes from outside with libFuzzer.
    Fuzz(fuzz::Options),
    /// Measure ours beside theirs and write docs/benchmarks.md.
    #[command(disable_help_flag = true)]
    Bench(Arguments),
}

/// What another program is told.
#[derive(clap::Args)]
struct Arguments {
    /// Its options; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Arguments {
    fn hand_over(&self, program: &str) -> anyhow::Result<()> {
        programs::become_command(program, &self.arguments).map(|never| match never {})
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Setup(options) => setup::run(&options),
        Task::Test(options) => suite::test(&options),
        Task::Prove(options) => suite::prove(&options),
        Task::Night(options) => suite::night(&options),
        Task::Previous(options) => previous::run(&options),
        Task::Clean(options) => cache::run(&options),
        Task::Images(options) => debian::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Release(options) => release::run(&options),
        Task::Book(options) => book::run(&options),
        Task::Advisories(options) => suite::advisories::take(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Vm(options) => options.hand_over("racklet-vm"),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench(options) => options.hand_over("racklet-bench"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
