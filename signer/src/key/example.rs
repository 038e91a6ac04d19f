//! The throw-away keys of `keys-example/`: their seeds are public, so anybody can sign with them.
//!
//! ```text
//! seed of <role> = SHA-256("racklet example key <role>")
//! ```

use formats::digest::Sha256;

use super::SecretKey;

/// The roles there are example keys for.
pub const ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// The example key of a role.
pub fn key(role: &str) -> SecretKey {
    SecretKey::from_seed(&Sha256::of(format!("racklet example key {role}").as_bytes()).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::example_keys;

    #[test]
    fn formats_knows_them_all() {
        for (role, known) in ROLES.iter().zip(example_keys::ALL) {
            let key = key(role).key().unwrap();
            assert_eq!(known.role, *role);
            assert_eq!(known.keyid, key.id().to_string(), "{role}");
            assert!(example_keys::is_example(&key.id().to_string()));
            let public = formats::digest::hex(&super::key(role).public());
            assert_eq!(known.public, public, "{role}");
        }
        assert_eq!(ROLES.len(), example_keys::ALL.len());
    }
}
