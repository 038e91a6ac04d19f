//! People who sign: thresholds, files that travel, refusals, rotations, recovery, memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;

use std::collections::BTreeMap;

use formats::tuf::{Envelope, Metadata, Role, Root, Targets};
use program::Program;
use serde_json::Value;
use signer::repository::{Access, ClientOptions, open};
use signer::state::State;

/// A repository `oci:repo` whose online keys are in `keys`, and whose people have a folder each,
/// with their key and the trust root.
struct Team {
    signer: Program,
}

impl Team {
    /// Root: `people` keys, 2 of them; targets: the same number of other keys, `threshold`.
    fn new(people: usize, threshold: usize) -> Self {
        let team = Team { signer: Program::new() };
        let signer = &team.signer;
        let (mut roots, mut targets) = (Vec::new(), Vec::new());
        for n in 0..people {
            for (role, all) in [("r", &mut roots), ("t", &mut targets)] {
                signer.json(&["key", "new", "--out", &format!("{role}{n}/key")], 0);
                all.push(format!("{role}{n}/key.pub"));
            }
        }
        let (roots, targets) = (roots.join(","), targets.join(","));
        let threshold = threshold.to_string();
        let init = ["init", "--repo", "oci:repo", "--keys", "keys", "--root-keys", &roots];
        let more = ["--root-threshold", "2", "--targets-keys", &targets];
        signer.json(&[&init[..], &more, &["--targets-threshold", &threshold]].concat(), 0);
        for n in 0..people {
            for role in ["r", "t"] {
                let to = signer.path(&format!("{role}{n}/root.json"));
                std::fs::copy(signer.path("keys/root.json"), to).unwrap();
            }
        }
        std::fs::write(signer.path("os.img"), b"an operating system\0".repeat(1000)).unwrap();
        team
    }

    #[track_caller]
    fn stage(&self, file: &str, change: &[&str]) -> Value {
        let head = ["stage", "--out", file];
        let tail = ["--repo", "oci:repo", "--keys", "keys"];
        self.signer.json(&[&head[..], change, &tail].concat(), 0)
    }

    #[track_caller]
    fn sign(&self, file: &str, person: &str, code: i32) -> Value {
        self.signer.json(&["sign", file, "--keys", person], code)
    }

    #[track_caller]
    fn commit(&self, files: &[&str], code: i32) -> Value {
        let tail = ["--repo", "oci:repo", "--keys", "keys"];
        self.signer.json(&[&["commit"], files, &tail].concat(), code)
    }

    /// Stages, lets people sign, commits.
    #[track_caller]
    fn change(&self, change: &[&str], people: &[&str]) -> Value {
        let _ = std::fs::remove_file(self.signer.path("change.json"));
        self.stage("change.json", change);
        for person in people {
            self.sign("change.json", person, 0);
        }
        self.commit(&["change.json"], 0)
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let reference = format!("oci:{}", self.signer.path("repo").display()).parse().unwrap();
        let registry = open(&reference, Access::Read, &ClientOptions::default()).unwrap();
        signer::published::fetch(registry.as_ref()).unwrap().unwrap().files
    }

    fn state(&self) -> State {
        State::verify(&self.files(), None).unwrap()
    }

    fn publish(&self, version: &str) -> Vec<String> {
        ["publish", "--product", "demo", "--version", version, "--component", "os=os.img,hw=cu-v1"]
            .map(str::to_owned)
            .to_vec()
    }

