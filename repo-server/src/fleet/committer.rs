//! One thread that makes reports durable: whatever waits when it is free goes into one transaction.
//!
//! A sync of the disk takes milliseconds, whether it is for one report or for a thousand. So two
//! thousand nodes that report at once cost a few syncs and not two thousand.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, RwLock};

use formats::digest::Sha256;
use formats::report::SignedReport;
use tokio::sync::oneshot;

use super::approved::Approved;
use super::judge::{Known, Verdict, judge};
use super::store::{FleetStore, StoreFailure};
use super::{FleetConfig, TRANSITIONS};
use crate::lock::LockRw as _;

/// Reports that wait at once; 4 KiB each. Who comes then is told to come again.
const QUEUE: usize = 4096;
/// Reports of one transaction.
const GROUP: usize = 1024;
/// Between two times that what is too much or too old is forgotten, in seconds.
const SWEEP: u64 = 60;

/// Why a report was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unkept {
    /// Too many wait.
    Full,
    /// The database failed; its words are in the log.
    Failed,
}

struct Job {
    report: SignedReport,
    now: u64,
    answer: oneshot::Sender<Result<Verdict, Unkept>>,
}

/// Hands reports to the thread, which ends with this.
pub(crate) struct Committer(SyncSender<Job>);

impl Committer {
    /// Starts the thread. Nodes of `listed` are not forgotten.
    pub(crate) fn start(
        store: Box<dyn FleetStore>,
        config: &FleetConfig,
        listed: Arc<RwLock<Arc<Approved>>>,
    ) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel(QUEUE);
        let keeper = Keeper {
            store,
            retention: config.retention.as_secs(),
            most_waiting: config.waiting,
            listed,
            swept: 0,
        };
        std::thread::Builder::new().name("fleet".to_owned()).spawn(move || keeper.run(&waiting))?;
        Ok(Committer(jobs))
    }

    /// Keeps a report; the verdict comes when it is durable.
    pub(crate) async fn keep(&self, report: SignedReport, now: u64) -> Result<Verdict, Unkept> {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Job { report, now, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(Unkept::Failed)),
            Err(TrySendError::Full(_)) => Err(Unkept::Full),
            Err(TrySendError::Disconnected(_)) => Err(Unkept::Failed),
        }
    }
}

struct Keeper {
    store: Box<dyn FleetStore>,
    retention: u64,
    most_waiting: usize,
    listed: Arc<RwLock<Arc<Approved>>>,
    /// When it was last looked for what is too much.
    swept: u64,
}

impl Keeper {
    fn run(mut self, waiting: &Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut group = vec![first];
            group.extend(waiting.try_iter().take(GROUP - 1));
            let now = group.iter().map(|job| job.now).max().unwrap_or_default();
            let (reports, answers): (Vec<_>, Vec<_>) =
                group.into_iter().map(|job| ((job.report, job.now), job.answer)).unzip();
            let done = keep_all(self.store.as_mut(), &reports);
            if let Err(error) = &done {
                tracing::error!("fleet: {} reports are not kept: {error}", answers.len());
            }
            let verdicts = done.map_or_else(
                |_| vec![Err(Unkept::Failed); answers.len()],
                |verdicts| verdicts.into_iter().map(Ok).collect(),
            );
            let grew = verdicts.contains(&Ok(Verdict::Kept));
            for (answer, verdict) in answers.into_iter().zip(verdicts) {
                // Who asked may be gone.
                let _ = answer.send(verdict);
            }
            if grew {
                self.sweep(now);
            }
        }
    }

    /// Forgets what is too much: unknown nodes after each group, old transitions now and then.
    fn sweep(&mut self, now: u64) {
        let listed = Arc::clone(&self.listed.read_locked());
        let old = now.abs_diff(self.swept) >= SWEEP;
        let before = now.saturating_sub(self.retention);
        let most = self.most_waiting;
        let swept = within(self.store.as_mut(), |store| {
            let forgotten = store.forget_waiting(&listed, most)?;
            if old {
                store.forget_transitions(before, TRANSITIONS)?;
            }
            Ok(forgotten)
        });
        match swept {
            Ok(0) => {}
            Ok(forgotten) => tracing::warn!(
                forgotten,
                "fleet: more than {most} nodes wait for approval; the oldest were forgotten"
            ),
            Err(error) => tracing::error!("fleet: forget what is too much: {error}"),
        }
        if old {
            self.swept = now;
        }
    }
}

/// Work as one transaction.
fn within<T>(
    store: &mut dyn FleetStore,
    work: impl FnOnce(&mut dyn FleetStore) -> Result<T, StoreFailure>,
) -> Result<T, StoreFailure> {
    store.begin()?;
    match work(store) {
        Ok(done) => store.commit().map(|()| done),
        Err(error) => {
            store.rollback();
            Err(error)
        }
    }
}

/// Judges and keeps reports in one transaction: durable when this returns, or nothing happened.
fn keep_all(
    store: &mut dyn FleetStore,
    reports: &[(SignedReport, u64)],
) -> Result<Vec<Verdict>, StoreFailure> {
    within(store, |store| {
        let mut last: HashMap<Sha256, Known> = HashMap::new();
        let mut verdicts = Vec::with_capacity(reports.len());
        for (signed, now) in reports {
            let report = signed.report();
            let known = match last.remove(&report.node) {
                Some(known) => Some(known),
                None => store.known(&report.node)?,
            };
            let (verdict, next) = judge(known.as_ref(), report, *now);
            if let Some(next) = &next {
                let changed = known.as_ref().is_none_or(|known| known.doing != next.doing);
                store.keep(signed, next, changed)?;
            }
            last.extend(next.or(known).map(|known| (report.node, known)));
            verdicts.push(verdict);
        }
        Ok(verdicts)
    })
}

/// The same for reports that came as files, oldest first: all that are newer are kept.
pub(super) fn commit(
    store: &mut dyn FleetStore,
    reports: &[SignedReport],
    now: u64,
    listed: &Approved,
    most_waiting: usize,
) -> Result<Vec<Verdict>, StoreFailure> {
    // A stick may bring several of one node, made at different times: the last one counts, and none
    // came too soon.
    let mut verdicts = vec![Verdict::Kept; reports.len()];
    let mut order: Vec<usize> = (0..reports.len()).collect();
    order.sort_by_key(|at| reports[*at].report().sequence);
    within(store, |store| {
        for at in order {
            let (signed, report) = (&reports[at], reports[at].report());
            let known = store.known(&report.node)?;
            let patient = known.clone().map(|known| Known { received: 0, ..known });
            let (verdict, next) = judge(patient.as_ref(), report, now);
            if let Some(next) = &next {
                let changed = known.as_ref().is_none_or(|known| known.doing != next.doing);
                store.keep(signed, next, changed)?;
            }
            verdicts[at] = verdict;
        }
        store.forget_waiting(listed, most_waiting).map(drop)
    })?;
    Ok(verdicts)
}
