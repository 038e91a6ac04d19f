//! The keys of `keys-example/`. Their secret halves are published, so anybody can sign
//! with them.
//!
//! Packaging refuses a trust root that holds one (`signer package-root --check`), and an agent
//! whose root holds one says so in every `status`, `doctor` and log start.

use crate::tuf::Root;

/// One example key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExampleKey {
    /// The role it signs for in the examples.
    pub role: &'static str,
    /// Its ed25519 public key, 64 hexadecimal digits.
    pub public: &'static str,
    /// The TUF key id of its plain key object.
    pub keyid: &'static str,
}

/// All of them. The seed of each is SHA-256 of `racklet example key <role>`.
pub const ALL: [ExampleKey; 4] = [
    ExampleKey {
        role: "root",
        public: "ac4e700fc3a8873a84e93f4192c6972275b2ba55fd5d20f62cfac0b43cdae137",
        keyid: "9efd3b6f25f0f3519510fcc046be1cbfb1e40524daff8d19966bb27b1ffda878",
    },
    ExampleKey {
        role: "targets",
        public: "97dab538639e2fcb0d49d1d5ecba219136e506bb8f9101c7ea1b6a56bba10d58",
        keyid: "bb70cc81f93974f0ab1a59ca28e5f5b5052bf777b70c81826a04568de52f7158",
    },
    ExampleKey {
        role: "snapshot",
        public: "55d1566752a7e72d03158022634bc1703217706767001b5affe0d23fb60e5445",
        keyid: "f0aaaae9d447495db50bbbd5e17188a19bc0b047a6be00e0eb70ba93688f50d9",
    },
    ExampleKey {
        role: "timestamp",
        public: "052beb8ad0b412b646a03e0c2d0ebb8d0d8cb9d3fa14ff237495d3c8de1604b9",
        keyid: "8e619b758eddc4af50c75efc7fc544f95003b098624bac1a544f031e2e6a4866",
    },
];

/// The first example key that a root lists, by key id or by its public half.
pub fn first_in(root: &Root) -> Option<ExampleKey> {
    root.keys.values().find_map(|key| {
        let id = key.id().to_string();
        let public = key.value().get("keyval").and_then(|value| value.get("public"));
        let public = public.and_then(|public| public.as_str()).unwrap_or_default();
        ALL.into_iter().find(|known| known.keyid == id || known.public == public)
    })
}

/// Whether a key id is that of an example key.
pub fn is_example(keyid: &str) -> bool {
    ALL.iter().any(|key| key.keyid == keyid)
}
