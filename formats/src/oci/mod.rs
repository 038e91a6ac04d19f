//! OCI descriptors, manifests and indexes (image-spec 1.1.1), and the names registries use
//! (distribution-spec 1.1).
//!
//! Two rules hold everywhere. Bytes that were received are kept and hashed as received, never
//! serialised again. Bytes that we write are compact JSON with the fields in the order of the
//! structs below and maps sorted by key, so the same facts give the same digest on any machine.

mod descriptor;
mod document;
mod error;
mod name;
mod named;
mod references;

pub mod annotation;
pub mod media_type;

pub use descriptor::{Descriptor, EMPTY_CONFIG, Platform};
pub use document::{Index, Manifest};
pub use error::OciError;
pub use name::{NameError, RepositoryName, Tag};
pub use named::NamedManifest;
pub use references::References;

/// 4 MiB: the manifest size every registry must take (distribution-spec §"Pushing Manifests").
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// 48 MiB: the memory that all of an `index.json` may take, where all of it is wanted: in signer and
/// server. 8 MiB of tags take some 20. A node reads names only, see [`NamedManifest`].
pub const LAYOUT_TREE_LIMIT: usize = 48 << 20;

/// Layers or manifests one document may list; our largest has one layer per root version.
pub const ENTRIES_LIMIT: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_facts_give_the_same_bytes() {
        let layer =
            Descriptor::of(media_type::CHUNKS, b"x").annotated("b", "2").annotated("a", "1");
        let manifest = Manifest::artifact(media_type::IMAGE, Descriptor::empty(), vec![layer]);
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        insta::assert_snapshot!(String::from_utf8(bytes).unwrap());
    }

    #[test]
    fn documents_that_are_two_things_are_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}}"#,
            serde_json::to_string(&Descriptor::empty()).unwrap()
        );
        assert!(matches!(Manifest::parse(both.as_bytes()), Err(OciError::Ambiguous { .. })));
        assert!(matches!(Index::parse(both.as_bytes()), Err(OciError::Ambiguous { .. })));
        let manifest = Manifest::artifact(media_type::IMAGE, Descriptor::empty(), vec![]);
        assert!(matches!(Index::parse(&manifest.to_bytes()), Err(OciError::Ambiguous { .. })));
        let index = Index::new(None, vec![]);
        assert!(matches!(Manifest::parse(&index.to_bytes()), Err(OciError::Ambiguous { .. })));
    }

    #[test]
    fn hostile_descriptors_are_refused() {
        let hex = "0a".repeat(32);
        for (size, digest) in [
            ("-1", format!("sha256:{hex}")),
            ("9223372036854775808", format!("sha256:{hex}")),
            ("1e3", format!("sha256:{hex}")),
            ("1", "sha256:../../x".to_owned()),
            ("1", "md5:00".to_owned()),
        ] {
            let text = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{digest}","size":{size}}}]}}"#
            );
            let parsed = Index::parse(text.as_bytes());
            assert!(matches!(parsed, Err(OciError::Form { .. })), "{size} {digest}: {parsed:?}");
        }
    }

    #[test]
    fn one_digest_has_one_size() {
        let one = Descriptor::of("x", b"one");
        let mut two = one.clone();
        two.size += 1;
        let index = Index::new(None, vec![one, two]);
        assert!(matches!(Index::parse(&index.to_bytes()), Err(OciError::Contradiction { .. })));
    }

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "racklet/tuf", "a.b_c__d---e/0"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "a/", "/a", "a//b", "..", "a/../b", "A", "a..b", "a___b", "-a", "a-", "a b",
            "a\0", &long,
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
        for good in ["latest", "1.0.0", "_x", "sha256-0a"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a/b", "a:b", "a b", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }
}
