//! The state outlives the program: an agent goes on with what a newer one has written.
//!
//! The records of a node are changed as a newer agent could have written them, mechanically: every object
//! gets a member that nobody knows, every text becomes one that nobody knows, one after the other, and
//! every record gets a later format version. With each of them every command is run, by the program itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use formats::digest::Sha256;
use formats::record::Record;
use racklet_tests::rig::{Done, Node, World};
use serde_json::{Value, json};

/// In everything that this version does not know.
const MARK: &str = "of_a_newer_agent";
/// Commands that change no record beyond what they learn.
const ASKS: [&[&str]; 6] =
    [&["status"], &["history"], &["doctor"], &["check"], &["plan"], &["verify"]];

/// The disk, and what tells which of its slots runs.
const OF_THE_BOOT: [&str; 3] = ["disk.img", "cmdline", "boot_id"];

struct Kept<'a> {
    node: &'a Node,
    saved: PathBuf,
}

impl<'a> Kept<'a> {
    fn of(world: &World, node: &'a Node) -> Self {
        let saved = world.path("saved");
        fs::create_dir(&saved).expect("make a folder");
        let kept = Kept { node, saved };
        copy(&kept.node.state(), &kept.saved);
        for file in OF_THE_BOOT {
            copy(&kept.node.path(file), &kept.saved);
        }
        kept
    }

    /// The node as it was, but for one record.
    fn restored(&self, name: &str, bytes: &[u8]) {
        fs::remove_dir_all(self.node.state()).expect("remove the state");
        copy(&self.saved.join("state"), &self.node.path("."));
        for file in OF_THE_BOOT {
            copy(&self.saved.join(file), &self.node.path("."));
        }
        for nth in [0, 1] {
            fs::write(self.node.state().join(format!("{name}.{nth}")), bytes).expect("write");
        }
    }

    fn record(&self, name: &str) -> Option<Record> {
        let bytes = fs::read(self.saved.join(format!("state/{name}.0"))).ok()?;
        Some(Record::parse(&bytes).expect("a whole record"))
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "copy {}", from.display());
}

/// Every place in a document; of a list the first and the last element.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                places(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(elements) => {
            for (nth, element) in elements.iter().enumerate() {
                if nth == 0 || nth + 1 == elements.len() {
                    places(element, &format!("{at}/{nth}"), found);
                }
            }
        }
        _ => {}
    }
}

/// The document with an unknown member in every object, at every depth.
fn with_members(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for member in members.values_mut() {
                *member = with_members(member.take());
            }
            members.insert(MARK.to_owned(), json!([{ "quorum": 3 }, "text", 2.5]));
        }
        Value::Array(elements) => {
            for element in elements {
                *element = with_members(element.take());
            }
        }
        _ => {}
    }
    value
}

/// One document for each text, with an unknown one in its place.
fn with_values(value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    places(value, "", &mut found);
    let changed = |place: String| {
        let mut other = value.clone();
        let text = other.pointer_mut(&place).filter(|value| value.is_string())?;
        *text = Value::from(MARK);
        Some((place, other))
    };
    found.into_iter().filter_map(changed).collect()
}

fn sealed(like: &Record, value: &Value) -> Vec<u8> {
    let payload = serde_json::to_vec(value).expect("JSON");
    Record { payload, ..like.clone() }.to_bytes().expect("a small record")
}

/// A later format version: its number and its checksum are all that this version knows of it.
fn of_later_version(like: &Record) -> Vec<u8> {
    let mut bytes = like.to_bytes().expect("a small record");
    bytes.truncate(bytes.len() - 32);
    bytes[8] = 2;
    bytes.extend_from_slice(&Sha256::of(&bytes).0);
    bytes
}

fn marks(node: &Node, name: &str) -> usize {
    let text = fs::read(node.state().join(format!("{name}.0"))).unwrap_or_default();
    String::from_utf8_lossy(&text).matches(MARK).count()
}

#[track_caller]
fn goes_on(done: &Done, what: &str) {
    assert!(done.code >= 0, "{what}: `{}` was ended\n{}", done.shown, done.output());
    for code in ["store_corrupt", "store_newer"] {
        let said = done.stderr.contains(&format!("error[{code}]"));
        assert!(!said, "{what}: `{}`\n{}", done.shown, done.output());
    }
}