    fn copy_repo(&self, from: &str, to: &str) {
        let _ = std::fs::remove_dir_all(self.signer.path(to));
        copy_tree(&self.signer.path(from), &self.signer.path(to));
    }
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

#[test]
fn case_186_three_of_five_any_subset_any_order() {
    let team = Team::new(5, 3);
    let staged = team.stage("change.json", &words(&team.publish("1.0.0")));
    assert_eq!(staged["ready"], false);
    assert_eq!(staged["signatures"][0]["threshold"], 3);
    team.copy_repo("repo", "pristine");
    let mut signed: BTreeMap<Vec<usize>, Vec<u8>> = BTreeMap::new();
    let mut payload = None;
    let subsets = [
        vec![0, 1, 2],
        vec![2, 0, 1],
        vec![4, 3, 2],
        vec![2, 3, 4],
        vec![1, 3, 0],
        vec![0, 1, 2, 3, 4],
    ];
    for subset in subsets {
        team.copy_repo("pristine", "repo");
        std::fs::remove_file(team.signer.path("keys/signer.log")).unwrap();
        // Everybody signs a copy of their own, without a network.
        let mut copies = Vec::new();
        for n in &subset {
            let copy = format!("copy{n}.json");
            std::fs::copy(team.signer.path("change.json"), team.signer.path(&copy)).unwrap();
            let shown = team.sign(&copy, &format!("t{n}"), 0);
            assert_eq!(shown["signed_now"].as_array().unwrap().len(), 1);
            copies.push(copy);
        }
        let copies: Vec<&str> = copies.iter().map(String::as_str).collect();
        let refused = team.commit(&copies[..2], 10);
        assert_eq!(refused["code"], "sig_threshold", "2 of 5: {refused}");
        team.commit(&copies, 0);
        let bytes = team.files()["2.targets.json"].clone();
        let body = Envelope::parse(&bytes).unwrap().canonical().to_vec();
        assert_eq!(*payload.get_or_insert(body.clone()), body, "{subset:?}");
        let mut sorted = subset.clone();
        sorted.sort_unstable();
        assert_eq!(*signed.entry(sorted).or_insert(bytes.clone()), bytes, "{subset:?}");
    }
    team.signer.json(&["verify", "oci:repo", "--root", "keys/root.json"], 0);
}

#[test]
fn what_is_shown_is_what_is_signed_and_everybody_may_refuse() {
    let team = Team::new(2, 2);
    team.stage("change.json", &words(&team.publish("1.0.0")));
    // The days that are left may be one fewer a second later.
    let sections = |shown: &Value| {
        let mut sections = shown["sections"].clone();
        for section in sections.as_array_mut().unwrap() {
            section.as_object_mut().unwrap().remove("days").unwrap();
        }
        sections
    };
    let status = team.signer.json(&["status", "change.json", "--root", "keys/root.json"], 0);
    let section = &status["sections"][0];
    assert_eq!((&section["role"], &section["version"]), (&"targets".into(), &2.into()));
    let lines = section["changes"].to_string();
    assert!(lines.contains("+ release demo/1.0.0, security version 1"), "{lines}");
    assert!(lines.contains("os of 20000 bytes for cu-v1"), "{lines}");

    let shown = team.sign("change.json", "t0", 0);
    assert_eq!(sections(&shown), sections(&status));
    let waiting = shown["signatures"][0]["waiting"].as_array().unwrap();
    assert_eq!(waiting.len(), 1, "who has not signed is said: {shown}");
    // Somebody who counts nothing here.
    let refused = team.sign("change.json", "r0", 10);
    assert_eq!(refused["code"], "sig_threshold", "{refused}");
    // `--key` alone: nothing else of the folder signs.
    let only = ["sign", "change.json", "--key", "t1/key.key", "--keys", "t0", "-o", "two.json"];
    let ready = team.signer.json(&only, 0);
    assert_eq!(ready["ready"], true);
    let again = team.signer.json(&["sign", "two.json", "--keys", "t1"], 0);
    assert_eq!(again["signed_now"].as_array().unwrap().len(), 0);
    team.commit(&["two.json"], 0);
}

#[test]
fn case_191_a_staged_file_that_was_meddled_with_is_refused() {
    let team = Team::new(2, 2);
    team.stage("change.json", &words(&team.publish("1.0.0")));
    let text = std::fs::read_to_string(team.signer.path("change.json")).unwrap();
    let other = Team::new(2, 2);
    other.stage("change.json", &words(&other.publish("1.0.0")));
    let foreign = std::fs::read_to_string(other.signer.path("change.json")).unwrap();
    let size = text.find("\\\"size\\\":").expect("the index has sizes") + 9;
    let mut index = text.clone();
    index.insert(size, '1');
    for (name, changed, code, reason) in [
        ("another index", index, 10, "hash_mismatch"),
        (
            "version jump",
            text.replacen("\"version\":2,", "\"version\":3,", 1),
            12,
            "version_rollback",
        ),
        (
            "version again",
            text.replacen("\"version\":2,", "\"version\":1,", 1),
            12,
            "version_rollback",
        ),
        (
            "base changed",
            text.replacen("\\\"version\\\":1", "\\\"version\\\":9", 1),
            10,
            "sig_threshold",
        ),
        ("somebody else's repository", foreign, 10, "sig_threshold"),
        (
            "unknown member",
            text.replacen("{\"base\"", "{\"also\":1,\"base\"", 1),
            10,
            "meta_format",
        ),
        ("cut", text[..text.len() / 2].to_owned(), 10, "meta_format"),
        ("member twice", text.replacen("{\"base\"", "{\"base\":{},\"base\"", 1), 10, "meta_format"),
    ] {
        assert!(changed != text, "{name}");
        std::fs::write(team.signer.path("bad.json"), changed).unwrap();
        let refused = team.sign("bad.json", "t0", code);
        assert_eq!(refused["code"], reason, "{name}: {refused}");
    }
    // Signatures do not travel to other content.
    team.sign("change.json", "t0", 0);
    team.sign("change.json", "t1", 0);
    let signed = std::fs::read_to_string(team.signer.path("change.json")).unwrap();
    let moved = signed.replacen("2.security", "9.security", 1);
    let moved = if moved == signed { signed.replacen("\"cu-v1\"", "\"cu-v2\"", 1) } else { moved };
    std::fs::write(team.signer.path("bad.json"), &moved).unwrap();
    assert!(moved != signed);
    let ended = team.signer.run(&["commit", "bad.json", "--repo", "oci:repo", "--keys", "keys"]);
    assert_eq!(ended.status.code(), Some(10));
    team.commit(&["change.json"], 0);
}

#[test]
fn case_189_one_version_one_content_and_no_signature_over_what_moved() {
    let team = Team::new(2, 2);
    team.stage("one.json", &words(&team.publish("1.0.0")));
    team.sign("one.json", "t0", 0);
    team.stage("two.json", &words(&team.publish("1.0.1")));
    let refused = team.sign("two.json", "t0", 12);
    assert!(refused["message"].as_str().unwrap().contains("was signed here"), "{refused}");
    team.signer.json(&["log", "--keys", "t0", "abandon", "one.json"], 0);
    team.sign("two.json", "t0", 0);
    team.sign("two.json", "t1", 0);
    // A timestamp that was renewed meanwhile hinders nobody.
    team.signer.json(&["refresh", "--repo", "oci:repo", "--keys", "keys"], 0);
    team.commit(&["two.json"], 0);
    team.sign("one.json", "t1", 12);
    let late = team.commit(&["one.json"], 21);
    assert_eq!(late["code"], "busy", "{late}");

    let log = team.signer.json(&["log", "--keys", "t0"], 0);
    let events: Vec<&str> =
        log["events"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["signed", "seen", "abandoned", "signed", "seen"]);
    let path = team.signer.path("t0/signer.log");
    let text = std::fs::read_to_string(&path).unwrap().replacen("1.0.0", "6.6.6", 1);
    std::fs::write(&path, text).unwrap();
    assert_eq!(team.signer.json(&["log", "--keys", "t0"], 23)["code"], "store_corrupt");
}

#[test]
fn a_registry_that_forgot_is_noticed() {
    let signer = Program::new();
    std::fs::write(signer.path("os.img"), b"x").unwrap();
    let at = ["--repo", "oci:repo", "--keys", "keys"];
    signer.json(&[&["init"], &at[..]].concat(), 0);
    copy_tree(&signer.path("repo"), &signer.path("old"));
    let publish = ["publish", "--product", "demo", "--version", "1.0.0"];
    let publish = [&publish[..], &["--component", "os=os.img,hw=a"], &at].concat();
    signer.json(&publish, 0);
    std::fs::rename(signer.path("repo"), signer.path("new")).unwrap();
    std::fs::rename(signer.path("old"), signer.path("repo")).unwrap();
    for command in [&publish[..], &[&["refresh"], &at[..]].concat()] {
        let refused = signer.json(command, 12);
        assert!(refused["message"].as_str().unwrap().contains("old state"), "{refused}");
    }
    std::fs::rename(signer.path("repo"), signer.path("old")).unwrap();
    std::fs::rename(signer.path("new"), signer.path("repo")).unwrap();
    signer.json(&[&["refresh"], &at[..]].concat(), 0);
}

#[test]
fn who_signed_on_top_of_a_state_is_not_led_back_behind_it() {
    let team = Team::new(2, 1);
    team.stage("old.json", &["renew", "root"]);
    team.change(&words(&team.publish("1.0.0")), &["t0"]);
    team.change(&words(&team.publish("1.1.0")), &["t0"]);
    // Made by somebody who wants the first state back.
    let refused = team.sign("old.json", "t0", 12);
    assert!(refused["message"].as_str().unwrap().contains("old state"), "{refused}");
    // Who knows nothing newer signs it; what is published stays.
    team.sign("old.json", "r0", 0);
    team.sign("old.json", "r1", 0);
    team.commit(&["old.json"], 0);
    assert_eq!(team.state().releases().unwrap().len(), 2);
}

#[test]
fn case_187_and_192_thresholds_and_keys_of_other_roles() {
    let signer = Program::new();
    for name in ["a", "b", "c"] {
        signer.json(&["key", "new", "--out", &format!("people/{name}")], 0);
    }
    let init = |more: &[&'static str]| {
        let head = ["init", "--repo", "oci:repo", "--keys", "keys", "--root-keys"];
        [&head[..], more].concat()
    };
    let refused = signer.json(&init(&["people/a.pub,people/b.pub,people/a.pub"]), 10);
    assert_eq!(refused["code"], "key_duplicate");
    signer.json(&init(&["people/a.pub,people/b.pub", "--root-threshold", "3"]), 2);
    let made = signer.json(&init(&["people/a.pub,people/b.pub", "--root-threshold", "2"]), 0);
    let warnings = made["warnings"].to_string();
    assert!(warnings.contains("root needs 2 of 2 keys: if one of them is lost"), "{warnings}");

    let rotate = |more: &[&'static str]| {
        let head = ["rotate", "--repo", "oci:repo", "--keys", "keys", "--key", "people/a.key"];
        [&head[..], &["--key", "people/b.key"], more].concat()
    };
    let rows: [(&str, Vec<&str>, i32, &str); 5] = [
        ("too many", rotate(&["--role", "root", "--threshold", "3"]), 10, "sig_threshold"),
        ("none", rotate(&["--role", "root", "--threshold", "0"]), 10, "sig_threshold"),
        ("not there", rotate(&["--role", "root", "--remove", "people/c.pub"]), 10, "key_invalid"),
        ("twice", rotate(&["--role", "root", "--add", "people/a.pub"]), 10, "key_duplicate"),
        (
            "a machine's key",
            rotate(&["--role", "targets", "--add", "keys/timestamp.pub"]),
            10,
            "key_duplicate",
        ),
    ];
    for (name, arguments, code, reason) in rows {
        assert_eq!(signer.json(&arguments, code)["code"], reason, "{name}");
    }
    let better = signer.json(&rotate(&["--role", "root", "--add", "people/c.pub"]), 0);
    assert!(!better["warnings"].to_string().contains("root needs"), "{better}");
    assert_eq!(better["root_version"], 2);
}

#[test]
fn roots_rotate_with_old_and_new_thresholds() {
    let team = Team::new(3, 2);
    let signer = &team.signer;
    signer.json(&["key", "new", "--out", "new/key"], 0);
    let rotate = ["rotate", "--role", "root", "--remove", "r2/key.pub", "--add", "new/key.pub"];
    // The new threshold alone, and the old one alone, are not enough.
    let rotate = [&rotate[..], &["--threshold", "3"]].concat();
    team.stage("change.json", &rotate);
    team.sign("change.json", "r0", 0);
    team.sign("change.json", "r1", 0);
    let missing = team.commit(&["change.json"], 10);
    assert!(missing["message"].as_str().unwrap().contains("root version 2"), "{missing}");
    std::fs::copy(signer.path("keys/root.json"), signer.path("new/root.json")).unwrap();
    let shown = team.sign("change.json", "new", 0);
    let lines = shown["sections"][0]["changes"].to_string();
    for line in ["+ key ed25519", "- key ed25519", "~ root needs 3 of 3 keys, before 2 of 3"] {
        assert!(lines.contains(line), "{lines}");
    }
    team.commit(&["change.json"], 0);
    // Down again, by the three who count now.
    team.change(&["rotate", "--role", "root", "--threshold", "1"], &["r0", "r1", "new"]);
    team.change(&["renew", "root"], &["r1"]);
    let state = team.state();
    assert_eq!(state.root.header.version, 4);
    // A revoked key counts for nothing any more.
    team.stage("late.json", &["renew", "root"]);
    let refused = team.sign("late.json", "r2", 10);
    assert_eq!(refused["code"], "sig_threshold", "{refused}");
    // The trust root with the keys went forward, and an old one still leads there.
    let newest = std::fs::read(signer.path("keys/root.json")).unwrap();
    let root = Root::parse(Envelope::parse(&newest).unwrap().signed()).unwrap();
    assert_eq!(root.header.version, 4);
    signer.json(&["verify", "oci:repo", "--root", "r2/root.json"], 0);
}

#[test]
fn targets_are_signed_again_when_their_keys_go() {
    let team = Team::new(2, 1);
    team.change(&words(&team.publish("1.0.0")), &["t0"]);
    team.signer.json(&["key", "new", "--out", "new/key"], 0);
    std::fs::copy(team.signer.path("keys/root.json"), team.signer.path("new/root.json")).unwrap();
    std::fs::remove_file(team.signer.path("change.json")).unwrap();
    let staged = team.stage("change.json", &["revoke", "t0/key.pub", "--replace", "new/key.pub"]);
    let roles: Vec<&str> = staged["sections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|section| section["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["root", "targets"], "what the revoked key signed is signed again");
    for person in ["r0", "r1", "new"] {
        team.sign("change.json", person, 0);
    }
    team.commit(&["change.json"], 0);
    team.change(&words(&team.publish("1.1.0")), &["t1"]);
    assert_eq!(team.state().releases().unwrap().len(), 2);
}

#[test]
fn a_stolen_online_key_is_replaced_and_counting_goes_on() {
    use formats::tuf::{MetaFile, envelope_bytes};
    let signer = Program::new();
    std::fs::write(signer.path("os.img"), b"x").unwrap();
    let at = ["--repo", "oci:repo", "--keys", "keys"];
    signer.json(&[&["init"], &at[..]].concat(), 0);
    let publish = |version: &'static str| {
        let head = ["publish", "--product", "demo", "--version", version];
        [&head[..], &["--component", "os=os.img,hw=a", "--channel", "stable"], &at].concat()
    };
    signer.json(&publish("1.0.0"), 0);
    signer.json(&publish("1.1.0"), 0);

