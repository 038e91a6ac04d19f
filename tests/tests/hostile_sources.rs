//! Sources that attack the program and not the trust: what they make it hold, how they end it, and what
//! they write into its log. The real `update-agent`, against mirrors and sticks of every bad kind.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use formats::digest::Digest;
use formats::oci::{Descriptor, Manifest, annotation, media_type};
use formats::reason::{Exit, Reason};
use racklet_tests::forge_registry::{Answer, Content, Registry};
use racklet_tests::rig::{Node, Running, World};

/// What any document of a source may take above what the agent takes without one.
const BOUND: u64 = 24 << 20;

/// A node that runs 1.0.0 and is offered 1.1.0 by the world's directory.
fn offered() -> (World, Node) {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    (world, node)
}

/// The configuration's sources from now on.
fn ask(node: &Node, world: &World, sources: &[String]) {
    let honest = format!("[[source]]\nurl = {:?}\n", world.repository().reference());
    let mut text = String::new();
    for source in sources {
        let plain = if source.starts_with("docker:") { "plain_http = true\n" } else { "" };
        write!(text, "[[source]]\nurl = {source:?}\n{plain}\n").expect("a text takes all");
    }
    node.reconfigure(&honest, &text);
}

fn at(registry: &Registry) -> String {
    format!("docker://{}/ns", registry.authority())
}

/// A mirror that takes every request and answers none.
fn silent() -> Registry {
    Registry::start(Content::default(), |_, _| Answer::Stall)
}

/// Waits until a registry was asked for something.
#[track_caller]
fn await_request(registry: &Registry, running: &mut Running) {
    let until = Instant::now() + Duration::from_secs(120);
    while registry.seen().is_empty() {
        assert!(running.is_running(), "it ended:\n{}", running.log());
        assert!(Instant::now() < until, "it never asked:\n{}", running.log());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The most memory the program had, in bytes, when it has done with `first` and asks the next source.
#[track_caller]
fn peak(node: &Node, world: &World, first: &str) -> u64 {
    let next = silent();
    let config = fs::read_to_string(node.config()).expect("read the configuration");
    ask(node, world, &[first.to_owned(), at(&next)]);
    let mut running = node.agent_in_words(&["check"]).start();
    await_request(&next, &mut running);
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).expect("it runs");
    running.kill();
    fs::write(node.config(), config).expect("write the configuration");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

fn padded(
    what: &str,
    open: &str,
    item: impl Fn(usize) -> String,
    close: &str,
    len: usize,
) -> Vec<u8> {
    let mut text = open.to_owned();
    for i in 0.. {
        let next = item(i);
        if text.len() + next.len() + close.len() + 1 > len {
            break;
        }
        if i > 0 {
            text.push(',');
        }
        text.push_str(&next);
    }
    text.push_str(close);
    assert!(text.len() > len / 2, "{what} is large");
    text.into_bytes()
}

/// A state manifest of `head`, and as many annotations as it may have.
fn annotated_state(head: &str) -> Vec<u8> {
    let empty = serde_json::to_string(&Descriptor::empty()).expect("a descriptor is JSON");
    let open =
        format!(r#"{{"schemaVersion":2,"config":{empty},"layers":[{head}],"annotations":{{"#);
    padded("a state", &open, |i| format!(r#""{i:x}":"""#), "}}", 4 << 20)
}

#[test]
fn no_document_of_a_source_makes_the_agent_large() {
    let (world, node) = offered();
    // It has seen the honest state: what is stored counts, too.
    let _checked = node.agent(&["check"]).ok();
    let missing = Registry::start(Content::default(), |_, _| Answer::of("404 Not Found", b""));
    let base = peak(&node, &world, &at(&missing));
    println!("nothing there: {:.1} MiB", base as f64 / f64::from(1 << 20));

    let root = padded(
        "a root",
        r#"{"signatures":[],"signed":{"x":["#,
        |_| r#"{"":0}"#.to_owned(),
        "]}}",
        512 << 10,
    );
    let version = |n: usize| {
        serde_json::to_string(
            &Descriptor::of(media_type::TUF_METADATA, &root)
                .annotated(annotation::TUF_FILENAME, &format!("{n}.root.json")),
        )
        .expect("a descriptor is JSON")
    };
    // Whichever root comes next, it is this one.
    let roots: Vec<String> = (1..8).map(version).collect();
    let roots = roots.join(",");
    let plain_state = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{roots}]}}"#,
        serde_json::to_string(&Descriptor::empty()).expect("a descriptor is JSON")
    )
    .into_bytes();
    let layers = padded(
        "a state",
        r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":["#,
        |i| {
            format!(
                r#"{{"mediaType":"x","digest":"sha256:{i:064x}","size":0,"annotations":{{"":""}}}}"#
            )
        },
        "]}",
        4 << 20,
    );
    let rows = [
        ("a next root of small objects", plain_state),
        ("a state of annotations", annotated_state("")),
        ("both", annotated_state(&roots)),
        ("a state of layers", layers),
    ];
    for (what, state) in rows {
        let root = root.clone();
        let mirror = Registry::start(Content::default(), move |path, _| {
            Answer::of("200 OK", if path.ends_with("/manifests/latest") { &state } else { &root })
        });
        let peak = peak(&node, &world, &at(&mirror)).saturating_sub(base);
        println!("{what}: {:.1} MiB more", peak as f64 / f64::from(1 << 20));
        assert!(peak <= BOUND, "{what}: {peak} bytes more than without");
    }

    // A stick: an index of 8 MiB.
    let stick = world.path("stick");
    world.repository().copy_to(&stick);
    let names = padded(
        "an index",
        r#"{"schemaVersion":2,"manifests":["#,
        |i| {
            format!(
                r#"{{"mediaType":"x","digest":"sha256:{i:064x}","size":0,"annotations":{{"{}":"x{i:x}"}}}}"#,
                annotation::REF_NAME
            )
        },
        "]}",
        8 << 20,
    );
    let annotations = padded(
        "an index",
        r#"{"schemaVersion":2,"manifests":[],"annotations":{"#,
        |i| format!(r#""{i:x}":"""#),
        "}}",
        8 << 20,
    );
    for (what, index) in [("an index of names", names), ("an index of annotations", annotations)] {
        fs::write(stick.join("index.json"), index).expect("write the index");
        let peak = peak(&node, &world, &format!("oci:{}", stick.display())).saturating_sub(base);
        println!("{what}: {:.1} MiB more", peak as f64 / f64::from(1 << 20));
        assert!(peak <= BOUND, "{what}: {peak} bytes more than without");
    }
}

#[test]
fn a_source_that_ended_the_agent_costs_itself_and_not_the_node() {
    let (world, node) = offered();
    let mirror = silent();
    ask(&node, &world, &[at(&mirror), world.repository().reference()]);
    // Killed, as for want of memory, while the mirror is asked.
    let mut running = node.agent_in_words(&["check"]).start();
    await_request(&mirror, &mut running);
    running.kill();
    let asked = mirror.seen().len();
    // The honest one is asked, and the mirror is not even contacted.
    let report = node.update(&[], "b");
    assert_eq!(report["version"], "1.1.0", "{report}");
    assert_eq!(mirror.seen().len(), asked, "{:?}", mirror.seen());
}

/// Two states of one directory under names that would write lines of their own.
fn forging_names(world: &World, dir: &Path) {
    let repository = world.repository().copy_to(dir);
    let state =
        fs::read(repository.blob(&repository.tagged("tuf:latest"))).expect("read the state");
    let manifest = Manifest::parse(&state).expect("a manifest");
    let other = [&manifest.to_bytes()[..], b"\n"].concat();
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256_of(bytes);
        fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).expect("write a state");
        Descriptor::of(media_type::MANIFEST, bytes)
    };
    let names = [
        "a\u{1b}[2K\r INFO slot b is confirmed\n INFO slot b is confirmed/tuf:latest",
        "b\u{9b}2K\u{2028}\n  ok trust\u{202e}/tuf:latest",
    ];
    let entries: Vec<Descriptor> = [&state[..], &other[..]]
        .iter()
        .zip(names)
        .map(|(bytes, name)| put(bytes).annotated(annotation::REF_NAME, name))
        .collect();
    let index = formats::oci::Index::new(None, entries);
    fs::write(dir.join("index.json"), index.to_bytes()).expect("write the index");
}

