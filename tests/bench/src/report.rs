//! What a report costs a node on the wire.

use std::fs;

use anyhow::Result;
use racklet_tools::rig::{Rig, serve_arguments};

use super::proxy::Proxy;
use super::rig::{Bench, Booted};
use super::table::{Goal, Row, Unit};

/// The same round of a node that reports and of one that does not, over TLS, each program with a connection of its own.
pub(super) fn row(bench: &Bench) -> Result<Row> {
    let rig = Rig::at(&bench.path("reporting"), bench.programs.clone());
    fs::create_dir(&rig.dir)?;
    rig.credentials_for(&["127.0.0.1"])?;
    let repository = rig.path("repository");
    let image = bench.path("reporting.img");
    fs::write(&image, [7; 16 << 10])?;
    bench.run(bench.signer("init", &repository), 30)?;
    bench.run(bench.publish(&repository, "1.0", &image), 60)?;
    let arguments = serve_arguments("127.0.0.1:0");
    let server =
        rig.serve_by(rig.program("repo-server").args(arguments).args(["--fleet", "fleet"]))?;
    let root = repository.with_extension("keys").join("root.json");
    let round = |reports: bool| -> Result<f64> {
        let proxy = Proxy::start(&server.address, Vec::new(), 0)?;
        let source = format!("docker://{}", proxy.address);
        let more = format!("ca = {:?}\nreports = {reports}", rig.path("ca.pem"));
        let node = bench.node(&source, 16 << 20, Booted::Nothing)?;
        let node = node.over_tls(&source, &more, &root)?;
        bench.run(node.agent().args(["run", "--once"]), 60)?;
        Ok((proxy.up() + proxy.down()) as f64)
    };
    let (mut costs, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..bench.repetitions {
        let without = round(false)?;
        costs.push(round(true)? - without);
        bare.push(without);
    }
    server.stop()?;
    let poll = bare.iter().copied().fold(f64::INFINITY, f64::min);
    let note = format!(
        "both directions, TLS, its handshake: a round of a node with reports less that of one without ({poll:.0} bytes, \
         all metadata)"
    );
    let what = "a report: bytes on the wire";
    Ok(Row::figure(what, Unit::Bytes, &costs, Goal::AtMost(6144.0)).note(note))
}