    // The thief signs the largest versions there are, and an old targets version.
    let reference = format!("oci:{}", signer.path("repo").display()).parse().unwrap();
    let registry = open(&reference, Access::Write, &ClientOptions::default()).unwrap();
    let registry = registry.as_ref();
    let found = signer::published::fetch(registry).unwrap().unwrap();
    let good = State::verify(&found.files, None).unwrap();
    let keys = signer::key::KeyStore::open(&signer.path("keys")).unwrap();
    let sign = |role: Role, value: &formats::json::Value| {
        let id = good.root.role(&role).unwrap().keyids[0];
        let signature = signer::key::sign(keys.find(&id).unwrap(), &value.canonical()).unwrap();
        envelope_bytes(value, &[signature])
    };
    let mut evil = good.clone();
    evil.snapshot.data.header.version = i64::MAX as u64;
    evil.snapshot.bytes = sign(Role::Snapshot, &evil.snapshot.data.to_value());
    evil.timestamp.data.header.version = i64::MAX as u64;
    evil.timestamp.data.snapshot = MetaFile::of(i64::MAX as u64, &evil.snapshot.bytes);
    evil.timestamp.bytes = sign(Role::Timestamp, &evil.timestamp.data.to_value());
    signer::published::publish(registry, Some(&found.manifest), &evil, None).unwrap();

