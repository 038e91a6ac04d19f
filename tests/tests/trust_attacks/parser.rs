//! JSON, names, numbers and times, under good signatures and listings.

use formats::json::Value;
use formats::reason::Reason;
use formats::tuf::{PERIOD_MEMBER, Role};
use racklet_testkit::forge::Forge;
use update_core::trust::TrustError;

use crate::{ALL, recovers, refuses, settled};

/// What stays untouched when a role's own file is refused.
fn untouched_by(role: &Role) -> &'static [Role] {
    match role {
        Role::Root | Role::Timestamp => ALL,
        Role::Snapshot => &[Role::Root, Role::Snapshot, Role::Targets],
        _ => &[Role::Root, Role::Targets],
    }
}

/// Serves each role's next version changed after signing; the listing is of the changed bytes.
fn each_role_garbled(reason: Reason, how: fn(Vec<u8>) -> Vec<u8>) {
    for role in Role::TOP_LEVEL {
        let (mut repo, mut node) = settled();
        repo.garble(&role, how);
        repo.publish(std::slice::from_ref(&role));
        refuses(&mut node, &repo, reason, untouched_by(&role));
        repo.mend(&role);
        if role == Role::Root {
            repo.issue(&role);
        } else {
            repo.publish(std::slice::from_ref(&role));
        }
        recovers(&mut node, &repo);
    }
}

/// The same, changed before signing, so that the signatures are good.
fn each_role_deformed(reason: Reason, name: &'static str, to: Option<Value>) {
    for role in Role::TOP_LEVEL {
        let (mut repo, mut node) = settled();
        let to = to.clone();
        repo.deform(&role, move |signed| {
            let Value::Object(members) = signed else { unreachable!() };
            match &to {
                Some(to) => drop(members.insert(name.into(), to.clone())),
                None => drop(members.remove(name)),
            }
        });
        repo.publish(std::slice::from_ref(&role));
        refuses(&mut node, &repo, reason, untouched_by(&role));
    }
}

fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn case_52_duplicate_members() {
    let format = Reason::MetaFormat;
    each_role_garbled(format, |b| replaced(b, "\"signed\":", "\"signed\":{},\"signed\":"));
    each_role_garbled(format, |b| replaced(b, "{\"sig", "{\"signatures\":[],\"sig"));
    each_role_garbled(format, |b| replaced(b, "\"version\":", "\"version\":1,\"version\":"));
}

#[test]
fn case_53_signed_but_not_canonical_is_accepted() {
    for role in Role::TOP_LEVEL {
        let (mut repo, mut node) = settled();
        repo.garble(&role, |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace("\"version\"", "\n \"\\u0076ersion\" ").into_bytes()
        });
        repo.publish(std::slice::from_ref(&role));
        recovers(&mut node, &repo);
        let version = repo.header(&role).version;
        let served = &repo.served[&repo.root.file_name(&role, version)];
        assert_eq!(**node.stored.file(&role).unwrap(), served[..]);
    }
}

#[test]
fn case_54_deep_nesting() {
    let (mut repo, mut node) = settled();
    repo.publish(&[Role::Root]);
    repo.served.insert("2.root.json".into(), vec![b'['; 100_000]);
    refuses(&mut node, &repo, Reason::MetaFormat, ALL);
    repo.served.insert("2.root.json".into(), b"{\"a\":".repeat(50_000));
    refuses(&mut node, &repo, Reason::MetaFormat, ALL);
}

#[test]
fn case_55_numbers_that_are_no_versions() {
    let format = Reason::MetaFormat;
    each_role_garbled(format, |b| with_version(b, "9223372036854775808"));
    each_role_garbled(format, |b| with_version(b, "18446744073709551616"));
    each_role_garbled(format, |b| with_version(b, "1e400"));
    each_role_garbled(format, |b| with_version(b, "1e1"));
    each_role_garbled(format, |b| with_version(b, "-0"));
    each_role_garbled(format, |b| with_version(b, "00"));
    each_role_garbled(format, |b| with_version(b, "3.0"));
    for odd in [Value::Int(0), Value::Int(-1), Value::Bool(true), Value::from("3"), Value::Null] {
        each_role_deformed(format, "version", Some(odd));
    }
    // 2^53 + 1 is exact: one more than the largest number floating point can tell apart.
    let (mut repo, mut node) = settled();
    repo.header(&Role::Timestamp).version = 1 << 53;
    repo.issue(&Role::Timestamp);
    recovers(&mut node, &repo);
    repo.publish(&[Role::Timestamp]);
    assert_eq!(node.refresh(&repo).unwrap().timestamp().header.version, (1 << 53) + 1);
}

