//! One thread that makes reports and restart locks durable: whatever waits when it is free goes into one
//! transaction.
//!
//! A sync of the disk takes milliseconds, whether it is for one report or for a thousand. So two
//! thousand nodes that report at once cost a few syncs and not two thousand.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, RwLock};

use formats::digest::Sha256;
use formats::report::SignedReport;
use tokio::sync::oneshot;

use super::approved::Approved;
use super::judge::{Known, Verdict, judge};
use super::lock::{self, Answer, ClientId, Group, Request, Rules};
use super::store::{FleetStore, Kept, StoreFailure, Waiting};
use super::{FleetConfig, TRANSITIONS};
use crate::lock::LockRw as _;

/// Reports that wait at once; 4 KiB each. Who comes then is told to come again.
const QUEUE: usize = 4096;
/// Reports of one transaction.
const GROUP: usize = 1024;
/// Between two times that what is too much or too old is forgotten, in seconds.
const SWEEP: u64 = 60;

/// Why a report or a lock was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unkept {
    /// Too many wait.
    Full,
    /// The database failed; its words are in the log.
    Failed,
}

struct Job<What, Answer> {
    what: What,
    now: u64,
    answer: oneshot::Sender<Result<Answer, Unkept>>,
}

enum Work {
    Report(Box<Job<SignedReport, Verdict>>),
    Lock(Job<Request, Answer>),
}

/// Hands work to the thread, which ends with this.
pub(crate) struct Committer(SyncSender<Work>);

impl Committer {
    /// Starts the thread. Nodes of `listed` are not forgotten.
    pub(crate) fn start(
        store: Box<dyn FleetStore>,
        config: &FleetConfig,
        rules: Arc<Rules>,
        listed: Arc<RwLock<Arc<Approved>>>,
    ) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel(QUEUE);
        let keeper = Keeper {
            store,
            retention: config.retention.as_secs(),
            most_waiting: config.waiting,
            listed,
            rules,
            waiting: None,
            swept: 0,
        };
        std::thread::Builder::new().name("fleet".to_owned()).spawn(move || keeper.run(&waiting))?;
        Ok(Committer(jobs))
    }

    /// Keeps a report; the verdict comes when it is durable.
    pub(crate) async fn keep(&self, report: SignedReport, now: u64) -> Result<Verdict, Unkept> {
        self.done(now, report, |job| Work::Report(Box::new(job))).await
    }

    /// Answers a request for a restart lock; the answer comes when the lock is durable.
    pub(crate) async fn lock(&self, request: Request, now: u64) -> Result<Answer, Unkept> {
        self.done(now, request, Work::Lock).await
    }

    async fn done<What, Answer>(
        &self,
        now: u64,
        what: What,
        work: fn(Job<What, Answer>) -> Work,
    ) -> Result<Answer, Unkept> {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(work(Job { what, now, answer })) {
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
    rules: Arc<Rules>,
    /// The nodes that wait for approval: those of the last look, and all that were new since. None: nobody looked.
    waiting: Option<MostWaiting>,
    /// When it was last looked for what is too old.
    swept: u64,
}

/// At most so many nodes wait for approval, but for those that other servers over the same database took since.
struct MostWaiting {
    nodes: usize,
    /// If this is what is approved still.
    listed: Arc<Approved>,
}

impl Keeper {
    fn run(mut self, waiting: &Receiver<Work>) {
        while let Ok(first) = waiting.recv() {
            let (mut reports, mut locks) = (Vec::new(), Vec::new());
            for work in std::iter::once(first).chain(waiting.try_iter().take(GROUP - 1)) {
                match work {
                    Work::Report(job) => reports.push(*job),
                    Work::Lock(job) => locks.push(job),
                }
            }
            self.lock(locks);
            self.keep(reports);
        }
    }

    fn keep(&mut self, jobs: Vec<Job<SignedReport, Verdict>>) {
        let Some(now) = jobs.iter().map(|job| job.now).max() else { return };
        let (reports, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| ((job.what, job.now), job.answer)).unzip();
        let listed = Arc::clone(&self.listed.read_locked());
        let kept = keep_all(self.store.as_mut(), &reports, &listed);
        let (kept, new) = kept.map_or_else(|error| (Err(error), 0), |(kept, new)| (Ok(kept), new));
        if let Some(most) = &mut self.waiting {
            most.nodes += new;
        }
        if answer(answers, "reports", kept, &Verdict::Kept) {
            self.sweep(now, &listed);
        }
    }

    fn lock(&mut self, jobs: Vec<Job<Request, Answer>>) {
        // One time for all of them: a lock that ended for one of them has ended for the next.
        let Some(now) = jobs.iter().map(|job| job.now).max() else { return };
        let (requests, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.what, job.answer)).unzip();
        let done = lock_all(self.store.as_mut(), &self.rules, &requests, now);
        answer(answers, "restart locks", done, &Answer::Granted);
    }

    /// Forgets what is too much: unknown nodes once there may be too many, old transitions now and then.
    fn sweep(&mut self, now: u64, listed: &Arc<Approved>) {
        let fits = |most: &MostWaiting| {
            most.nodes <= self.most_waiting && Arc::ptr_eq(&most.listed, listed)
        };
        if !self.waiting.as_ref().is_some_and(fits) {
            self.forget_waiting(listed);
        }
        if now.abs_diff(self.swept) >= SWEEP {
            let before = now.saturating_sub(self.retention);
            let swept =
                within(self.store.as_mut(), |store| store.forget_transitions(before, TRANSITIONS));
            if let Err(error) = swept {
                tracing::error!("fleet: forget what is too old: {error}");
            }
            self.swept = now;
        }
    }

    fn forget_waiting(&mut self, listed: &Arc<Approved>) {
        let most = self.most_waiting;
        let swept = within(self.store.as_mut(), |store| store.forget_waiting(listed, most));
        self.waiting = match swept {
            Ok(Waiting { forgotten, left }) => {
                if forgotten > 0 {
                    tracing::warn!(
                        forgotten,
                        "fleet: more than {most} nodes wait for approval; the oldest were forgotten"
                    );
                }
                Some(MostWaiting { nodes: left, listed: Arc::clone(listed) })
            }
            Err(error) => {
                tracing::error!("fleet: forget what is too much: {error}");
                None
            }
        };
    }
}

