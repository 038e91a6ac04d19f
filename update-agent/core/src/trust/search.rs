//! Which role signed for a target: pre-order depth-first through delegations (TUF §5.6.7).

use std::collections::BTreeSet;
use std::sync::Arc;

use formats::tuf::{
    Delegations, Envelope, Keys, MetaFile, Role, RoleKeys, TargetFile, Targets, TufError,
    check_target_name,
};

use super::verified::{Verified, Wanted, not_older};
use super::{Reply, Step, TrustError, TrustedSet, Workflow};

/// The search for one target. Drive it with [`Workflow`].
#[derive(Debug)]
pub struct Search<'a> {
    set: &'a mut TrustedSet,
    plan: Plan,
    /// The role being loaded, and its listing.
    loading: Option<(Pending, MetaFile)>,
    asked: Option<Wanted>,
    reply: Option<Reply>,
    unsaved: bool,
}

/// A role that was given the name asked for, and the keys its delegator knows it by.
#[derive(Debug)]
struct Pending {
    role: Role,
    role_keys: RoleKeys,
    keys: Keys,
}

/// A target that a role signed which every role above it lets sign for that name.
///
/// Made by [`Search`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTarget {
    name: String,
    role: Role,
    file: TargetFile,
}

impl SignedTarget {
    /// The name asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who signed for it.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Length, hashes and what the project says about it.
    pub fn file(&self) -> &TargetFile {
        &self.file
    }
}

impl<'a> Search<'a> {
    pub(super) fn begin(set: &'a mut TrustedSet, name: &str) -> Result<Self, TrustError> {
        check_target_name(name).map_err(TrustError::Name)?;
        let mut plan = Plan { name: name.to_owned(), ..Plan::default() };
        plan.visit(&Role::Targets, &set.targets, set.limits.delegations);
        Ok(Search { set, plan, loading: None, asked: None, reply: None, unsaved: false })
    }

    /// The next role of the plan and its listing; `None` if there is none left.
    fn take_next(&mut self) -> Result<Option<(Pending, MetaFile)>, TrustError> {
        let Some(next) = self.plan.take_next(self.set.limits.delegations)? else {
            return Ok(None);
        };
        match self.set.snapshot.role(&next.role) {
            Some(listed) => Ok(Some((next, listed.clone()))),
            None => {
                let name = self.plan.name.clone();
                Err(TrustError::RoleNotInSnapshot { name, role: next.role })
            }
        }
    }

    fn file_name(&self, role: &Role, listed: &MetaFile) -> String {
        self.set.root().file_name(role, listed.version)
    }

    /// A role's stored file, if it is the listed one and *this* delegator's keys signed it: it
    /// may have come through another (TUF conformance: "verified against the current delegator").
    fn cached(&self, next: &Pending, listed: &MetaFile) -> Option<Verified<Targets>> {
        let bytes = self.set.stored.file(&next.role)?.clone();
        self.verify(next, listed, bytes).ok()
    }

    fn verify(
        &self,
        next: &Pending,
        listed: &MetaFile,
        bytes: Arc<[u8]>,
    ) -> Result<Verified<Targets>, TrustError> {
        let file = self.file_name(&next.role, listed);
        Verified::read_listed(&next.role, &file, listed, bytes, &|e| self.signed_by(next, e))
    }

    fn signed_by(&self, next: &Pending, envelope: &Envelope) -> Result<(), TufError> {
        next.role_keys.verify(&next.keys, &next.role, envelope)?;
        self.set.root.check_repository(envelope)
    }

    /// Refuses a listing below the stored file that this delegator's keys signed: the snapshot
    /// before, which would refuse it, is forgotten after new timestamp keys.
    fn check_not_older(&self, next: &Pending, listed: &MetaFile) -> Result<(), TrustError> {
        let Some(bytes) = self.set.stored.file(&next.role) else { return Ok(()) };
        match Verified::<Targets>::read(bytes.clone(), &|e| self.signed_by(next, e)) {
            Ok(known) => not_older(&next.role, listed.version, known.version()),
            Err(_) => Ok(()),
        }
    }

    fn visit(&mut self, role: &Role, targets: &Targets) {
        self.plan.visit(role, targets, self.set.limits.delegations);
    }