/// Requires that every line begins as our lines do, and that nothing in it steers a terminal.
#[track_caller]
fn only_our_lines(stderr: &str) {
    const BEGIN: [&str; 6] = [" INFO ", " WARN ", "ERROR ", "error[", "  ", "warning: "];
    assert!(!stderr.is_empty(), "it says something");
    for line in stderr.lines() {
        assert!(BEGIN.iter().any(|begin| line.starts_with(begin)), "not our line: {line:?}");
        let steers = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}');
        assert!(!line.contains(steers), "{line:?}");
        assert!(!line.contains("  ok trust") || !line.starts_with("  ok"), "{line:?}");
    }
}

#[test]
fn names_from_outside_write_no_line_of_a_log() {
    let (world, node) = offered();
    let stick = world.path("stick");
    forging_names(&world, &stick);
    let reference = format!("oci:{}", stick.display());
    ask(&node, &world, std::slice::from_ref(&reference));
    for args in [&["check"][..], &["run", "--once"], &["apply"]] {
        let done = node.agent_in_words(args).finish();
        assert_eq!(done.code, i32::from(Reason::BundleFormat.exit().code()), "{}", done.stderr);
        only_our_lines(&done.stderr);
        assert!(done.stderr.contains("\\u{1b}[2K"), "it names them: {}", done.stderr);
    }
    let done = world.signer(&["status", &reference]).finish();
    assert_ne!(done.code, i32::from(Exit::Done.code()), "{}", done.stderr);
    only_our_lines(&done.stderr);
}
