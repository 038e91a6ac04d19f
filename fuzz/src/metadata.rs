//! TUF metadata, and what is kept of it.

use formats::json::Value;
use formats::tuf::{
    DelegatedTo, Envelope, Key, Metadata, PublicKey, Role, Root, Snapshot, Targets, Timestamp,
    check_target_name, url_component,
};
use update_core::trust::Stored;

use crate::two_parts;

/// JSON that is signed: what is read has one canonical form, and one spelling when written.
pub fn canonical_json(data: &[u8]) -> bool {
    let Ok(value) = Value::parse(data) else { return false };
    let written = value.to_bytes();
    let again = Value::parse(&written).expect("what is written is read");
    assert_eq!(again, value);
    assert_eq!(again.canonical(), value.canonical());
    assert_eq!(again.to_bytes(), written);
    true
}

/// The envelope of every metadata file, and its signatures' hexadecimal.
pub fn envelope(data: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(data) else { return false };
    let bytes = formats::tuf::envelope_bytes(envelope.signed(), envelope.signatures());
    assert_eq!(Envelope::parse(&bytes).expect("what is written is read"), envelope);
    for signature in envelope.signatures() {
        if let Some(bytes) = signature.bytes() {
            assert_eq!(signature.sig.len(), 2 * bytes.len());
        }
    }
    true
}

/// Root metadata.
pub fn root(data: &[u8]) -> bool {
    document::<Root>(data)
}

/// Timestamp metadata.
pub fn timestamp(data: &[u8]) -> bool {
    document::<Timestamp>(data)
}

/// Snapshot metadata.
pub fn snapshot(data: &[u8]) -> bool {
    document::<Snapshot>(data)
}

/// Targets metadata.
pub fn targets(data: &[u8]) -> bool {
    document::<Targets>(data)
}

/// The signed object of a whole file, or the object alone.
fn signed(data: &[u8]) -> Option<Value> {
    match Envelope::parse(data) {
        Ok(envelope) => Some(envelope.signed().clone()),
        Err(_) => Value::parse(data).ok(),
    }
}

/// What is read is written, and read again as the same.
fn document<M: Metadata + PartialEq + std::fmt::Debug>(data: &[u8]) -> bool {
    let Some(document) = signed(data).and_then(|signed| M::parse(&signed).ok()) else {
        return false;
    };
    let again = M::parse(&document.to_value()).expect("what is written is read");
    assert_eq!(again, document);
    assert!((1..=i64::MAX as u64).contains(&document.header().version));
    true
}

/// Delegations: which roles may sign for a name. The first line is the name, the rest a targets document.
pub fn delegated(data: &[u8]) -> bool {
    let Some((name, rest)) = two_parts(data) else { return false };
    let safe = check_target_name(name).is_ok();
    assert!(!safe || !name.split('/').any(|part| part == ".." || part == "."));
    let Some(targets) = signed(rest).and_then(|signed| Targets::parse(&signed).ok()) else {
        return false;
    };
    let Some(delegations) = &targets.delegations else { return false };
    let covering = delegations.covering(name);
    match &delegations.to {
        DelegatedTo::Roles(roles) => assert!(covering.len() <= roles.len()),
        DelegatedTo::Succinct(bins) => {
            assert_eq!(covering.len(), 1);
            assert!(bins.bin_of(name).starts_with(&bins.name_prefix));
        }
    }
    for delegated in covering {
        assert!(!Role::TOP_LEVEL.contains(&delegated.role));
        let url = url_component(&delegated.role.meta_name());
        assert!(!url.contains(['/', '?', '#']) && url != "." && url != "..", "{url}");
    }
    true
}

/// Keys and signatures: `KEY-OBJECT NUL SIGNATURE NUL MESSAGE`. Nothing verifies under a key nobody can use, and
/// nothing that is not as long as its scheme says.
pub fn key_and_signature(data: &[u8]) -> bool {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let object = parts.next().unwrap_or_default();
    let Some(key) = Value::parse(object).ok().and_then(|value| Key::read(&value).ok()) else {
        return false;
    };
    assert_eq!(Key::read(key.value()).expect("what was read is read").id(), key.id());
    let (signature, message) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let verifies = key.public().verifies(message, signature);
    match key.public() {
        PublicKey::Unknown => assert!(!verifies),
        PublicKey::Ed25519(point) => {
            assert!(!point.is_weak());
            assert!(!verifies || signature.len() == 64);
        }
        PublicKey::EcdsaP256(point) => assert_eq!(point[0], 4),
        PublicKey::RsaPss(der) => assert!(der.len() > 256),
    }
    true
}

/// The record of what a node trusts: one spelling.
pub fn trusted_state(data: &[u8]) -> bool {
    let Ok(stored) = Stored::from_bytes(data) else { return false };
    assert_eq!(stored.to_bytes(), data);
    true
}