/// Some confirmed slot boots, whatever was done.
#[track_caller]
fn boots_a_confirmed_slot(node: &Node, what: &str) {
    let ends = (0..8).any(|_| {
        let slot = node.boot();
        node.disk.flags(&format!("root-{slot}")).successful
    });
    assert!(ends, "{what}: no confirmed slot boots");
}

/// Records of JSON with everything that a newer agent could have put into them.
fn every_variant(it: &Kept<'_>, names: &[&str], ends: &[&[&str]]) -> usize {
    let mut variants = 0;
    for name in names {
        let Some(record) = it.record(name) else { continue };
        let value: Value = serde_json::from_slice(&record.payload).expect("a record of JSON");
        let members = ("every object".to_owned(), with_members(value.clone()));
        // What only informs, and cannot be read for one unknown value, is replaced whole.
        let kept = !["report", "noted"].contains(name);
        for (place, value) in std::iter::once(members).chain(with_values(&value)) {
            let what = format!("{name}{place}");
            variants += 1;
            it.restored(name, &sealed(&record, &value));
            let before = marks(it.node, name);
            assert!(before > 0, "{what}");
            let all = place == "every object";
            for ask in ASKS.iter().filter(|ask| all || ["status", "check"].contains(&ask[0])) {
                goes_on(&it.node.agent(ask).finish(), &what);
                if kept || all {
                    // An offer and an error are replaced whole when they are others.
                    let left = marks(it.node, name);
                    assert!(left == before || (!kept && left > 0), "{what}: {ask:?}");
                }
            }
            if *name != "boot-record" && !all {
                continue;
            }
            for end in ends {
                it.restored(name, &sealed(&record, &value));
                goes_on(&it.node.agent(end).finish(), &what);
                boots_a_confirmed_slot(it.node, &format!("{what}, after {end:?}"));
            }
        }
    }
    variants
}

const JSON: [&str; 11] = [
    "boot-record",
    "history",
    "report",
    "floor",
    "journal",
    "noted",
    "probation",
    "asking",
    "delayed",
    "owed",
    "restart",
];

/// A node that runs 1.2.0, has 1.1.0 as its fallback, and is offered 1.3.0.
fn idle(world: &World) -> Node {
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(world, "node", &v1, &world.repository().reference());
    world.publish_stable("1.1.0", 2);
    node.update(&[], "b");
    world.publish_stable("1.2.0", 3);
    node.apply(&[]);
    let _given_up = node.agent(&["revert", "--reason", "by hand"]).ok();
    world.publish_stable("1.3.0", 4);
    let _news = node.agent(&["check"]).finish();
    node
}

#[test]
fn a_node_at_rest_goes_on_with_everything_a_newer_agent_wrote() {
    let world = World::with_repository();
    let node = idle(&world);
    let it = Kept::of(&world, &node);
    let ends: [&[&str]; 4] = [&["apply"], &["revert"], &["reset", "--yes"], &["run", "--once"]];
    let variants = every_variant(&it, &JSON, &ends);
    assert!(variants > 40, "{variants}");
}

#[test]
fn a_trial_ends_whatever_a_newer_agent_wrote() {
    let world = World::with_repository();
    let node = Node::with_next(&world);
    assert_eq!(node.boot(), "b");
    let it = Kept::of(&world, &node);
    let ends: [&[&str]; 3] = [&["run", "--once"], &["confirm"], &["revert"]];
    let variants = every_variant(&it, &["boot-record"], &ends);
    assert!(variants > 10, "{variants}");
}

/// What this version does not know is shown as such, and still there afterwards.
#[test]
fn unknown_reasons_and_phases_are_shown_and_kept() {
    let world = World::with_repository();
    let node = idle(&world);
    let it = Kept::of(&world, &node);
    let record = it.record("boot-record").expect("a boot record");
    let mut value: Value = serde_json::from_slice(&record.payload).expect("JSON");
    value["failures"][0]["reason"] = "clock_skewed".into();
    let release = value["failures"][0]["release"].clone();
    value["update"] = json!({ "slot": "a", "release": release, "phase": "drained", "by": 7 });
    it.restored("boot-record", &sealed(&record, &value));
    let said = node.agent_in_words(&["status"]).ok().text();
    assert!(said.contains("clock_skewed (not known to this version)"), "{said}");
    assert!(said.contains("phase \"drained\" is not known to this version"), "{said}");
    assert!(said.contains("boot-record: update.by: not known to this version"), "{said}");
    let doctor = node.agent_in_words(&["doctor"]).finish().text();
    assert!(doctor.contains("boot-record: update.by"), "{doctor}");
    let _checked = node.agent(&["check"]).finish();
    let status = node.status();
    assert_eq!(status["failures"][0]["reason"], "clock_skewed", "{status}");
    assert_eq!(status["pending"]["phase"], "drained", "{status}");
}

