//! OCI distribution-spec 1.1, endpoint by endpoint (§"Endpoints"), against a real server.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use common::{Fixture, Reply, noise};
use formats::digest::{Algorithm, Digest};
use formats::oci::{Descriptor, Index, MANIFEST_LIMIT, Manifest, media_type};

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Algorithm::Sha512.hasher();
    hasher.update(bytes);
    hasher.finish()
}

/// `end-1`
#[test]
fn end_1_ping() {
    let open = Fixture::with(|config| config.push_tokens = None);
    let reply = open.get("/v2/").expect(200);
    assert_eq!(reply.header("docker-distribution-api-version"), Some("registry/2.0"));
    // With accounts, it is where clients learn what to send.
    let server = Fixture::new();
    let asked = server.get("/v2/").expect_error(401, "UNAUTHORIZED");
    assert!(asked.header("www-authenticate").unwrap().starts_with("Basic realm="));
    server.push("GET", "/v2/", &[], &[]).expect(200);
}

#[test]
fn end_2_blobs() {
    let server = Fixture::new();
    let small = noise(1000);
    let large = noise(700_000);
    for bytes in [&small, &large] {
        let digest = server.push_blob("a/b", bytes);
        let target = format!("/v2/a/b/blobs/{digest}");
        let reply = server.get(&target).expect(200);
        assert_eq!(&reply.body, bytes);
        assert_eq!(reply.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
        let etag = reply.header("etag").unwrap();

        let head = server.ask("HEAD", &target, &[], &[]).expect(200);
        assert_eq!(head.header("content-length"), Some(bytes.len().to_string().as_str()));

        let known = format!("If-None-Match: \"x\", W/{etag}");
        let again = server.ask("GET", &target, &[&known], &[]).expect(304);
        assert_eq!((again.body.len(), again.header("etag")), (0, Some(etag)));

        // Only where it was pushed.
        server.get(&format!("/v2/a/c/blobs/{digest}")).expect_error(404, "BLOB_UNKNOWN");
    }
    let unknown = Digest::sha256_of(b"unknown");
    server.get(&format!("/v2/a/b/blobs/{unknown}")).expect_error(404, "BLOB_UNKNOWN");
    let unknown = sha512(b"unknown");
    server.get(&format!("/v2/a/b/blobs/{unknown}")).expect_error(404, "BLOB_UNKNOWN");
}

#[test]
fn end_2_ranges() {
    let server = Fixture::new();
    for len in [1000, 700_000] {
        let bytes = noise(len);
        let digest = server.push_blob("r", &bytes);
        let target = format!("/v2/r/blobs/{digest}");
        let ask = |range: &str| server.ask("GET", &target, &[&format!("Range: {range}")], &[]);
        let last = len - 1;
        for (range, from, to) in [
            ("bytes=0-".to_owned(), 0, len),
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=100-199".to_owned(), 100, 200),
            ("bytes=-10".to_owned(), len - 10, len),
            (format!("bytes=500-{}", len * 9), 500, len),
            (format!("bytes={last}-{last}"), last, len),
        ] {
            let reply = ask(&range).expect(206);
            assert_eq!(reply.body, &bytes[from..to], "{range}");
            let wanted = format!("bytes {from}-{}/{len}", to - 1);
            assert_eq!(reply.header("content-range"), Some(wanted.as_str()), "{range}");
        }
        for range in ["bytes=700000-", "bytes=9-8", "bytes=-0"] {
            let reply = ask(range).expect(416);
            assert_eq!(reply.header("content-range"), Some(format!("bytes */{len}").as_str()));
        }
        // Never multipart, whatever is asked for: the blob once at most.
        let many = format!("bytes={}", vec!["0-9"; 1000].join(","));
        for range in ["bytes=0-1,5-6", many.as_str()] {
            let reply = ask(range).expect(200);
            assert_eq!(reply.body.len(), len);
            assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
        }
        let other = "If-Range: \"other\"";
        server.ask("GET", &target, &["Range: bytes=0-0", other], &[]).expect(200);
        let same = format!("If-Range: \"{digest}\"");
        server.ask("GET", &target, &["Range: bytes=0-0", &same], &[]).expect(206);
        server.ask("HEAD", &target, &["Range: bytes=0-0"], &[]).expect(200);
    }
}

#[test]
fn end_3_and_7_manifests_come_back_as_they_were_pushed() {
    let server = Fixture::new();
    let plain = server.artifact("m", &[b"layer"]);
    // Odd spelling, unknown fields: every byte is part of the digest.
    let text = String::from_utf8(plain.to_bytes()).unwrap();
    let odd = text.replacen('{', "{ \"unknown\" : [ 1 ],\n\t", 1).into_bytes();
    let digest = server.push_manifest("m", "v1", &odd);
    for reference in ["v1".to_owned(), digest.to_string()] {
        let target = format!("/v2/m/manifests/{reference}");
        let reply = server.get(&target).expect(200);
        assert_eq!(reply.body, odd);
        assert_eq!(reply.header("content-type"), Some(media_type::MANIFEST));
        assert_eq!(reply.header("docker-content-digest"), Some(digest.to_string().as_str()));
        let head = server.ask("HEAD", &target, &[], &[]).expect(200);
        assert_eq!(head.header("content-length"), Some(odd.len().to_string().as_str()));
        // A poll when nothing changed: one conditional request.
        let known = format!("If-None-Match: {}", reply.header("etag").unwrap());
        server.ask("GET", &target, &[&known], &[]).expect(304);
    }
    // A tag moves; the old manifest stays under its digest.
    let newer = server.push_artifact("m", "v1", &[b"other"]);
    let reply = server.get("/v2/m/manifests/v1").expect(200);
    assert_eq!(reply.header("docker-content-digest"), Some(newer.to_string().as_str()));
    server.get(&format!("/v2/m/manifests/{digest}")).expect(200);

    server.get("/v2/m/manifests/none").expect_error(404, "MANIFEST_UNKNOWN");
    server.get("/v2/none/manifests/v1").expect_error(404, "MANIFEST_UNKNOWN");
    server.get(&format!("/v2/none/manifests/{digest}")).expect_error(404, "MANIFEST_UNKNOWN");
}

#[test]
fn end_7_what_is_not_a_complete_manifest_is_refused() {
    let server = Fixture::new();
    let good = server.artifact("m", &[b"layer"]);
    let missing = Manifest::artifact(
        "application/vnd.test",
        Descriptor::empty(),
        vec![Descriptor::of("application/octet-stream", b"never pushed")],
    );
    let lists_nothing = Index::new(None, vec![Descriptor::of(media_type::MANIFEST, b"nowhere")]);
    let other = Digest::sha256_of(b"other");
    let put =
        |reference: &str, kind: &str, bytes: &[u8]| server.push_typed("m", reference, kind, bytes);
    put("v1", media_type::MANIFEST, &missing.to_bytes()).expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    put("v1", media_type::INDEX, &lists_nothing.to_bytes())
        .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    put("v1", media_type::INDEX, &good.to_bytes()).expect_error(400, "MANIFEST_INVALID");
    put("v1", media_type::MANIFEST, b"not json").expect_error(400, "MANIFEST_INVALID");
    put("v1", "no type at all", &good.to_bytes()).expect_error(400, "MANIFEST_INVALID");
    put(&other.to_string(), media_type::MANIFEST, &good.to_bytes())
        .expect_error(400, "DIGEST_INVALID");
    put("sha256:short", media_type::MANIFEST, &good.to_bytes()).expect_error(400, "DIGEST_INVALID");
    put("-bad", media_type::MANIFEST, &good.to_bytes()).expect_error(400, "MANIFEST_INVALID");
    server.get("/v2/m/manifests/v1").expect_error(404, "MANIFEST_UNKNOWN");
    server.get(&format!("/v2/m/manifests/{other}")).expect_error(404, "MANIFEST_UNKNOWN");
}

#[test]
fn end_7_manifests_have_a_size_limit() {
    let server = Fixture::new();
    let mut manifest = server.artifact("m", &[b"layer"]);
    let room = MANIFEST_LIMIT as usize - manifest.to_bytes().len() - 40;
    manifest.annotations.insert("padding".to_owned(), "x".repeat(room));
    let mut bytes = manifest.to_bytes();
    bytes.resize(MANIFEST_LIMIT as usize, b' ');
    let digest = server.push_manifest("m", "large", &bytes);
    assert_eq!(server.get(&format!("/v2/m/manifests/{digest}")).expect(200).body, bytes);

    bytes.push(b' ');
    server
        .push_typed("m", "larger", media_type::MANIFEST, &bytes)
        .expect_error(413, "SIZE_INVALID");
    // A GiB is refused by what it says, before any of it comes.
    let head = format!(
        "PUT /v2/m/manifests/huge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        common::TOKEN,
        1 << 30
    );
    let reply = common::raw(server.address(), head.as_bytes());
    common::parse(&reply, "PUT").unwrap().expect_error(413, "SIZE_INVALID");
    // Without a length in front, the bytes are counted.
    let mut chunked = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunked.extend_from_slice(&bytes);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let headers = ["Transfer-Encoding: chunked", "Content-Type: application/x"];
    server.push("PUT", "/v2/m/manifests/larger", &headers, &chunked).expect(413);
    server.get("/v2/m/manifests/larger").expect(404);
}

#[test]
fn end_7b_tags_beside_the_digest() {
    let server = Fixture::new();
    let bytes = server.artifact("m", &[b"layer"]).to_bytes();
    let digest = Digest::sha256_of(&bytes);
    let tags: Vec<String> = (0..10).map(|i| format!("v{i}")).collect();
    let target = format!("/v2/m/manifests/{digest}?tag={}", tags.join("&tag="));
    let kind = format!("Content-Type: {}", media_type::MANIFEST);
    let reply = server.push("PUT", &target, &[&kind], &bytes).expect(201);
    let told: Vec<_> = reply.headers.iter().filter(|(name, _)| name == "oci-tag").collect();
    assert_eq!(told.len(), 10);
    assert_eq!(server.get("/v2/m/tags/list").json()["tags"].as_array().unwrap().len(), 10);
}

#[test]
fn end_4a_and_6_post_then_put() {
    let server = Fixture::new();
    for bytes in [noise(100_000), Vec::new()] {
        let digest = Digest::sha256_of(&bytes);
        let location = server.start_upload("a");
        let reply = server.push("PUT", &format!("{location}?digest={digest}"), &[], &bytes);
        let reply = reply.expect(201);
        assert_eq!(reply.header("docker-content-digest"), Some(digest.to_string().as_str()));
        let blob = reply.header("location").unwrap();
        assert_eq!(server.get(blob).expect(200).body, bytes);
        server.push("GET", &location, &[], &[]).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[test]
fn end_4b_single_post() {
    let server = Fixture::new();
    let bytes = noise(3000);
    let digest = Digest::sha256_of(&bytes);
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let reply = server.push("POST", &target, &[], &bytes).expect(201);
    assert_eq!(reply.header("location"), Some(format!("/v2/a/blobs/{digest}").as_str()));
    // Other bytes than announced: refused, and nothing is left.
    let wrong = Digest::sha256_of(b"wrong");
    let target = format!("/v2/a/blobs/uploads/?digest={wrong}");
    server.push("POST", &target, &[], &bytes).expect_error(400, "DIGEST_INVALID");
    server.get(&format!("/v2/a/blobs/{wrong}")).expect(404);
    assert_eq!(server.uploads(), 0);
    server
        .push("POST", "/v2/a/blobs/uploads/?digest=md5:00", &[], &bytes)
        .expect_error(400, "DIGEST_INVALID");
}

#[test]
fn end_4c_sha512() {
    let server = Fixture::new();
    let bytes = noise(5000);
    let digest = sha512(&bytes);
    for start in ["?digest-algorithm=sha512", ""] {
        let reply = server.push("POST", &format!("/v2/a/blobs/uploads/{start}"), &[], &[]);
        let location = reply.expect(202).header("location").unwrap().to_owned();
        server.push("PATCH", &location, &[], &bytes).expect(202);
        server.push("PUT", &format!("{location}?digest={digest}"), &[], &[]).expect(201);
        let target = format!("/v2/a/blobs/{digest}");
        assert_eq!(server.get(&target).expect(200).body, bytes);
        server.push("DELETE", &target, &[], &[]).expect(202);
    }
    server
        .push("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", &[], &[])
        .expect_error(400, "DIGEST_INVALID");
    let manifest = server.artifact("a", &[b"x"]).to_bytes();
    let digest = sha512(&manifest);
    server.push_typed("a", &digest.to_string(), media_type::MANIFEST, &manifest).expect(201);
    assert_eq!(server.get(&format!("/v2/a/manifests/{digest}")).expect(200).body, manifest);
}

#[test]
fn end_5_and_13_chunks_in_order() {
    let server = Fixture::new();
    let bytes = noise(30_000);
    let digest = Digest::sha256_of(&bytes);
    let location = server.start_upload("a");
    let status = |location: &str| {
        let reply = server.push("GET", location, &[], &[]).expect(204);
        assert_eq!(reply.header("location"), Some(location));
        reply.header("range").unwrap().to_owned()
    };
    let patch = |from: usize, to: usize| -> Reply {
        let range = format!("Content-Range: {from}-{}", to - 1);
        server.push("PATCH", &location, &[&range], &bytes[from..to])
    };
    assert_eq!(status(&location), "0-0");
    patch(10_000, 20_000).expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(patch(0, 10_000).expect(202).header("range"), Some("0-9999"));
    let early = patch(20_000, 30_000).expect(416);
    assert_eq!(early.header("range"), Some("0-9999"));
    assert_eq!(early.header("location"), Some(location.as_str()));
    patch(0, 10_000).expect(416);
    assert_eq!(status(&location), "0-9999");
    patch(10_000, 20_000).expect(202);
    // The last chunk with the closing PUT: out of order first, then right.
    let close = format!("{location}?digest={digest}");
    server.push("PUT", &close, &["Content-Range: 0-9999"], &bytes[20_000..]).expect(416);
    server.push("PUT", &close, &["Content-Range: 20000-29999"], &bytes[20_000..]).expect(201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).expect(200).body, bytes);
}

#[test]
fn end_5_streamed() {
    let server = Fixture::new();
    let bytes = noise(300_000);
    let digest = Digest::sha256_of(&bytes);
    let location = server.start_upload("a");
    let mut chunked = Vec::new();
    for piece in bytes.chunks(7000) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let reply = server.push("PATCH", &location, &["Transfer-Encoding: chunked"], &chunked);
    assert_eq!(reply.expect(202).header("range"), Some("0-299999"));
    server.push("PUT", &format!("{location}?digest={digest}"), &[], &[]).expect(201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).expect(200).body, bytes);
}

#[test]
fn end_5_chunks_that_are_not_what_they_say() {
    let server = Fixture::new();
    let location = server.start_upload("a");
    for range in ["x", "5", "9-0", "-5", "0-", "18446744073709551616-18446744073709551617"] {
        let range = format!("Content-Range: {range}");
        server
            .push("PATCH", &location, &[&range], b"bytes")
            .expect_error(400, "BLOB_UPLOAD_INVALID");
    }
    server
        .push("PATCH", &location, &["Content-Range: 0-99"], b"bytes")
        .expect_error(400, "SIZE_INVALID");
    server.push("PUT", &location, &[], b"bytes").expect_error(400, "DIGEST_INVALID");
    // A session belongs to its repository.
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    server.push("GET", &elsewhere, &[], &[]).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn end_6_a_wrong_digest_leaves_nothing() {
    let server = Fixture::new();
    let wrong = Digest::sha256_of(b"wrong");
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], b"right").expect(202);
    server
        .push("PUT", &format!("{location}?digest={wrong}"), &[], &[])
        .expect_error(400, "DIGEST_INVALID");
    server.get(&format!("/v2/a/blobs/{wrong}")).expect(404);
    server.push("GET", &location, &[], &[]).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.uploads(), 0);
}

