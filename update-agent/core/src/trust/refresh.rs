//! The top-level update: root chain, timestamp, snapshot, targets (TUF §5.3–5.6).

use formats::tuf::{Envelope, Role, Root, Snapshot, Targets, Timestamp, TufError, UnixTime};

use super::clock::{KNOWN_TIME_STEP, proven_time};
use super::error::refused;
use super::offline::{Documents, judge};
use super::succession::{is_listed, load, next_root, nothing_went_back, self_signed_root};
use super::verified::{Verified, Wanted, not_older};
use super::{
    Clock, Limits, OfflineError, OfflineValidity, Reply, Step, Stored, TrustError, TrustedSet,
    Workflow, start_time,
};

/// New roots per write of the state.
const ROOTS_PER_PERSIST: usize = 32;

/// One update of the top-level metadata. Drive it with [`Workflow`].
#[derive(Debug)]
pub struct Refresh {
    limits: Limits,
    /// Fixed for the whole update (TUF §5.1).
    now: UnixTime,
    stored: Stored,
    root: Verified<Root>,
    timestamp: Option<Verified<Timestamp>>,
    snapshot: Option<Verified<Snapshot>>,
    targets: Option<Verified<Targets>>,
    at: At,
    asked: Option<Wanted>,
    reply: Option<Reply>,
    unsaved: Unsaved,
    failed: Option<TrustError>,
    /// The statement of a bundle, unverified until it is needed.
    statement: Option<Vec<u8>>,
    /// The first expiry that only the statement can stand in for. While it is there, nothing is
    /// persisted: targets have not said yet whether it does.
    late: Option<Late>,
    offline: Option<OfflineValidity>,
    /// A root whose targets keys have to have signed the targets, too.
    targets_root: Option<Root>,
}

/// Metadata that has expired, as [`TrustError::Expired`] names it.
#[derive(Debug, Clone)]
struct Late {
    role: Role,
    version: u64,
    expires: UnixTime,
}

/// Where an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Root { walked: usize },
    Timestamp,
    Snapshot,
    Targets,
    Finish,
    Done,
}

/// What of the state has not been given out as [`Step::Persist`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsaved {
    Nothing,
    /// May wait for more of them.
    Roots(usize),
    /// Must go out before anything relies on it.
    Now,
}

impl Refresh {
    /// Begins an update from what is stored and from the root this node was given. The newer
    /// root of the two counts; a first run stores the given one.
    ///
    /// Asks for nothing yet. Errors: [`TrustError::ShippedRoot`], [`TrustError::StoredRoot`],
    /// [`TrustError::RootConflict`], [`TrustError::ClockUntrusted`].
    pub fn begin(
        stored: Stored,
        shipped_root: &[u8],
        clock: Clock,
        limits: Limits,
    ) -> Result<Self, TrustError> {
        let now = start_time(clock, stored.known_time)?;
        let shipped = self_signed_root(shipped_root.into())
            .map_err(|source| TrustError::ShippedRoot { source })?;
        let known = match &stored.root {
            // What was just read and verified need not be once more.
            Some(bytes) if **bytes == *shipped_root => Some(shipped.clone()),
            Some(bytes) => Some(
                self_signed_root(bytes.clone())
                    .map_err(|source| TrustError::StoredRoot { source })?,
            ),
            None => None,
        };
        let mut refresh = Refresh {
            limits,
            now,
            root: known.clone().unwrap_or_else(|| shipped.clone()),
            stored,
            timestamp: None,
            snapshot: None,
            targets: None,
            at: At::Root { walked: 0 },
            asked: None,
            reply: None,
            unsaved: Unsaved::Nothing,
            failed: None,
            statement: None,
            late: None,
            offline: None,
            targets_root: None,
        };
        match known {
            Some(known) if known.version() > shipped.version() => {}
            Some(known) if known.version() == shipped.version() => {
                if known.document != shipped.document {
                    return Err(TrustError::RootConflict { version: known.version() });
                }
            }
            // Delivered with the system, as trusted as its predecessor was.
            _ => refresh.replace_root(shipped),
        }
        Ok(refresh)
    }

    /// The same with the offline statement of a bundle: the bytes of its envelope, unverified. It is
    /// looked at only if the timestamp or the snapshot has expired.
    ///
    /// For bundles only: a source that can be reached has no reason to serve what has expired.
    pub fn with_offline(mut self, statement: Vec<u8>) -> Self {
        self.statement = Some(statement);
        self
    }

