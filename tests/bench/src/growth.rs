//! Commands on a repository of ten thousand releases. `many_releases`, an example of `signer`, makes it as so many
//! publishes leave it, without an image each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;

use super::rig::{Bench, Booted};
use super::table::{Goal, Row, Unit};

const KIB: f64 = 1024.0;
const MIB: f64 = 1048576.0;

/// Processor time, memory and bytes, each held against what a repository of one release would need not much less of.
pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let releases = if bench.quick { 200 } else { 10_000 };
    let dir = bench.path("growth");
    let made = Cmd::cargo()
        .args(["run", "--quiet", "--release", "--package", "signer", "--example", "many_releases"])
        .args(["--", "make"])
        .arg(&dir)
        .arg(releases.to_string())
        .run()?;
    let (repository, keys) = (dir.join("repository"), dir.join("keys"));
    let source = format!("oci:{}", repository.display());
    let image = bench.path("tiny.img");
    fs::write(&image, [7; 16 << 10])?;
    let signer = |command: &str| {
        let cmd = bench.program("signer").args([command, "--repo", &source, "--json"]);
        cmd.arg("--keys").arg(&keys)
    };
    let publish = |version: &str| {
        signer("publish")
            .args(["--product", "bench", "--version", version, "--channel", "stable"])
            .args(["--component", &format!("os={},hw=bench", image.display())])
    };
    let node =
        bench.node(&source, 16 << 20, Booted::Nothing)?.of(&source, &keys.join("root.json"))?;
    let check = || bench.measure(node.agent().arg("check"), 60);
    // What is kept too long goes with the first, and what it reads is in memory from then on.
    bench.run(publish("2.0"), 60)?;
    let checked = check()?;
    let (mut published, mut refreshed, mut fetched) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=bench.repetitions {
        let before = bytes_of(&repository)?;
        published.push(bench.measure(publish(&format!("2.{number}")), 60)?.processor);
        let after = bytes_of(&repository)?;
        fetched.push((after - before) as f64);
        refreshed.push(bench.measure(signer("refresh"), 60)?.processor);
        check()?;
    }
    let status = bench.measure(signer("status"), 60)?;
    let collect = bench.program("repo-server").args(["gc", "--dry-run", "--json", "--dir"]);
    let collected = bench.measure(collect.arg(&repository), 120)?;
    let kept = made.stdout.split_whitespace().rev().nth(1).and_then(|word| word.parse().ok());
    let kept: f64 = kept.context("many_releases says what the states have")?;
    fs::remove_dir_all(&dir)?;
    let what = |text: &str| format!("{text}, {releases} releases");
    let processor = |text: &str, ours: &[f64], goal| {
        Row::figure(what(text), Unit::Seconds, ours, goal).note("processor time")
    };
    Ok(vec![
        processor("publish of 16 KiB", &published, Goal::AtMost(0.15)),
        processor("refresh", &refreshed, Goal::AtMost(0.15)),
        processor("status", &[status.processor], Goal::AtMost(0.3)),
        Row::figure(
            what("update-agent check: peak memory"),
            Unit::Bytes,
            &[checked.peak],
            Goal::AtMost(12.0 * MIB),
        )
        .note("the first of a node"),
        Row::figure(
            what("new after a publish, release and all"),
            Unit::Bytes,
            &fetched,
            Goal::AtMost(40.0 * KIB),
        )
        .note("more than a node reads of it: at most 20 KiB"),
        Row::figure(what("metadata of all states"), Unit::Bytes, &[kept], Goal::AtMost(40.0 * MIB)),
        Row::figure(
            what("repo-server gc --dry-run"),
            Unit::Seconds,
            &[collected.seconds()],
            Goal::AtMost(5.0),
        ),
    ])
}

/// Bytes of all blobs of a repository.
fn bytes_of(repository: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(repository.join("blobs/sha256"))? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}
