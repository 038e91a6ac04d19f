//! A registry that lies, breaks off, drips and changes its mind (`docs/fetch-cases.md`).

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "source_server/refusing.rs"]
mod refusing;
mod source_server;

use std::ops::{ControlFlow, Range};
use std::time::Duration;

use formats::digest::Digest;
use formats::oci::{Descriptor, Index, annotation, media_type};
use refusing::Refusing;
use source_server::{Reply, Seen, Server, Step, code, descriptor, noise, quick, state};
use update_agent::http::Limits;
use update_agent::source::{FetchError, Source, TufState};

const MAX: u64 = 1 << 20;

fn fetch_ranges(
    source: &dyn Source,
    blob: &Descriptor,
    ranges: &[Range<u64>],
) -> Result<Vec<(u64, Vec<u8>)>, FetchError> {
    let mut got: Vec<(u64, Vec<u8>)> = Vec::new();
    source.ranges("demo", blob, ranges, &mut |at, bytes| {
        assert!(bytes.len() <= 256 << 10);
        match got.last_mut() {
            Some((start, run)) if *start + run.len() as u64 == at => run.extend_from_slice(bytes),
            _ => got.push((at, bytes.to_vec())),
        }
        ControlFlow::Continue(())
    })?;
    Ok(got)
}

fn expected(blob: &[u8], ranges: &[Range<u64>]) -> Vec<(u64, Vec<u8>)> {
    ranges.iter().map(|r| (r.start, blob[r.start as usize..r.end as usize].to_vec())).collect()
}

#[test]
fn an_honest_registry_gives_everything_over_one_connection() {
    let blob = noise(300_000);
    let index = Index::new(Some(media_type::RELEASE), vec![]).to_bytes();
    let tuf = state(&[("timestamp.json", b"{}")]);
    let (served, release) = (blob.clone(), index.clone());
    let server = Server::start(move |seen| {
        assert_eq!(seen.header("accept-encoding"), None);
        match seen.path.as_str() {
            "/v2/ns/tuf/manifests/latest" => Reply::with(
                "200 OK",
                "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
                &tuf,
            ),
            path if path.contains("/manifests/") => Reply::ok(&release),
            path if path.starts_with("/v2/ns/tuf/blobs/") => Reply::ok(b"{}"),
            _ => Reply::blob(seen, &served),
        }
    });
    let source = server.source();
    let TufState::Changed { files, .. } = source.tuf_state(None).unwrap() else { panic!("new") };
    assert_eq!(source.tuf_file(&files["timestamp.json"], 10).unwrap(), b"{}");
    let digest = Digest::sha256_of(&index);
    assert_eq!(source.manifest("demo", &digest, MAX).unwrap(), index);
    let whole = descriptor(&blob);
    assert_eq!(source.blob("demo", &whole, MAX).unwrap(), blob);
    let before = source.bytes_fetched();
    let ranges = [0..10, 20..30, 100_000..100_001, 299_999..300_000];
    assert_eq!(fetch_ranges(&*source, &whole, &ranges).unwrap(), expected(&blob, &ranges));
    assert_eq!(source.bytes_fetched() - before, 30 + 1 + 1, "the gap of 10 bytes is filled");
    let seen = server.seen();
    assert_eq!(seen.len(), 4 + 3);
    assert!(seen.iter().all(|request| request.connection == 0), "one connection");
    let tags = seen.iter().filter(|request| request.path.ends_with("/latest")).count();
    assert_eq!(tags, 1, "case 95: a tag is asked for once, the rest by digest");
}