    for name in ["snapshot", "timestamp"] {
        signer.json(&["key", "new", "--out", &format!("keys/{name}-2")], 0);
    }
    let rotate = |role: &'static str| {
        let (old, new) = (format!("keys/{role}.pub"), format!("keys/{role}-2.pub"));
        vec![
            "revoke".to_owned(),
            old,
            "--replace".to_owned(),
            new,
            "--base".to_owned(),
            "ts-3".to_owned(),
        ]
    };
    // Both roles at once, as the keys lay on one machine.
    let snapshot = rotate("snapshot");
    let first = [&words(&snapshot)[..], &at].concat();
    let recovered = signer.json(&first, 0);
    assert_eq!(recovered["root_version"], 2);
    assert_eq!(recovered["snapshot_version"], 4, "after the last good one: {recovered}");
    let mut timestamp = rotate("timestamp");
    timestamp.truncate(4);
    let last = signer.json(&[&words(&timestamp)[..], &at].concat(), 0);
    assert_eq!((&last["root_version"], &last["timestamp_version"]), (&3.into(), &5.into()));
    signer.json(&publish("1.2.0"), 0);
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
    // A state from before the newest root cannot be gone back to.
    let refused = [&["renew", "targets"], &at[..]].concat();
    signer.json(&refused, 0);
    let old = ["rotate", "--role", "root", "--threshold", "1", "--base", "ts-3"];
    let old = signer.json(&[&old[..], &at].concat(), 12);
    assert_eq!(old["code"], "version_rollback", "{old}");
}