/// The last `"version":n` of a file is the document's own: listings come before it.
fn with_version(bytes: Vec<u8>, number: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    let at = text.rfind("\"version\":").unwrap() + "\"version\":".len();
    let end = at + text[at..].find(['}', ',']).unwrap();
    format!("{}{number}{}", &text[..at], &text[end..]).into_bytes()
}

#[test]
fn case_57_semantically_empty() {
    each_role_garbled(Reason::MetaFormat, |_| b"{}".to_vec());
    each_role_garbled(Reason::MetaFormat, |_| b"[]".to_vec());
    each_role_garbled(Reason::MetaFormat, |_| b"null".to_vec());
    each_role_garbled(Reason::MetaFormat, |_| b"\"x\"".to_vec());
    each_role_garbled(Reason::MetaFormat, |_| Vec::new());
    for member in ["version", "expires", "_type", "spec_version"] {
        each_role_deformed(Reason::MetaFormat, member, None);
    }
    for (role, member) in [
        (Role::Root, "keys"),
        (Role::Root, "roles"),
        (Role::Timestamp, "meta"),
        (Role::Snapshot, "meta"),
        (Role::Targets, "targets"),
    ] {
        let (mut repo, mut node) = settled();
        repo.deform(&role, move |signed| {
            let Value::Object(members) = signed else { unreachable!() };
            members.remove(member);
        });
        repo.publish(std::slice::from_ref(&role));
        refuses(&mut node, &repo, Reason::MetaFormat, untouched_by(&role));
    }
}

/// The names on the way to every member of a value.
fn paths(value: &Value, at: &[String], all: &mut Vec<Vec<String>>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        let path = [at, std::slice::from_ref(name)].concat();
        paths(inner, &path, all);
        all.push(path);
    }
}

fn remove(value: &mut Value, path: &[String]) {
    let (Value::Object(members), Some((first, rest))) = (value, path.split_first()) else { return };
    match (rest, members.get_mut(first)) {
        ([], _) => drop(members.remove(first)),
        (_, Some(inner)) => remove(inner, rest),
        (_, None) => {}
    }
}

