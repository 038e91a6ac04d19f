//! Whether a report is kept, and what it changes. Pure: the clock of the server is an argument.

use formats::report::Report;

use super::state::Doing;

/// 5 s: a node waits half a minute between two reports (`update_core::reporting`).
/// What comes faster is no node of ours, or two that share a key.
pub(crate) const MIN_GAP: u64 = 5;
/// Boots of a node that are remembered: enough to see that two machines with one key alternate.
pub(crate) const BOOTS: usize = 8;

/// What a server knows of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// The number of its last report.
    pub(crate) sequence: u64,
    /// When that was received, by the clock of the server.
    pub(crate) received: u64,
    /// Its last boots, the newest last.
    pub(crate) boots: Vec<String>,
    /// What it was doing.
    pub(crate) doing: Doing,
    /// Since when.
    pub(crate) since: u64,
    /// When two machines were last seen to share its key.
    pub(crate) cloned: Option<u64>,
}

/// What becomes of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is kept.
    Kept,
    /// It is not newer than the one with this number: a replay, or a node that was put back from a
    /// backup.
    Older(u64),
    /// The node reports too often.
    TooSoon,
}

/// The verdict on a report, and what is known of its node from now on.
pub(crate) fn judge(known: Option<&Known>, report: &Report, now: u64) -> (Verdict, Option<Known>) {
    let doing = Doing::of(report);
    let Some(known) = known else {
        let known = Known {
            sequence: report.sequence,
            received: now,
            boots: vec![report.boot.as_str().to_owned()],
            doing,
            since: now,
            cloned: None,
        };
        return (Verdict::Kept, Some(known));
    };
    if report.sequence <= known.sequence {
        return (Verdict::Older(known.sequence), None);
    }
    // A clock of the server that fell behind refuses nobody.
    if now >= known.received && now - known.received < MIN_GAP {
        return (Verdict::TooSoon, None);
    }
    let boot = report.boot.as_str();
    let mut boots = known.boots.clone();
    let mut cloned = known.cloned;
    if boots.last().is_none_or(|last| last != boot) {
        // A boot that was left never comes back: two machines take turns.
        if boots.iter().any(|other| other == boot) {
            cloned = Some(now);
        }
        boots.retain(|other| other != boot);
        boots.push(boot.to_owned());
        if boots.len() > BOOTS {
            boots.remove(0);
        }
    }
    let since = if doing == known.doing { known.since } else { now };
    let sequence = report.sequence;
    (Verdict::Kept, Some(Known { sequence, received: now, boots, doing, since, cloned }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(sequence: u64, boot: &str) -> Report {
        Report { sequence, boot: boot.into(), booted: "a".into(), ..Report::default() }
    }

    /// Everything that is sent, one after the other, ten seconds apart.
    fn after(reports: &[Report]) -> (Vec<Verdict>, Option<Known>) {
        let (mut known, mut verdicts) = (None, Vec::new());
        for (nth, report) in reports.iter().enumerate() {
            let (verdict, next) = judge(known.as_ref(), report, 1000 + nth as u64 * 10);
            verdicts.push(verdict);
            known = next.or(known);
        }
        (verdicts, known)
    }

    #[test]
    fn a_replayed_or_older_report_is_refused_and_told_how_far_we_are() {
        let sent = [report(5, "x"), report(5, "x"), report(3, "x"), report(6, "x")];
        let (verdicts, known) = after(&sent);
        assert_eq!(verdicts, [Verdict::Kept, Verdict::Older(5), Verdict::Older(5), Verdict::Kept]);
        assert_eq!(known.unwrap().sequence, 6);
    }

    #[test]
    fn a_server_put_back_from_a_backup_goes_on_with_nodes_that_are_ahead() {
        let (_, yesterday) = after(&[report(5, "x")]);
        let (verdict, known) = judge(yesterday.as_ref(), &report(900, "y"), 90_000);
        assert_eq!((verdict, known.unwrap().sequence), (Verdict::Kept, 900));
    }

    #[test]
    fn two_machines_with_one_key_are_noticed_when_they_take_turns() {
        let (_, known) = after(&[report(1, "x"), report(2, "y"), report(3, "z")]);
        assert_eq!(known.unwrap().cloned, None, "a node restarts as often as it wants");
        let (_, known) = after(&[report(1, "x"), report(2, "y"), report(3, "x")]);
        assert_eq!(known.unwrap().cloned, Some(1020));
        // It stays known for as long as the caller wants, and the list stays short.
        let many: Vec<Report> = (1..100).map(|nth| report(nth, &format!("boot {nth}"))).collect();
        assert_eq!(after(&many).1.unwrap().boots.len(), BOOTS);
    }

    #[test]
    fn a_node_that_reports_all_the_time_is_slowed_down() {
        let (_, known) = judge(None, &report(1, "x"), 1000);
        let known = known.unwrap();
        assert_eq!(judge(Some(&known), &report(2, "x"), 1004).0, Verdict::TooSoon);
        assert_eq!(judge(Some(&known), &report(2, "x"), 1005).0, Verdict::Kept);
        assert_eq!(judge(Some(&known), &report(2, "x"), 10).0, Verdict::Kept, "our clock fell");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes in whatever order: the number that is known never falls, and only a higher one
        /// is kept.
        #[test]
        fn numbers_only_rise(sent in proptest::collection::vec((any::<u64>(), any::<u8>(), any::<u64>()), 0..40)) {
            let mut known: Option<Known> = None;
            for (sequence, boot, now) in sent {
                let before = known.as_ref().map_or(0, |known| known.sequence);
                let (verdict, next) = judge(known.as_ref(), &report(sequence, &boot.to_string()), now);
                prop_assert_eq!(next.is_some(), verdict == Verdict::Kept);
                if let Some(next) = next {
                    prop_assert!(known.is_none() || next.sequence > before);
                    prop_assert!(next.boots.len() <= BOOTS);
                    known = Some(next);
                }
            }
        }
    }
}
