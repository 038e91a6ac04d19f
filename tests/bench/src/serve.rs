//! `repo-server` under load, beside nginx and docker-registry, over plain HTTP.

use std::fs;
use std::path::Path;

use anyhow::Result;
use racklet_tools::cmd::Cmd;
use racklet_tools::disk::file_digest;

use super::load::{Rates, unchanged, wrk};
use super::peers;
use super::proxy::Proxy;
use super::rig::{Bench, Booted, TOKEN, V2_DELTA, random};
use super::run::Background;
use super::server;
use super::table::{Goal, Row, Unit};

/// 64 MiB: the smallest machine that serves a rack.
const MEMORY: f64 = 64.0 * 1048576.0;
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A server with the same three things on it.
struct Served {
    _server: Option<Background>,
    small: String,
    large: String,
    /// Empty for nginx, which has no manifests.
    manifest: String,
}

/// Throughput, memory, and what an idle poll costs.
pub(super) fn rows(bench: &Bench, www: &Path) -> Result<Vec<Row>> {
    fs::create_dir(www)?;
    random(&www.join("small"), 2 << 10)?;
    random(&www.join("large"), 64 << 20)?;
    let (ours_process, ours_address) = server::plain(bench)?;
    let ours = fill(bench, www, &ours_address, None)?;
    let nginx = peers::nginx(bench, www, None).map(|(server, address)| Served {
        _server: Some(server),
        small: format!("http://{address}/small"),
        large: format!("http://{address}/large"),
        manifest: String::new(),
    });
    let registry = peers::docker_registry(bench)
        .and_then(|(server, address)| fill(bench, www, &address, Some(server)));

    let all = [Some(&ours), nginx.as_ref().ok(), registry.as_ref().ok()];
    let mut small = [const { Vec::new() }; 3];
    let mut large = [const { Vec::new() }; 3];
    let mut polls = [const { Vec::new() }; 3];
    let mut processor = Vec::new();
    let seconds = if bench.quick { 1 } else { 3 };
    for number in 0..bench.repetitions {
        eprintln!("  serve, repetition {}", number + 1);
        for (n, server) in all.iter().enumerate() {
            let Some(server) = server else { continue };
            small[n].push(wrk(bench, &server.small, 16, seconds, &[])?.requests);
            large[n].push(wrk(bench, &server.large, 2, seconds, &[])?.bytes);
            if !server.manifest.is_empty() {
                let before = ours_process.usage()?.0;
                let found = poll(bench, server, seconds)?;
                polls[n].push(found.requests);
                if n == 0 {
                    let used = ours_process.usage()?.0 - before;
                    processor.push(used / (found.requests * f64::from(seconds)));
                }
            }
        }
    }
    let after_wrk = ours_process.usage()?.1;
    transfers(bench, www, &ours_address)?;
    let after_transfers = ours_process.usage()?.1;
    let requests = requests_of_a_check(bench, &ours_address)?;

    let peer = |what: &str, unit, found: &[Vec<f64>; 3], n: usize, goal, note: &str| {
        let error = [None, nginx.as_ref().err(), registry.as_ref().err()][n];
        match error {
            Some(error) => Row::absent(what, format!("{error:#}")),
            None => Row::ratio(what, unit, &found[0], &found[n], goal).note(bench.peers.note(note)),
        }
    };
    let hourly: Vec<f64> = processor.iter().map(|each| each * 1000.0 * 24.0).collect();
    Ok(vec![
        peer(
            "2 KiB blob, requests/s / nginx",
            Unit::PerSecond,
            &small,
            1,
            Goal::AtLeast(0.4),
            "wrk -t1 -c16; all servers on the same two processors as wrk",
        ),
        peer(
            "2 KiB blob, requests/s / docker-registry",
            Unit::PerSecond,
            &small,
            2,
            Goal::AtLeast(50.0),
            "",
        ),
        peer(
            "64 MiB blob, bytes/s / nginx",
            Unit::Bytes,
            &large,
            1,
            Goal::AtLeast(0.8),
            "wrk -t1 -c2",
        ),
        peer("64 MiB blob, bytes/s / docker-registry", Unit::Bytes, &large, 2, Goal::None, ""),
        Row::figure(
            "repo-server: peak memory, all of the above and 1,000 connections",
            Unit::Bytes,
            &[after_wrk],
            Goal::AtMost(MEMORY),
        ),
        Row::figure(
            "… and after 16 clients each pushed and pulled 200 MB at once",
            Unit::Bytes,
            &[after_transfers],
            Goal::AtMost(MEMORY),
        ),
        peer(
            "idle poll, 1,000 nodes at once, requests/s / docker-registry",
            Unit::PerSecond,
            &polls,
            2,
            Goal::None,
            "1,000 connections, each asking `If-None-Match` again and again; every answer 304",
        ),
        Row::figure(
            "idle poll: requests of one `update-agent check`",
            Unit::Count,
            &[requests],
            Goal::AtMost(1.0),
        )
        .note("the second of two, counted on the wire"),
        Row::figure(
            "idle poll: processor time of 1,000 nodes for a day, once an hour each",
            Unit::Seconds,
            &hourly,
            Goal::None,
        )
        .note("24,000 polls at the processor time per request measured above"),
    ])
}

