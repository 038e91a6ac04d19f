//! Whole documents: round trips, and every field broken in turn.

use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::json::{Object, Value};
use crate::reason::Reason;

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key(seed: u8) -> Key {
    Key::ed25519(signing(seed).verifying_key().as_bytes()).unwrap()
}

fn keys(seeds: &[u8]) -> Keys {
    seeds.iter().map(|seed| (key(*seed).id(), key(*seed))).collect()
}

fn role_keys(threshold: u32, seeds: &[u8]) -> RoleKeys {
    RoleKeys::new(threshold, seeds.iter().map(|seed| key(*seed).id()))
}

fn expires() -> UnixTime {
    UnixTime::parse("2030-01-01T00:00:00Z").unwrap()
}

fn root() -> Root {
    let one = || role_keys(1, &[1]);
    let roles = TopLevelKeys {
        root: role_keys(2, &[1, 2, 3]),
        timestamp: one(),
        snapshot: one(),
        targets: one(),
    };
    Root::new(Header::new(1, expires()), keys(&[1, 2, 3]), roles)
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::new(Header::new(3, expires()), MetaFile::of(2, b"targets"));
    snapshot.meta.insert("ops.json".into(), MetaFile::of(1, b"ops"));
    snapshot
}

fn targets() -> Targets {
    let custom = Value::object([("racklet", Value::object([("version", Value::from("1.0"))]))]);
    let files = [("demo/1.0".to_owned(), TargetFile::of(b"index", Some(custom)))];
    let mut targets = Targets::new(Header::new(2, expires()), files.into());
    let role = |name: &str, paths| DelegatedRole {
        role: Role::delegated(name).unwrap(),
        keys: role_keys(1, &[4]),
        paths,
        terminating: false,
    };
    targets.delegations = Some(Delegations::to_roles(
        keys(&[4]),
        vec![
            role("z-first", Paths::Patterns(vec!["demo/*".into()])),
            role("a-second", Paths::HashPrefixes(vec!["0f".into(), "a".into()].into())),
        ],
    ));
    targets
}

fn bins() -> Targets {
    let mut targets = targets();
    if let Some(delegations) = &mut targets.delegations {
        delegations.to = DelegatedTo::Succinct(SuccinctRoles {
            keys: role_keys(1, &[4]),
            bit_length: 8,
            name_prefix: "bin".into(),
        });
    }
    targets
}

fn parse_as(kind: &str, value: &Value) -> Result<Value, TufError> {
    match kind {
        "root" => Root::parse(value).map(|it| it.to_value()),
        "timestamp" => Timestamp::parse(value).map(|it| it.to_value()),
        "snapshot" => Snapshot::parse(value).map(|it| it.to_value()),
        _ => {
            let read = Targets::parse(value);
            let moved = Targets::from_value(value.clone());
            assert_eq!(read.as_ref().ok(), moved.as_ref().ok());
            read.map(|it| it.to_value())
        }
    }
}

fn documents() -> Vec<(&'static str, Value)> {
    let timestamp = Timestamp::new(Header::new(9, expires()), MetaFile::of(3, b"snapshot"));
    vec![
        ("root", root().to_value()),
        ("timestamp", timestamp.to_value()),
        ("snapshot", snapshot().to_value()),
        ("targets", targets().to_value()),
        ("bins", bins().to_value()),
    ]
}

/// Every value inside, as the path of member names and indexes that leads to it.
fn places(value: &Value, at: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let mut inner = |name: String, value: &Value| {
        at.push(name);
        out.push(at.clone());
        places(value, at, out);
        at.pop();
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(n, v)| inner(n.clone(), v)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| inner(i.to_string(), v)),
        _ => {}
    }
}