/// Answers all of a transaction; whether one of the answers is this.
fn answer<Answer: Clone + PartialEq>(
    who: Vec<oneshot::Sender<Result<Answer, Unkept>>>,
    what: &str,
    done: Result<Vec<Answer>, StoreFailure>,
    wanted: &Answer,
) -> bool {
    if let Err(error) = &done {
        tracing::error!("fleet: {} {what} are not kept: {error}", who.len());
    }
    let answers = done.map_or_else(
        |_| vec![Err(Unkept::Failed); who.len()],
        |answers| answers.into_iter().map(Ok).collect(),
    );
    let found = answers.iter().any(|answer| answer.as_ref() == Ok(wanted));
    for (who, answer) in who.into_iter().zip(answers) {
        // Who asked may be gone.
        let _ = who.send(answer);
    }
    found
}

/// Answers requests for restart locks in one transaction: durable when this returns, or nothing happened.
fn lock_all(
    store: &mut dyn FleetStore,
    rules: &Rules,
    requests: &[Request],
    now: u64,
) -> Result<Vec<Answer>, StoreFailure> {
    within(store, |store| {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let before = store.holders(&request.group)?;
            let (next, answer) = lock::step(&before, rules, request, now);
            if next != before {
                store.hold(&request.group, &next)?;
            }
            answers.push(answer);
        }
        Ok(answers)
    })
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

/// Judges and keeps reports in one transaction: durable when this returns, or nothing happened. Also says how many nodes
/// are new that are not listed.
fn keep_all(
    store: &mut dyn FleetStore,
    reports: &[(SignedReport, u64)],
    listed: &Approved,
) -> Result<(Vec<Verdict>, usize), StoreFailure> {
    within(store, |store| {
        let reports = reports.iter().map(|(report, now)| (report, *now));
        let (verdicts, new) = judge_and_keep(store, reports, Known::clone)?;
        Ok((verdicts, new.iter().filter(|node| !listed.contains(node)).count()))
    })
}

/// Judges reports in their order by what `view` makes of what is known, and keeps those that are newer. Also the nodes that
/// are new.
fn judge_and_keep<'a>(
    store: &mut dyn FleetStore,
    reports: impl Iterator<Item = (&'a SignedReport, u64)> + Clone,
    view: fn(&Known) -> Known,
) -> Result<(Vec<Verdict>, Vec<Sha256>), StoreFailure> {
    let nodes: Vec<Sha256> = reports.clone().map(|(report, _)| report.report().node).collect();
    let mut all = store.known(&nodes)?;
    let (mut verdicts, mut new, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (report, now) in reports {
        let node = report.report().node;
        let known = all.get(&node);
        let (verdict, next) = judge(known.map(view).as_ref(), report.report(), now);
        if let Some(next) = next {
            let changed = known.is_none_or(|known| known.doing != next.doing);
            new.extend(known.is_none().then_some(node));
            all.insert(node, next.clone());
            kept.push(Kept { report, known: next, changed });
        }
        verdicts.push(verdict);
    }
    store.keep(&kept)?;
    Ok((verdicts, new))
}

/// Ends the locks of a client, of whatever groups; those of which it held one.
pub(super) fn release(
    store: &mut dyn FleetStore,
    client: &ClientId,
    now: u64,
) -> Result<Vec<Group>, StoreFailure> {
    within(store, |store| {
        let mut ended = Vec::new();
        let held = store.locks()?.into_iter();
        for (group, holder) in held.filter(|(_, holder)| holder.client == *client) {
            let mut left = store.holders(&group)?;
            left.retain(|other| other.client != *client);
            store.hold(&group, &left)?;
            ended.extend((holder.until > now).then_some(group));
        }
        Ok(ended)
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
    let mut order: Vec<usize> = (0..reports.len()).collect();
    order.sort_by_key(|at| reports[*at].report().sequence);
    let judged = within(store, |store| {
        let ordered = order.iter().map(|at| (&reports[*at], now));
        let patient = |known: &Known| Known { received: 0, ..known.clone() };
        let (verdicts, _) = judge_and_keep(store, ordered, patient)?;
        store.forget_waiting(listed, most_waiting)?;
        Ok(verdicts)
    })?;
    let mut verdicts = vec![Verdict::Kept; reports.len()];
    for (at, verdict) in order.into_iter().zip(judged) {
        verdicts[at] = verdict;
    }
    Ok(verdicts)
}
