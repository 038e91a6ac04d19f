//! Clocks that are wrong, step and jump.

use formats::reason::Reason;
use formats::tuf::{PERIOD_MEMBER, Role, UnixTime};
use racklet_testkit::forge::{DAY, Forge, NOW, Node};
use update_core::trust::TrustError;

use crate::{ALL, recovers, refuses, settled};

#[test]
fn case_82_no_clock() {
    // Known time is stored: 1970 is not believed, and not taken for "not expired" either.
    let (repo, mut node) = settled();
    node.clock.system = UnixTime::EPOCH;
    node.requests.clear();
    let error = refuses(&mut node, &repo, Reason::ClockUntrusted, ALL);
    assert_eq!(error, TrustError::ClockUntrusted { clock: UnixTime::EPOCH, known: NOW });
    assert!(node.requests.is_empty(), "nothing is asked for");
    // A first run: the build time is known.
    let mut fresh = Node::of(&repo);
    fresh.clock.system = UnixTime::EPOCH;
    fresh.clock.build = NOW.plus(-100 * DAY);
    refuses(&mut fresh, &repo, Reason::ClockUntrusted, ALL);
    fresh.clock.system = NOW;
    recovers(&mut fresh, &repo);
}

#[test]
fn case_83_the_clock_steps_back() {
    let (repo, mut node) = settled();
    node.clock.system = NOW.plus(-DAY);
    refuses(&mut node, &repo, Reason::ClockUntrusted, ALL);
    node.clock.system = NOW.plus(-5 * 60);
    let set = node.refresh(&repo).unwrap();
    assert_eq!(set.now(), NOW, "a small step is tolerated, and known time counts");
    node.clock.system = NOW.plus(-5 * 60 - 1);
    refuses(&mut node, &repo, Reason::ClockUntrusted, ALL);
    node.clock.system = NOW.plus(1);
    recovers(&mut node, &repo);
}

#[test]
fn case_84_a_spoofed_jump_forward_does_not_stick() {
    let (repo, mut node) = settled();
    for year in ["2106-02-07T06:28:16Z", "9999-12-31T23:59:59Z"] {
        node.clock.system = UnixTime::parse(year).unwrap();
        refuses(&mut node, &repo, Reason::Expired, ALL);
    }
    node.clock.system = NOW.plus(60);
    recovers(&mut node, &repo);
    // Nor does a jump within the life of everything: the clock proves nothing.
    node.clock.system = NOW.plus(DAY - 1);
    recovers(&mut node, &repo);
    assert_eq!(node.stored.known_time, NOW);
    node.clock.system = NOW.plus(60);
    recovers(&mut node, &repo);
}

/// Known time is when the newest metadata was signed, as it says itself; a signer whose clock is
/// ahead moves it no further than the node's.
#[test]
fn case_84_known_time_rises_on_signed_evidence() {
    let (mut repo, mut node) = settled();
    let hour = 3600;
    let mut sign = |node: &mut Node, signed: i64, clock: i64| {
        repo.header(&Role::Timestamp).expires = NOW.plus(signed + DAY);
        repo.publish(&[Role::Timestamp]);
        node.clock.system = NOW.plus(clock);
        recovers(node, &repo);
        node.stored.known_time
    };
    assert_eq!(sign(&mut node, 6 * hour, 7 * hour), NOW.plus(6 * hour));
    // Signed before what is known, and by a clock that is ahead.
    assert_eq!(sign(&mut node, 3 * hour, 8 * hour), NOW.plus(6 * hour));
    assert_eq!(sign(&mut node, 20 * hour, 9 * hour), NOW.plus(9 * hour));
    assert_eq!(sign(&mut node, 12 * hour, 30 * hour), NOW.plus(12 * hour), "the node's is ahead");
    node.clock.system = NOW.plus(12 * hour - 5 * 60 - 1);
    refuses(&mut node, &repo, Reason::ClockUntrusted, ALL);
}

