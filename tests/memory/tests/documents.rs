//! S7 for documents: whatever its shape, a document up to its limit takes a bounded amount of memory.
//!
//! The bound of a node is 24 MiB above what it takes when it has nothing to do. Each kind of document
//! has its share of it; together with what is held at that moment the shares stay below.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use formats::json::{Canonical, TREE_LIMIT, Value};
use formats::oci::{Index, Manifest, NamedManifest};
use formats::tuf::{Envelope, Metadata as _, Root, Snapshot, Targets};
use formats::ustar::{BLOCK, Header, Kind};
use racklet_memory::{Counting, peak_of, shapes};
use storage::layout::{Archive, ENTRY_LIMIT};
use update_core::trust::Limits;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;

/// Fails with every shape that takes more than `bound`, and says what the worst one took.
fn each_below(what: &str, bound: usize, limit: usize, frame: &str, read: impl Fn(&[u8])) {
    let mut worst = (0, "");
    for (shape, value) in shapes::VALUES {
        let document = shapes::within(frame, limit, *value);
        assert!(document.len() <= limit, "{what}: {shape}");
        let ((), peak) = peak_of(|| read(&document));
        worst = worst.max((peak, shape));
        assert!(peak <= bound, "{what} of {limit} bytes, {shape}: {peak} bytes, bound {bound}");
    }
    println!("{what}: {:.1} MiB at most, {}", worst.0 as f64 / MIB as f64, worst.1);
}

#[test]
fn a_text_that_nobody_verified_costs_a_multiple_of_its_length() {
    for limit in [16 << 10, 512 << 10, 2 * MIB] {
        each_below("canonical form", 3 * limit + 8 * MIB, limit, "{}", |bytes| {
            drop(Canonical::parse(bytes));
        });
    }
}

#[test]
fn a_tree_takes_what_it_is_charged() {
    for (shape, value) in shapes::VALUES {
        for len in [1000, 100_000, MIB] {
            let document = value(len).into_bytes();
            let Ok(text) = Canonical::parse(&document) else { continue };
            let whole = 0..text.as_bytes().len();
            let (_tree, peak): (Value, usize) = peak_of(|| text.value(whole));
            assert!(peak <= TREE_LIMIT, "{shape} of {len} bytes: {peak}");
        }
    }
}

