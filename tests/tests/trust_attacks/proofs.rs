//! Firmware and slots of different times: which proofs the chooser of a root accepts.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use formats::digest::{Digest, Sha256};
use formats::json::Value;
use formats::release::{ComponentSummary, Summary};
use formats::tuf::{Role, TargetFile};
use formats::verity::Verity;
use racklet_testkit::forge::{Forge, ForgeKey, NOW};
use update_core::chooser::{Machine, Proof, ProofError, approve};

const NAME: &str = "demo/2.0.0";

fn summary() -> Summary {
    let verity = Verity {
        root_hash: Sha256::of(b"tree"),
        salt: String::new(),
        data_blocks: 1,
        hash_offset: 4096,
    };
    let os = ComponentSummary {
        name: "os".parse().unwrap(),
        compatible: vec!["cu-v1".to_owned()],
        manifest: Digest::sha256_of(b"manifest"),
        raw_size: 1 << 20,
        verity: Some(verity),
        raw: None,
    };
    Summary {
        version: "2.0.0".parse().unwrap(),
        security_version: 1,
        components: vec![os],
        attachments: Vec::new(),
        mixed: Vec::new(),
        order: Vec::new(),
        withdrawn: None,
    }
}

/// A repository with that release, and what it serves at each version of its root.
struct World {
    repo: Forge,
    states: Vec<BTreeMap<String, Vec<u8>>>,
}

impl World {
    fn new() -> Self {
        let mut repo = Forge::new();
        let custom = Value::parse(&summary().to_custom()).unwrap();
        let file = TargetFile::of(b"index", Some(custom));
        repo.targets(&Role::Targets).targets.insert(NAME.to_owned(), file);
        repo.publish(&[Role::Targets]);
        World { states: vec![repo.freeze()], repo }
    }

    /// One new root for each, with other keys for that role; everything is signed again.
    fn rotating(roles: &[Option<Role>]) -> Self {
        let mut world = World::new();
        for (seed, role) in (50..).zip(roles) {
            if let Some(role) = role {
                world.repo.rekey(role, 1, &[ForgeKey::new(seed)]);
            }
            world.next();
        }
        world
    }

    fn next(&mut self) {
        self.repo.publish(&[Role::Root, Role::Targets]);
        self.states.push(self.repo.freeze());
    }

    fn root(&self, version: u64) -> &[u8] {
        &self.repo.history(&format!("{version}.root.json"))[0]
    }

    /// The proof of a slot that was written when the newest of these roots was.
    fn proof(&self, roots: RangeInclusive<u64>) -> Proof {
        let state = &self.states[*roots.end() as usize - 1];
        let is_root = |name: &str| name.ends_with(".root.json");
        let mut files = state.clone();
        files.retain(|name, _| !is_root(name));
        for version in roots {
            files.insert(format!("{version}.root.json"), self.root(version).to_vec());
        }
        Proof { known_time: NOW, version: "2.0.0".parse().unwrap(), files }
    }
}

fn judge(proof: &Proof, root: &[u8]) -> Result<(), ProofError> {
    let hardware = ["cu-v1".to_owned()];
    let component = "os".parse().unwrap();
    let machine = Machine { product: "demo", hardware: &hardware, component: &component };
    approve(proof, root, machine).map(drop)
}

fn code(proof: &Proof, root: &[u8]) -> &'static str {
    match judge(proof, root) {
        Ok(()) => "boots",
        Err(error) => error.reason().code(),
    }
}

