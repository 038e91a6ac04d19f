//! The steps of `cargo xtask night` for ARMv8: our code as it is compiled for it, run by QEMU's user-mode emulator.
//!
//! Tests that start other programs are left out: without the kernel's help, an emulated program cannot start another
//! one. Machines with an ARMv8 kernel are cells of `cargo xtask vm`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use racklet_tools::cross::Processor;
use racklet_tools::programs::Place;

use super::progress::{Progress, together};
use super::runner::{Outcome, Suite, cargo};
use crate::dist;

/// What runs everything durable and every decision: the pure crates, the files and disks, the staging of images.
const TESTS: [&[&str]; 2] = [
    &["-p", "formats", "-p", "update-core", "-p", "storage", "--lib", "--tests"],
    &[
        "-p",
        "update-agent",
        "--lib",
        "--test",
        "stage_faults",
        "--test",
        "stage_forms",
        "--test",
        "stage_write",
    ],
];

/// Tests of these that start programs of other people: those are not there, and an emulated program is not told
/// that it could not start another one.
const START_OTHERS: [&str; 12] = [
    "a_command_has_asked_or_says_why_it_has_not",
    "a_hook_says_what_its_exit_status_says",
    "a_moved_main_table_stays_where_sgdisk_put_it",
    "a_sector_that_is_forgotten_is_not_in_memory",
    "a_signal_is_told_once_and_obeyed",
    "an_interruption_cleans_up_what_still_has_an_owner",
    "cgpt_and_sgdisk_read_what_we_write",
    "file_systems_of_others_are_read_and_stay_whole",
    "skopeo_reads_and_writes_the_same_layouts",
    "the_end_and_the_last_words_are_told",
    "we_read_what_sgdisk_and_cgpt_write",
    "what_is_read_from_the_medium_is_not_kept_in_memory",
];

/// The test that compares what two builds of `signer` publish.
const SAME_BYTES: &str = "case_197_another_processor_gives_the_same_bytes";
/// The variable that tells it how the other build is started, a word in a line.
const OTHER: &str = "SIGNER_OF_ANOTHER_PROCESSOR";

/// Runs [`TESTS`].
pub(super) fn tests(suite: &mut Suite) -> Result<Outcome> {
    let place = Place::cross(Processor::Aarch64)?;
    let mut runs = Vec::new();
    for packages in TESTS {
        let variables: [(&str, OsString); 2] =
            [("CI", "true".into()), ("INSTA_UPDATE", "no".into())];
        let cargo = place.plain_cargo(&variables)?;
        let args = ["test", "--locked", "--no-fail-fast", "--target", &place.rust_target()?];
        let mut progress = Progress::new(&suite.pulse);
        let skipped = START_OTHERS.iter().flat_map(|name| ["--skip", name]);
        let cargo = cargo.args(args).args(packages).arg("--").args(skipped);
        let done = cargo.follow(|line| progress.line(line))?;
        runs.push((progress.end(), done));
    }
    let (outcome, ran) = together(runs);
    suite.summary.binaries.extend(ran);
    Ok(outcome)
}

/// The same keys, images and time give the same repository on both processors, byte for byte.
pub(super) fn same_bytes() -> Result<Outcome> {
    let place = Place::cross(Processor::Aarch64)?;
    let compilers = place.compilers.as_ref().context("it is another processor")?;
    let args = ["build", "--locked", "-p", "signer", "--bin", "signer", "--target"];
    place.plain_cargo(&[])?.args(args).arg(place.rust_target()?).watch()?;
    let signer = place.target.join(place.rust_target()?).join("debug/signer");
    let test = test_program()?;
    // What a program has loaded before it for the clock is another file for the other processor.
    let clock = format!("LD_PRELOAD={}", compilers.processor.clock());
    let emulator = compilers.processor.emulator();
    let words = [emulator, "-E", &clock, &signer.display().to_string()].join("\n");
    let here = Place::here();
    let seen = [here.sources.as_path(), &here.target];
    let done = compilers
        .command(&here.sources, &seen, &[(OTHER, words.into())], &test.display().to_string())
        .args(["--ignored", "--exact", SAME_BYTES])
        .finish()?;
    let ran = done.stdout.contains("1 passed") || done.code != 0;
    ensure!(ran, "there is no test {SAME_BYTES}: {}", done.output());
    Ok(Outcome::of_command(&done))
}

/// Two builds in two places give the same bytes.
pub(super) fn same_agent() -> Result<Outcome> {
    let place = Place::cross(Processor::Aarch64)?;
    Ok(Outcome::of_findings(dist::reproduce::agent(&place)?))
}

/// The program of this machine's own test, with the features that every other test here has.
fn test_program() -> Result<PathBuf> {
    let args = ["test", "--locked", "--workspace", "--test", "determinism", "--no-run"];
    let said = cargo(&args).args(["--message-format", "json"]).run()?.stdout;
    let is_it = |message: &serde_json::Value| message["target"]["name"] == "determinism";
    let messages = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut found = messages.filter(is_it).filter_map(|message: serde_json::Value| {
        Some(PathBuf::from(message["executable"].as_str()?))
    });
    found.next().context("cargo names no program of the test `determinism`")
}