/// Manifests and indexes of a registry, read by agent, signer and server.
#[test]
fn oci_documents_are_weighed_before_they_are_read() {
    let hex = "0a".repeat(32);
    let entry = |i: usize| format!(r#"{{"mediaType":"x","digest":"sha256:{i:064x}","size":0}}"#);
    let one = format!(r#"{{"mediaType":"x","digest":"sha256:{hex}","size":0}}"#);
    let frames = [
        format!(r#"{{"schemaVersion":2,"config":{one},"layers":[],"annotations":{{}}}}"#),
        r#"{"schemaVersion":2,"manifests":[],"x":{}}"#.to_owned(),
    ];
    let limit = 4 * MIB;
    for frame in &frames {
        // One text is collected in a buffer that doubles, beside the one it had, then copied.
        each_below("manifest or index", 17 * MIB, limit, frame, |bytes| {
            drop(Manifest::parse(bytes));
            drop(Index::parse(bytes));
        });
    }
    for (what, list) in [
        ("entries", shapes::list(limit - 400, entry)),
        (
            "annotated entries",
            shapes::list(limit - 400, |i| {
                let entry = entry(i);
                format!(r#"{},"annotations":{{"":""}}}}"#, entry.trim_end_matches('}'))
            }),
        ),
    ] {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{one},"layers":{list}}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":{list}}}"#);
        let (_refused, peak) = peak_of(|| {
            (Manifest::parse(manifest.as_bytes()).is_ok(), Index::parse(index.as_bytes()).is_ok())
        });
        assert!(peak <= 10 * MIB, "{what}: {peak}");
    }
}

/// `index.json` of a stick.
#[test]
fn names_of_a_layout_take_what_they_need() {
    let limit = 8 * MIB;
    let named = |i: usize, more: &str| {
        let name = format!(r#""org.opencontainers.image.ref.name":"{i:x}"{more}"#);
        format!(
            r#"{{"mediaType":"","digest":"sha256:{i:064x}","size":0,"annotations":{{{name}}}}}"#
        )
    };
    let frame = |list: String| format!(r#"{{"schemaVersion":2,"manifests":{list}}}"#);
    let rows = [
        ("names", frame(shapes::list(limit - 100, |i| named(i, "")))),
        ("names beside others", frame(shapes::list(limit - 100, |i| named(i, r#","":"","a":"""#)))),
        (
            "nothing named",
            frame(shapes::list(limit - 100, |i| {
                format!(r#"{{"mediaType":"","digest":"sha256:{i:064x}","size":0}}"#)
            })),
        ),
    ];
    for (what, text) in rows {
        let (read, peak) = peak_of(|| NamedManifest::parse_layout(text.as_bytes()).unwrap().len());
        println!("{what}: {read} kept, {:.1} MiB", peak as f64 / MIB as f64);
        assert!(peak <= 10 * MIB, "{what}: {peak}");
    }
}

/// What a role may sign when its keys are a thief's: any shape, where the specification lets anything
/// stand.
#[test]
fn signed_metadata_of_any_shape_is_read_in_bounded_memory() {
    let limits = Limits::default();
    let head = |kind: &str| {
        format!(
            r#""_type":"{kind}","spec_version":"1.0.0","version":1,"expires":"2030-01-01T00:00:00Z""#
        )
    };
    let hashes = format!(r#""hashes":{{"sha256":"{}"}},"length":0"#, "0a".repeat(32));
    let targets = head("targets");
    let rows = [
        (
            limits.targets_len,
            format!(r#"{{{targets},"targets":{{"a":{{{hashes},"custom":{{}}}}}}}}"#),
        ),
        (
            limits.targets_len,
            format!(r#"{{{targets},"targets":{{}},"delegations":{{"keys":{{}},"roles":{{}}}}}}"#),
        ),
        (limits.snapshot_len, format!(r#"{{{},"meta":{{}}}}"#, head("snapshot"))),
        (limits.root_len, format!(r#"{{{},"keys":{{}},"roles":{{}}}}"#, head("root"))),
    ];
    // `{}` in these frames is an object of its own; the last one is where the shape goes.
    for (limit, frame) in rows {
        let limit = usize::try_from(limit).unwrap();
        let at = frame.rfind("{}").expect("a place");
        let frame = format!(
            r#"{{"signatures":[],"signed":{}{{}}{}}}"#,
            frame[..at].replace("{}", "{ }"),
            &frame[at + 2..]
        );
        each_below("signed metadata", 16 * MIB, limit, &frame, |bytes| {
            let Ok(envelope) = Envelope::parse(bytes) else { return };
            let signed = envelope.into_signed();
            drop(Targets::parse(&signed));
            drop(Snapshot::parse(&signed));
            drop(Root::parse(&signed));
        });
    }
    // Lists as long as they may be, of what they are for.
    let file = |i: usize| format!(r#""{i:x}":{{"hashes":{{"x":""}},"length":0}}"#);
    let meta = |i: usize| format!(r#""{i:x}":{{"version":1}}"#);
    for part in [1, 2, 3, 4, 6] {
        let of = |limit: u64| usize::try_from(limit / part).unwrap() - 400;
        let targets = format!(
            r#"{{"signatures":[],"signed":{{{},"targets":{}}}}}"#,
            head("targets"),
            shapes::members(of(limits.targets_len), file)
        );
        let snapshot = format!(
            r#"{{"signatures":[],"signed":{{{},"meta":{}}}}}"#,
            head("snapshot"),
            shapes::members(of(limits.snapshot_len), meta)
        );
        for text in [targets, snapshot] {
            let ((), peak) = peak_of(|| {
                let Ok(envelope) = Envelope::parse(text.as_bytes()) else { return };
                let signed = envelope.into_signed();
                let _read = (Targets::parse(&signed).is_ok(), Snapshot::parse(&signed).is_ok());
            });
            assert!(peak <= 16 * MIB, "{} bytes: {peak}", text.len());
        }
    }
}

/// An envelope whose signatures are a shape: looked at before anybody has signed anything.
#[test]
fn signatures_of_any_shape_are_read_in_bounded_memory() {
    let limit = usize::try_from(Limits::default().root_len).unwrap();
    for frame in [r#"{"signatures":{},"signed":{ }}"#, r#"{"signed":{"x":{}},"signatures":[]}"#] {
        each_below("unsigned root", 12 * MIB, limit, frame, |bytes| drop(Envelope::parse(bytes)));
    }
}

/// A tar on a stick: as many entries as it may have.
#[test]
fn a_tar_of_many_blobs_is_opened_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.tar");
    let mut bytes = Vec::new();
    let mut put = |name: &str, content: &[u8]| {
        let header = Header { name: name.to_owned(), kind: Kind::File, size: content.len() as u64 };
        bytes.extend_from_slice(&header.to_block().unwrap());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    };
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    put("index.json", br#"{"schemaVersion":2,"manifests":[]}"#);
    for i in 2..ENTRY_LIMIT {
        put(&format!("blobs/sha256/{i:064x}"), b"");
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    std::fs::write(&path, &bytes).unwrap();
    drop(bytes);
    let (archive, peak) = peak_of(|| Archive::open(&path).unwrap());
    assert!(peak <= 12 * MIB, "{peak}");
    drop(archive);
}