#[test]
fn end_8_tags() {
    let server = Fixture::new();
    server.get("/v2/t/tags/list").expect_error(404, "NAME_UNKNOWN");
    let bytes = server.artifact("t", &[b"layer"]).to_bytes();
    for tag in ["b", "a", "c", "B", "1.10", "1.9"] {
        server.push_manifest("t", tag, &bytes);
    }
    let tags = |query: &str| {
        let reply = server.get(&format!("/v2/t/tags/list{query}")).expect(200);
        let json = reply.json();
        assert_eq!(json["name"], "t");
        let tags =
            json["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned());
        (tags.collect::<Vec<_>>().join(" "), reply.header("link").map(str::to_owned))
    };
    assert_eq!(tags(""), ("1.10 1.9 B a b c".to_owned(), None));
    let (first, link) = tags("?n=2");
    assert_eq!(first, "1.10 1.9");
    assert_eq!(link.as_deref(), Some("</v2/t/tags/list?n=2&last=1.9>; rel=\"next\""));
    assert_eq!(tags("?n=2&last=1.9").0, "B a");
    assert_eq!(tags("?n=2&last=a"), ("b c".to_owned(), None));
    assert_eq!(tags("?last=b"), ("c".to_owned(), None));
    assert_eq!(tags("?last=bb"), ("c".to_owned(), None));
    assert_eq!(tags("?n=0"), (String::new(), None));
    assert_eq!(tags("?n=9223372036854775808").0, "1.10 1.9 B a b c");
    for bad in ["?n=-1", "?n=abc", "?n=1e3"] {
        server.get(&format!("/v2/t/tags/list{bad}")).expect(400);
    }
}

#[test]
fn end_9_and_10_delete() {
    let server = Fixture::new();
    let digest = server.push_artifact("d", "v1", &[b"layer"]);
    let copy = server.push_artifact("other", "v1", &[b"layer"]);
    assert_eq!(digest, copy);
    server
        .push("PUT", "/v2/d/manifests/v2", &[], &server.get("/v2/d/manifests/v1").body)
        .expect(201);
    let layer = Digest::sha256_of(b"layer");
    let delete = |target: &str| server.push("DELETE", target, &[], &[]);
    // What a manifest needs cannot be taken from under it.
    delete(&format!("/v2/d/blobs/{layer}")).expect_error(400, "DENIED");

    delete("/v2/d/manifests/v1").expect(202);
    server.get("/v2/d/manifests/v1").expect(404);
    server.get("/v2/d/manifests/v2").expect(200);
    delete("/v2/d/manifests/v1").expect_error(404, "MANIFEST_UNKNOWN");
    // By digest, with every tag on it, here only.
    delete(&format!("/v2/d/manifests/{digest}")).expect(202);
    server.get("/v2/d/manifests/v2").expect(404);
    server.get(&format!("/v2/d/manifests/{digest}")).expect(404);
    server.get("/v2/other/manifests/v1").expect(200);
    delete(&format!("/v2/d/manifests/{digest}")).expect(404);

    delete(&format!("/v2/d/blobs/{layer}")).expect(202);
    server.get(&format!("/v2/d/blobs/{layer}")).expect(404);
    server.get(&format!("/v2/other/blobs/{layer}")).expect(200);
    delete(&format!("/v2/d/blobs/{layer}")).expect_error(404, "BLOB_UNKNOWN");
    delete(&format!("/v2/none/manifests/{digest}")).expect(404);

    // And so it stays.
    let server = server.restarted(|_| {});
    server.get("/v2/d/manifests/v2").expect(404);
    server.get(&format!("/v2/d/manifests/{digest}")).expect(404);
    server.get("/v2/other/manifests/v1").expect(200);
}

#[test]
fn end_9_and_10_are_off_by_default() {
    let server = Fixture::with(|config| config.allow_delete = false);
    let digest = server.push_artifact("d", "v1", &[b"layer"]);
    let layer = Digest::sha256_of(b"layer");
    for target in [
        "/v2/d/manifests/v1".to_owned(),
        format!("/v2/d/manifests/{digest}"),
        format!("/v2/d/blobs/{layer}"),
    ] {
        let reply = server.push("DELETE", &target, &[], &[]).expect_error(405, "UNSUPPORTED");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        server.ask("DELETE", &target, &[], &[]).expect_error(401, "UNAUTHORIZED");
        server.get(&target).expect(200);
    }
}

#[test]
fn end_11_mount() {
    let server = Fixture::new();
    let digest = server.push_blob("from", b"content");
    let missing = Digest::sha256_of(b"missing");
    let mount = |name: &str, query: &str| {
        server.push("POST", &format!("/v2/{name}/blobs/uploads/?mount={query}"), &[], &[])
    };
    let reply = mount("to", &format!("{digest}&from=from")).expect(201);
    assert_eq!(reply.header("location"), Some(format!("/v2/to/blobs/{digest}").as_str()));
    assert_eq!(server.get(&format!("/v2/to/blobs/{digest}")).expect(200).body, b"content");
    mount("anonymous", &digest.to_string()).expect(201);
    // Not there: a session begins instead, and works.
    for query in [format!("{missing}&from=from"), missing.to_string(), format!("{digest}&from=no")]
    {
        let location = mount("none", &query).expect(202).header("location").unwrap().to_owned();
        server.push("DELETE", &location, &[], &[]).expect(204);
    }
    server.get(&format!("/v2/none/blobs/{digest}")).expect(404);
    mount("none", &format!("{digest}&from=../from")).expect_error(400, "NAME_INVALID");
}

/// end-12: annotations are listed, and what does not fit on one page is on the next.
#[test]
fn end_12_many_annotations_are_pages() {
    let server = Fixture::new();
    let subject = server.push_artifact("a", "v1", &[b"x"]);
    let subject = Descriptor::new(media_type::MANIFEST, subject, 1);
    let mut pushed = std::collections::BTreeSet::new();
    for i in 0..5_u8 {
        let mut manifest = server.artifact("a", &[&[i]]);
        manifest.subject = Some(subject.clone());
        manifest.annotations.insert("text".to_owned(), "x".repeat(600_000));
        pushed.insert(server.push_manifest("a", &format!("r{i}"), &manifest.to_bytes()));
    }
    let mut next =
        Some(format!("/v2/a/referrers/{}?artifactType=application/vnd.test", subject.digest));
    let (mut found, mut pages) = (std::collections::BTreeSet::new(), 0);
    while let Some(target) = next {
        let reply = server.get(&target).expect(200);
        let page = formats::oci::Index::parse(&reply.body).unwrap();
        assert!(reply.body.len() < 2 << 20, "a page of {} bytes", reply.body.len());
        for entry in page.manifests {
            assert_eq!(entry.annotations["text"].len(), 600_000);
            found.insert(entry.digest);
        }
        let link = reply.header("link").map(str::to_owned);
        next = link.map(|it| it[1..it.find('>').unwrap()].to_owned());
        pages += 1;
    }
    assert_eq!((found, pages), (pushed, 3));
}

#[test]
fn end_12_referrers() {
    let server = Fixture::new();
    let subject_bytes = server.artifact("s", &[b"subject"]).to_bytes();
    let subject = Descriptor::of(media_type::MANIFEST, &subject_bytes);
    let list = |query: &str| {
        let reply = server.get(&format!("/v2/s/referrers/{}{query}", subject.digest)).expect(200);
        assert_eq!(reply.header("content-type"), Some(media_type::INDEX));
        let filter = reply.header("oci-filters-applied").map(str::to_owned);
        (Index::parse(&reply.body).unwrap().manifests, filter)
    };
    assert_eq!(list(""), (vec![], None), "a subject nobody knows");
    // In either order: the referrers come before their subject.
    let mut wanted = Vec::new();
    for (kind, note) in
        [("application/spdx+json", "sbom"), ("application/vnd.in-toto+json", "slsa")]
    {
        let mut manifest = server.artifact("s", &[note.as_bytes()]);
        manifest.artifact_type = Some(kind.to_owned());
        manifest.subject = Some(subject.clone());
        manifest.annotations.insert("note".to_owned(), note.to_owned());
        let bytes = manifest.to_bytes();
        let digest = Digest::sha256_of(&bytes);
        let reply = server.push_typed("s", &digest.to_string(), media_type::MANIFEST, &bytes);
        let told = reply.expect(201).header("oci-subject").map(str::to_owned);
        assert_eq!(told, Some(subject.digest.to_string()));
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &bytes).annotated("note", note);
        descriptor.artifact_type = Some(kind.to_owned());
        wanted.push(descriptor);
    }
    // Without an artifact type it is the config's media type; of an index there is none.
    let mut plain = server.artifact("s", &[b"plain"]);
    plain.artifact_type = None;
    plain.subject = Some(subject.clone());
    let bytes = plain.to_bytes();
    server.push_manifest("s", "plain", &bytes);
    let mut descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
    descriptor.artifact_type = Some(media_type::EMPTY.to_owned());
    wanted.push(descriptor);
    let mut index = Index::new(None, vec![]);
    index.subject = Some(subject.clone());
    server.push_index("s", "index", &index);
    wanted.push(Descriptor::of(media_type::INDEX, &index.to_bytes()));

    wanted.sort_by(|a, b| a.digest.cmp(&b.digest));
    assert_eq!(list(""), (wanted.clone(), None));
    let (found, filter) = list("?artifactType=application/spdx+json");
    assert_eq!(filter.as_deref(), Some("artifactType"));
    assert_eq!(found.len(), 1);
    assert_eq!(list("?artifactType=application%2Fspdx%2Bjson").0, found);
    assert_eq!(list("?artifactType=none").0, []);
    server.push_manifest("s", "v1", &subject_bytes);
    assert_eq!(list("").0, wanted);
    server.get("/v2/s/referrers/sha256:zz").expect_error(400, "DIGEST_INVALID");
    let elsewhere = server.get(&format!("/v2/else/referrers/{}", subject.digest)).expect(200);
    assert_eq!(Index::parse(&elsewhere.body).unwrap().manifests, []);

    // Deleted ones are gone, also after a restart.
    let gone = &wanted[0].digest;
    server.push("DELETE", &format!("/v2/s/manifests/{gone}"), &[], &[]).expect(202);
    let target = format!("/v2/s/referrers/{}", subject.digest);
    let server = server.restarted(|_| {});
    let left = Index::parse(&server.get(&target).expect(200).body).unwrap().manifests;
    assert_eq!(left, wanted[1..]);
}