    /// The same, with targets only that also a threshold of this root's targets keys signed: for
    /// metadata of a time before that root, which may have revoked some.
    pub(crate) fn with_targets_root(mut self, newer: Root) -> Self {
        self.targets_root = Some(newer);
        self
    }

    /// Whether enough keys signed an envelope as targets.
    fn verify_targets(&self, envelope: &Envelope) -> Result<(), TufError> {
        self.root.document.verify(&Role::Targets, envelope)?;
        match &self.targets_root {
            Some(newer) => newer.verify_keys(&Role::Targets, envelope),
            None => Ok(()),
        }
    }

    /// Notes an expiry of timestamp or snapshot for later, when there is a statement that may stand
    /// in for it.
    fn check_expiry(
        &mut self,
        role: Role,
        checked: Result<(), TrustError>,
    ) -> Result<(), TrustError> {
        match checked {
            Err(TrustError::Expired { version, expires, .. }) if self.statement.is_some() => {
                self.late.get_or_insert(Late { role, version, expires });
                Ok(())
            }
            other => other,
        }
    }

    /// Whether the statement stands in for what has expired, now that targets are known.
    fn judge_late(&mut self) -> Result<(), TrustError> {
        let (Some(late), Some(judged)) = (&self.late, self.judged()) else { return Ok(()) };
        let judged = judged.map_err(|source| {
            let (Late { role, version, expires }, source) = (late.clone(), Box::new(source));
            TrustError::Offline { role, version, expires, now: self.now, source }
        })?;
        self.offline = Some(judged);
        self.late = None;
        Ok(())
    }

    /// What the statement is worth by the documents at hand, if there is one.
    fn judged(&self) -> Option<Result<OfflineValidity, OfflineError>> {
        let documents = Documents {
            root: &self.root.document,
            timestamp: self.timestamp(),
            snapshot: self.snapshot(),
            targets: &self.targets.as_ref().expect(IN_ORDER).document,
        };
        self.statement.as_ref().map(|statement| judge(statement, &documents, self.now))
    }

    /// The time everything is judged by.
    pub fn now(&self) -> UnixTime {
        self.now
    }

    fn replace_root(&mut self, newer: Verified<Root>) {
        let revokes = |role| self.root.document.revokes_key_of(&role, &newer.document);
        if revokes(Role::Timestamp) || revokes(Role::Snapshot) {
            // TUF §5.3.11: whoever had the key may have pushed the versions out of reach.
            self.stored.timestamp = None;
            self.stored.snapshot = None;
        }
        if revokes(Role::Snapshot) {
            // The same section, (3): new snapshot keys are how a repository takes back versions of
            // targets. New timestamp keys are not, and with those targets never go back.
            self.stored.targets = None;
            self.stored.delegated.clear();
        }
        self.stored.root = Some(newer.bytes.clone());
        self.root = newer;
        self.unsaved = match self.unsaved {
            Unsaved::Nothing => Unsaved::Roots(1),
            Unsaved::Roots(n) => Unsaved::Roots(n + 1),
            Unsaved::Now => Unsaved::Now,
        };
    }

    /// Takes the answer, if it is there; otherwise says what to ask for.
    fn answer(&mut self) -> Option<(Wanted, Reply)> {
        let reply = self.reply.take()?;
        Some((self.asked.take()?, reply))
    }

    fn ask<T>(&mut self, wanted: Wanted) -> Step<T> {
        let step = Step::Fetch(wanted.fetch.clone());
        self.asked = Some(wanted);
        step
    }

    /// One transition; `None` if the next one can follow at once.
    fn advance(&mut self) -> Result<Option<Step<TrustedSet>>, TrustError> {
        match self.at {
            At::Root { walked } => self.walk_root(walked),
            At::Timestamp => self.update_timestamp(),
            At::Snapshot => self.update_snapshot(),
            At::Targets => self.update_targets(),
            At::Finish => {
                self.judge_late()?;
                Ok(self.finish())
            }
            At::Done => unreachable!("`next` is not called after `Done`"),
        }
    }

