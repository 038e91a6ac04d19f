//! Bytes that come over the network, counted by a proxy between client and server.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;
use sha2::{Digest, Sha256};

use super::peers;
use super::proxy::Proxy;
use super::rig::{Bench, Booted, V2, V2_DELTA, V2_SAME_KERNEL, V2_SAME_KERNEL_DELTA, length};
use super::server;
use super::table::{Goal, Row, Unit};

/// Bytes of a full install, and of updates, against those of peers. Returns the bytes of the full
/// install as well.
pub(super) fn rows(bench: &Bench) -> Result<(Vec<Row>, f64)> {
    let (_server, address) = server::plain(bench)?;
    let full = ours(bench, &address, V2, &bench.v2, Booted::Nothing)?;
    let stream = length(&bench.zstd("v2.zst", &bench.v2, &["-3", "--long=27"])?)?;
    let mut rows = vec![
        Row::ratio(
            "full install / `zstd -3 --long=27` of the image",
            Unit::Bytes,
            &[full],
            &[stream],
            Goal::AtMost(1.03),
        )
        .note("everything on the wire: metadata, chunk list, HTTP heads"),
    ];
    let factory = ours(bench, &address, V2, &bench.v2, Booted::FromFactory)?;
    rows.push(
        Row::ratio(
            "update, new kernel, v1 written by a factory / full install",
            Unit::Bytes,
            &[factory],
            &[full],
            Goal::None,
        )
        .note("the first update of a node whose booted slot no agent wrote"),
    );
    for pair in pairs(bench) {
        rows.extend(update(bench, &address, &pair)?);
    }
    Ok((rows, full))
}

/// A successor of v1.
struct Pair<'a> {
    /// What it has.
    what: &'static str,
    /// Its name among the prepared files.
    name: &'static str,
    image: &'a Path,
    /// Published without a delta, and with one.
    version: &'static str,
    with_delta: &'static str,
}

fn pairs(bench: &Bench) -> Vec<Pair<'_>> {
    let same = bench.v2_same_kernel.as_ref().map(|image| Pair {
        what: "same kernel",
        name: "v2-same-kernel",
        image,
        version: V2_SAME_KERNEL,
        with_delta: V2_SAME_KERNEL_DELTA,
    });
    let new = Pair {
        what: "new kernel",
        name: "v2",
        image: &bench.v2,
        version: V2,
        with_delta: V2_DELTA,
    };
    std::iter::once(new).chain(same).collect()
}

/// Makes what is made once.
pub(super) fn prepare(bench: &Bench) -> Result<()> {
    zck(bench, "v1", &bench.v1)?;
    for Pair { name, image, .. } in pairs(bench) {
        casync_store(bench, name, image)?;
        zck(bench, name, image)?;
        patch(bench, name, image)?;
        rauc_adaptive(bench, name, image)?;
    }
    Ok(())
}

fn update(
    bench: &Bench,
    address: &str,
    &Pair { what: pair, name, image, version, with_delta }: &Pair<'_>,
) -> Result<Vec<Row>> {
    eprintln!("  update v1 → {name}");
    let delta = ours(bench, address, with_delta, image, Booted::Installed)?;
    let ours = ours(bench, address, version, image, Booted::Installed)?;
    let row = |peer: &str, theirs: Result<f64>, goal, note: &str| {
        let what = format!("update, {pair} / {peer}");
        match theirs {
            Ok(bytes) => {
                Row::ratio(what, Unit::Bytes, &[ours], &[bytes], goal).note(bench.peers.note(note))
            }
            Err(error) => Row::absent(what, format!("{error:#}")),
        }
    };
    let fewer = Goal::AtMost(1.0);
    Ok(vec![
        row("casync", casync(bench, name, image), fewer, "v1 as seed; its chunk store over HTTP"),
        row("zchunk", zchunk(bench, name, image), fewer, "v1.zck as source; multi-ranges"),
        row(
            "RAUC adaptive",
            rauc_adaptive(bench, name, image),
            fewer,
            "modelled, in its favour: streaming needs NBD, which this kernel may lack. Its hash \
             index plus each 128 KiB squashfs block with a 4 KiB block that v1 has not",
        ),
        row("`zstd -3 --patch-from`", patch(bench, name, image), Goal::None, "without a delta"),
        Row::ratio(
            format!("update, {pair}, with a delta artifact / `zstd -3 --patch-from`"),
            Unit::Bytes,
            &[delta],
            &[patch(bench, name, image)?],
            Goal::AtMost(1.1),
        )
        .note("`publish --delta-from`; everything on the wire"),
    ])
}

fn patch(bench: &Bench, name: &str, image: &Path) -> Result<f64> {
    let file = bench.prepare(&format!("{name}.patch.zst"), |part| {
        let cmd = bench.peers.program("zstd").args(["-q", "-3", "--long=30"]);
        let from = format!("--patch-from={}", bench.v1.display());
        bench.run(cmd.arg(from).arg(image).arg("-o").arg(part), 300)
    })?;
    length(&file)
}