#[test]
fn delegated_roles_sign_for_their_names_and_no_others() {
    let team = Team::new(2, 1);
    let signer = &team.signer;
    for name in ["d0", "d1", "c0"] {
        signer.json(&["key", "new", "--out", &format!("{name}/key")], 0);
        std::fs::copy(signer.path("keys/root.json"), signer.path(&format!("{name}/root.json")))
            .unwrap();
    }
    team.change(&words(&team.publish("1.0.0")), &["t0"]);
    let releases = ["delegate", "--role", "demo-releases", "--path", "demo/*"];
    let keys = ["--role-keys", "d0/key.pub,d1/key.pub", "--threshold", "2", "--period", "30d"];
    team.change(&[&releases[..], &keys].concat(), &["t0", "d0", "d1"]);
    let channels = ["delegate", "--role", "demo-channels", "--path", "demo/channels/*"];
    let keys = ["--role-keys", "c0/key.pub", "--terminating"];
    team.change(&[&channels[..], &keys].concat(), &["t0", "c0"]);

    let mut publish = team.publish("1.1.0");
    publish.extend(["--role", "demo-releases"].map(str::to_owned));
    team.change(&words(&publish), &["d0", "d1"]);
    let channel = ["channel", "set", "--product", "demo", "--channel", "stable"];
    let set = [&channel[..], &["--release", "1.1.0", "--role", "demo-channels"]].concat();
    team.change(&set, &["c0"]);
    // Whoever signs for a channel goes on to.
    team.change(&[&channel[..], &["--hold"]].concat(), &["c0"]);
    let state = team.state();
    let found = |name: &str| state.find(name).unwrap().0.name().to_owned();
    assert_eq!(found("demo/1.0.0"), "targets");
    assert_eq!(found("demo/1.1.0"), "demo-releases");
    assert_eq!(found("demo/channels/stable.json"), "demo-channels");
    assert_eq!(state.releases().unwrap().len(), 2);
    assert_eq!(state.targets.data.header.version, 4, "the top level did not change with them");
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
    let status = signer.json(&["status", "oci:repo", "--keys", "keys"], 0);
    assert_eq!(status["roles"][5]["role"], "demo-releases");

    let refused = |change: &[&str]| {
        let head = ["stage", "--out", "no.json"];
        signer.run(&[&head[..], change, &["--repo", "oci:repo", "--keys", "keys"]].concat())
    };
    let code = |change: &[&str]| {
        let value: Value = serde_json::from_slice(&refused(change).stdout).unwrap();
        value["code"].as_str().unwrap_or("ok").to_owned()
    };
    let mut other = team.publish("2.0.0");
    other[2] = "other".to_owned();
    other.extend(["--role", "demo-releases"].map(str::to_owned));
    assert_eq!(code(&words(&other)), "config", "a name it was not given");
    let mut nobody = team.publish("2.0.0");
    nobody.extend(["--role", "nobody"].map(str::to_owned));
    assert_eq!(code(&words(&nobody)), "target_not_found", "a role that is not there");
    for (name, path) in [("absolute", "/demo/*"), ("parent", "demo/../x"), ("empty", "")] {
        let change = ["delegate", "--role", "odd", "--path", path, "--role-keys", "d0/key.pub"];
        assert_eq!(code(&change), "config", "{name}");
    }
    let twice =
        ["delegate", "--role", "demo-releases", "--path", "x/*", "--role-keys", "d0/key.pub"];
    assert_eq!(code(&twice), "config", "a role that is there");
    let reserved = ["delegate", "--role", "snapshot", "--path", "x/*", "--role-keys", "d0/key.pub"];
    assert_eq!(code(&reserved), "usage");

    // A delegated key goes; what was signed still has enough signatures.
    let change =
        ["rotate", "--role", "demo-releases", "--remove", "d1/key.pub", "--threshold", "1"];
    let done = team.change(&change, &["t1"]);
    assert_eq!(done["root_version"], 1);
    let version = || {
        let role = Role::Delegated("demo-releases".to_owned());
        team.state().delegated[&role].data.header.version
    };
    assert_eq!(version(), 2);
    // The last one goes: its signatures count nothing, so the new key signs the role again.
    signer.json(&["key", "new", "--out", "d2/key"], 0);
    std::fs::copy(signer.path("keys/root.json"), signer.path("d2/root.json")).unwrap();
    let change = ["revoke", "d0/key.pub", "--replace", "d2/key.pub"];
    team.change(&change, &["t1", "d2"]);
    assert_eq!(version(), 3);
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
}

