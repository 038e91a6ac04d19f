//! sigstore's own roots, as its PyPI package carries them: ECDSA keys in PEM, members that the
//! specification does not name, `spec_version` 1.0, signatures that are missing.
//!
//! `cargo xtask setup` fetches the packages; nothing of them is in this repository.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;

use formats::json::Value;
use formats::tuf::{Envelope, Metadata as _, PublicKey, Role, Root, TufError, UnixTime};
use update_core::trust::{Clock, Limits, Refresh, Stored};

fn read(version: &str, path: &str) -> Vec<u8> {
    let package = racklet_tools::setup::carrier("sigstore", version);
    let package = package.expect("sigstore is missing: run `cargo xtask setup`");
    fs::read(package.join("sigstore/_store").join(path)).unwrap()
}

const NEWEST: (&str, &str) = ("4.5.1", "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev/root.json");
const STAGING: (&str, &str) = ("4.5.1", "https%3A%2F%2Ftuf-repo-cdn.sigstage.dev/root.json");
const OLDER: (&str, &str) = ("3.6.1", "prod/root.json");
const OLDER_STAGING: (&str, &str) = ("3.6.1", "staging/root.json");

fn root((version, path): (&str, &str)) -> (Root, Envelope) {
    let envelope = Envelope::parse(&read(version, path)).unwrap();
    (Root::parse(envelope.signed()).unwrap(), envelope)
}

/// Every one of them signs itself, with key ids over the whole key objects.
#[test]
fn sigstores_roots_verify() {
    for (place, version, threshold, signatures) in
        [(NEWEST, 15, 3, 5), (STAGING, 14, 2, 2), (OLDER, 5, 3, 8), (OLDER_STAGING, 4, 1, 1)]
    {
        let (root, envelope) = root(place);
        assert_eq!(root.header.version, version, "{place:?}");
        assert_eq!(root.header.spec_version, "1.0");
        assert_eq!(root.role(&Role::Root).unwrap().threshold, threshold, "{place:?}");
        root.verify(&Role::Root, &envelope).unwrap();
        let made =
            envelope.signatures().iter().filter(|one| one.bytes().is_some_and(|b| !b.is_empty()));
        assert_eq!(made.count(), signatures, "{place:?}");
        for key in root.keys.values() {
            assert!(matches!(key.public(), PublicKey::EcdsaP256(_)), "{:?}", key.value());
        }
        // What is written again is what was signed.
        assert_eq!(root.to_value(), *envelope.signed(), "{place:?}");
    }
}

/// The members tuf-on-ci adds are part of the key, and so of its id: without them it is another
/// key, which the root does not name.
#[test]
fn members_of_a_key_are_part_of_its_id() {
    let (_, envelope) = root(NEWEST);
    let text = String::from_utf8(envelope.canonical().to_vec()).unwrap();
    assert!(text.contains("x-tuf-on-ci-keyowner"), "{text}");
    let renamed = text.replacen("x-tuf-on-ci-keyowner", "x-tuf-on-ci-keyownes", 1);
    // Newlines of PEM stand for themselves in the canonical form, which therefore is no JSON.
    let signed = Value::parse(renamed.replace('\n', "\\n").as_bytes()).unwrap();
    let error = Root::parse(&signed).unwrap_err();
    assert!(matches!(error, TufError::KeyidMismatch { .. }), "{error}");
}

/// As the trust root of a node: an update begins with it, and goes no further on an expired one.
#[test]
fn sigstores_root_is_a_trust_root() {
    let (document, _) = root(NEWEST);
    let clock = Clock { system: document.header.expires.plus(-1), build: UnixTime::EPOCH };
    let bytes = read(NEWEST.0, NEWEST.1);
    let refresh = Refresh::begin(Stored::default(), &bytes, clock, Limits::default()).unwrap();
    assert_eq!(refresh.now(), clock.system);
}

/// One signature too few, or one bit.
#[test]
fn a_changed_root_does_not_verify() {
    let (root, _) = root(NEWEST);
    let text = String::from_utf8(read(NEWEST.0, NEWEST.1)).unwrap();
    let later = text.replacen("\"version\": 15", "\"version\": 16", 1);
    assert_ne!(text, later);
    let error = root.verify(&Role::Root, &Envelope::parse(later.as_bytes()).unwrap()).unwrap_err();
    let expected = TufError::Threshold { role: Role::Root, valid: 0, threshold: 3 };
    assert_eq!(error, expected);
}
