//! Many reports at once, and what a page counts.

use formats::boot_record::PerSlot;
use formats::report::{Decided, Report, SlotReport};
use racklet_testkit::forge::ForgeKey;

use super::state::State;
use super::*;

/// A node that runs a confirmed version, and was offered another one.
fn report(sequence: u64, runs: &str, offered: &str) -> Report {
    Report {
        product: "demo".into(),
        channel: "stable".into(),
        sequence,
        interval: 3600,
        booted: "a".into(),
        standing: "idle".into(),
        slots: PerSlot {
            a: SlotReport {
                state: "confirmed".into(),
                version: Some(runs.into()),
                ..SlotReport::default()
            },
            b: SlotReport::default(),
        },
        decision: Some(Decided {
            version: offered.into(),
            code: if runs == offered { "up_to_date" } else { "deferred" }.into(),
            rule: (runs != offered).then(|| "wave".into()),
            sentence: "its wave begins later".to_owned(),
            ..Decided::default()
        }),
        ..Report::default()
    }
}

fn signed(key: u32, report: Report) -> SignedReport {
    SignedReport::verify(&ForgeKey::new(key).report(report)).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn two_thousand_reports_at_once_are_all_durable() {
    let dir = tempfile::tempdir().unwrap();
    let config = FleetConfig { waiting: 10_000, ..FleetConfig::new(dir.path()) };
    let fleet = Fleet::open(&config).unwrap();
    let reports: Vec<_> = (0..2000).map(|key| signed(key, report(1, "1.4.1", "1.4.1"))).collect();
    let verdicts = runtime().block_on(async {
        let all = reports.into_iter().map(|report| fleet.committer.keep(report, 1000));
        futures_util::future::join_all(all).await
    });
    assert!(verdicts.iter().all(|verdict| *verdict == Ok(Verdict::Kept)));
    // Another connection sees them: they are in the file.
    assert_eq!(open(&dir.path().into()).unwrap().nodes().unwrap().len(), 2000);
}

#[test]
fn of_many_new_nodes_the_oldest_are_forgotten_and_approved_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = Fleet::open(&FleetConfig { waiting: 10, ..FleetConfig::new(dir.path()) }).unwrap();
    let known = signed(1, report(1, "1.4.1", "1.4.1"));
    Database::open(&dir.path().into()).unwrap().approve(&[known.report().node]).unwrap();
    runtime().block_on(async {
        assert_eq!(fleet.committer.keep(known, 1000).await, Ok(Verdict::Kept));
        for key in 100..200 {
            let verdict =
                fleet.committer.keep(signed(key, report(1, "9", "9")), 1000 + u64::from(key));
            assert_eq!(verdict.await, Ok(Verdict::Kept));
        }
    });
    let kept = || sums(open(&dir.path().into()).unwrap().as_ref(), 1300);
    // What is too much goes after the answer.
    drop(fleet);
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while kept().waiting.len() > 10 && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    let all = kept();
    assert_eq!((all.nodes.len(), all.waiting.len()), (1, 10));
    assert_eq!(all.waiting[0].brief.node, signed(199, report(1, "9", "9")).report().node);
    assert_eq!(all.channels.len(), 1);
    assert_eq!(all.channels.values().next().unwrap().nodes, 1, "who waits counts for nothing");
}

/// A store with these reports, all approved, and its sums at a time.
fn overview(reports: Vec<SignedReport>, now: u64) -> Overview {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir.path().into()).unwrap();
    let nodes: Vec<Sha256> = reports.iter().map(|report| report.report().node).collect();
    committer::commit(store.as_mut(), &reports, 1000, &Approved::default(), 100).unwrap();
    store.approve(&nodes, 0).unwrap();
    sums(store.as_ref(), now)
}

/// The sums of a store at a time.
fn sums(store: &dyn FleetStore, now: u64) -> Overview {
    let mut table = Table::default();
    table.update(store).unwrap();
    Overview::of(&table, &Approved::default(), now)
}

#[test]
fn silence_is_counted_apart_and_is_no_failure() {
    let reports = vec![
        signed(1, report(1, "1.4.2", "1.4.2")),
        signed(2, Report { interval: 100_000, ..report(1, "1.4.1", "1.4.2") }),
    ];
    let all = overview(reports, 1000 + 2 * 3600 + 601);
    assert_eq!((all.silent, all.need_somebody), (1, 0));
    let sums = all.channels.values().next().unwrap();
    assert_eq!(sums.releases["1.4.2"].silent, 1);
    assert_eq!(sums.releases["1.4.2"].of(State::Waiting), 1);
    assert_eq!(sums.runs.get("1.4.2"), None, "a silent node is not claimed to run anything");
}

#[test]
fn a_release_that_was_never_published_is_no_subject_of_a_sentence() {
    let mut reports: Vec<_> = (1..4).map(|key| signed(key, report(1, "1.4.2", "1.4.2"))).collect();
    reports.push(signed(9, report(1, "99.0.0", "99.0.0")));
    let all = overview(reports, 1010);
    let sums = all.channels.values().next().unwrap();
    assert_eq!(Overview::subject(sums, |version| version == "1.4.2"), Some("1.4.2"));
    // Without a repository beside it, what most nodes run.
    assert_eq!(Overview::subject(sums, |_| false), Some("1.4.2"));
}

#[test]
fn a_clock_that_is_far_off_is_shown_and_changes_nothing_else() {
    let reports = vec![
        signed(1, Report { at: 1000 + 86_400, ..report(1, "1.4.2", "1.4.2") }),
        signed(2, Report { at: 1001, ..report(1, "1.4.2", "1.4.2") }),
        signed(3, Report { at: u64::MAX, ..report(1, "1.4.2", "1.4.2") }),
    ];
    let all = overview(reports, 1010);
    let mut clocks: Vec<_> = all.nodes.iter().map(|seen| seen.clock).collect();
    clocks.sort();
    assert_eq!(clocks, [None, Some(86_400), Some(i64::MAX - 1000)]);
    assert_eq!((all.silent, all.nodes.len()), (0, 3));
    assert_eq!(all.channels.values().next().unwrap().runs["1.4.2"], 3);
}

#[test]
fn a_stick_may_bring_several_reports_of_a_node_and_the_last_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().into()).unwrap();
    let of = |sequence| signed(1, report(sequence, "1.4.1", "1.4.2"));
    let reports = [of(3), of(1), of(2), of(3)];
    let verdicts = database.import(&reports, &Approved::default(), 10).unwrap();
    assert_eq!(verdicts.iter().filter(|it| **it == Verdict::Kept).count(), 3);
    assert_eq!(verdicts[3], Verdict::Older(3));
    assert_eq!(database.store.nodes().unwrap()[0].known.sequence, 3);
    // Yesterday's stick.
    assert_eq!(database.import(&[of(2)], &Approved::default(), 10).unwrap(), [Verdict::Older(3)]);
}