/// A role gets other names, then none; a role of that name later goes on counting.
#[test]
fn delegations_change_and_end() {
    let team = Team::new(2, 1);
    let signer = &team.signer;
    for name in ["d0", "d1"] {
        signer.json(&["key", "new", "--out", &format!("{name}/key")], 0);
        std::fs::copy(signer.path("keys/root.json"), signer.path(&format!("{name}/root.json")))
            .unwrap();
    }
    let delegate = ["delegate", "--role", "beta", "--path", "demo/*", "--role-keys", "d0/key.pub"];
    team.change(&delegate, &["t0", "d0"]);
    let by_beta = |version: &str, channel: &str| {
        let mut publish = team.publish(version);
        publish.extend(["--role", "beta", "--channel", channel].map(str::to_owned));
        publish
    };
    team.change(&words(&by_beta("1.0.0", "beta")), &["d0", "t0"]);
    let state = team.state();
    assert_eq!(state.find("demo/1.0.0").unwrap().0.name(), "beta");
    // A * does not cross a slash: the channel stays with the top level.
    assert_eq!(state.find("demo/channels/beta.json").unwrap().0.name(), "targets");

    // Its names change; its keys do not, and nobody signs its metadata again.
    let paths = ["delegate", "--role", "beta", "--path", "demo/*", "--path", "demo/channels/*"];
    let _ = std::fs::remove_file(signer.path("change.json"));
    let staged = team.stage("change.json", &[&paths[..], &["--terminating"]].concat());
    let line = staged["sections"][0]["changes"][0].as_str().unwrap();
    assert_eq!(staged["sections"].as_array().unwrap().len(), 1, "{staged}");
    assert!(line.ends_with(r#"nobody after it, before paths "demo/*""#), "{line}");
    team.sign("change.json", "t1", 0);
    team.commit(&["change.json"], 0);
    let channel = ["channel", "set", "--product", "demo", "--channel", "beta", "--role", "beta"];
    team.change(&channel, &["d0", "t0"]);
    assert_eq!(team.state().find("demo/channels/beta.json").unwrap().0.name(), "beta");

    let code = |change: &[&str]| {
        let head = ["stage", "--out", "no.json"];
        let all = [&head[..], change, &["--repo", "oci:repo", "--keys", "keys"]].concat();
        let value: Value = serde_json::from_slice(&signer.run(&all).stdout).unwrap();
        value["code"].as_str().unwrap_or("ok").to_owned()
    };
    let gone = ["delegate", "--role", "gamma", "--remove"];
    assert_eq!(code(&gone), "target_not_found");
    let odd = ["delegate", "--role", "beta", "--path", "../x"];
    assert_eq!(code(&odd), "config");
    let both = ["delegate", "--role", "beta", "--remove", "--path", "x/*"];
    assert_eq!(signer.run(&both).status.code(), Some(2));

    // A channel elsewhere that offers what would be gone keeps the role.
    let stable = ["channel", "set", "--product", "demo", "--channel", "stable"];
    team.change(&[&stable[..], &["--release", "1.0.0", "--role", "targets"]].concat(), &["t0"]);
    assert_eq!(code(&["delegate", "--role", "beta", "--remove"]), "target_not_found");
    team.change(&words(&team.publish("1.1.0")), &["t0"]);
    team.change(&[&stable[..], &["--release", "1.1.0"]].concat(), &["t0"]);

    // It ends: said, with all that goes with it.
    let _ = std::fs::remove_file(signer.path("change.json"));
    let staged = team.stage("change.json", &["delegate", "--role", "beta", "--remove"]);
    let text = staged.to_string();
    for said in ["no longer signs for", "demo/1.0.0 would be removed", "beta.json would be removed"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
    team.sign("change.json", "t0", 0);
    team.commit(&["change.json"], 0);
    let state = team.state();
    let beta = Role::Delegated("beta".to_owned());
    assert!(state.targets.data.delegations.is_none() && state.delegated.is_empty());
    assert!(state.find("demo/1.0.0").is_none() && state.find("demo/channels/beta.json").is_none());
    let listed = state.snapshot.data.role(&beta).expect("nodes refuse a snapshot that forgets it");
    let listed = listed.version;
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);

    // Somebody else gets the name: versions go on, or nodes would see a rollback.
    let again = ["delegate", "--role", "beta", "--path", "beta/*", "--role-keys", "d1/key.pub"];
    team.change(&again, &["t0", "d1"]);
    assert_eq!(team.state().delegated[&beta].data.header.version, listed + 1);
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
}

/// A staged change in the repository instead of on a stick; a registry that swaps it or drops
/// signatures gets nothing signed that was not shown, and nothing published.
#[test]
fn a_change_travels_through_its_repository() {
    let team = Team::new(2, 2);
    let signer = &team.signer;
    let at = ["--repo", "oci:repo", "--keys", "keys"];
    let share = |version: &str| {
        let publish = team.publish(version);
        let staged = signer.json(&[&["stage", "--share"], &words(&publish)[..], &at].concat(), 0);
        staged["file"].as_str().unwrap().to_owned()
    };
    let sign = |name: &str, who: &str, code: i32| {
        signer.json(&["sign", name, "--repo", "oci:repo", "--keys", who], code)
    };
    let name = share("1.0.0");
    assert!(name.starts_with("staged-") && name.len() == "staged-".len() + 64, "{name}");
    // The same again is the same change.
    assert_eq!(signer.json(&["verify", "oci:repo", "--keys", "keys"], 0)["ok"], true);
    assert_eq!(sign(&name, "t0", 0)["ready"], false);
    // One signs in the registry, one a copy: put together there and at the commit.
    let copy = ["sign", &name, "--repo", "oci:repo", "--keys", "t1", "-o", "copy.json"];
    assert_eq!(signer.json(&copy, 0)["ready"], true);
    let status = signer.json(&["status", &name, "--repo", "oci:repo", "--root", "t0/root.json"], 0);
    assert_eq!(status["signatures"][0]["signed"].as_array().unwrap().len(), 1, "{status}");
    let commit = [&["commit", &name, "copy.json"], &at[..]].concat();
    signer.json(&commit, 0);
    assert_eq!(signer.json(&commit, 0)["targets_version"], 2, "again is nothing to do");

    // A registry that answers with another change under the name.
    let name = share("1.1.0");
    team.copy_repo("repo", "honest");
    let evil = Team::new(2, 2);
    evil.stage("evil.json", &words(&evil.publish("9.9.9")));
    let evil = std::fs::read(evil.signer.path("evil.json")).unwrap();
    let reference = format!("oci:{}", signer.path("repo").display()).parse().unwrap();
    let registry = open(&reference, Access::Write, &ClientOptions::default()).unwrap();
    let put = |bytes: &[u8]| {
        use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, media_type};
        use signer::repository::Expect;
        let repository = "tuf".parse().unwrap();
        let (config, layer) = (Descriptor::empty(), Descriptor::of("x/y", bytes));
        registry.put_blob(&repository, &config, EMPTY_CONFIG).unwrap();
        registry.put_blob(&repository, &layer, bytes).unwrap();
        let bytes = Manifest::artifact(signer::shared::STAGED, config, vec![layer]).to_bytes();
        let manifest = Descriptor::of(media_type::MANIFEST, &bytes);
        registry.put_manifest(&repository, &manifest, &bytes).unwrap();
        let tag = name.parse().unwrap();
        registry.set_tag(&repository, &tag, &manifest, &bytes, Expect::Anything).unwrap();
    };
    put(&evil);
    let before = std::fs::read(signer.path("t0/signer.log")).unwrap();
    assert_eq!(sign(&name, "t0", 2)["code"], "usage", "it is another one");
    put(b"nothing of the kind");
    assert_eq!(sign(&name, "t0", 10)["code"], "meta_format");
    assert!(std::fs::read(signer.path("t0/signer.log")).unwrap() == before, "nothing was signed");
    // A registry that drops signatures delays, and is seen to.
    team.copy_repo("honest", "repo");
    sign(&name, "t0", 0);
    team.copy_repo("honest", "repo");
    let forgotten = sign(&name, "t1", 0);
    assert_eq!(forgotten["ready"], false);
    assert_eq!(sign(&name, "t0", 0)["ready"], true);
    team.commit(&[&name], 0);
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);

    let none = &format!("staged-{}", "0123456789abcdef".repeat(4));
    assert_eq!(sign(none, "t0", 10)["code"], "target_not_found");
    // Two changes can be made that begin alike: a part of a name chooses none.
    assert_eq!(name.len(), "staged-".len() + 64);
    assert_eq!(sign(&name[..23], "t0", 2)["code"], "usage");
    assert_eq!(signer.json(&["sign", none, "--keys", "t0"], 23)["code"], "config", "no --repo");
}