#[test]
fn end_14_cancel() {
    let server = Fixture::new();
    let location = server.start_upload("a");
    server.push("PATCH", &location, &[], b"bytes").expect(202);
    server.push("DELETE", &location, &[], &[]).expect(204);
    server.push("GET", &location, &[], &[]).expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server.push("DELETE", &location, &[], &[]).expect(404);
    assert_eq!(server.uploads(), 0);
}

/// What was pushed is there after a restart, tagged or not, and DIR is an image layout as it is.
#[test]
fn everything_survives_a_restart() {
    use storage::layout::Layout as _;
    let server = Fixture::new();
    let component = server.artifact("racklet/demo", &[b"image", b"chunks"]).to_bytes();
    server.push_manifest("racklet/demo", &Digest::sha256_of(&component).to_string(), &component);
    let release = Index::new(
        Some(media_type::RELEASE),
        vec![Descriptor::of(media_type::MANIFEST, &component).annotated("racklet.component", "os")],
    );
    let release = server.push_index("racklet/demo", "1.0.0", &release);
    let lonely = server.push_blob("racklet/demo", b"lonely");
    let server = server.restarted(|_| {});
    for target in
        ["manifests/1.0.0".to_owned(), format!("manifests/{release}"), format!("blobs/{lonely}")]
    {
        server.get(&format!("/v2/racklet/demo/{target}")).expect(200);
    }
    let layout = server.layout();
    let found = layout.resolve("racklet/demo:1.0.0").unwrap().unwrap();
    assert_eq!(found.digest, release);
    for digest in layout.blobs().unwrap() {
        layout.read_blob(&digest, MANIFEST_LIMIT).unwrap();
    }
}