#[test]
fn a_poll_is_one_conditional_request() {
    let tuf = state(&[("timestamp.json", b"{}")]);
    let server = Server::start(move |seen| match seen.header("if-none-match") {
        Some("\"v1\"") => Reply::raw("304 Not Modified", "ETag: \"v1\"\r\n", b""),
        None => Reply::with("200 OK", "ETag: \"v1\"\r\n", &tuf),
        other => panic!("{other:?}"),
    });
    let source = server.source();
    let TufState::Changed { etag, .. } = source.tuf_state(None).unwrap() else { panic!("new") };
    assert_eq!(etag.as_deref(), Some("\"v1\""));
    assert_eq!(source.tuf_state(etag.as_deref()).unwrap(), TufState::Unchanged);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_registry_without_entity_tags_is_told_apart_by_digest() {
    let tuf = state(&[("timestamp.json", b"{}")]);
    let server = Server::start(move |seen| match seen.nth {
        0 | 1 => Reply::ok(&tuf),
        _ => Reply::ok(&state(&[("timestamp.json", b"{ }")])),
    });
    let source = server.source();
    let TufState::Changed { etag, .. } = source.tuf_state(None).unwrap() else { panic!("new") };
    assert_eq!(source.tuf_state(etag.as_deref()).unwrap(), TufState::Unchanged);
    assert!(matches!(source.tuf_state(etag.as_deref()).unwrap(), TufState::Changed { .. }));
}

#[test]
fn case_88_flipped_bits_are_refused() {
    let blob = noise(10_000);
    let index = Index::new(None, vec![]).to_bytes();
    let (mut bad_blob, mut bad_index) = (blob.clone(), index.clone());
    bad_blob[5_000] ^= 1;
    *bad_index.last_mut().unwrap() ^= 1;
    let server = Server::start(move |seen| match seen.path.contains("/manifests/") {
        true => Reply::ok(&bad_index),
        false => Reply::blob(seen, &bad_blob),
    });
    let source = server.source();
    assert_eq!(code(source.blob("demo", &descriptor(&blob), MAX)), "hash_mismatch");
    assert_eq!(code(source.tuf_file(&descriptor(&blob), MAX)), "hash_mismatch");
    assert_eq!(code(source.manifest("demo", &Digest::sha256_of(&index), MAX)), "hash_mismatch");
    assert_eq!(server.seen().len(), 3, "nothing was put together, so nothing is fetched again");
}

#[test]
fn case_89_the_body_decides_not_docker_content_digest() {
    let index = Index::new(None, vec![]).to_bytes();
    let digest = Digest::sha256_of(&index);
    let claimed = digest.to_string();
    let good = index.clone();
    let server = Server::start(move |seen| {
        let other = Digest::sha256_of(b"other");
        let (header, body) = match seen.nth {
            0 => (claimed.clone(), b"{\"schemaVersion\":2}".to_vec()),
            _ => (other.to_string(), good.clone()),
        };
        Reply::with("200 OK", &format!("Docker-Content-Digest: {header}\r\n"), &body)
    });
    let source = server.source();
    assert_eq!(code(source.manifest("demo", &digest, MAX)), "hash_mismatch");
    assert_eq!(source.manifest("demo", &digest, MAX).unwrap(), index);
}

#[test]
fn case_90_content_length_lies() {
    let blob = noise(1000);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunks = |body: &[u8]| {
        let mut out = format!("{:x}\r\n", body.len()).into_bytes();
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n0\r\n\r\n");
        out
    };
    let longer = [&blob[..], b"!"].concat();
    let length = |n: &str| format!("Content-Length: {n}\r\n");
    // (name, answer, code; None when the blob arrives)
    let rows: Vec<(&str, Reply, Option<&str>)> = vec![
        ("shorter", Reply::ok(&blob[..999]), Some("length_mismatch")),
        ("longer", Reply::ok(&longer), Some("length_mismatch")),
        ("absent", Reply::raw("200 OK", "", &blob).then(Step::Close), None),
        (
            "absent and longer",
            Reply::raw("200 OK", "", &longer).then(Step::Close),
            Some("length_mismatch"),
        ),
        (
            "absent and endless",
            Reply::raw("200 OK", "", &blob).then(Step::Endless),
            Some("length_mismatch"),
        ),
        (
            "negative",
            Reply::raw("200 OK", &length("-1"), &blob).then(Step::Close),
            Some("http_status"),
        ),
        (
            "no number",
            Reply::raw("200 OK", &length("0x3e8"), &blob).then(Step::Close),
            Some("http_status"),
        ),
        (
            "2^64",
            Reply::raw("200 OK", &length("18446744073709551616"), &blob).then(Step::Close),
            Some("http_status"),
        ),
        (
            "two different",
            Reply::raw("200 OK", &(length("1000") + &length("999")), &blob).then(Step::Close),
            Some("http_status"),
        ),
        ("chunked", Reply::raw("200 OK", chunked, &chunks(&blob)), None),
        (
            "chunked and longer",
            Reply::raw("200 OK", chunked, &chunks(&longer)),
            Some("length_mismatch"),
        ),
        (
            "chunked, and a length",
            Reply::raw("200 OK", &format!("{chunked}Content-Length: 5\r\n"), &chunks(&blob))
                .then(Step::Close),
            Some("length_mismatch"),
        ),
    ];
    for (name, reply, expected) in rows {
        let server = Server::start(move |_| reply.clone());
        let source = server.source();
        let result = source.blob("demo", &descriptor(&blob), MAX);
        match expected {
            None => assert_eq!(result.unwrap(), blob, "{name}"),
            Some(expected) => assert_eq!(code(result), expected, "{name}"),
        }
        assert!(source.bytes_fetched() < 200_000, "{name}: {}", source.bytes_fetched());
    }
}

#[test]
fn case_90_documents_of_unknown_length_are_capped() {
    let head = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    let endless = Server::start(move |_| Reply::raw("200 OK", head, b"").then(Step::Endless));
    let source = endless.source();
    assert_eq!(code(source.tuf_state(None)), "length_mismatch");
    assert!(source.bytes_fetched() <= (4 << 20) + (64 << 10));
    assert_eq!(code(source.manifest("demo", &Digest::sha256_of(b""), 1000)), "length_mismatch");
    let announced = Server::start(|_| Reply::raw("200 OK", "Content-Length: 99999999\r\n", b""));
    let source = announced.source();
    assert_eq!(code(source.tuf_state(None)), "length_mismatch");
    assert_eq!(source.bytes_fetched(), 0, "refused by its head");
}

#[test]
fn case_91_content_encoding_is_refused() {
    let blob = noise(100);
    for encoding in ["gzip", "br", "gzip, identity", "aws-chunked"] {
        let body = blob.clone();
        let header = format!("Content-Encoding: {encoding}\r\n");
        let server = Server::start(move |_| Reply::with("200 OK", &header, &body));
        let source = server.source();
        assert_eq!(code(source.blob("demo", &descriptor(&blob), MAX)), "http_status", "{encoding}");
        assert_eq!(source.bytes_fetched(), 0);
    }
    let body = blob.clone();
    let server =
        Server::start(move |_| Reply::with("200 OK", "Content-Encoding: identity\r\n", &body));
    assert_eq!(server.source().blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
}

#[test]
fn case_93_foreign_layers_are_not_followed() {
    let elsewhere = Server::start(|_| Reply::ok(b"{}"));
    let text = String::from_utf8(state(&[("timestamp.json", b"{}")])).unwrap();
    let tuf = text.replace(
        "\"annotations\":{\"tuf",
        &format!("\"urls\":[\"{}\"],\"annotations\":{{\"tuf", elsewhere.url("/x")),
    );
    assert_ne!(tuf, text);
    let server = Server::start(move |seen| match seen.path.contains("/manifests/") {
        true => Reply::ok(tuf.as_bytes()),
        false => Reply::status("404 Not Found"),
    });
    let source = server.source();
    let TufState::Changed { files, .. } = source.tuf_state(None).unwrap() else { panic!("new") };
    assert_eq!(code(source.tuf_file(&files["timestamp.json"], 10)), "http_status");
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn cases_94_97_98_documents_that_are_not_what_they_should_be() {
    let good = String::from_utf8(state(&[("timestamp.json", b"{}")])).unwrap();
    let hex = Digest::sha256_of(b"{}").hex();
    let layer = Descriptor::of(media_type::TUF_METADATA, b"{}");
    let many = |count: usize| {
        let layers: Vec<Descriptor> = (0..count)
            .map(|i| layer.clone().annotated(annotation::TUF_FILENAME, &format!("{i}.root.json")))
            .collect();
        formats::oci::Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers)
            .to_bytes()
    };
    let two = String::from_utf8(many(2)).unwrap();
    let (one, last) = two.rsplit_once("\"size\":2").unwrap();
    let other_size = format!("{one}\"size\":3{last}");
    // (name, header, body, code)
    let rows: Vec<(&str, &str, Vec<u8>, &str)> = vec![
        (
            "94 both lists",
            "",
            good.replacen('{', "{\"manifests\":[],", 1).into_bytes(),
            "bundle_format",
        ),
        ("94 header differs", media_type::INDEX, good.clone().into_bytes(), "bundle_format"),
        ("94 an index", "", Index::new(None, vec![]).to_bytes(), "bundle_format"),
        (
            "another artifact",
            "",
            good.replace(media_type::TUF_STATE, media_type::IMAGE).into_bytes(),
            "bundle_format",
        ),
        ("97 10,000 layers", "", many(10_000), "meta_limit"),
        ("97 one digest, two sizes", "", other_size.into_bytes(), "bundle_format"),
        ("98 a path", "", good.replace(&hex, "../../etc/passwd").into_bytes(), "bundle_format"),
        (
            "98 upper case",
            "",
            good.replace(&hex, &hex.to_uppercase()).into_bytes(),
            "bundle_format",
        ),
        ("98 md5", "", good.replace("sha256:", "md5:").into_bytes(), "bundle_format"),
        ("98 dash", "", good.replace("sha256:", "sha256-").into_bytes(), "bundle_format"),
        (
            "96 negative size",
            "",
            good.replace("\"size\":2", "\"size\":-2").into_bytes(),
            "bundle_format",
        ),
        (
            "96 2^63",
            "",
            good.replace("\"size\":2", "\"size\":9223372036854775808").into_bytes(),
            "bundle_format",
        ),
        ("not JSON", "", b"<html>captive portal</html>".to_vec(), "bundle_format"),
    ];
    for (name, kind, body, expected) in rows {
        let header =
            if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let server = Server::start(move |_| Reply::with("200 OK", &header, &body));
        assert_eq!(code(server.source().tuf_state(None)), expected, "{name}");
    }
}

#[test]
fn case_96_the_size_of_the_descriptor_bounds_everything() {
    let blob = noise(1000);
    let served = blob.clone();
    let server = Server::start(move |seen| Reply::blob(seen, &served));
    let source = server.source();
    let mut larger = descriptor(&blob);
    larger.size = 1001;
    assert_eq!(code(source.blob("demo", &larger, MAX)), "length_mismatch");
    let mut smaller = descriptor(&blob);
    smaller.size = 999;
    assert_eq!(code(source.blob("demo", &smaller, MAX)), "length_mismatch");
    let requests = server.seen().len();
    let mut huge = descriptor(&blob);
    huge.size = 1 << 40;
    assert_eq!(code(source.blob("demo", &huge, MAX)), "meta_limit");
    assert_eq!(server.seen().len(), requests, "refused before any request");
    let mut empty = descriptor(b"");
    assert_eq!(source.blob("demo", &empty, MAX).unwrap(), b"");
    empty.digest = descriptor(&blob).digest;
    assert_eq!(code(source.blob("demo", &empty, MAX)), "hash_mismatch");
}

#[test]
fn case_101_a_cut_connection_is_resumed_with_the_rest_only() {
    let blob = noise(200_000);
    let served = blob.clone();
    let server = Server::start(move |seen| {
        let reply = Reply::blob(seen, &served);
        if seen.nth < 3 { reply.cut(50_000) } else { reply }
    });
    let source = server.source();
    assert_eq!(source.blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    assert_eq!(source.bytes_fetched(), 200_000, "no byte twice");
    let ranges: Vec<_> = server.seen().iter().map(|seen| seen.range()).collect();
    let last = 199_999;
    assert_eq!(ranges, [None, Some((50_000, last)), Some((100_000, last)), Some((150_000, last))]);
}

#[test]
fn case_101_twenty_cuts_cost_no_byte_twice() {
    let blob = noise(21 << 20);
    let served = blob.clone();
    let server = Server::start(move |seen| {
        let reply = Reply::blob(seen, &served);
        if seen.nth % 4 == 1 && seen.nth < 80 { reply.cut(100_000) } else { reply }
    });
    let source = server.source();
    let all = [0..blob.len() as u64, blob.len() as u64..blob.len() as u64];
    let got = fetch_ranges(&*source, &descriptor(&blob), &all).unwrap();
    assert!(got == expected(&blob, &all[..1]));
    assert_eq!(source.bytes_fetched(), blob.len() as u64);
    // Which request is the fourth depends on who is quicker: the rest of a rest is too short to be cut.
    let seen = server.seen();
    let long = |seen: &&Seen| seen.range().is_none_or(|(first, last)| last - first >= 100_000);
    let cut = seen.iter().filter(|seen| seen.nth % 4 == 1 && seen.nth < 80).filter(long).count();
    assert!(cut >= 10, "{cut}");
    assert_eq!(seen.len(), 84 + cut, "segments of 256 KiB, and the rests of those that were cut");
}

#[test]
fn a_few_requests_are_in_flight_and_come_in_order() {
    let blob = noise(6 << 20);
    let served = blob.clone();
    let server = Server::start(move |seen| {
        // The later of each four are the quicker.
        std::thread::sleep(Duration::from_millis(4 - seen.nth as u64 % 4));
        Reply::blob(seen, &served)
    });
    let source = server.source();
    let ranges = [10..3_000_000, 3_000_100..3_000_200, 4_000_000..blob.len() as u64];
    let got = fetch_ranges(&*source, &descriptor(&blob), &ranges).unwrap();
    assert!(got == expected(&blob, &ranges));
    let connections: std::collections::BTreeSet<usize> =
        server.seen().iter().map(|seen| seen.connection).collect();
    assert!((2..=5).contains(&connections.len()), "{connections:?}");
    let longest = server.seen().iter().filter_map(|seen| seen.range()).map(|(a, b)| b - a).max();
    assert!(longest.unwrap() < 256 << 10);
}

#[test]
fn case_102_a_server_that_forgets_ranges_in_the_middle_is_read_whole() {
    for answer in ["200", "416"] {
        let blob = noise(3 << 20);
        let served = blob.clone();
        let server = Server::start(move |seen| match (seen.nth, seen.range()) {
            (5.., Some(_)) if answer == "416" => Reply::status("416 Range Not Satisfiable"),
            (5.., _) => Reply::ok(&served),
            _ => Reply::blob(seen, &served),
        });
        let source = server.source();
        let all = 0..blob.len() as u64;
        let all = std::slice::from_ref(&all);
        let got = fetch_ranges(&*source, &descriptor(&blob), all).unwrap();
        assert!(got == expected(&blob, all), "{answer}");
    }
}

#[test]
fn case_101_a_server_that_cuts_every_time_is_given_up() {
    let blob = noise(200_000);
    let served = blob.clone();
    let server = Server::start(move |seen| Reply::blob(seen, &served).cut(1));
    assert_eq!(code(server.source().blob("demo", &descriptor(&blob), MAX)), "unreachable");
    assert_eq!(server.seen().len(), 4, "one attempt and three retries");
}

#[test]
fn case_101_429_and_500_are_asked_again_and_bounded() {
    let blob = noise(1000);
    let served = blob.clone();
    let server = Server::start(move |seen| match seen.nth {
        0 => Reply::with("429 Too Many Requests", "Retry-After: 0\r\n", b"slow down"),
        1 => Reply::status("503 Service Unavailable"),
        2 => Reply::status("500 Internal Server Error"),
        _ => Reply::blob(seen, &served),
    });
    assert_eq!(server.source().blob("demo", &descriptor(&blob), MAX).unwrap(), blob);

    let broken = Server::start(|_| Reply::status("500 Internal Server Error"));
    assert_eq!(code(broken.source().blob("demo", &descriptor(&blob), MAX)), "http_status");
    assert_eq!(broken.seen().len(), 4);
    assert_eq!(code(broken.source().tuf_state(None)), "http_status");
    assert_eq!(broken.seen().len(), 8);

    let missing = Server::start(|_| Reply::status("404 Not Found"));
    assert_eq!(code(missing.source().tuf_state(None)), "http_status");
    assert_eq!(missing.seen().len(), 1, "what is not there does not come by asking again");
}

#[test]
fn case_101_retry_after_is_waited_for_within_the_budget() {
    let blob = noise(10);
    let served = blob.clone();
    let server = Server::start(move |seen| match seen.nth {
        0 => Reply::with("429 Too Many Requests", "Retry-After: 1\r\n", b""),
        _ => Reply::blob(seen, &served),
    });
    let start = std::time::Instant::now();
    assert_eq!(server.source().blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    assert!(start.elapsed() >= Duration::from_secs(1));

    let server =
        Server::start(|_| Reply::with("429 Too Many Requests", "Retry-After: 3600\r\n", b""));
    let error = server.source().blob("demo", &descriptor(&blob), MAX).unwrap_err();
    let FetchError::Http(error) = error else { panic!("{error}") };
    assert_eq!(
        error.retry_after(),
        Some(Duration::from_secs(3600)),
        "the caller may wait, we do not"
    );
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn case_102_a_server_that_ignores_ranges_is_read_once() {
    let blob = noise(400_000);
    let served = blob.clone();
    let server = Server::start(move |_| Reply::ok(&served));
    let source = server.source();
    let ranges = [100..200, 100_000..100_001, 300_000..301_000];
    let got = fetch_ranges(&*source, &descriptor(&blob), &ranges).unwrap();
    assert_eq!(got, expected(&blob, &ranges));
    assert_eq!(server.seen().len(), 1);
    assert!(source.bytes_fetched() < 400_000, "it stops after the last wanted byte");
}

#[test]
fn case_102_a_resume_answered_with_200_skips_what_is_there() {
    let blob = noise(100_000);
    let served = blob.clone();
    let server = Server::start(move |seen| match seen.nth {
        0 => Reply::ok(&served).cut(60_000),
        _ => Reply::ok(&served),
    });
    assert_eq!(server.source().blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn case_102_a_416_is_answered_by_taking_the_whole() {
    let blob = noise(100_000);
    let served = blob.clone();
    let server = Server::start(move |seen| match seen.range() {
        Some(_) => {
            Reply::with("416 Range Not Satisfiable", "Content-Range: bytes */100000\r\n", b"")
        }
        None => Reply::ok(&served),
    });
    let ranges = [10..20, 90_000..90_010];
    let got = fetch_ranges(&*server.source(), &descriptor(&blob), &ranges).unwrap();
    assert_eq!(got, expected(&blob, &ranges));
    assert_eq!(server.seen().len(), 2);

    let never = Server::start(|_| Reply::status("416 Range Not Satisfiable"));
    assert_eq!(code(fetch_ranges(&*never.source(), &descriptor(&blob), &ranges)), "http_status");
    assert_eq!(never.seen().len(), 2);
}

#[test]
fn case_102_a_206_must_hold_what_was_asked_for() {
    let blob = noise(100_000);
    let part = blob[10..20].to_vec();
    // (name, Content-Range, body, code)
    let rows: Vec<(&str, &str, Vec<u8>, &str)> = vec![
        ("none", "", part.clone(), "http_status"),
        ("starts earlier", "Content-Range: bytes 9-18/100000\r\n", part.clone(), "http_status"),
        ("starts later", "Content-Range: bytes 11-20/100000\r\n", part.clone(), "http_status"),
        ("goes on", "Content-Range: bytes 10-20/100000\r\n", blob[10..21].to_vec(), "http_status"),
        ("another total", "Content-Range: bytes 10-19/99999\r\n", part.clone(), "length_mismatch"),
        ("no span", "Content-Range: bytes */100000\r\n", part.clone(), "http_status"),
        ("other unit", "Content-Range: items 10-19/100000\r\n", part.clone(), "http_status"),
        (
            "body shorter than it says",
            "Content-Range: bytes 10-19/100000\r\n",
            part[1..].to_vec(),
            "length_mismatch",
        ),
        (
            "body longer than it says",
            "Content-Range: bytes 10-19/100000\r\n",
            blob[10..30].to_vec(),
            "length_mismatch",
        ),
        (
            "multipart",
            "Content-Type: multipart/byteranges; boundary=x\r\n",
            b"--x\r\nContent-Range: bytes 10-19/100000\r\n\r\n".to_vec(),
            "http_status",
        ),
    ];
    for (name, header, body, expected) in rows {
        let server = Server::start(move |_| Reply::with("206 Partial Content", header, &body));
        let source = server.source();
        let mut got = 0;
        let result =
            source.ranges("demo", &descriptor(&blob), &[10..20, 20..20], &mut |_, bytes| {
                got += bytes.len();
                ControlFlow::Continue(())
            });
        assert_eq!(code(result), expected, "{name}");
        assert_eq!(got, 0, "{name}");
    }
    let served = blob.clone();
    let server = Server::start(move |_| {
        Reply::with("206 Partial Content", "Content-Range: bytes 0-99999/100000\r\n", &served)
    });
    assert_eq!(
        code(server.source().blob("demo", &descriptor(&blob), MAX)),
        "http_status",
        "a 206 nobody asked for"
    );
}

#[test]
fn case_102_a_206_that_gives_less_is_asked_for_the_rest() {
    let blob = noise(3000);
    let served = blob.clone();
    let server = Server::start(move |seen| {
        let (first, last) = seen.range().unwrap();
        let last = last.min(first + 999);
        let range = format!("Content-Range: bytes {first}-{last}/*\r\n");
        Reply::with("206 Partial Content", &range, &served[first..=last])
    });
    let ranges = [1..3000, 3000..3000];
    let got = fetch_ranges(&*server.source(), &descriptor(&blob), &ranges).unwrap();
    assert_eq!(got, expected(&blob, &ranges[..1]));
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn case_102_a_resume_from_another_version_is_noticed_and_restarted_once() {
    let blob = noise(100_000);
    let other: Vec<u8> = blob.iter().map(|byte| !byte).collect();
    let (good, bad) = (blob.clone(), other.clone());
    let healing = Server::start(move |seen| match seen.nth {
        0 => Reply::ok(&good).cut(50_000),
        1 => Reply::blob(seen, &bad),
        _ => Reply::blob(seen, &good),
    });
    assert_eq!(healing.source().blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    assert_eq!(healing.seen().len(), 3);

    let good = blob.clone();
    let lying = Server::start(move |seen| match seen.range() {
        None => Reply::ok(&good).cut(50_000),
        Some(_) => Reply::blob(seen, &other),
    });
    assert_eq!(code(lying.source().blob("demo", &descriptor(&blob), MAX)), "hash_mismatch");
    assert_eq!(lying.seen().len(), 4, "two times two answers");
}

#[test]
fn overlapping_ranges_are_never_asked_for() {
    let blob = noise(100);
    let server = Server::start(|_| Reply::status("500 Internal Server Error"));
    for ranges in [[0..10, 5..15], [10..20, 0..5], [0..10, 90..101]] {
        assert!(fetch_ranges(&*server.source(), &descriptor(&blob), &ranges).is_err());
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_dripping_server_is_too_slow() {
    let blob = noise(10_000);
    let served = blob.clone();
    let server = Server::start(move |_| {
        let drip = Step::Drip(served.clone(), Duration::from_millis(1));
        Reply::raw("200 OK", "Content-Length: 10000\r\n", b"").then(drip)
    });
    let limits = Limits { min_rate: 1 << 20, rate_window: Duration::from_millis(100), ..quick() };
    let source = server.source_with(limits);
    assert_eq!(code(source.blob("demo", &descriptor(&blob), MAX)), "too_slow");
    assert_eq!(server.seen().len(), 1, "a slow source is left, not asked again");
}

#[test]
fn a_silent_server_times_out_at_every_stage() {
    let short = Duration::from_millis(100);
    let mut limits = Limits { first_byte: short, idle: short, handshake: short, ..quick() };
    limits.retry.attempts = 0;
    let blob = noise(1000);
    // (name, answer)
    let rows: Vec<(&str, Reply)> = vec![
        ("no answer", Reply(vec![Step::Stall])),
        ("half a head", Reply(vec![Step::Send(b"HTTP/1.1 200 OK\r\nX:".to_vec()), Step::Stall])),
        (
            "a head that drips",
            Reply(vec![Step::Drip(b"HTTP/1.1 200 OK\r\nX: ".repeat(50), Duration::from_millis(5))]),
        ),
        (
            "endless 100 Continue",
            Reply(vec![Step::Drip(
                b"HTTP/1.1 100 Continue\r\n\r\n".repeat(50),
                Duration::from_millis(1),
            )]),
        ),
        ("no body", Reply::raw("200 OK", "Content-Length: 1000\r\n", b"").then(Step::Stall)),
        (
            "half a body",
            Reply::raw("200 OK", "Content-Length: 1000\r\n", &blob[..500]).then(Step::Stall),
        ),
    ];
    for (name, reply) in rows {
        let server = Server::start(move |_| reply.clone());
        let source = server.source_with(limits.clone());
        assert_eq!(code(source.blob("demo", &descriptor(&blob), MAX)), "timeout", "{name}");
    }
    let mute = Server::start(|_| Reply(vec![Step::Stall]));
    let config = update_agent::source::SourceConfig { plain_http: false, ..mute.config() };
    let source = update_agent::source::open(&config, limits).unwrap();
    assert_eq!(code(source.tuf_state(None)), "timeout", "TLS with a server that says nothing");
}

/// A mirror spends one budget, however it spends it: retries, silence and trickles together. Each row
/// would go on for hours.
#[test]
fn a_silent_source_costs_one_budget_in_all() {
    let short = Duration::from_millis(200);
    let mut limits = Limits { first_byte: short, idle: short, patience: 3 * short, ..quick() };
    limits.retry.attempts = 100_000;
    limits.retry.budget = Duration::from_secs(100_000);
    let tuf = state(&[("timestamp.json", b"{}")]);
    let (slow, wait) = (Duration::from_millis(50), "Retry-After: 3600\r\n");
    let rows: Vec<(&str, &str, Reply)> = vec![
        ("no answer", "timeout", Reply(vec![Step::Stall])),
        (
            "no body",
            "timeout",
            Reply::raw("200 OK", "Content-Length: 9\r\n", b"").then(Step::Stall),
        ),
        (
            "a trickle",
            "timeout",
            Reply::raw("200 OK", "Content-Length: 90000\r\n", b"")
                .then(Step::Drip(vec![b' '; 90_000], slow)),
        ),
        ("cut", "unreachable", Reply::ok(&tuf).cut(1)),
        ("busy for hours", "http_status", Reply::with("503 Service Unavailable", wait, b"")),
        ("failing", "http_status", Reply::status("500 Internal Server Error")),
    ];
    for (name, wanted, reply) in rows {
        let server = Server::start(move |_| reply.clone());
        let source = server.source_with(limits.clone());
        // Whichever ends the budget: a failure, or the wait for the next answer.
        let ended = code(source.tuf_state(None));
        assert!(["timeout", wanted].contains(&ended), "{name}: {ended}");
    }
    // What comes later counts to the same budget: the state is there, its files are not.
    let served = tuf.clone();
    let server = Server::start(move |seen| match seen.path.ends_with("/latest") {
        true => Reply::ok(&served),
        false => Reply(vec![Step::Stall]),
    });
    let source = server.source_with(limits);
    let Ok(TufState::Changed { files, .. }) = source.tuf_state(None) else { panic!("a state") };
    assert_eq!(code(source.tuf_file(&files["timestamp.json"], 10)), "timeout");
    assert_eq!(code(source.tuf_file(&files["timestamp.json"], 10)), "timeout", "nothing is left");
}

#[test]
fn heads_are_bounded() {
    let blob = noise(10);
    for (name, headers) in [
        ("one long header", format!("X: {}\r\n", "a".repeat(1 << 20))),
        ("many headers", "X: a\r\n".repeat(1000)),
    ] {
        let server = Server::start(move |_| {
            Reply::with("200 OK", &headers, b"0123456789").then(Step::Close)
        });
        assert_eq!(
            code(server.source().blob("demo", &descriptor(&blob), MAX)),
            "http_status",
            "{name}"
        );
    }
}

#[test]
fn what_is_not_http_is_told_so() {
    let ssh = Server::start(|_| {
        Reply(vec![Step::Send(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), Step::Close])
    });
    assert_eq!(code(ssh.source().tuf_state(None)), "http_status");
    let closed = Refusing::new();
    let config = update_agent::source::SourceConfig {
        plain_http: true,
        ..update_agent::source::SourceConfig::at(&format!("docker://{}", closed.address))
    };
    let source = update_agent::source::open(&config, quick()).unwrap();
    assert_eq!(code(source.tuf_state(None)), "unreachable");
}

#[test]
fn an_idle_connection_that_the_server_closed_is_replaced() {
    let blob = noise(1000);
    let served = blob.clone();
    let server = Server::start(move |seen| Reply::blob(seen, &served).then(Step::Close));
    let mut limits = quick();
    limits.retry.attempts = 0;
    let source = server.source_with(limits);
    for _ in 0..5 {
        assert_eq!(source.blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
    }
}

#[test]
fn the_sink_may_stop_and_may_use_the_source() {
    let blob = noise(500_000);
    let served = blob.clone();
    let server = Server::start(move |seen| Reply::blob(seen, &served));
    let source = server.source();
    let mut got = 0_u64;
    source
        .ranges("demo", &descriptor(&blob), &[5..400_000, 499_999..500_000], &mut |at, bytes| {
            assert_eq!(at, 5 + got);
            got += bytes.len() as u64;
            assert_eq!(source.blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
            if got > 100_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert!((100_001..400_000).contains(&got), "{got}");
}

#[test]
fn a_source_is_shared_between_threads() {
    let blob = noise(100_000);
    let served = blob.clone();
    let server = Server::start(move |seen| Reply::blob(seen, &served));
    let source = server.source();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(source.blob("demo", &descriptor(&blob), MAX).unwrap(), blob);
                }
            });
        }
    });
    assert_eq!(source.bytes_fetched(), 20 * 100_000);
}
