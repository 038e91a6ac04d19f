//! Whole updates from repositories that the input changes and the forger signs again: each byte
//! is one choice of what to break. The node never panics, never goes back, and keeps only what it
//! can read again.

use formats::tuf::{Envelope, Metadata, Role, Root};
use racklet_testkit::forge::{Forge, Node};
use racklet_testkit::mutate::mutate;
use racklet_testkit::random::Random;
use update_core::trust::Stored;

fn version(bytes: &[u8]) -> i64 {
    let envelope = Envelope::parse(bytes).expect("what is kept was read");
    envelope.signed().get("version").and_then(|version| version.as_int()).expect("and verified")
}

/// An update, or two, of a node. Every script is accepted.
pub(crate) fn whole_update(data: &[u8]) -> bool {
    let mut repo = Forge::new();
    let ops = repo.delegate(&Role::Targets, "ops", &["ops/*"]);
    repo.add_target(&ops, "ops/tool", b"tool");
    repo.publish(&[Role::Targets, ops]);
    let mut node = Node::of(&repo);
    node.find(&repo, "ops/tool").expect("an honest repository");
    let mut random = Random::scripted(data);
    for _ in 0..1 + random.below(2) {
        let before = node.stored.clone();
        let _kinds = mutate(&mut repo, &mut random);
        if let Ok(found) = node.find(&repo, "ops/tool") {
            assert!(["targets", "ops"].contains(&found.role().name()));
        }
        let after = &node.stored;
        assert_eq!(Stored::from_bytes(&after.to_bytes()).as_ref(), Ok(after));
        assert!(after.known_time >= before.known_time);
        let root = |stored: &Stored| stored.file(&Role::Root).map(|bytes| version(bytes));
        let rotated = root(after) > root(&before);
        for role in Role::TOP_LEVEL {
            let [old, new] = [&before, after].map(|stored| stored.file(&role).map(|b| version(b)));
            // TUF §5.3.11 forgets timestamp and snapshot with their keys; targets are judged by
            // the snapshot.
            assert!(new >= old || rotated, "{role} went back from {old:?} to {new:?}");
        }
        if let Some(bytes) = after.file(&Role::Root) {
            let envelope = Envelope::parse(bytes).expect("what is kept was read");
            let root = Root::parse(envelope.signed()).expect("and verified");
            root.verify(&Role::Root, &envelope).expect("a root signs itself");
            assert!(root.header().version >= 1);
        }
    }
    true
}
