//! `cargo xtask demo`: releases of a real Debian system carried through everything.
//!
//! ```text
//! images ─► signer ─► repo-server (TLS) ─► node 1: apply ─► boot-select ─► health ─► confirm
//!                └──► bundle on a stick ─► node 2, no network: the same
//!           a release that is broken    ─► node 1: apply ─► three boots fail ─► revert, not tried again
//! ```
//! The programs are driven by their command lines only. Every step is checked by somebody else
//! than the program that did it: `cgpt` and `sgdisk` read the disk, SHA-256 of the disk's bytes is
//! compared with the image file's. The first step that does not do what it should ends the demo.

mod next;
mod node;
mod steps;
mod story;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use racklet_tools::cmd::Running;
use racklet_tools::rig::Rig;
use racklet_tools::{debian, firmware, programs, room, setup};

use self::story::{Story, Told};
use crate::dist;

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave disks, repository, keys and configuration in this folder, which must not exist yet
    /// [default: target/demo-1, -2 …]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Remove that folder when everything went as it should.
    #[arg(long, conflicts_with = "keep")]
    discard: bool,
    /// Build and use the programs as they are shipped, not as tests use them: ten minutes more.
    #[arg(long)]
    shipped: bool,
    /// Use the smaller tree of this machine's files instead of Debian.
    #[arg(long)]
    fallback: bool,
}

/// `cargo xtask demo`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut story = Story::begin();
    println!("On two processors this takes less than 10 minutes the first time and about 2 later.");
    room::check(&room::DEMO)?;
    println!("cargo builds beside the first steps:");
    let programs = Programs::begin(options.shipped)?;
    story.step("tools of other people are installed", "a minute where some are missing", || {
        setup::demo()?;
        Ok(Told::line("sgdisk, cgpt, mke2fs, debugfs, time"))
    })?;

    let mut found = None;
    let usually = "5 minutes, once; then they are in the cache";
    story.step("a real Debian system, its security update, and a broken one", usually, || {
        let images = debian::Options { fallback: options.fallback, rebuild: false };
        let images = debian::images(&images)?;
        let told = Told::line(images.sentence()).bytes(3 * images.size);
        found = Some((images, firmware::blobs()?));
        Ok(told)
    })?;
    let (images, firmware) = found.context("the step above succeeded")?;

    let mut built = None;
    let usually = "5 minutes, once, most of them beside the images";
    story.step("signer, repo-server and update-agent are built", usually, || {
        let (folder, took) = programs.finish()?;
        let told = Told::line(format!("in {}", folder.display())).took(took);
        built = Some(folder);
        Ok(told)
    })?;

    let rig = Rig::create(options.keep.as_deref(), built.context("the step above succeeded")?)?;
    println!("     (everything lies in {}; the commands run there)", rig.dir.display());
    rig.link(&images, &firmware)?;
    steps::play(&mut story, &rig, &images, &firmware)?;
    story.end();
    if options.discard {
        std::fs::remove_dir_all(&rig.dir)?;
        println!("removed {}", rig.dir.display());
        return Ok(());
    }
    next::tell(&rig)
}

/// The programs, while they are built.
enum Programs {
    /// One command of cargo.
    Tests(Running),
    /// All that `cargo xtask dist` does.
    Shipped(thread::JoinHandle<Result<Duration>>),
}

impl Programs {
    fn begin(shipped: bool) -> Result<Self> {
        if !shipped {
            return Ok(Self::Tests(programs::command().aloud().start()?));
        }
        println!("     $ cargo xtask dist");
        let started = std::time::Instant::now();
        let work = move || dist::build().map(|_| started.elapsed());
        Ok(Self::Shipped(thread::spawn(work)))
    }

    /// The folder of the programs, and how long it took to build them.
    fn finish(self) -> Result<(PathBuf, Duration)> {
        match self {
            Self::Tests(running) => Ok((programs::tests_folder(), running.wait()?)),
            Self::Shipped(thread) => {
                let took = thread.join().map_err(|_| anyhow::anyhow!("the builder panicked"))??;
                Ok((programs::shipped_folder(), took))
            }
        }
    }
}
