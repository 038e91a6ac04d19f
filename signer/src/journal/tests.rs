use std::fs::File;

use formats::digest::Sha256;
use formats::json::Value;
use formats::reason::Reason;
use formats::tuf::{Header, KeyId, Keys, Role, RoleKeys, Root, TopLevelKeys, UnixTime};

use super::file::{End, LIMIT, append};
use super::memory::Memory;
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
fn what_somebody_else_wrote_meanwhile_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    let (mut one, mut two) = (Journal::open(&path).unwrap(), Journal::open(&path).unwrap());
    for version in 1..5 {
        one.record(&[event(2 * version)]).unwrap();
        two.record(&[event(2 * version + 1)]).unwrap();
        let whole = Journal::open(&path).unwrap();
        assert_eq!((&two.memory, &two.end), (&whole.memory, &whole.end));
    }
    assert_eq!(one.events().unwrap().len(), 8);

    // Another log in its place, shorter or longer: it is read from its first line.
    for others in [1, 20] {
        let other = dir.path().join("other.log");
        let mut longer = Journal::open(&other).unwrap();
        (100..100 + others).for_each(|version| longer.record(&[event(version)]).unwrap());
        std::fs::rename(&other, &path).unwrap();
        one.record(&[event(50)]).unwrap();
        let whole = Journal::open(&path).unwrap();
        assert_eq!((&one.memory, &one.end), (&whole.memory, &whole.end), "{others}");
        let refused = one.record(&[Event { members: event(50).members }, of_other(101)]);
        assert_eq!(refused.is_err(), others > 1, "{others}");
    }
}

/// Another content of a version.
fn of_other(version: u64) -> Event {
    let mut other = event(version);
    other.members.insert("digest".to_owned(), Value::from(Sha256::of(b"other").to_hex()));
    other
}

#[test]
fn roles_of_the_history_are_written_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    let mut journal = Journal::open(&path).unwrap();
    let state = |timestamp, of_closed: i64, restart| {
        let mut event = published("label", "root 1", timestamp, restart);
        for role in ["history", "history-1", "history-recent", "history-x"] {
            let version = if role == "history-1" { of_closed } else { 7 };
            let digest = Value::from(Sha256::of(&version.to_be_bytes()).to_hex());
            for (member, value) in [("versions", Value::Int(version)), ("digests", digest)] {
                if let Some(Value::Object(all)) = event.members.get_mut(member) {
                    all.insert(role.to_owned(), value);
                }
            }
        }
        event
    };
    let written = |journal: &Journal| {
        let last = journal.events().unwrap().pop().unwrap();
        let names = last.members.get("versions").unwrap().as_object().unwrap().keys();
        names.cloned().collect::<Vec<_>>()
    };
    let all = ["history", "history-1", "history-recent", "history-x", "root", "timestamp"];
    journal.record(&[state(1, 1, false)]).unwrap();
    assert_eq!(written(&journal), all);
    for (timestamp, of_closed, names) in [
        (2, 1, &["history-x", "root", "timestamp"][..]),
        (3, 2, &["history-1", "history-x", "root", "timestamp"]),
    ] {
        journal.record(&[state(timestamp, of_closed, true)]).unwrap();
        assert_eq!(written(&journal), names);
        assert_eq!(Journal::open(&path).unwrap().memory, journal.memory);
    }
    let mut whole = Memory::default();
    [state(1, 1, false), state(2, 1, true), state(3, 2, true)]
        .iter()
        .for_each(|it| whole.replay(it));
    assert_eq!(journal.memory, whole, "it remembers the same");
}

/// Lines enough for several that sum up the others.
#[test]
fn a_long_log_is_remembered_as_a_whole_from_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    let mut journal = Journal::open(&path).unwrap();
    let mut whole = Memory::default();
    let mut written = Vec::new();
    for round in 0..60 {
        let at = i64::try_from(round).unwrap();
        let mut events = vec![event(2 * round), event(2 * round + 1)];
        events.extend((0..30).map(|n| published("label", "root 1", 30 * at + n, n == 7)));
        if round % 5 == 4 {
            let digest = Sha256::of(&(2 * round).to_be_bytes());
            let payload = (&Role::Targets, 2 * round, &digest);
            events.push(Event::abandoned(&repository(), payload, UnixTime::from_secs(at)));
        }
        journal.record(&events).unwrap();
        events.iter().for_each(|event| whole.replay(event));
        written.extend(events);
        let again = Journal::open(&path).unwrap();
        assert_eq!((&again.memory, &again.end), (&journal.memory, &journal.end), "{round}");
    }
    assert_eq!(journal.memory, whole);
    assert_eq!(journal.events().unwrap(), written, "what is only a sum is no event");
    let text = std::fs::read_to_string(&path).unwrap();
    let sums: Vec<usize> = text.match_indices("{\"event\":\"known\"").map(|(at, _)| at).collect();
    assert!((2..20).contains(&sums.len()), "{}", sums.len());
    // Lines behind the last sum count.
    journal.record(&[event(99_999)]).unwrap();
    assert!(Journal::open(&path).unwrap().record(&[of_other(99_999)]).is_err());
    // What was changed before the last sum is noticed, and so is a sum itself.
    for (name, changed) in [
        ("a word before it", text.replacen("demo/1", "demo/2", 1)),
        ("a line is gone", text.split_once('\n').unwrap().1.to_owned()),
        ("a sum", text.replacen("\"signed\":[[\"targets\",0", "\"signed\":[[\"targets\",7", 1)),
    ] {
        assert!(changed != text, "{name}");
        std::fs::write(&path, changed).unwrap();
        let error = Journal::open(&path).map(drop).expect_err(name);
        assert_eq!(error.reason(), Reason::StoreCorrupt, "{name}");
    }
}

#[test]
fn a_log_that_is_too_long_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL_FILE);
    Journal::open(&path).unwrap().record(&[event(1)]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(LIMIT + 1).unwrap();
    let nothing = (&Memory::default(), &End::default());
    let refused = append(&path, &[event(2)], nothing).unwrap_err();
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