/// A later format version: the newest copy is not skipped for an older one, nothing is written over it,
/// and what only informs ends no command.
#[test]
fn a_later_format_version_is_neither_skipped_nor_lost() {
    let world = World::with_repository();
    let node = idle(&world);
    let it = Kept::of(&world, &node);
    // Record, the commands that it stops. `doctor` names it.
    let deciding: &[&str] = &["check", "plan", "apply", "confirm", "run", "reset"];
    let trusting: &[&str] = &["check", "plan", "apply", "run"];
    let rows: [(&str, &[&str]); 5] = [
        ("boot-record", deciding),
        ("floor", &["check", "plan", "apply", "run"]),
        ("trust", trusting),
        ("history", &[]),
        ("report", &[]),
    ];
    let commands: [&[&str]; 9] = [
        &["status"],
        &["doctor"],
        &["check"],
        &["plan"],
        &["apply"],
        &["confirm"],
        &["revert"],
        &["run", "--once"],
        &["reset", "--yes"],
    ];
    for (name, stops) in rows {
        let Some(record) = it.record(name) else { continue };
        let later = of_later_version(&Record { sequence: record.sequence + 1, ..record });
        // Both copies, and one whose other half was cut.
        for copies in [2, 1] {
            for command in commands {
                let what = format!("{copies} copies of {name}, {command:?}");
                it.restored(name, &later);
                let file = node.state().join(format!("{name}.1"));
                if copies == 1 {
                    let old = it.saved.join(format!("state/{name}.1"));
                    let _ = fs::copy(old, &file).expect("the copy of before");
                }
                let second = fs::read(&file).expect("read");
                let done = node.agent(command).finish();
                let stopped = done.stderr.contains("error[store_newer]");
                let may_stop = name != "history" && name != "report" && command != ["status"];
                assert!(!done.stderr.contains("error[store_corrupt]"), "{what}\n{}", done.output());
                assert!(may_stop || !stopped, "{what}\n{}", done.output());
                if stops.contains(&command[0]) {
                    assert!(stopped, "{what}\n{}", done.output());
                }
                let forgotten = command[0] == "reset" && ["trust", "report"].contains(&name);
                if !forgotten {
                    let first = fs::read(node.state().join(format!("{name}.0"))).expect("read");
                    assert_eq!(first, later, "{what}");
                    assert_eq!(fs::read(&file).expect("read"), second, "{what}");
                }
                boots_a_confirmed_slot(&node, &what);
            }
        }
    }
}

#[test]
fn a_revert_needs_no_record() {
    let world = World::with_repository();
    let node = Node::with_next(&world);
    assert_eq!(node.boot(), "b");
    let it = Kept::of(&world, &node);
    let record = it.record("boot-record").expect("a boot record");
    it.restored("boot-record", &of_later_version(&record));
    let done = node.agent(&["revert"]).ok().json();
    assert_eq!((&done["given_up"], &done["reboot"]), (&"b".into(), &true.into()), "{done}");
    assert_eq!(node.boot(), "a");
    let said = node.agent_in_words(&["status"]).ok().text();
    assert!(said.contains("boot-record: not known to this version, kept as it is"), "{said}");
}

#[test]
fn records_and_files_of_another_kind_are_not_touched() {
    let world = World::with_repository();
    let node = idle(&world);
    let files =
        [("mirrors.0", &b"racklet\0 of another kind"[..]), ("mirrors.1", b"x"), ("later", b"y")];
    for (name, bytes) in files {
        fs::write(node.state().join(name), bytes).expect("write");
    }
    node.apply(&[]);
    let _reverted = node.agent(&["revert"]).ok();
    let _reset = node.agent(&["reset", "--yes"]).ok();
    for (name, bytes) in files {
        assert_eq!(fs::read(node.state().join(name)).expect("read"), bytes, "{name}");
    }
}
