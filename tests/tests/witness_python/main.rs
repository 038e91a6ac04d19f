//! Our client reads repositories that python-tuf writes: keys of three kinds, unknown members,
//! chains of roles, hash bins, succinct roles, rotated roots.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use formats::tuf::UnixTime;
use racklet_testkit::forge::NOW;
use racklet_tests::rig::venv;
use update_core::trust::{Clock, Limits, Refresh, Reply, Stored, TrustError, TrustedSet, run};

/// What `write.py` wrote, once for all tests.
fn repositories() -> &'static Path {
    static WRITTEN: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = WRITTEN.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness_python/write.py");
        let _done = venv().arg(script).arg(directory.path()).ok();
        directory
    });
    directory.path()
}

/// A node that trusts the first root of a repository.
struct Reader {
    directory: std::path::PathBuf,
    stored: Stored,
}

impl Reader {
    fn of(repository: &str) -> Self {
        Reader { directory: repositories().join(repository), stored: Stored::default() }
    }

    fn reply(step: &Path, file_name: &str) -> Reply {
        fs::read(step.join(file_name)).map_or(Reply::NotFound, Reply::Bytes)
    }

    /// Updates from one step.
    fn refresh(&mut self, step: &str) -> Result<TrustedSet, TrustError> {
        let root = fs::read(self.directory.join("1/1.root.json")).unwrap();
        let clock = Clock { system: NOW, build: UnixTime::EPOCH };
        let stored = self.stored.clone();
        let mut refresh = Refresh::begin(stored, &root, clock, Limits::default())?;
        let step = self.directory.join(step);
        run(
            &mut refresh,
            |fetch| Self::reply(&step, &fetch.file_name),
            |stored| self.stored = stored,
        )
    }

    /// Looks up every name, and compares role and content with what python-tuf meant.
    fn find_all(&mut self, step: &str, set: &mut TrustedSet) -> usize {
        let expected = fs::read(self.directory.join("targets.json")).unwrap();
        let expected: BTreeMap<String, Option<String>> = serde_json::from_slice(&expected).unwrap();
        let step = self.directory.join(step);
        for (name, role) in &expected {
            let mut search = set.find_target(name).unwrap();
            let reply = |file: &str| Self::reply(&step, file);
            let found =
                run(&mut search, |fetch| reply(&fetch.file_name), |stored| self.stored = stored);
            match (found, role) {
                (Ok(found), Some(role)) => {
                    assert_eq!(found.role().name(), role, "{name}");
                    found.file().check(name, name.as_bytes()).unwrap();
                }
                (Err(TrustError::TargetNotFound { .. }), None) => {}
                (found, role) => panic!("{name}: {found:?} where {role:?} is meant"),
            }
        }
        expected.len()
    }
}

#[test]
fn delegations_with_keys_of_three_kinds_through_a_rotated_root() {
    let mut reader = Reader::of("delegations");
    let set = reader.refresh("1").unwrap();
    assert_eq!((set.root().header.version, set.targets().header.version), (1, 1));
    let kinds: Vec<_> = set
        .root()
        .keys
        .values()
        .map(|key| key.value().get("keytype").and_then(|kind| kind.as_str()).unwrap().to_owned())
        .collect();
    for kind in ["ecdsa", "ed25519", "rsa"] {
        assert!(kinds.iter().any(|found| found == kind), "{kinds:?}");
    }
    let mut set = reader.refresh("2").unwrap();
    assert_eq!((set.root().header.version, set.targets().header.version), (2, 2));
    assert_eq!(reader.find_all("2", &mut set), 9);
    // Back to the first state: python-tuf's own older metadata is older to us, too.
    let error = reader.refresh("1").unwrap_err();
    assert_eq!(error.reason(), formats::reason::Reason::VersionRollback);
}

#[test]
fn succinct_bins() {
    let mut reader = Reader::of("bins");
    let mut set = reader.refresh("1").unwrap();
    assert_eq!(reader.find_all("1", &mut set), 65);
}

#[test]
fn path_hash_prefixes() {
    let mut reader = Reader::of("prefixes");
    let mut set = reader.refresh("1").unwrap();
    assert_eq!(reader.find_all("1", &mut set), 65);
}

#[test]
fn without_consistent_snapshots() {
    let mut reader = Reader::of("plain");
    let mut set = reader.refresh("1").unwrap();
    assert!(!set.root().consistent_snapshot);
    assert_eq!(reader.find_all("1", &mut set), 2);
}