/// Pushing without a credential, or to a server that takes none: every route, nothing changes.
#[test]
fn pushes_need_a_token() {
    let server = Fixture::new();
    let digest = server.push_artifact("a", "v1", &[b"layer"]);
    let location = server.start_upload("a");
    let before = server.stored();
    let manifest = server.get("/v2/a/manifests/v1").body;
    let targets = [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
        ("POST", format!("/v2/b/blobs/uploads/?mount={digest}&from=a")),
        ("POST", format!("/v2/b/blobs/uploads/?mount={digest}")),
        ("PATCH", location.clone()),
        ("PUT", format!("{location}?digest={digest}")),
        ("GET", location.clone()),
        ("DELETE", location.clone()),
        ("PUT", "/v2/a/manifests/v1".to_owned()),
        ("PUT", format!("/v2/a/manifests/{digest}?tag=v2")),
        ("DELETE", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
    ];
    for (method, target) in &targets {
        for credential in [None, Some("Basic OnB3"), Some("Bearer "), Some("Bearer x"), Some("x")] {
            let header = credential.map(|it| format!("Authorization: {it}"));
            let headers: Vec<&str> = header.iter().map(String::as_str).collect();
            let reply = server.ask(method, target, &headers, &manifest);
            let reply = reply.expect_error(401, "UNAUTHORIZED");
            assert!(reply.header("www-authenticate").is_some(), "{method} {target}");
        }
    }
    assert_eq!(server.stored(), before);

    for change in [(|config| config.push_tokens = None) as fn(&mut repo_server::Config), |config| {
        config.read_only = true
    }] {
        let temp = tempfile::tempdir().unwrap();
        drop(repo_server::start(common::config(&temp, |_| {})).unwrap());
        let server = repo_server::start(common::config(&temp, change)).unwrap();
        let server = Fixture { temp, server };
        for (method, target) in &targets {
            server.push(method, target, &[], &manifest).expect_error(403, "DENIED");
        }
    }
}
