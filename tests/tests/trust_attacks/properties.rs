//! Properties over histories, cuts and mutations.

use formats::tuf::{Envelope, Role};
use proptest::prelude::*;
use racklet_testkit::forge::{Forge, ForgeKey, Node};
use update_core::trust::{Refresh, Step, Stored, TrustedSet, Workflow};

use crate::settled;

fn versions(set: &TrustedSet) -> [u64; 4] {
    [
        set.root().header.version,
        set.timestamp().header.version,
        set.snapshot().header.version,
        set.targets().header.version,
    ]
}

/// One honest change of a repository.
#[derive(Debug, Clone)]
enum Change {
    Publish(usize),
    Rotate(usize, u32),
    Release(u8),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..4usize).prop_map(Change::Publish),
        (0..4usize, 100..200u32).prop_map(|(role, seed)| Change::Rotate(role, seed)),
        any::<u8>().prop_map(Change::Release),
    ]
}

fn apply(repo: &mut Forge, change: &Change) {
    match change {
        Change::Publish(role) => repo.publish(&[Role::TOP_LEVEL[*role].clone()]),
        Change::Rotate(role, seed) => {
            let role = Role::TOP_LEVEL[*role].clone();
            repo.rekey(&role, 1, &[ForgeKey::new(*seed)]);
            let roles = [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp];
            repo.publish(&roles);
        }
        Change::Release(n) => {
            repo.add_target(&Role::Targets, &format!("demo/{n}"), &[*n]);
            repo.publish(&[Role::Targets]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever an honest signer does, and however many changes a node misses, it follows.
    #[test]
    fn every_honest_history_is_followed(
        changes in prop::collection::vec((any_change(), any::<bool>()), 1..12)
    ) {
        let (mut repo, mut node) = settled();
        for (change, online) in &changes {
            apply(&mut repo, change);
            if *online {
                node.refresh(&repo).unwrap();
            }
        }
        let mut fresh = Node::of(&repo);
        let set = node.refresh(&repo).unwrap();
        prop_assert_eq!(versions(&set), versions(&fresh.refresh(&repo).unwrap()));
        prop_assert_eq!(node.stored, fresh.stored);
    }

    /// A power cut before or after any write of the state: the next honest run completes, and
    /// nothing that was trusted is forgotten.
    #[test]
    fn a_cut_at_any_write_is_harmless(
        changes in prop::collection::vec(any_change(), 1..8),
        cut in 0..6usize,
        written in any::<bool>(),
    ) {
        let (mut repo, mut node) = settled();
        for change in &changes {
            apply(&mut repo, change);
        }
        let stored = node.stored.clone();
        let mut refresh =
            Refresh::begin(stored, &node.shipped_root, node.clock, node.limits).unwrap();
        let mut writes = 0;
        loop {
            match refresh.next().unwrap() {
                Step::Fetch(fetch) => refresh.respond(repo.reply(&fetch)),
                Step::Persist(stored) => {
                    if writes == cut && !written {
                        break;
                    }
                    node.stored = Stored::from_bytes(&stored.to_bytes()).unwrap();
                    if writes == cut {
                        break;
                    }
                    writes += 1;
                }
                Step::Done(_) => break,
            }
        }
        let set = node.refresh(&repo).unwrap();
        prop_assert_eq!(versions(&set), versions(&Node::of(&repo).refresh(&repo).unwrap()));
    }

    /// One changed byte in one served file: the update fails without a trace of it, or what is
    /// trusted is the very value that was signed.
    #[test]
    fn a_changed_byte_is_refused_or_means_nothing(
        file in 0..4usize,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut repo = Forge::new();
        repo.publish(&[Role::Root, Role::Targets]);
        let file = ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"][file];
        let honest = repo.served[file].clone();
        let bytes = repo.served.get_mut(file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut node = Node::of(&repo);
        let accepted = node.refresh(&repo).is_ok();
        for role in Role::TOP_LEVEL {
            let Some(stored) = node.stored.file(&role) else { continue };
            if **stored == repo.served[file][..] {
                let (a, b) = (Envelope::parse(stored).unwrap(), Envelope::parse(&honest).unwrap());
                prop_assert_eq!(a.signed(), b.signed());
            }
        }
        if accepted {
            prop_assert!(node.stored.targets.is_some());
        }
    }

    /// No bytes at all make the machine panic, whichever file they stand for.
    #[test]
    fn no_bytes_panic(file in 0..4usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut repo, mut node) = settled();
        repo.publish(&[Role::Root, Role::Targets]);
        let file = ["2.root.json", "timestamp.json", "3.snapshot.json", "3.targets.json"][file];
        repo.served.insert(file.into(), bytes);
        prop_assert!(node.refresh(&repo).is_err());
    }
}