/// Pushes both files and a manifest tagged `latest`, with curl.
fn fill(bench: &Bench, www: &Path, address: &str, server: Option<Background>) -> Result<Served> {
    let base = format!("http://{address}/v2/perf/x");
    let push = |file: &Path| -> Result<String> {
        let digest = format!("sha256:{}", file_digest(file)?);
        let line = r#"
            auth="Authorization: Bearer $5"
            to=$(curl -fsS -D - -o /dev/null -H "$auth" -X POST "$1/blobs/uploads/" |
                tr -d '\r' | sed -n 's/^[Ll]ocation: *//p')
            case $to in /*) to=$4$to ;; esac
            case $to in *\?*) to=$to\&digest=$3 ;; *) to=$to?digest=$3 ;; esac
            curl -fsS -H "$auth" -H 'Content-Type: application/octet-stream' -T "$2" "$to""#;
        let host = format!("http://{address}");
        let paths =
            [Path::new(&base), file, Path::new(&digest), Path::new(&host), Path::new(TOKEN)];
        bench.run(bench.shell(line, &paths), 60)?;
        Ok(digest)
    };
    let (small, large) = (push(&www.join("small"))?, push(&www.join("large"))?);
    let config = bench.path("config.json");
    fs::write(&config, "{}")?;
    let config = push(&config)?;
    let manifest = bench.path("manifest.json");
    fs::write(
        &manifest,
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{"mediaType":"application/octet-stream","digest":"{small}","size":2048}}]}}"#
        ),
    )?;
    let url = format!("{base}/manifests/latest");
    let put = Cmd::new("curl")
        .args(["-fsS", "-H", &format!("Authorization: Bearer {TOKEN}")])
        .args(["-H", &format!("Content-Type: {MANIFEST}"), "-T"]);
    bench.run(put.arg(&manifest).arg(&url), 30)?;
    let blob = |digest: &str| format!("{base}/blobs/{digest}");
    Ok(Served { _server: server, small: blob(&small), large: blob(&large), manifest: url })
}

/// 1,000 connections that ask whether the manifest changed.
fn poll(bench: &Bench, server: &Served, seconds: u32) -> Result<Rates> {
    wrk(bench, &server.manifest, 1000, seconds, &unchanged(&server.manifest, MANIFEST)?)
}

/// 16 clients push 200 MB each at once, then pull them.
fn transfers(bench: &Bench, www: &Path, address: &str) -> Result<()> {
    let file = www.join("200MB");
    random(&file, 200_000_000)?;
    let digest = format!("sha256:{}", file_digest(&file)?);
    let line = r#"
        export base=$1 file=$2 digest=$3 token=$4
        # Each under its own name and in its own repository, so that all are really sent.
        seq 16 | xargs -P16 -I{} sh -c 'to=$(curl -fsS -D - -o /dev/null \
            -H "Authorization: Bearer $token" -X POST "$base/v2/push/{}/blobs/uploads/" |
            tr -d "\r" | sed -n "s/^[Ll]ocation: *//p")
            case $to in /*) to=$base$to ;; esac
            case $to in *\?*) to="$to&digest=$digest" ;; *) to="$to?digest=$digest" ;; esac
            curl -fsS -H "Authorization: Bearer $token" \
            -H "Content-Type: application/octet-stream" -T "$file" "$to"'
        seq 16 | xargs -P16 -I{} curl -fsS -o /dev/null "$base/v2/push/{}/blobs/$digest""#;
    let base = format!("http://{address}");
    bench.run(
        bench.shell(line, &[Path::new(&base), &file, Path::new(&digest), Path::new(TOKEN)]),
        120,
    )?;
    Ok(fs::remove_file(file)?)
}

/// Requests that the second `check` of a real agent makes.
fn requests_of_a_check(bench: &Bench, server: &str) -> Result<f64> {
    let proxy = Proxy::start(server, Vec::new(), 0)?;
    let size = fs::metadata(&bench.v2)?.len();
    let node = bench.node(&format!("docker://{}", proxy.address), size, Booted::Nothing)?;
    let check = || -> Result<usize> {
        let before = proxy.requests();
        let done = node.agent().arg("check").run()?;
        anyhow::ensure!(
            done.stdout.contains(V2_DELTA),
            "{V2_DELTA} is not offered: {}",
            done.stdout
        );
        Ok(proxy.requests() - before)
    };
    check()?;
    Ok(check()? as f64)
}