#[test]
fn signer_toml_declares_roles_and_what_hardware_holds() {
    let signer = Program::new();
    for name in ["alice", "bob", "carol", "dave", "online"] {
        signer.json(&["key", "new", "--out", &format!("keys/{name}")], 0);
    }
    let toml = r#"
[roles.root]
keys = ["alice.pub", "bob.pub", "carol.pub"]
threshold = 2
expires = "1y"
[roles.targets]
keys = ["dave.pub"]
expires = "60d"
[roles.snapshot]
keys = ["online.pub"]
[roles.timestamp]
keys = ["online.pub"]
expires = "2d"
[hardware.cu-v1]
needs = ["os", "firmware"]
slots = { os = "4KiB", firmware = 100 }
"#;
    std::fs::write(signer.path("keys/signer.toml"), toml).unwrap();
    let at = ["--repo", "oci:repo", "--keys", "keys"];
    let made = signer.json(&[&["init"], &at[..]].concat(), 0);
    assert_eq!(
        (&made["root_threshold"], &made["warnings"].as_array().unwrap().len()),
        (&2.into(), &1)
    );
    let same = signer.json(&[&["rotate"], &at[..]].concat(), 0);
    assert_eq!(same["changed"], false, "it is so already");

    std::fs::write(signer.path("small"), [7; 100]).unwrap();
    std::fs::write(signer.path("page"), [7; 4096]).unwrap();
    std::fs::write(signer.path("large"), [7; 4097]).unwrap();
    let publish = |version: &'static str, components: &[&'static str]| {
        let mut all = vec!["publish", "--product", "demo", "--version", version, "--hw", "cu-v1"];
        for component in components {
            all.extend(["--component", component]);
        }
        [&all[..], &at].concat()
    };
    for (name, components, code, reason) in [
        ("no firmware", &["os=page"][..], 24, "hw_mismatch"),
        ("too large", &["os=large", "firmware=small"], 20, "slot_size"),
        ("firmware too large", &["os=page", "firmware=page"], 20, "slot_size"),
    ] {
        let refused = signer.json(&publish("1.0.0", components), code);
        assert_eq!(refused["code"], reason, "{name}: {refused}");
    }
    signer.json(&publish("1.0.0", &["os=page", "firmware=small"]), 0);
    let clean = signer.json(&["lint", "oci:repo", "--keys", "keys"], 0);
    assert_eq!(clean["findings"].as_array().unwrap().len(), 1, "{clean}");

    // A declaration that changes is a rotation.
    let toml = toml.replace("threshold = 2", "threshold = 1")
        + "[[delegation]]\nname = \"beta\"\n\
        paths = [\"beta/*\"]\nkeys = [\"carol.pub\"]\nexpires = \"7d\"\n";
    std::fs::write(signer.path("keys/signer.toml"), toml.replace("\"60d\"", "\"10d\"")).unwrap();
    let lint = signer.json(&["lint", "oci:repo", "--keys", "keys"], 11);
    assert!(lint["message"].as_str().unwrap().contains("longer than the 10 days"), "{lint}");
    let changed = signer.json(&[&["rotate"], &at[..]].concat(), 0);
    assert_eq!((&changed["root_version"], &changed["targets_version"]), (&2.into(), &3.into()));
    let status = signer.json(&["status", "oci:repo", "--keys", "keys"], 0);
    assert_eq!(status["roles"][4]["role"], "beta");
    assert_eq!(status["roles"][0]["threshold"], 1);
    signer.json(&["lint", "oci:repo", "--keys", "keys"], 0);
    std::fs::write(signer.path("keys/signer.toml"), "[role.root]").unwrap();
    assert_eq!(signer.json(&[&["rotate"], &at[..]].concat(), 23)["code"], "config");
}

