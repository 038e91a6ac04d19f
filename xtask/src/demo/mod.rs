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

pub(crate) mod disk;
mod node;
pub(crate) mod rig;
mod steps;
mod story;

use std::path::PathBuf;

use anyhow::Result;

use self::rig::Rig;
use self::story::{Story, Told};
use crate::{debian, dist, firmware, setup};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave disks, repository, keys and configuration in this folder, which must not exist yet.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Use the smaller tree of this machine's files instead of Debian.
    #[arg(long)]
    fallback: bool,
}

/// `cargo xtask demo`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut story = Story::begin();
    story.step("tools of other people are installed", || {
        setup::run(&setup::Options::without_python())?;
        Ok(Told::line("sgdisk, cgpt, mke2fs, debugfs, time"))
    })?;

    let mut found = None;
    story.step("a real Debian system, its security update, and a broken one", || {
        let images = debian::Options { fallback: options.fallback, rebuild: false };
        let images = debian::images(&images)?;
        let told = Told::line(images.sentence()).bytes(3 * images.size);
        found = Some((images, firmware::blobs()?));
        Ok(told)
    })?;
    let (images, firmware) = found.expect("the step above succeeded");

    story.step("build signer, repo-server and update-agent as they are shipped", || {
        dist::build()?;
        Ok(Told::line("cargo xtask dist: the agent is one static file"))
    })?;

    let rig = Rig::create(options.keep.as_deref())?;
    println!("     (everything lies in {})", rig.dir.display());
    steps::play(&mut story, &rig, &images, &firmware)?;
    story.end();
    Ok(())
}