    fn walk_root(&mut self, walked: usize) -> Result<Option<Step<TrustedSet>>, TrustError> {
        let Some((wanted, reply)) = self.answer() else {
            let file = Role::Root.file_name(Some(self.root.version() + 1));
            return Ok(Some(self.ask(Wanted::unlisted(file, self.limits.root_len, true))));
        };
        if let Some(bytes) = wanted.bytes(reply)? {
            if walked == self.limits.roots {
                return Err(TrustError::RootChain { limit: self.limits.roots });
            }
            let newer = next_root(&self.root.document, &wanted.fetch.file_name, bytes)?;
            self.replace_root(newer);
            self.at = At::Root { walked: walked + 1 };
            return Ok(None);
        }
        if let Unsaved::Roots(_) = self.unsaved {
            self.unsaved = Unsaved::Now;
        }
        // Only the last root's expiry counts (TUF §5.3.10).
        self.root.check_expiry(&Role::Root, self.now)?;
        self.load_stored();
        self.at = At::Timestamp;
        Ok(None)
    }

    /// What is stored and still signed by keys of the newest root. Expiry is not looked at:
    /// expired metadata still says what was seen.
    fn load_stored(&mut self) {
        let root = &self.root.document;
        self.timestamp = load(&self.stored.timestamp, &|e| root.verify(&Role::Timestamp, e));
        self.snapshot = load(&self.stored.snapshot, &|e| root.verify(&Role::Snapshot, e));
        self.targets = load(&self.stored.targets, &|e| self.verify_targets(e));
    }

    fn update_timestamp(&mut self) -> Result<Option<Step<TrustedSet>>, TrustError> {
        let Some((wanted, reply)) = self.answer() else {
            let file = Role::Timestamp.file_name(None);
            return Ok(Some(self.ask(Wanted::unlisted(file, self.limits.timestamp_len, false))));
        };
        let root = &self.root.document;
        let bytes = wanted.required(reply)?;
        let newer = Verified::<Timestamp>::read(bytes, &|e| root.verify(&Role::Timestamp, e))
            .map_err(refused(&wanted.fetch.file_name))?;
        self.at = At::Snapshot;
        if let Some(known) = &self.timestamp {
            not_older(&Role::Timestamp, newer.version(), known.version())?;
            if newer.version() == known.version() {
                // No news, whatever else it says (TUF §5.4.3.1). A frozen repository shows
                // by the expiry of the one already known.
                let checked = known.check_expiry(&Role::Timestamp, self.now);
                self.check_expiry(Role::Timestamp, checked)?;
                return Ok(None);
            }
            let (offered, trusted) = (&newer.document.snapshot, &known.document.snapshot);
            not_older(&Role::Snapshot, offered.version, trusted.version)?;
        }
        let checked = newer.check_expiry(&Role::Timestamp, self.now);
        self.check_expiry(Role::Timestamp, checked)?;
        self.stored.timestamp = Some(newer.bytes.clone());
        self.timestamp = Some(newer);
        self.unsaved = Unsaved::Now;
        Ok(None)
    }

    fn update_snapshot(&mut self) -> Result<Option<Step<TrustedSet>>, TrustError> {
        let listed = self.timestamp().document.snapshot.clone();
        let role = Role::Snapshot;
        if let Some(known) = self.snapshot.as_ref().filter(|known| is_listed(known, &listed)) {
            let checked = known.check_expiry(&role, self.now);
            self.check_expiry(role, checked)?;
            self.at = At::Targets;
            return Ok(None);
        }
        let Some((wanted, reply)) = self.answer() else {
            let file = self.root.document.file_name(&role, listed.version);
            let wanted = Wanted::listed(file, &listed, self.limits.snapshot_len)?;
            return Ok(Some(self.ask(wanted)));
        };
        let root = &self.root.document;
        let bytes = wanted.required(reply)?;
        let newer = Verified::<Snapshot>::read_listed(
            &role,
            &wanted.fetch.file_name,
            &listed,
            bytes,
            &|e| root.verify(&Role::Snapshot, e),
        )?;
        if let Some(known) = &self.snapshot {
            not_older(&role, newer.version(), known.version())?;
            nothing_went_back(&known.document, &newer.document)?;
        }
        let checked = newer.check_expiry(&role, self.now);
        self.check_expiry(role, checked)?;
        self.stored.snapshot = Some(newer.bytes.clone());
        self.snapshot = Some(newer);
        self.unsaved = Unsaved::Now;
        self.at = At::Targets;
        Ok(None)
    }

