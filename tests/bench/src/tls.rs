//! `repo-server` under load behind TLS 1.3, beside nginx with the same certificate, over HTTP/1.1.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::disk::file_digest;

use super::load::{unchanged, wrk};
use super::peers;
use super::rig::Bench;
use super::run::Background;
use super::serve::MANIFEST;
use super::server::Secure;
use super::table::{Goal, Row, Unit};

/// A question that is asked again and again.
struct Question {
    url: String,
    headers: Vec<String>,
    connections: u32,
}

/// What answers to one question cost a server, a figure per repetition.
#[derive(Default)]
struct Cost {
    requests: Vec<f64>,
    processor: Vec<f64>,
}

impl Cost {
    fn repeat(&mut self, bench: &Bench, server: &Background, question: &Question) -> Result<()> {
        // Long enough that the handshakes at its beginning weigh little.
        let seconds = if bench.quick { 1 } else { 5 };
        let Question { url, headers, connections } = question;
        let before = server.processor_of_all()?;
        let rate = wrk(bench, url, *connections, seconds, headers)?.requests;
        ensure!(rate > 0.0, "{url} answered nothing in {seconds} seconds");
        let used = server.processor_of_all()? - before;
        self.requests.push(rate);
        self.processor.push(used / (rate * f64::from(seconds)));
        Ok(())
    }
}

/// Small blobs and polls, of what [`super::serve`] put into `www` and pushed.
pub(super) fn rows(bench: &Bench, www: &Path) -> Result<Vec<Row>> {
    let ours = Secure::start(bench, &bench.repository())?;
    let base = format!("https://{}/v2/perf/x", ours.address);
    let manifest = format!("{base}/manifests/latest");
    // The same bytes from both.
    let copy = www.join("manifest.json");
    let get = ["-fsS", "--insecure", "-H", &format!("Accept: {MANIFEST}"), "-o"].map(String::from);
    Cmd::new("curl").args(get).arg(&copy).arg(&manifest).run()?;
    let [certificate, key] = &ours.certificate;
    let (nginx, address) = peers::nginx(bench, www, Some([certificate, key]))?;
    let small = format!("{base}/blobs/sha256:{}", file_digest(&www.join("small"))?);
    let kinds = [
        ("2 KiB blob", blob(&small), blob(&format!("https://{address}/small"))),
        ("304 poll", poll(&manifest)?, poll(&format!("https://{address}/manifest.json"))?),
    ];
    let mut rows = Vec::new();
    for (what, at_ours, at_nginx) in kinds {
        let (mut found, mut theirs) = (Cost::default(), Cost::default());
        for number in 0..bench.repetitions {
            eprintln!("  {what} over TLS, repetition {}", number + 1);
            found.repeat(bench, &ours.process, &at_ours)?;
            theirs.repeat(bench, &nginx, &at_nginx)?;
        }
        rows.extend(told(bench, what, at_ours.connections, &found, &theirs));
    }
    fs::remove_file(copy)?;
    Ok(rows)
}

fn told(bench: &Bench, what: &str, connections: u32, ours: &Cost, nginx: &Cost) -> [Row; 2] {
    let note = bench.peers.note(&format!("TLS 1.3, HTTP/1.1, wrk -t1 -c{connections}"));
    let rate = Row::ratio(
        format!("{what} over TLS, requests/s / nginx"),
        Unit::PerSecond,
        &ours.requests,
        &nginx.requests,
        Goal::AtLeast(0.8),
    );
    let processor = Row::ratio(
        format!("{what} over TLS, processor time of a request / nginx"),
        Unit::Seconds,
        &ours.processor,
        &nginx.processor,
        Goal::AtMost(1.2),
    );
    [rate.note(note.as_str()), processor.note(note)]
}

fn blob(url: &str) -> Question {
    Question { url: url.to_owned(), headers: Vec::new(), connections: 16 }
}

/// What most nodes ask most of the time.
fn poll(url: &str) -> Result<Question> {
    Ok(Question { url: url.to_owned(), headers: unchanged(url, MANIFEST)?, connections: 256 })
}