fn change(value: &mut Value, path: &[String], to: Option<&Value>) {
    let (first, rest) = path.split_first().unwrap();
    match value {
        Value::Object(members) if rest.is_empty() => {
            match to {
                Some(to) => members.insert(first.clone(), to.clone()),
                None => members.remove(first),
            };
        }
        Value::Array(list) if rest.is_empty() => {
            let i: usize = first.parse().unwrap();
            match to {
                Some(to) => list[i] = to.clone(),
                None => drop(list.remove(i)),
            }
        }
        Value::Object(members) => change(members.get_mut(first).unwrap(), rest, to),
        Value::Array(list) => change(&mut list[first.parse::<usize>().unwrap()], rest, to),
        _ => unreachable!("a path leads through objects and lists"),
    }
}

#[test]
fn what_is_written_is_read_again() {
    for (kind, value) in documents() {
        assert_eq!(parse_as(kind, &value), Ok(value.clone()), "{kind}");
        let parsed = Value::parse(&value.to_bytes()).unwrap();
        assert_eq!(parsed.to_bytes(), value.to_bytes(), "{kind}");
    }
    insta::assert_snapshot!(
        documents().iter().map(|(kind, v)| format!("{kind}\n{v:?}\n")).collect::<String>()
    );
}

#[test]
fn case_57_every_field_missing_or_of_another_kind_is_refused_or_unknown() {
    let wrong = [
        Value::Null,
        Value::Bool(true),
        Value::Int(-1),
        Value::from("\u{1}"),
        Value::Array(vec![]),
        Value::object::<String>([]),
    ];
    let mut tried = 0;
    for (kind, value) in documents() {
        let mut all = Vec::new();
        places(&value, &mut Vec::new(), &mut all);
        for place in all {
            // `custom` is anybody's, and no two keys share a map when one is gone.
            for to in std::iter::once(None).chain(wrong.iter().map(Some)) {
                let mut broken = value.clone();
                change(&mut broken, &place, to);
                tried += 1;
                match parse_as(kind, &broken) {
                    Ok(back) => assert_eq!(
                        back_with_defaults(back),
                        back_with_defaults(broken),
                        "{kind} {place:?} {to:?}"
                    ),
                    Err(error) => assert!(
                        matches!(
                            error.reason(),
                            Reason::MetaFormat
                                | Reason::MetaType
                                | Reason::SpecVersion
                                | Reason::KeyidMismatch
                        ),
                        "{kind} {place:?}: {error}"
                    ),
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

/// What is written when it was absent.
fn back_with_defaults(value: Value) -> Value {
    let Value::Object(mut members) = value else { return value };
    if members.get("_type") == Some(&Value::from("root"))
        && !members.contains_key("consistent_snapshot")
    {
        members.insert("consistent_snapshot".into(), Value::Bool(false));
    }
    Value::Object(members)
}

#[test]
fn numbers_texts_and_lists_have_their_reason() {
    let rows: &[(&str, &str, &str, Value, Reason)] = &[
        ("36", "root", "roles/root/threshold", Value::Int(0), Reason::MetaFormat),
        ("36", "root", "roles/root/threshold", Value::Int(-1), Reason::MetaFormat),
        ("36", "root", "roles/root/threshold", Value::Int(1 << 32), Reason::MetaFormat),
        ("36", "root", "roles/root/threshold", Value::Bool(true), Reason::MetaFormat),
        ("36", "root", "roles/root/threshold", Value::from("1"), Reason::MetaFormat),
        ("36", "targets", "delegations/roles/0/threshold", Value::Int(0), Reason::MetaFormat),
        ("36", "bins", "delegations/succinct_roles/threshold", Value::Int(0), Reason::MetaFormat),
        ("55", "snapshot", "version", Value::Int(0), Reason::MetaFormat),
        ("55", "snapshot", "meta/targets.json/version", Value::Int(0), Reason::MetaFormat),
        ("55", "snapshot", "version", Value::Bool(true), Reason::MetaFormat),
        (
            "64",
            "timestamp",
            "expires",
            Value::from("2030-01-01T00:00:00+00:00"),
            Reason::MetaFormat,
        ),
        ("65", "timestamp", "spec_version", Value::from("2.0.0"), Reason::SpecVersion),
        ("65", "timestamp", "spec_version", Value::from("1"), Reason::SpecVersion),
        ("65", "timestamp", "spec_version", Value::Int(1), Reason::SpecVersion),
        ("65", "timestamp", "spec_version", Value::from("x"), Reason::SpecVersion),
        ("65", "timestamp", "spec_version", Value::from("1.0.0.0"), Reason::SpecVersion),
        (
            "68",
            "snapshot",
            "meta/targets.json/hashes",
            Value::object::<&str>([]),
            Reason::MetaFormat,
        ),
        (
            "68",
            "snapshot",
            "meta/targets.json/hashes/sha256",
            Value::from("0".repeat(63)),
            Reason::MetaFormat,
        ),
        (
            "68",
            "snapshot",
            "meta/targets.json/hashes/sha256",
            Value::from(format!(" {}", "0".repeat(63))),
            Reason::MetaFormat,
        ),
        (
            "77",
            "targets",
            "delegations/roles/0/path_hash_prefixes",
            Value::Array(vec!["00".into()]),
            Reason::MetaFormat,
        ),
        (
            "77",
            "targets",
            "delegations/roles/1/path_hash_prefixes",
            Value::Array(vec!["0F".into()]),
            Reason::MetaFormat,
        ),
        (
            "77",
            "targets",
            "delegations/roles/1/path_hash_prefixes",
            Value::Array(vec!["".into()]),
            Reason::MetaFormat,
        ),
        ("78", "targets", "delegations/roles/0/name", Value::from("a-second"), Reason::MetaFormat),
        ("61", "targets", "delegations/roles/0/name", Value::from("snapshot"), Reason::MetaFormat),
        ("59", "targets", "targets/a\0b", TargetFile::of(b"", None).to_value(), Reason::MetaFormat),
        ("", "bins", "delegations/succinct_roles/bit_length", Value::Int(33), Reason::MetaFormat),
        ("", "bins", "delegations/succinct_roles/bit_length", Value::Int(0), Reason::MetaFormat),
        ("", "bins", "delegations/roles", Value::Array(vec![]), Reason::MetaFormat),
        ("28", "snapshot", "_type", Value::from("targets"), Reason::MetaType),
    ];
    let documents = documents();
    for (case, kind, path, to, reason) in rows {
        let mut value = documents.iter().find(|(name, _)| name == kind).unwrap().1.clone();
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        change(&mut value, &path, Some(to));
        let error =
            parse_as(kind, &value).expect_err(&format!("case {case} {kind} {path:?} {to:?}"));
        assert_eq!(error.reason(), *reason, "case {case} {kind} {path:?} {to:?}: {error}");
    }
}

#[test]
fn case_38_every_top_level_role_must_be_there() {
    for role in Role::TOP_LEVEL {
        let mut value = root().to_value();
        change(&mut value, &["roles".into(), role.name().into()], None);
        assert_eq!(Root::parse(&value).unwrap_err().reason(), Reason::MetaFormat, "{role}");
    }
}

#[test]
fn case_33_34_35_keys_stand_once_under_their_own_id() {
    let members = |mark: &str| {
        let mut members = key(1).value().as_object().unwrap().clone();
        members.insert("x-mark".into(), Value::from(mark));
        Key::read(&Value::Object(members)).unwrap()
    };
    // 34: one private key, two key objects, two ids.
    let (a, b) = (members("a"), members("b"));
    let mut twins = root();
    twins.keys.extend([(a.id(), a.clone()), (b.id(), b.clone())]);
    twins.set_role(&Role::Snapshot, RoleKeys::new(2, [a.id(), b.id()]));
    assert_eq!(Root::parse(&twins.to_value()).unwrap_err().reason(), Reason::KeyDuplicate);
    // In two different roles they are two names for one key, which is no attack.
    twins.set_role(&Role::Snapshot, RoleKeys::new(1, [a.id()]));
    twins.set_role(&Role::Targets, RoleKeys::new(1, [b.id()]));
    assert_eq!(Root::parse(&twins.to_value()), Ok(twins));
    // 33: one key id twice.
    let mut twice = root();
    twice.set_role(&Role::Snapshot, role_keys(1, &[1, 1]));
    assert_eq!(Root::parse(&twice.to_value()).unwrap_err().reason(), Reason::KeyDuplicate);
    // 35: a key id that is not the hash.
    let mut value = root().to_value();
    let zero = "0".repeat(64);
    change(&mut value, &["keys".into(), zero], Some(key(9).value()));
    assert_eq!(Root::parse(&value).unwrap_err().reason(), Reason::KeyidMismatch);
}

#[test]
fn case_46_the_number_of_keys_is_bounded() {
    let unknown = |i: usize| {
        Key::read(&Value::object([
            ("keytype", Value::from("future")),
            ("scheme", Value::from("future")),
            ("keyval", Value::object([("n", Value::Int(i as i64))])),
        ]))
        .unwrap()
    };
    let mut many = root();
    many.keys.extend((0..MAX_KEYS).map(unknown).map(|key| (key.id(), key)));
    assert_eq!(Root::parse(&many.to_value()).unwrap_err().reason(), Reason::MetaLimit);
}

fn signed_by(value: &Value, seeds: &[u8]) -> Envelope {
    let message = value.canonical();
    let signatures: Vec<_> = seeds
        .iter()
        .map(|seed| Signature::new(key(*seed).id(), &signing(*seed).sign(&message).to_bytes()))
        .collect();
    Envelope::parse(&envelope_bytes(value, &signatures)).unwrap()
}

#[test]
fn thresholds_count_distinct_keys_of_the_role() {
    let root = root();
    let value = root.to_value();
    for (name, seeds, valid) in [
        ("nobody", &[][..], 0),
        ("one of two", &[1], 1),
        ("a stranger beside one", &[1, 7], 1),
        ("two of three", &[1, 3], 2),
        ("all", &[3, 2, 1], 3),
        ("all and a stranger", &[7, 3, 2, 1], 3),
    ] {
        let result = root.verify(&Role::Root, &signed_by(&value, seeds));
        let expected = match valid {
            2.. => Ok(()),
            _ => Err(TufError::Threshold { role: Role::Root, valid, threshold: 2 }),
        };
        assert_eq!(result, expected, "{name}");
    }
}

#[test]
fn case_44_47_a_malformed_signature_counts_zero_and_does_no_harm() {
    let root = root();
    let value = root.to_value();
    let good = signed_by(&value, &[1, 2]);
    let hex = good.signatures()[1].sig.clone();
    let mega = "0".repeat(1 << 20);
    for sig in [
        "",
        "0",
        &hex[1..],
        &hex.to_uppercase(),
        &format!(" {hex}"),
        &format!("{hex}00"),
        "zz",
        &mega,
    ] {
        let mut signatures = good.signatures().to_vec();
        signatures[1].sig = sig.to_owned();
        let bytes = envelope_bytes(&value, &signatures);
        let below = root.verify(&Role::Root, &Envelope::parse(&bytes).unwrap());
        assert_eq!(below, Err(TufError::Threshold { role: Role::Root, valid: 1, threshold: 2 }));
        signatures.extend_from_slice(signed_by(&value, &[3]).signatures());
        let bytes = envelope_bytes(&value, &signatures);
        assert_eq!(
            root.verify(&Role::Root, &Envelope::parse(&bytes).unwrap()),
            Ok(()),
            "{sig:.20}"
        );
    }
}

#[test]
fn case_37_39_unreachable_thresholds_and_unknown_keys() {
    let mut root = root();
    root.set_role(&Role::Snapshot, role_keys(2, &[1]));
    let parsed = Root::parse(&root.to_value()).unwrap();
    let error = parsed.verify(&Role::Snapshot, &signed_by(&root.to_value(), &[1])).unwrap_err();
    assert_eq!(error.reason(), Reason::MetaFormat);
    // 39: a key of the future in the list, the threshold reached by others.
    let future = Key::read(&Value::object([
        ("keytype", Value::from("ml-dsa")),
        ("scheme", Value::from("ml-dsa-65")),
        ("keyval", Value::object([("public", Value::from("??"))])),
    ]))
    .unwrap();
    let mut keyids = role_keys(1, &[1]).keyids;
    keyids.insert(0, future.id());
    root.keys.insert(future.id(), future);
    root.set_role(&Role::Snapshot, RoleKeys::new(1, keyids));
    let parsed = Root::parse(&root.to_value()).unwrap();
    assert_eq!(parsed.verify(&Role::Snapshot, &signed_by(&root.to_value(), &[1])), Ok(()));
}

#[test]
fn case_66_what_is_unknown_is_kept_and_signed() {
    let mut value = root().to_value();
    change(&mut value, &["x-note".into()], Some(&Value::from("kept")));
    change(&mut value, &["roles".into(), "root".into(), "x".into()], Some(&Value::Int(1)));
    let root = Root::parse(&value).unwrap();
    assert_eq!(root.to_value(), value);
    let envelope = signed_by(&value, &[1, 2]);
    root.verify(&Role::Root, &envelope).unwrap();
    // The same signatures without the member do not verify.
    let mut without = value.clone();
    change(&mut without, &["x-note".into()], None);
    let bytes = envelope_bytes(&without, envelope.signatures());
    let error = root.verify(&Role::Root, &Envelope::parse(&bytes).unwrap()).unwrap_err();
    assert_eq!(error.reason(), Reason::SigThreshold);
}

#[test]
fn case_53_a_signed_value_may_be_spelled_freely() {
    let root = root();
    let envelope = signed_by(&root.to_value(), &[1, 2]);
    let text = String::from_utf8(envelope_bytes(&root.to_value(), envelope.signatures())).unwrap();
    let loose = text.replace(',', " ,\n\t").replace("\"root\"", "\"\\u0072oot\"");
    assert_ne!(text, loose);
    root.verify(&Role::Root, &Envelope::parse(loose.as_bytes()).unwrap()).unwrap();
}

#[test]
fn case_68_69_every_known_hash_must_match_in_full() {
    let bytes = b"the bytes";
    let sha256 = crate::digest::Sha256::of(bytes).to_hex();
    let mut sha512 = crate::digest::Algorithm::Sha512.hasher();
    sha512.update(bytes);
    let sha512 = sha512.finish().hex();
    let twelve = format!("{}{}", &sha256[..12], "0".repeat(52));
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<Reason>);
    let rows: &[Row<'_>] = &[
        ("sha256", &[("sha256", &sha256)], None),
        ("sha512", &[("sha512", &sha512)], None),
        ("both", &[("sha256", &sha256), ("sha512", &sha512)], None),
        ("unknown beside it", &[("sha256", &sha256), ("blake3", "00")], None),
        ("only md5", &[("md5", "00")], Some(Reason::HashMismatch)),
        (
            "one of two wrong",
            &[("sha256", &twelve), ("sha512", &sha512)],
            Some(Reason::HashMismatch),
        ),
        ("the first 12 digits", &[("sha256", &twelve)], Some(Reason::HashMismatch)),
    ];
    for (name, hashes, expected) in rows {
        let hashes = hashes.iter().map(|(name, hex)| (*name, Value::from(*hex)));
        let value = Value::object([
            ("length", Value::Int(bytes.len() as i64)),
            ("hashes", Value::object(hashes)),
        ]);
        let target = TargetFile::read(&value, "t".into()).unwrap();
        assert_eq!(target.check("t", bytes).err().map(|e| e.reason()), *expected, "{name}");
        let longer = [&bytes[..], b"!"].concat();
        assert_eq!(target.check("t", &longer).unwrap_err().reason(), Reason::LengthMismatch);
    }
}

#[test]
fn names_find_their_delegated_roles_in_order() {
    let targets = targets();
    let delegations = targets.delegations.unwrap();
    let names = |name| {
        delegations.covering(name).iter().map(|d| d.role.name().to_owned()).collect::<Vec<_>>()
    };
    for name in ["demo/1.0", "x/y"] {
        let hash = crate::digest::Sha256::of(name.as_bytes()).to_hex();
        let second = hash.starts_with("0f") || hash.starts_with('a');
        let mut expected = Vec::new();
        expected.extend(name.starts_with("demo/").then(|| "z-first".to_owned()));
        expected.extend(second.then(|| "a-second".to_owned()));
        assert_eq!(names(name), expected, "{name} {hash}");
    }
    let hit = (0..)
        .map(|i| format!("demo/{i}"))
        .find(|name| crate::digest::Sha256::of(name.as_bytes()).to_hex().starts_with('a'));
    assert_eq!(names(&hit.unwrap()), ["z-first", "a-second"]);
}

/// Expected names computed with python-tuf 7.0's `SuccinctRoles`.
#[test]
fn succinct_bins_are_named_as_python_tuf_names_them() {
    for (bit_length, expected) in [
        (1, "bin-1"),
        (5, "bin-17"),
        (8, "bin-bc"),
        (10, "bin-2f0"),
        (16, "bin-bc12"),
        (32, "bin-bc12909c"),
    ] {
        let keys = role_keys(1, &[4]);
        let bins = SuccinctRoles { keys, bit_length, name_prefix: "bin".into() };
        assert_eq!(bins.bin_of("demo/1.0"), expected);
    }
}

/// However prefixes are written, the same names are covered; those of some names cover these.
#[test]
fn prefixes_cover_the_same_in_any_order() {
    let name = |i: usize| format!("demo/{i}");
    for digits in [1, 2, 5, 64] {
        let names: Vec<String> = (0..200).map(name).collect();
        let sorted = HashPrefixes::of_names(names.iter().map(String::as_str), digits);
        let mut written = sorted.as_slice().to_vec();
        written.reverse();
        // One of another length, which covers nothing more.
        written.push(written[0].clone() + "0");
        let even = Paths::HashPrefixes(sorted);
        let odd = Paths::HashPrefixes(written.into());
        assert!(names.iter().all(|name| even.cover(name)), "{digits}");
        let others = (0..2000).map(name);
        assert!(others.clone().all(|name| even.cover(&name) == odd.cover(&name)), "{digits}");
        let by_chance = others.skip(200).filter(|name| even.cover(name)).count();
        assert_eq!(by_chance == 0, digits >= 5, "{digits}: {by_chance}");
    }
    assert!(!Paths::HashPrefixes(Vec::new().into()).cover("demo/1"));
}

proptest! {
    #[test]
    fn headers_of_any_version_and_time_round_trip(
        version in 1..=i64::MAX as u64,
        secs in UnixTime::MIN.secs()..=UnixTime::MAX.secs(),
    ) {
        let header = Header::new(version, UnixTime::from_secs(secs));
        let timestamp = Timestamp::new(header, MetaFile::of(version, b""));
        let bytes = timestamp.to_value().to_bytes();
        prop_assert_eq!(Timestamp::parse(&Value::parse(&bytes).unwrap()), Ok(timestamp));
    }

    #[test]
    fn unknown_members_anywhere_survive(name in "[a-z]{1,8}-x", text in ".{0,16}") {
        for (kind, value) in documents() {
            let Value::Object(mut members) = value else { unreachable!() };
            members.insert(name.clone(), Value::Object(Object::from([(text.clone(), Value::Null)])));
            let value = Value::Object(members);
            prop_assert_eq!(parse_as(kind, &value), Ok(value.clone()));
        }
    }
}
