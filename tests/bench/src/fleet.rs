//! Reports of many nodes: how fast they are verified and durable, what they take, how fast the pages are.
//!
//! All nodes send over loopback, each report signed by a key of its own, over connections that are kept. The server has
//! a disk of its own kind: what an answer acknowledges was synced.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use formats::digest::Sha256;
use formats::report::{BytesBySource, Decided, FloorKept, Report, SlotReport, Trusted, slot_state};
use racklet_testkit::forge::ForgeKey;
use racklet_tools::postgres::Postgres;

use super::rig::{Bench, free_address};
use super::run::Background;
use super::table::{Goal, Row, Unit};

const MIB: f64 = 1_048_576.0;
/// Connections over which the nodes send.
const CONNECTIONS: usize = 64;
/// One request and its answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A report that is ready to be sent.
struct Ready {
    node: Sha256,
    document: Vec<u8>,
}

/// For each database: two thousand nodes at once, then all the others, then the pages.
pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let nodes: usize = if bench.quick { 4_000 } else { 100_000 };
    let reports = in_threads(nodes, made);
    let approved = bench.path("approved");
    let names: String = reports.iter().map(|it| format!("{}\n", it.node.to_hex())).collect();
    fs::write(&approved, names)?;
    let mut rows = Vec::new();
    let directory = bench.path("fleet");
    rows.extend(with(bench, "SQLite", &directory.display().to_string(), &approved, &reports)?);
    let size = size_of(&directory)?;
    let what = format!("SQLite: on disk, {nodes} nodes");
    rows.push(Row::figure(what, Unit::Bytes, &[size], Goal::AtMost(200e6)));
    let sent: f64 = reports.iter().map(|it| it.document.len() as f64).sum::<f64>() / nodes as f64;
    let what = "a report: bytes of the document";
    rows.push(Row::figure(what, Unit::Bytes, &[sent], Goal::AtMost(4096.0)));
    rows.push(super::report::row(bench)?);

    let home = tempfile::tempdir()?;
    let database = Postgres::start(home.path(), None)?;
    rows.extend(with(bench, "PostgreSQL", &database.local(), &approved, &reports)?);
    Ok(rows)
}

/// The rows of one database.
fn with(
    bench: &Bench,
    name: &str,
    place: &str,
    approved: &Path,
    reports: &[Ready],
) -> Result<Vec<Row>> {
    eprintln!("  fleet, {name}");
    let (server, address) = serve(bench, place, approved)?;
    let (first, others) = reports.split_at(2_000.min(reports.len()));
    let crowd = send(&address, first)?;
    let steady = send(&address, others)?;
    let rate = others.len() as f64 / steady.as_secs_f64();
    let node = reports.first().context("a node")?.node.to_hex();
    let mut rows = vec![
        Row::figure(
            format!("{name}: reports of {} nodes at once, all durable", first.len()),
            Unit::Seconds,
            &[crowd.as_secs_f64()],
            Goal::AtMost(60.0),
        ),
        Row::figure(
            format!("{name}: reports, verified and durable"),
            Unit::PerSecond,
            &[rate],
            Goal::AtLeast(3_000.0),
        )
        .note(format!("{CONNECTIONS} connections, those who send on the same two processors")),
    ];
    for (page, path) in [
        ("first page", "/fleet/".to_owned()),
        ("list of nodes", "/fleet/nodes?state=confirmed".to_owned()),
        ("page of a node", format!("/fleet/nodes/{node}")),
    ] {
        let mut took = Vec::new();
        for _ in 0..=bench.repetitions.max(3) {
            let begun = Instant::now();
            let (status, body) = Connection::open(&address)?.ask("GET", &path, &[])?;
            took.push(begun.elapsed().as_secs_f64());
            ensure!(status == 200 && body.starts_with(b"<!DOCTYPE"), "{path}: {status}");
        }
        // The first one finds nothing in memory.
        let what = format!("{name}: {page}, {} nodes", reports.len());
        rows.push(Row::figure(what, Unit::Seconds, &took[1..], Goal::AtMost(0.1)));
    }
    let peak = server.usage()?.1;
    let what = format!("{name}: repo-server: peak memory");
    rows.push(Row::figure(what, Unit::Bytes, &[peak], Goal::AtMost(128.0 * MIB)));
    Ok(rows)
}