/// Metadata of other tools may not say when it was signed: then it proves no time.
#[test]
fn case_84_without_a_period_nothing_is_proven() {
    let (mut repo, _) = settled();
    repo.root.unknown = Default::default();
    repo.timestamp.unknown = Default::default();
    repo.snapshot.unknown = Default::default();
    repo.targets(&Role::Targets).unknown = Default::default();
    repo.publish(&[Role::Root, Role::Targets]);
    for period in [None, Some(0), Some(-DAY), Some(i64::MAX), Some(i64::MIN)] {
        if let Some(period) = period {
            repo.timestamp.unknown.insert(PERIOD_MEMBER.to_owned(), period.into());
            repo.publish(&[Role::Timestamp]);
        }
        let mut node = Node::of(&repo);
        recovers(&mut node, &repo);
        assert_eq!(node.stored.known_time, UnixTime::EPOCH, "{period:?}");
    }
}

#[test]
fn case_84_only_a_complete_update_moves_known_time() {
    let (mut repo, mut node) = settled();
    repo.header(&Role::Timestamp).expires = NOW.plus(DAY / 2 + DAY);
    repo.publish(&[Role::Targets]);
    let targets = repo.served.remove("3.targets.json").unwrap();
    node.clock.system = NOW.plus(DAY / 2);
    node.refresh(&repo).unwrap_err();
    assert_eq!(node.stored.known_time, NOW);
    repo.served.insert("3.targets.json".to_owned(), targets);
    recovers(&mut node, &repo);
    assert_eq!(node.stored.known_time, NOW.plus(DAY / 2));
}

#[test]
fn case_85_the_start_time_holds_for_the_whole_run() {
    let (mut repo, mut node) = settled();
    node.clock.system = NOW.plus(DAY - 1);
    repo.publish(&[Role::Targets]);
    // The machine is given the time once; however long the fetches take, it judges by that.
    let set = node.refresh(&repo).unwrap();
    assert_eq!(set.now(), NOW.plus(DAY - 1));
    node.clock.system = NOW.plus(DAY);
    let error = refuses(&mut node, &repo, Reason::Expired, ALL);
    assert!(error.to_string().contains("timestamp version 3 expired at 2030-01-02T00:00:00Z"));
}

#[test]
fn case_86_years_that_broke_others() {
    for year in ["2038-01-19T03:14:07Z", "2106-02-07T06:28:15Z", "2262-04-11T23:47:16Z"] {
        let last = UnixTime::parse(year).unwrap();
        let mut repo = Forge::new();
        for role in Role::TOP_LEVEL {
            repo.header(&role).expires = last.plus(1);
        }
        let root = repo.file_of(&Role::Root);
        repo.publish(&[Role::Targets]);
        let mut node = Node::of(&repo);
        node.shipped_root = root;
        node.clock.system = last;
        recovers(&mut node, &repo);
        assert_eq!(node.stored.known_time, last.plus(1 - DAY), "when the timestamp was signed");
        node.clock.system = last.plus(1);
        refuses(&mut node, &repo, Reason::Expired, ALL);
    }
}

/// A poll that brings nothing new writes nothing.
#[test]
fn polling_spares_the_flash() {
    let (repo, mut node) = settled();
    node.persisted.clear();
    for minute in 0..120 {
        node.clock.system = NOW.plus(minute * 60);
        recovers(&mut node, &repo);
    }
    assert_eq!(node.persisted.len(), 0);
}

/// A node that was off until everything expired catches up once the repository is fresh.
#[test]
fn an_expired_node_catches_up() {
    let (mut repo, mut node) = settled();
    let later = NOW.plus(3 * 365 * DAY);
    for role in Role::TOP_LEVEL {
        repo.header(&role).expires = later.plus(DAY);
    }
    repo.publish(&[Role::Root, Role::Targets]);
    node.clock.system = later;
    recovers(&mut node, &repo);
}
