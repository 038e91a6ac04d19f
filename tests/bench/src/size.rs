//! What does not grow with the image, and what the programs weigh.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::disk::file_digest;
use racklet_tools::{room, show};

use super::rig::{Bench, Booted, length, random, settle};
use super::server::Secure;
use super::table::{Goal, Row, Unit};

const MIB: f64 = 1048576.0;

/// Bytes of real content at each end of the sparse image.
const END: u64 = 64 << 20;

/// Sizes of the programs.
pub(super) fn programs(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, goal) in [
        ("update-agent", Goal::AtMost(8.0 * MIB)),
        ("signer", Goal::None),
        ("repo-server", Goal::None),
    ] {
        let file = bench.programs.join(name);
        let linked = Cmd::new("ldd").arg(&file).finish()?;
        let linked = match linked.code == 0 && linked.stdout.contains("libc.so") {
            true => "linked dynamically: a static one is larger by the C library it takes in",
            false => "static",
        };
        let row = Row::figure(format!("{name}: binary"), Unit::Bytes, &[length(&file)?], goal);
        rows.push(row.note(linked));
    }
    Ok(rows)
}

/// Peak memory and time of a full apply of a very large, mostly empty image.
pub(super) fn sparse(bench: &Bench) -> Result<Vec<Row>> {
    let gib: u64 = if bench.quick { 2 } else { 16 };
    let image = bench.path("sparse.img");
    let mut file = File::create_new(&image)?;
    file.set_len(gib << 30)?;
    for start in [0, (gib << 30) - END] {
        file.seek(SeekFrom::Start(start))?;
        std::io::copy(&mut File::open(&bench.v2)?.take(END), &mut file)?;
    }
    drop(file);
    settle(&image)?;
    let version = "16.0.0";
    let repository = bench.repository();
    let published = bench.measure(bench.publish(&repository, version, &image), 180)?;
    let node = bench.node(&format!("oci:{}", repository.display()), gib << 30, Booted::Nothing)?;
    let applied = bench.measure(node.agent().args(["apply", "--version", version]), 180)?;
    node.settle()?;
    node.expect(&image)?;
    fs::remove_file(image)?;
    let what = |text: &str| format!("{text}, {gib} GiB sparse image");
    Ok(vec![
        Row::figure(
            what("agent: peak memory"),
            Unit::Bytes,
            &[applied.peak],
            Goal::AtMost(32.0 * MIB),
        )
        .note("64 MiB of real content at both ends"),
        Row::figure(
            what("full apply to a plain file"),
            Unit::Seconds,
            &[applied.seconds()],
            Goal::None,
        ),
        Row::figure(what("signer: peak memory"), Unit::Bytes, &[published.peak], Goal::None),
        Row::figure(what("publish"), Unit::Seconds, &[published.seconds()], Goal::None),
    ])
}

/// Peak memory of a full apply, over TLS, of an image without any structure: as many chunks and as long frames as it
/// can have.
pub(super) fn dense(bench: &Bench) -> Result<Vec<Row>> {
    let size: u64 = if bench.quick { 256 << 20 } else { 4 << 30 };
    // Twice in the repository, in fine and in solid frames, and once as an image or in a slot.
    let (free, needed) = (room::free(&bench.dir)?, 3 * size + (1 << 30));
    let shown = show::bytes;
    ensure!(free >= needed, "{} are free, and this needs {}", shown(free), shown(needed));
    let dir = bench.path("dense");
    fs::create_dir(&dir)?;
    let (image, repository) = (dir.join("image"), dir.join("repository"));
    random(&image, size)?;
    settle(&image)?;
    let digest = file_digest(&image)?;
    bench.run(bench.signer("init", &repository), 30)?;
    let version = "1.0.0";
    // The level makes no difference to what cannot be compressed.
    let publish = bench.publish(&repository, version, &image).args(["--level", "1"]);
    let published = bench.measure(publish, 400)?;
    fs::remove_file(image)?;

    let server = Secure::start(bench, &repository)?;
    let source = format!("oci:{}", repository.display());
    let node = server.secured(bench.node(&source, size, Booted::Nothing)?)?;
    let applied = bench.measure(node.agent().args(["apply", "--version", version]), 300)?;
    node.settle()?;
    node.expect_digest(&digest, size)?;
    drop((node, server));
    fs::remove_dir_all(dir)?;
    let what = |text: &str| format!("{text}, {} of random data", shown(size));
    Ok(vec![
        Row::figure(
            what("agent: peak memory"),
            Unit::Bytes,
            &[applied.peak],
            Goal::AtMost(32.0 * MIB),
        )
        .note("over TLS; each of its chunks is another"),
        Row::figure(what("signer: peak memory"), Unit::Bytes, &[published.peak], Goal::None)
            .note("`--level 1`"),
    ])
}