/// Runs `client` against a proxy before `server` and returns the bytes that came back.
fn counted(server: &str, client: impl FnOnce(&str) -> Result<()>) -> Result<f64> {
    let proxy = Proxy::start(server, Vec::new(), 0)?;
    client(&proxy.address.to_string())?;
    Ok(proxy.down() as f64)
}

fn ours(bench: &Bench, server: &str, version: &str, image: &Path, booted: Booted) -> Result<f64> {
    counted(server, |address| {
        let size = fs::metadata(image)?.len();
        let node = bench.node(&format!("docker://{address}"), size, booted)?;
        bench.run(node.agent().args(["apply", "--version", version]), 180)?;
        node.expect(image)
    })
}

fn casync_store(bench: &Bench, name: &str, image: &Path) -> Result<()> {
    bench.prepare(&format!("{name}.casync"), |part| {
        fs::create_dir_all(part)?;
        let cmd = bench.peers.program("casync").arg("make");
        let cmd = cmd.arg(format!("--store={}", part.join("default.castr").display()));
        bench.run(cmd.arg(part.join("image.caibx")).arg(image), 400)
    })?;
    Ok(())
}

fn casync(bench: &Bench, name: &str, image: &Path) -> Result<f64> {
    casync_store(bench, name, image)?;
    let (_nginx, server) = peers::nginx(bench, &bench.prepared, None)?;
    let out = bench.path("casync.out");
    let bytes = counted(&server, |address| {
        let base = format!("http://{address}/{name}.casync");
        let cmd = bench
            .peers
            .program("casync")
            .arg("extract")
            .arg(format!("--store={base}/default.castr"))
            .arg(format!("--seed={}", bench.v1.display()));
        bench.run(cmd.arg(format!("{base}/image.caibx")).arg(&out), 240)
    })?;
    same(&out, image)?;
    Ok(bytes)
}

fn zck(bench: &Bench, name: &str, image: &Path) -> Result<PathBuf> {
    bench.prepare(&format!("{name}.zck"), |part| {
        bench.run(bench.peers.program("zck").arg("-o").arg(part).arg(image), 400)
    })
}

fn zchunk(bench: &Bench, name: &str, image: &Path) -> Result<f64> {
    let source = zck(bench, "v1", &bench.v1)?;
    zck(bench, name, image)?;
    let (_nginx, server) = peers::nginx(bench, &bench.prepared, None)?;
    let dir = bench.path("zchunk");
    fs::create_dir_all(&dir)?;
    let bytes = counted(&server, |address| {
        let url = format!("http://{address}/{name}.zck");
        let line = "cd \"$1\"; zckdl -q -s \"$2\" \"$3\"";
        bench.run(bench.shell(line, &[&dir, &source, Path::new(&url)]), 180)
    })?;
    fs::remove_dir_all(&dir)?;
    Ok(bytes)
}

fn same(found: &Path, image: &Path) -> Result<()> {
    Cmd::new("cmp").arg(found).arg(image).run()?;
    Ok(fs::remove_file(found)?)
}

/// What RAUC with `adaptive=block-hash-index` could not take from the booted slot: needed
/// squashfs blocks and the index, packed by the same mksquashfs.
fn rauc_adaptive(bench: &Bench, name: &str, image: &Path) -> Result<f64> {
    let packed = bench.prepare(&format!("{name}.adaptive.squashfs"), |part| {
        let dir = bench.path("adaptive");
        fs::create_dir_all(&dir)?;
        let mut known = HashSet::new();
        blocks(&bench.v1, |block| {
            known.extend(block.chunks(HASHED).map(hash));
            Ok(())
        })?;
        let mut needed = File::create(dir.join("needed"))?;
        let mut index = File::create(dir.join("index"))?;
        let zero = hash(&[0; HASHED]);
        blocks(image, |block| {
            let mut fetch = false;
            for part in block.chunks(HASHED) {
                let digest = hash(part);
                index.write_all(&digest)?;
                fetch |= digest != zero && !known.contains(&digest);
            }
            if fetch {
                needed.write_all(block)?;
            }
            Ok(())
        })?;
        let cmd = bench.peers.program("mksquashfs").arg(&dir).arg(part);
        bench.run(cmd.args(["-all-root", "-noappend", "-no-progress"]), 180)?;
        Ok(fs::remove_dir_all(&dir)?)
    })?;
    length(&packed)
}

/// Bytes under one hash of RAUC's index, and in one squashfs block.
const HASHED: usize = 4096;
const SQUASHED: usize = 128 << 10;

fn hash(block: &[u8]) -> [u8; 32] {
    Sha256::digest(block).into()
}

fn blocks(file: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let mut buffer = vec![0; SQUASHED];
    let mut left = file.metadata()?.len();
    while left > 0 {
        let count = SQUASHED.min(usize::try_from(left).unwrap_or(SQUASHED));
        file.read_exact(&mut buffer[..count])?;
        each(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(())
}
