//! The maintainer's side: `signer publish` against compressing alone, and against RAUC's bundle.

use std::fs;

use anyhow::Result;

use super::peers::Rauc;
use super::rig::{Bench, V1, V2};
use super::table::{Goal, Row, Unit};

/// Times of publishing v2 into an empty OCI layout.
pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let (mut ours, mut zstd, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    let mut next = Vec::new();
    for number in 0..bench.repetitions {
        eprintln!("  publish, repetition {}", number + 1);
        let out = bench.path("publish.zst");
        let cmd = bench
            .peers
            .program("zstd")
            .args(["-q", "-3", "-T0"])
            .arg(&bench.v2)
            .arg("-o")
            .arg(&out);
        zstd.push(bench.measure(cmd, 120)?.seconds());
        fs::remove_file(out)?;

        let repository = bench.path("published");
        bench.run(bench.signer("init", &repository), 30)?;
        let measured = bench.measure(bench.publish(&repository, V2, &bench.v2), 120)?;
        ours.push(measured.seconds());
        peaks.push(measured.peak);
        fs::remove_dir_all(&repository)?;
        fs::remove_dir_all(repository.with_extension("keys"))?;

        bench.run(bench.signer("init", &repository), 30)?;
        bench.run(bench.publish(&repository, V1, &bench.v1), 120)?;
        next.push(bench.measure(bench.publish(&repository, V2, &bench.v2), 120)?.seconds());
        fs::remove_dir_all(&repository)?;
        fs::remove_dir_all(repository.with_extension("keys"))?;
    }
    let rauc = if bench.quick {
        Row::absent("publish / `rauc bundle`", "left out by --quick")
    } else {
        let bundle = bench.path("published.raucb");
        let took = Rauc::bundle(bench, &bundle).and_then(|cmd| bench.measure(cmd, 200));
        match took {
            Ok(took) => {
                fs::remove_file(bundle)?;
                Row::ratio(
                    "publish / `rauc bundle`",
                    Unit::Seconds,
                    &ours,
                    &[took.seconds()],
                    Goal::None,
                )
                .note(bench.peers.note("RAUC's once: minutes each"))
            }
            Err(error) => Row::absent("publish / `rauc bundle`", format!("{error:#}")),
        }
    };
    Ok(vec![
        Row::ratio(
            "publish to an OCI layout / `zstd -3 -T0` of the image",
            Unit::Seconds,
            &ours,
            &zstd,
            Goal::AtMost(2.4),
        )
        .note("cut, compress, hash, store durably, sign; zstd flushes nothing"),
        Row::ratio(
            "… the same where v1 is published already",
            Unit::Seconds,
            &next,
            &zstd,
            Goal::AtMost(1.5),
        )
        .note("frames of v1 are copied"),
        rauc,
        Row::figure("signer: peak memory", Unit::Bytes, &peaks, Goal::None),
    ])
}