fn serve(bench: &Bench, place: &str, approved: &Path) -> Result<(Background, String)> {
    let address = free_address()?;
    let (log, repository) = (bench.path("fleet.log"), bench.path("fleet-repository"));
    let mut command = Command::new(bench.programs.join("repo-server"));
    command.args(["serve", "--listen", &address, "--log", "warn", "--fleet", place, "--dir"]);
    command.arg(repository).arg("--fleet-approved").arg(approved);
    // All nodes are one client here.
    command.args(["--client-connections", "2048", "--client-rate", "0"]);
    let ready = || TcpStream::connect(&address).is_ok();
    let server = Background::start(&mut command, &log)?.until(&log, ready)?;
    Ok((server, address))
}

/// Sends all of them, and waits until each was acknowledged.
fn send(address: &str, reports: &[Ready]) -> Result<Duration> {
    let begun = Instant::now();
    let share = reports.len().div_ceil(CONNECTIONS).max(1);
    std::thread::scope(|scope| {
        let one = |part: &[Ready]| -> Result<()> {
            let mut connection = Connection::open(address)?;
            for report in part {
                let path = format!("/fleet/v1/reports/{}", report.node.to_hex());
                let (status, body) = connection.ask("PUT", &path, &report.document)?;
                ensure!(status == 204, "{status}: {}", String::from_utf8_lossy(&body));
            }
            Ok(())
        };
        let threads: Vec<_> =
            reports.chunks(share).map(|part| scope.spawn(move || one(part))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    Ok(begun.elapsed())
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// The status and the body of the answer.
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: server\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let (mut status, mut length) = (0, 0);
        for number in 0.. {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            ensure!(!line.is_empty(), "the connection was closed");
            if number == 0 {
                let word = line.split(' ').nth(1).context("a status")?;
                status = word.parse().with_context(|| line.clone())?;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().with_context(|| line.clone())?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}

/// The report of a node: everything is said that a node usually says.
fn made(number: usize) -> Ready {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let key = ForgeKey::new(number);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs());
    let slot = |state: &str, version: &str| SlotReport {
        state: state.into(),
        version: Some(version.into()),
        index: Some(Sha256::of(version.as_bytes())),
        security_version: Some(3),
        tries_left: None,
    };
    let waits = number.is_multiple_of(10);
    let mut report = Report {
        name: Some(format!("rack-{}-node-{}", number / 50, number % 50).as_str().into()),
        product: "compute".into(),
        channel: "stable".into(),
        hardware: vec!["racklet.cu-v1".into()],
        agent: "0.1.0".into(),
        sequence: 1,
        at: now,
        boot: format!("{number:08x}-aaaa-bbbb-cccc-0123456789ab").as_str().into(),
        uptime: 86_400,
        interval: 3600,
        booted: "a".into(),
        next: Some("a".into()),
        standing: "idle".into(),
        decision: Some(Decided {
            version: "1.4.2".into(),
            code: if waits { "deferred" } else { "up_to_date" }.into(),
            rule: waits.then(|| "wave".into()),
            sentence: if waits { "its wave begins tomorrow" } else { "" }.to_owned(),
            until: waits.then_some(now + 86_400),
        }),
        floor: Some(FloorKept { security_version: 3, kept: "tpm".into() }),
        metadata: Some(Trusted {
            root: 2,
            timestamp: 900,
            snapshot: 120,
            targets: 80,
            expires: now + 80_000,
        }),
        checked: Some(now),
        bytes: Some(BytesBySource { registry: 190_000_000, bundle: 0, delta: None, reuse: None }),
        ..Report::default()
    };
    report.slots.a = slot(slot_state::CONFIRMED, if waits { "1.4.1" } else { "1.4.2" });
    report.slots.b = slot(slot_state::CONFIRMED, "1.4.0");
    Ready { node: key.node(), document: key.report(report) }
}

/// What `work` makes of each number below `count`, in their order, on all processors.
fn in_threads<T: Send>(count: usize, work: fn(usize) -> T) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|nth| {
                let range = (nth * share).min(count)..((nth + 1) * share).min(count);
                scope.spawn(move || range.map(work).collect::<Vec<T>>())
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
    })
}

/// Bytes that the files of a directory take on the disk.
fn size_of(dir: &Path) -> Result<f64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        sum += std::os::unix::fs::MetadataExt::blocks(&entry?.metadata()?) * 512;
    }
    Ok(sum as f64)
}