    /// One transition; `None` if the next one can follow at once.
    fn advance(&mut self) -> Result<Option<Step<SignedTarget>>, TrustError> {
        if let Some(found) = self.plan.found.take() {
            if let Some(offline) = &self.set.offline {
                offline.check(&found.name, &found.file)?;
            }
            return Ok(Some(Step::Done(found)));
        }
        let Some((next, listed)) = self.loading.take() else {
            self.loading = self.take_next()?;
            return match &self.loading {
                Some(_) => Ok(None),
                None => Err(TrustError::TargetNotFound { name: self.plan.name.clone() }),
            };
        };
        if let Some(reply) = self.reply.take()
            && let Some(wanted) = self.asked.take()
        {
            let bytes = wanted.required(reply)?;
            let verified = self.verify(&next, &listed, bytes)?;
            verified.check_expiry(&next.role, self.set.now)?;
            self.set.stored.keep_delegated(next.role.name(), verified.bytes.clone());
            self.unsaved = true;
            self.visit(&next.role, &verified.document);
            return Ok(None);
        }
        if let Some(verified) = self.cached(&next, &listed) {
            verified.check_expiry(&next.role, self.set.now)?;
            self.visit(&next.role, &verified.document);
            return Ok(None);
        }
        self.check_not_older(&next, &listed)?;
        let file = self.file_name(&next.role, &listed);
        let wanted = Wanted::listed(file, &listed, self.set.limits.targets_len)?;
        let step = Step::Fetch(wanted.fetch.clone());
        self.asked = Some(wanted);
        self.loading = Some((next, listed));
        Ok(Some(step))
    }
}

impl Workflow for Search<'_> {
    type Output = SignedTarget;

    fn next(&mut self) -> Result<Step<SignedTarget>, TrustError> {
        loop {
            if std::mem::take(&mut self.unsaved) {
                return Ok(Step::Persist(self.set.stored.clone()));
            }
            if let Some(step) = self.advance()? {
                return Ok(step);
            }
        }
    }

    fn respond(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }
}

/// Which roles to ask, in which order.
#[derive(Debug, Default)]
struct Plan {
    name: String,
    /// Roles still to ask, the next one last.
    pending: Vec<Pending>,
    visited: BTreeSet<Role>,
    found: Option<SignedTarget>,
    /// Whether the roles still to ask have more than [`PENDING_KEYS`]: the search ends.
    too_many_keys: bool,
}

/// 1,024 keys, of 8 KiB at most: what is held for roles that are asked later.
const PENDING_KEYS: usize = 1024;

impl Plan {
    /// The next role, which counts as visited from now on.
    fn take_next(&mut self, limit: usize) -> Result<Option<Pending>, TrustError> {
        if self.too_many_keys {
            return Err(TrustError::DelegationLimit { name: self.name.clone(), limit });
        }
        while let Some(next) = self.pending.pop() {
            // Ends cycles: what it delegates to was planned when it was visited.
            if self.visited.contains(&next.role) {
                continue;
            }
            if self.visited.len() == limit {
                return Err(TrustError::DelegationLimit { name: self.name.clone(), limit });
            }
            self.visited.insert(next.role.clone());
            return Ok(Some(next));
        }
        Ok(None)
    }

    /// Looks for the name in a role's metadata, then plans the roles it delegates the name to.
    fn visit(&mut self, role: &Role, targets: &Targets, limit: usize) {
        if let Some(file) = targets.targets.get(&self.name) {
            let (name, role, file) = (self.name.clone(), role.clone(), file.clone());
            self.found = Some(SignedTarget { name, role, file });
            return;
        }
        let Some(delegations) = &targets.delegations else { return };
        let mut covering = delegations.covering(&self.name);
        if let Some(last) = covering.iter().position(|delegated| delegated.terminating) {
            covering.truncate(last + 1);
            // Nobody after a terminating role is asked, here or further up.
            self.pending.clear();
        }
        covering.retain(|delegated| !self.visited.contains(&delegated.role));
        // One more than may be visited shows that the limit is met; ten thousand cost memory.
        covering.truncate(limit + 1);
        let mut held: usize = self.pending.iter().map(|pending| pending.keys.len()).sum();
        for delegated in covering.into_iter().rev() {
            held += delegated.keys.keyids.len();
            if held > PENDING_KEYS {
                self.too_many_keys = true;
                return;
            }
            let (threshold, keyids) = (delegated.keys.threshold, &delegated.keys.keyids);
            self.pending.push(Pending {
                role: delegated.role,
                // Without the members nobody knows.
                role_keys: RoleKeys::new(threshold, keyids.iter().copied()),
                keys: keys_of(delegations, delegated.keys),
            });
        }
    }
}

/// The keys of one delegated role alone: the delegator is not kept.
fn keys_of(delegations: &Delegations, role: &RoleKeys) -> Keys {
    let keys = role.keyids.iter().filter_map(|id| delegations.keys.get_key_value(id));
    keys.map(|(id, key)| (*id, key.clone())).collect()
}