/// Every member of every role's document missing in turn, validly signed. What may be missing is
/// what the specification calls optional, and entries of lists of names.
#[test]
fn case_57_every_member_missing_in_turn() {
    let mut tried = 0;
    for role in Role::TOP_LEVEL.into_iter().chain([Role::Delegated("ops".into())]) {
        let scene = || {
            let mut repo = Forge::new();
            let ops = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
            repo.add_target(&ops, "ops/tool", b"tool");
            repo.publish(&[Role::Targets, ops]);
            let mut node = racklet_testkit::forge::Node::of(&repo);
            node.find(&repo, "ops/tool").unwrap();
            (repo, node)
        };
        let (mut repo, _) = scene();
        let document = Value::parse(&repo.file_of(&role)).unwrap();
        let mut all = Vec::new();
        paths(document.get("signed").unwrap(), &[], &mut all);
        for path in all {
            let (mut repo, mut node) = scene();
            let removed = path.clone();
            repo.deform(&role, move |signed| remove(signed, &removed));
            repo.publish(std::slice::from_ref(&role));
            let what = format!("{role}: {}", path.join("."));
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            // `true` where a document without it is a document all the same.
            let optional = match names.as_slice() {
                ["consistent_snapshot" | "delegations" | PERIOD_MEMBER] => true,
                [.., "length" | "hashes"] => role == Role::Timestamp || role == Role::Snapshot,
                ["keys", _] | ["delegations", "keys", _] => true,
                ["meta", "ops.json"] => true,
                ["targets", name] => name.contains('/'),
                _ => false,
            };
            match node.find(&repo, "ops/tool") {
                Ok(_) => assert!(optional, "{what} may not be missing"),
                Err(error) => {
                    let reason = error.reason();
                    let format = [Reason::MetaFormat, Reason::KeyidMismatch].contains(&reason);
                    assert!(optional || format, "{what}: {error}");
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn case_58_bytes_around_the_document() {
    each_role_garbled(Reason::MetaFormat, |b| [&b[..], b"x"].concat());
    each_role_garbled(Reason::MetaFormat, |b| [&b[..], b"\0"].concat());
    each_role_garbled(Reason::MetaFormat, |b| [b"\xef\xbb\xbf", &b[..]].concat());
    each_role_garbled(Reason::MetaFormat, |b| b.repeat(2));
}

#[test]
fn case_59_texts_that_are_none() {
    each_role_garbled(Reason::MetaFormat, |b| {
        replaced(b, "\"spec_version\":\"1", "\"x\":\"\\ud800\",\"spec_version\":\"1")
    });
    each_role_garbled(Reason::MetaFormat, |b| {
        let at = b.windows(6).position(|window| window == b"\"_type").unwrap();
        [&b[..at], b"\"\xff\":1,", &b[at..]].concat()
    });
    let (mut repo, mut node) = settled();
    repo.add_target(&Role::Targets, "demo/\0", b"x");
    repo.publish(&[Role::Targets]);
    refuses(&mut node, &repo, Reason::MetaFormat, untouched_by(&Role::Targets));
}

#[test]
fn case_60_target_names_that_leave_their_place() {
    let long = "a/".repeat(2048);
    let names = ["../x", "/etc/x", "a/../../x", "a\\..\\x", "%2e%2e/x", ".", "", long.as_str()];
    let (mut repo, mut node) = settled();
    for name in names {
        repo.add_target(&Role::Targets, name, b"x");
    }
    repo.publish(&[Role::Targets]);
    // Listed, they are but names: the rest of the repository stays usable.
    node.find(&repo, "demo/1.0.0").unwrap();
    for name in names {
        let before = node.stored.clone();
        let error = node.find(&repo, name).unwrap_err();
        assert_eq!(error.reason(), Reason::PathRefused, "{name:.20}: {error}");
        assert_eq!(node.stored, before);
    }
}

#[test]
fn case_61_odd_role_names_are_asked_for_as_they_are() {
    for name in ["../root", "a/b", "?", "#", "..%2f", "1.root", "ü 😀"] {
        let (mut repo, mut node) = settled();
        let role = repo.delegate(&Role::Targets, name, &["ops/*"]);
        repo.add_target(&role, "ops/tool", b"tool");
        repo.publish(&[Role::Targets, role.clone()]);
        let found = node.find(&repo, "ops/tool").unwrap();
        assert_eq!(found.role(), &role);
        assert_eq!(node.requests.last(), Some(&format!("1.{name}.json")));
        assert!(node.stored.delegated.contains_key(name));
        recovers(&mut node, &repo);
    }
}

#[test]
fn case_64_expiry_in_another_spelling() {
    for text in [
        "2031-01-01T00:00:00+14:00",
        "2031-01-01T00:00:00.0Z",
        "2031-01-01T00:00:00z",
        "2031-01-01T24:00:00Z",
        "2031-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
    ] {
        each_role_deformed(Reason::MetaFormat, "expires", Some(Value::from(text)));
    }
}

#[test]
fn case_65_other_generations_of_the_specification() {
    for text in ["2.0.0", "1", "x", "", "0.9.0", "1.0.0-beta", "10.0.0"] {
        each_role_deformed(Reason::SpecVersion, "spec_version", Some(Value::from(text)));
    }
    each_role_deformed(Reason::SpecVersion, "spec_version", Some(Value::Int(1)));
    // 1.0 the number is no number here; "1.0" the text is what sigstore writes.
    each_role_garbled(Reason::MetaFormat, |b| replaced(b, "\"1.0.0\"", "1.0"));
    let (mut repo, mut node) = settled();
    for role in Role::TOP_LEVEL {
        repo.header(&role).spec_version = "1.0".into();
    }
    repo.publish(&[Role::Root, Role::Targets]);
    recovers(&mut node, &repo);
}

#[test]
fn case_66_unknown_members_are_covered_by_the_signature() {
    for role in Role::TOP_LEVEL {
        let (mut repo, mut node) = settled();
        repo.deform(&role, |signed| {
            let Value::Object(members) = signed else { unreachable!() };
            members.insert("x-note".into(), Value::from("good"));
        });
        repo.publish(std::slice::from_ref(&role));
        recovers(&mut node, &repo);
        repo.garble(&role, |bytes| replaced(bytes, "\"good\"", "\"evil\""));
        repo.publish(std::slice::from_ref(&role));
        refuses(&mut node, &repo, Reason::SigThreshold, untouched_by(&role));
    }
}

#[test]
fn case_67_lengths_that_lie() {
    for (length, reason) in [
        (Some(10), Reason::LengthMismatch),
        (Some(0), Reason::LengthMismatch),
        (Some(100_000), Reason::LengthMismatch),
        (Some(1 << 40), Reason::MetaLimit),
        (Some(i64::MAX as u64), Reason::MetaLimit),
    ] {
        let (mut repo, mut node) = settled();
        repo.publish(&[Role::Targets]);
        repo.snapshot.meta.get_mut("targets.json").unwrap().length = length;
        repo.publish(&[Role::Snapshot]);
        let error = refuses(&mut node, &repo, reason, &[Role::Root, Role::Targets]);
        assert!(
            error.to_string().contains("3.targets.json") || {
                matches!(&error, TrustError::Refused { file, .. } if file == "3.targets.json")
            }
        );
    }
    // Absent: this node's own cap counts.
    let (mut repo, mut node) = settled();
    repo.list_hashes = false;
    repo.publish(&[Role::Targets]);
    repo.served.insert("3.targets.json".into(), vec![b' '; node.limits.targets_len as usize + 1]);
    refuses(&mut node, &repo, Reason::MetaLimit, &[Role::Root, Role::Targets]);
}

/// Changes the listing of targets in the snapshot.
fn with_listed_hashes(hashes: &'static [(&'static str, &'static str)]) -> Forge {
    let (mut repo, _) = settled();
    repo.publish(&[Role::Targets]);
    repo.deform(&Role::Snapshot, |signed| {
        let Value::Object(root) = signed else { unreachable!() };
        let Some(Value::Object(meta)) = root.get_mut("meta") else { unreachable!() };
        let Some(Value::Object(listed)) = meta.get_mut("targets.json") else { unreachable!() };
        let good = listed.get("hashes").unwrap().get("sha256").unwrap().clone();
        let hashes = hashes.iter().map(|(name, hex)| {
            let value = match *hex {
                "good" => good.clone(),
                "good but one" => Value::from(all_but_one(&good)),
                hex => Value::from(hex),
            };
            (*name, value)
        });
        listed.insert("hashes".into(), Value::object(hashes));
    });
    repo.publish(&[Role::Snapshot]);
    repo
}

/// The same hash with another last digit.
fn all_but_one(hash: &Value) -> String {
    let hash = hash.as_str().unwrap();
    let last = if hash.ends_with('0') { "1" } else { "0" };
    format!("{}{last}", &hash[..hash.len() - 1])
}

#[test]
fn case_68_69_hashes_nobody_can_check_and_hashes_that_differ() {
    const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const SHORT: &str = "000000000000000000000000000000000000000000000000000000000000000";
    const LONG: &str = concat!(
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000"
    );
    type Hashes = &'static [(&'static str, &'static str)];
    let rows: [(&str, Hashes, Option<Reason>); 9] = [
        ("only md5", &[("md5", "00")], Some(Reason::HashMismatch)),
        ("empty", &[], Some(Reason::MetaFormat)),
        ("63 digits", &[("sha256", SHORT)], Some(Reason::MetaFormat)),
        ("a leading space", &[("sha256", " good")], Some(Reason::MetaFormat)),
        ("wrong", &[("sha256", ZERO)], Some(Reason::HashMismatch)),
        ("69: wrong in its last digit", &[("sha256", "good but one")], Some(Reason::HashMismatch)),
        (
            "one of two known wrong",
            &[("sha256", "good"), ("sha512", LONG)],
            Some(Reason::HashMismatch),
        ),
        ("unknown beside a good one", &[("sha256", "good"), ("md5", "00")], None),
        ("good", &[("sha256", "good")], None),
    ];
    for (name, hashes, reason) in rows {
        let (_, mut node) = settled();
        let repo = with_listed_hashes(hashes);
        match reason {
            None => recovers(&mut node, &repo),
            Some(reason) => {
                let error = refuses(&mut node, &repo, reason, &[Role::Root, Role::Targets]);
                assert!(!error.to_string().is_empty(), "{name}");
            }
        }
    }
}
