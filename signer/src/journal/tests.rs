use std::fs::File;

use formats::digest::Sha256;
use formats::json::Value;
use formats::reason::Reason;
use formats::tuf::{Header, KeyId, Keys, Role, RoleKeys, Root, TopLevelKeys, UnixTime};

use super::file::{LIMIT, append};
use super::{Event, JOURNAL_FILE, Journal};
use crate::state::Identity;

/// A root of some repository, without the id that newer ones carry.
fn root() -> Root {
    let keys = || RoleKeys::new(1, []);
    let (root, timestamp, snapshot, targets) = (keys(), keys(), keys(), keys());
    let roles = TopLevelKeys { root, timestamp, snapshot, targets };
    Root::new(Header::new(1, UnixTime::EPOCH), Keys::new(), roles)
}

fn repository() -> Identity {
    Identity::new(Sha256::of(b"root 1"), &root())
}

fn event(version: u64) -> Event {
    let digest = Sha256::of(&version.to_be_bytes());
    let keyid = KeyId(Sha256::of(b"key"));
    let payload = (&Role::Targets, version, &digest);
    Event::signed(&repository(), payload, &keyid, "sign", "publish demo/1", UnixTime::EPOCH)
}

#[test]
fn case_198_lines_are_chained_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    let mut journal = Journal::open(&path).unwrap();
    journal.record(&[event(1), event(2)]).unwrap();
    journal.record(&[event(3)]).unwrap();
    let again = Journal::open(&path).unwrap();
    assert_eq!(again.memory, journal.memory);
    assert_eq!(again.events().unwrap(), [event(1), event(2), event(3)]);

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (name, changed) in [
        ("a line is gone", format!("{}\n{}\n", lines[0], lines[2])),
        ("the first line is gone", format!("{}\n{}\n", lines[1], lines[2])),
        ("two are exchanged", format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2])),
        ("a word changed", text.replacen("demo/1", "demo/2", 1)),
        ("not JSON", format!("{text}hello\n")),
    ] {
        std::fs::write(&path, changed).unwrap();
        let error = Journal::open(&path).map(drop).expect_err(name);
        assert_eq!(error.reason(), Reason::StoreCorrupt, "{name}");
    }
}

#[test]
fn a_line_that_a_power_cut_left_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    let mut journal = Journal::open(&path).unwrap();
    journal.record(&[event(1), event(2)]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in first..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.events().unwrap().len(), 1, "cut at {cut}");
        journal.record(&[event(2)]).unwrap();
        assert!(std::fs::read(&path).unwrap() == whole, "cut at {cut}");
    }
}

/// Two at once read the log before either wrote to it: the second one's signature does not leave.
#[test]
fn case_189_of_two_at_once_with_other_contents_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    let (mut one, mut two) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
    one.record(&[event(5)]).unwrap();
    let mut other = event(5);
    other.members.insert("digest".to_owned(), Value::from(Sha256::of(b"other").to_hex()));
    let refused = two.record(&[other]).unwrap_err();
    assert_eq!(refused.reason(), Reason::VersionRollback, "{refused}");
    two.record(&[event(5), event(6)]).unwrap();
    assert_eq!(Journal::open(&path).unwrap().events().unwrap().len(), 3);
}

#[test]
fn a_log_that_is_too_long_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    Journal::open(&path).unwrap().record(&[event(1)]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(LIMIT + 1).unwrap();
    let refused = append(&path, &[event(2)]).unwrap_err();
    assert_eq!(refused.reason(), Reason::StoreIo, "{refused}");
    assert_eq!(file.metadata().unwrap().len(), LIMIT + 1, "nothing was cut off");
}

#[test]
fn case_189_a_version_is_signed_with_one_content() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&dir.path().join(JOURNAL_FILE)).unwrap();
    journal.record(&[event(5)]).unwrap();
    let same = Sha256::of(&5u64.to_be_bytes());
    let other = Sha256::of(b"other");
    let check = |journal: &Journal, digest| {
        journal.check_signing(&repository(), &Role::Targets, 5, digest).map_err(|e| e.reason())
    };
    assert_eq!(check(&journal, &same), Ok(()));
    assert_eq!(check(&journal, &other), Err(Reason::VersionRollback));
    let payload = (&Role::Targets, 5, &same);
    journal.record(&[Event::abandoned(&repository(), payload, UnixTime::EPOCH)]).unwrap();
    assert_eq!(check(&journal, &other), Ok(()));
}

/// A line about a published state, with a label as some version of this program wrote it.
fn published(label: &str, newest: &str, timestamp: i64, restart: bool) -> Event {
    let hex = |text: &str| Value::from(Sha256::of(text.as_bytes()).to_hex());
    let digests = Value::object([("root", hex(newest)), ("timestamp", hex("t"))]);
    let versions = Value::object([("root", Value::Int(1)), ("timestamp", Value::Int(timestamp))]);
    Event {
        members: [
            ("event", Value::from("published")),
            ("root", hex(label)),
            ("repository", Value::from("oci:repo")),
            ("versions", versions),
            ("digests", digests),
            ("restart", Value::Bool(restart)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into(),
    }
}

#[test]
fn a_repository_is_recognized_by_its_verified_roots() {
    let of = |text: &str| Sha256::of(text.as_bytes());
    let trusting = |root_payload: &str| Identity::new(of(root_payload), &root());
    let older = published("root 1", "root 2", 50, false);
    let rows = [
        ("its first root is trusted", vec![older.clone()], trusting("root 1"), Some(50)),
        ("its newest root is trusted", vec![older.clone()], trusting("root 2"), Some(50)),
        (
            "its newest root is verified",
            vec![older.clone()],
            trusting("root 0").with_root(of("root 2"), &root()),
            Some(50),
        ),
        (
            "only its first root is served",
            vec![older.clone()],
            serving("root 3", "root 1"),
            Some(50),
        ),
        ("another repository", vec![older.clone()], trusting("root 9"), None),
        (
            "a later line joins two labels",
            vec![older.clone(), published("id", "root 2", 51, false)],
            trusting("id"),
            Some(51),
        ),
        (
            "what is known under verified roots wins over a root that is only served",
            vec![older.clone(), published("id", "root 3", 31, true)],
            serving("id", "root 1"),
            Some(31),
        ),
    ];
    for (row, lines, identity, expected) in rows {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join(JOURNAL_FILE)).unwrap();
        journal.record(&lines).unwrap();
        let known = journal.published_version("oci:repo", &identity, &Role::Timestamp);
        assert_eq!(known, expected, "{row}");
        let elsewhere = journal.published_version("oci:copy", &identity, &Role::Timestamp);
        assert_eq!(elsewhere, None, "{row}, under another name");
    }
}

/// A repository of that trust root whose registry serves another root first.
fn serving(trusted: &str, first: &str) -> Identity {
    let of = |text: &str| Sha256::of(text.as_bytes());
    Identity::new(of(trusted), &root()).serving_first(of(first))
}