    fn update_targets(&mut self) -> Result<Option<Step<TrustedSet>>, TrustError> {
        let role = Role::Targets;
        let listed = self.snapshot().document.role(&role).expect(LISTS_TARGETS).clone();
        if let Some(known) = self.targets.as_ref().filter(|known| is_listed(known, &listed)) {
            known.check_expiry(&role, self.now)?;
            self.at = At::Finish;
            return Ok(None);
        }
        if let Some(known) = &self.targets {
            // The snapshot that said so may be forgotten: new timestamp keys.
            not_older(&role, listed.version, known.version())?;
        }
        let Some((wanted, reply)) = self.answer() else {
            let file = self.root.document.file_name(&role, listed.version);
            let wanted = Wanted::listed(file, &listed, self.limits.targets_len)?;
            return Ok(Some(self.ask(wanted)));
        };
        let bytes = wanted.required(reply)?;
        let newer = Verified::<Targets>::read_listed(
            &role,
            &wanted.fetch.file_name,
            &listed,
            bytes,
            &|e| self.verify_targets(e),
        )?;
        newer.check_expiry(&role, self.now)?;
        self.stored.targets = Some(newer.bytes.clone());
        self.targets = Some(newer);
        self.unsaved = Unsaved::Now;
        self.at = At::Finish;
        Ok(None)
    }

    /// When each document was signed, of those that say so.
    fn signed(&self) -> Vec<UnixTime> {
        let root = &self.root.document;
        let timestamp = &self.timestamp().document;
        let snapshot = &self.snapshot().document;
        let targets = &self.targets.as_ref().expect(IN_ORDER).document;
        let signed = [
            root.header.signed_at(&root.unknown),
            timestamp.header.signed_at(&timestamp.unknown),
            snapshot.header.signed_at(&snapshot.unknown),
            targets.header.signed_at(&targets.unknown),
        ];
        signed.into_iter().flatten().collect()
    }

    /// Everything is verified and alive at `now`, so the moments at which it was signed are past. An
    /// offline statement proves no time: it is meant to outlast what was signed at a known one.
    fn finish(&mut self) -> Option<Step<TrustedSet>> {
        let snapshot = &self.snapshot.as_ref().expect(IN_ORDER).document;
        let roles = self.stored.delegated.len();
        self.stored
            .delegated
            .retain(|name, _| snapshot.role(&Role::Delegated(name.clone())).is_some());
        let known = match self.offline {
            None => proven_time(self.stored.known_time, self.now, self.signed()),
            Some(_) => self.stored.known_time,
        };
        let step = self.stored.known_time.plus(KNOWN_TIME_STEP) <= known;
        if step || roles != self.stored.delegated.len() {
            self.stored.known_time = known;
            self.unsaved = Unsaved::Now;
            return None;
        }
        self.at = At::Done;
        let needed = self.offline.as_ref().map(OfflineValidity::expires);
        let offline_until = needed.or_else(|| Some(self.judged()?.ok()?.expires()));
        Some(Step::Done(TrustedSet {
            limits: self.limits,
            now: self.now,
            stored: std::mem::take(&mut self.stored),
            root: self.root.document.clone(),
            timestamp: self.timestamp.take().expect(IN_ORDER).document,
            snapshot: self.snapshot.take().expect(IN_ORDER).document,
            targets: self.targets.take().expect(IN_ORDER).document,
            offline: self.offline.take(),
            offline_until,
        }))
    }

    fn timestamp(&self) -> &Verified<Timestamp> {
        self.timestamp.as_ref().expect(IN_ORDER)
    }

    fn snapshot(&self) -> &Verified<Snapshot> {
        self.snapshot.as_ref().expect(IN_ORDER)
    }

    fn due(&self) -> bool {
        match self.unsaved {
            Unsaved::Nothing => false,
            Unsaved::Roots(n) => n >= ROOTS_PER_PERSIST || self.failed.is_some(),
            Unsaved::Now => self.late.is_none(),
        }
    }
}

const IN_ORDER: &str = "each step of the update ends with its document verified";
const LISTS_TARGETS: &str = "a snapshot without targets.json is not parsed";

impl Workflow for Refresh {
    type Output = TrustedSet;

    fn next(&mut self) -> Result<Step<TrustedSet>, TrustError> {
        loop {
            if self.due() {
                self.unsaved = Unsaved::Nothing;
                return Ok(Step::Persist(self.stored.clone()));
            }
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            match self.advance() {
                Ok(Some(step)) => return Ok(step),
                Ok(None) => {}
                Err(error) => self.failed = Some(error),
            }
        }
    }

    fn respond(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }
}