#[test]
fn firmware_boots_slots_of_other_times_unless_a_targets_key_was_revoked() {
    use Role::{Root, Snapshot, Targets, Timestamp};
    // Roles rotated by root 2, 3 and 4; the firmware's root; the roots in the proof; what happens.
    type Row<'a> = (&'a [Option<Role>], u64, RangeInclusive<u64>, &'a str);
    let rows: &[Row<'_>] = &[
        (&[], 1, 1..=1, "boots"),
        // The firmware is older than the slot.
        (&[Some(Timestamp), Some(Timestamp)], 1, 1..=3, "boots"),
        (&[Some(Timestamp), Some(Timestamp)], 1, 2..=3, "boots"),
        (&[Some(Timestamp), Some(Timestamp)], 2, 1..=3, "boots"),
        (&[Some(Root), Some(Targets), Some(Snapshot)], 1, 1..=4, "boots"),
        (&[Some(Root), Some(Targets), Some(Snapshot)], 4, 1..=4, "boots"),
        // A proof that begins behind it leads nowhere.
        (&[Some(Timestamp), Some(Timestamp)], 1, 3..=3, "sig_threshold"),
        // It is newer by one root.
        (&[None], 2, 1..=1, "boots"),
        (&[Some(Timestamp)], 2, 1..=1, "boots"),
        (&[Some(Snapshot)], 2, 1..=1, "boots"),
        (&[Some(Root)], 2, 1..=1, "boots"),
        (&[Some(Targets)], 2, 1..=1, "sig_threshold"),
        // By more, of which the proof knows nothing.
        (&[Some(Timestamp), Some(Snapshot)], 3, 1..=1, "boots"),
        (&[Some(Root), Some(Root)], 3, 1..=1, "boots"),
        (&[Some(Root), Some(Root), Some(Timestamp)], 4, 2..=2, "boots"),
        (&[Some(Targets), None], 3, 1..=1, "sig_threshold"),
        (&[Some(Timestamp), Some(Targets), None], 4, 1..=2, "sig_threshold"),
        // Targets keys were rotated before the slot was written.
        (&[Some(Targets), Some(Timestamp)], 3, 1..=2, "boots"),
    ];
    for (rotated, firmware, proof, expected) in rows {
        let world = World::rotating(rotated);
        let found = code(&world.proof(proof.clone()), world.root(*firmware));
        assert_eq!(found, *expected, "{rotated:?}, firmware {firmware}, proof {proof:?}");
    }
}

#[test]
fn more_targets_keys_refuse_no_slot_and_a_higher_threshold_does() {
    let mut world = World::rotating(&[Some(Role::Targets)]);
    world.repo.rekey(&Role::Targets, 1, &[ForgeKey::new(50), ForgeKey::new(90)]);
    world.next();
    world.repo.rekey(&Role::Targets, 2, &[ForgeKey::new(50), ForgeKey::new(90)]);
    world.next();
    let slot = world.proof(1..=2);
    assert_eq!(code(&slot, world.root(3)), "boots", "one more key");
    assert_eq!(code(&slot, world.root(4)), "sig_threshold", "one signature is not enough any more");
}

#[test]
fn the_firmware_of_another_repository_boots_nothing() {
    let world = World::rotating(&[None, None]);
    let mut other = World::new();
    for role in Role::TOP_LEVEL {
        other.repo.rekey(&role, 1, &[ForgeKey::new(70)]);
    }
    other.repo.signers.insert(Role::Root, vec![ForgeKey::new(70)]);
    for (version, expected) in [(1, "meta_type"), (2, "meta_type"), (3, "sig_threshold")] {
        other.repo.header(&Role::Root).version = version;
        let foreign = other.repo.file_of(&Role::Root);
        assert_eq!(code(&world.proof(1..=2), &foreign), expected, "version {version}");
    }
    other.repo.header(&Role::Root).version = 9;
    let foreign = other.repo.file_of(&Role::Root);
    assert_eq!(code(&world.proof(1..=2), &foreign), "sig_threshold", "its targets keys");
    let error = judge(&world.proof(1..=2), &foreign).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("chooser.root")), "{error}");
}

/// A proof is read from a disk: nothing in it is believed before it is verified.
#[test]
fn no_name_and_no_version_of_a_root_in_a_proof_is_believed() {
    let world = World::rotating(&[Some(Role::Timestamp)]);
    let good = world.proof(1..=2);
    let root = world.root(1).to_vec();
    for name in ["0.root.json", "x.root.json", ".root.json", "007.root.json", "root.json"] {
        let mut proof = good.clone();
        proof.files.insert(name.to_owned(), b"{}".to_vec());
        assert_eq!(code(&proof, &root), "boots", "{name}");
    }
    let mut lying = good.clone();
    lying.files.insert(format!("{}.root.json", u64::MAX), b"{}".to_vec());
    assert_eq!(code(&lying, &root), "boots", "a root nobody asks for");
    for (version, expected) in [(1, "meta_format"), (2, "meta_format")] {
        let mut torn = good.clone();
        torn.files.insert(format!("{version}.root.json"), b"{".to_vec());
        assert_eq!(code(&torn, &root), expected, "root {version} is torn");
    }
    let newer = world.repo.history("2.root.json")[0].clone();
    let mut old = world.proof(1..=1);
    old.files.insert("1.root.json".to_owned(), newer.clone());
    assert_ne!(code(&old, &newer), "boots", "root 2 under the name of root 1");
}