#[test]
fn a_first_repository_is_signed_by_people_far_away() {
    let signer = Program::new();
    for name in ["alice", "bob", "carol", "dave"] {
        signer.json(&["key", "new", "--out", &format!("{name}/key")], 0);
        std::fs::create_dir_all(signer.path("pubs")).unwrap();
        let (from, to) = (format!("{name}/key.pub"), format!("pubs/{name}.pub"));
        std::fs::copy(signer.path(&from), signer.path(&to)).unwrap();
    }
    let stage = ["stage", "init", "--out", "first.json", "--repo", "oci:repo", "--keys", "keys"];
    let roots =
        ["--root-keys", "pubs/alice.pub,pubs/bob.pub,pubs/carol.pub", "--root-threshold", "2"];
    let staged =
        signer.json(&[&stage[..], &roots, &["--targets-keys", "pubs/dave.pub"]].concat(), 0);
    assert_eq!(staged["sections"].as_array().unwrap().len(), 2);
    assert!(!signer.path("keys/root.json").exists());
    let commit = ["commit", "first.json", "--repo", "oci:repo", "--keys", "keys"];
    assert_eq!(signer.json(&commit, 10)["code"], "sig_threshold");
    for name in ["carol", "dave", "alice"] {
        signer.json(&["sign", "first.json", "--keys", name], 0);
    }
    signer.json(&commit, 0);
    assert_eq!(signer.json(&commit, 23)["code"], "config", "it is there");
    signer.json(&["verify", "oci:repo", "--keys", "keys"], 0);
    let targets = State::verify(
        &{
            let reference = format!("oci:{}", signer.path("repo").display()).parse().unwrap();
            let registry = open(&reference, Access::Read, &ClientOptions::default()).unwrap();
            signer::published::fetch(registry.as_ref()).unwrap().unwrap().files
        },
        None,
    )
    .unwrap()
    .targets;
    let again = Targets::parse(Envelope::parse(&targets.bytes).unwrap().signed()).unwrap();
    assert_eq!(again.header.version, 1);
}
