//! A change on its way: the roles as they are to be, compared with what is published at the end.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use formats::channel::{Channel, Offer};
use formats::json::Value;
use formats::release::{Summary, Withdrawal, channel_target_name, target_name};
use formats::tuf::{Envelope, Role, Root, TargetFile, Targets, UnixTime};
use formats::version::Version;

use super::document::next;
use super::proposal::{Payload, Proposal, Signers};
use super::rollout::restarted;
use super::{ChannelEdit, Expiry, NewRelease, PlanError, check_word};
use crate::state::{State, ask, lookup};

/// Who is to sign for a channel.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChannelSigner<'a> {
    /// This role.
    In(&'a Role),
    /// Whoever does now; if nobody does, this role if it may.
    Near(&'a Role),
}

impl<'a> ChannelSigner<'a> {
    /// A role that was named, or whoever signs for it now; if nobody does, the top level.
    pub(super) fn of(role: Option<&'a Role>) -> Self {
        role.map_or(ChannelSigner::Near(&Role::Targets), ChannelSigner::In)
    }
}

/// The roles that people sign, while they change.
pub(super) struct Draft<'a> {
    pub(super) state: &'a State,
    pub(super) root: Root,
    /// What nobody changes is borrowed: an old repository lists many thousands of releases.
    pub(super) targets: BTreeMap<Role, Cow<'a, Targets>>,
    pub(super) channels: BTreeMap<String, Channel>,
    /// Signed again though nothing in them changes.
    pub(super) renewed: BTreeSet<Role>,
}

impl<'a> Draft<'a> {
    pub(super) fn of(state: &'a State) -> Self {
        let targets = state.targets_roles();
        Draft {
            state,
            root: state.root.clone(),
            targets: targets
                .map(|(role, signed)| (role.clone(), Cow::Borrowed(&signed.data)))
                .collect(),
            channels: BTreeMap::new(),
            renewed: BTreeSet::new(),
        }
    }

    pub(super) fn changes_root(&self) -> bool {
        self.root != self.state.root || self.renewed.contains(&Role::Root)
    }

    pub(super) fn publish(
        &mut self,
        release: &NewRelease,
        role: Option<&Role>,
    ) -> Result<(), PlanError> {
        let target = target_name(&release.product, &release.summary.version);
        let custom = Value::parse(&release.summary.to_custom()).expect(
            "its numbers are lengths, and a security version that the lint held below 2^63",
        );
        let file = TargetFile::of(&release.index, Some(custom));
        match self.find(&target) {
            Some((there, published)) if published == file => {
                let wanted = role.unwrap_or(&there).clone();
                if wanted == there { Ok(()) } else { self.put(&wanted, &target, file) }
            }
            Some(_) => Err(PlanError::SameVersion { target }),
            None => self.put(role.unwrap_or(&Role::Targets), &target, file),
        }
    }

    pub(super) fn set_channel(
        &mut self,
        edit: &ChannelEdit,
        place: ChannelSigner<'_>,
        now: UnixTime,
    ) -> Result<(), PlanError> {
        check_word("product", &edit.product)?;
        check_word("channel", &edit.channel)?;
        let target = channel_target_name(&edit.product, &edit.channel);
        let mut document = match self.state.channels.get(&target) {
            Some(published) => published.data.clone(),
            None => Channel::new(&edit.product, &edit.channel),
        };
        if let Some(version) = edit.release.clone() {
            let name = target_name(&edit.product, &version);
            let listed = self.find(&name);
            // Nodes that follow the channel find it at once.
            if let Some((_, file)) = listed.as_ref().filter(|(role, _)| self.in_history(role)) {
                self.put(&Role::Targets, &name, file.clone())?;
            }
            let listed = listed.map(|(_, file)| file);
            if let Some(Withdrawal { because, .. }) = listed.as_ref().and_then(withdrawn) {
                return Err(PlanError::Withdrawn { target: name, because });
            }
            let sha256 = listed.and_then(|file| file.hashes.as_sha256());
            let sha256 = sha256.ok_or(PlanError::NoRelease { target: name })?;
            let offer = Offer { version, sha256 };
            // Waves belong to a release: the next one begins with the first of them.
            if document.release.as_ref() != Some(&offer) {
                document.waves = restarted(&document.waves, now);
            }
            document.offer(offer);
        }
        if let Some(waves) = &edit.rollout.waves {
            document.waves.clone_from(waves);
        }
        if let Some(windows) = &edit.rollout.windows {
            document.windows.clone_from(windows);
        }
        document.urgency = edit.urgency.unwrap_or(document.urgency);
        document.hold = edit.hold.unwrap_or(document.hold);
        document.check()?;
        let file = TargetFile::of(&document.to_bytes(), None);
        let there = self.find(&target);
        let role = match (place, &there) {
            (ChannelSigner::In(role), _) => role.clone(),
            (_, Some((role, _))) => role.clone(),
            (ChannelSigner::Near(role), None) if self.covers(role, &target) => role.clone(),
            _ => Role::Targets,
        };
        if there != Some((role.clone(), file.clone())) {
            self.put(&role, &target, file)?;
            self.channels.insert(target, document);
        }
        Ok(())
    }

    /// Takes a release out of every channel and marks its target. Whoever signs for the release, and
    /// whoever signs for such a channel, has to sign.
    pub(super) fn withdraw(
        &mut self,
        product: &str,
        version: &Version,
        because: &str,
        now: UnixTime,
    ) -> Result<(), PlanError> {
        let target = target_name(product, version);
        let missing = || PlanError::NoRelease { target: target.clone() };
        let (role, mut file) = self.find(&target).ok_or_else(missing)?;
        let before = withdrawn(&file);
        let at = u64::try_from(now.secs()).unwrap_or(0);
        let at = before.as_ref().map_or(at, |before| before.at);
        let withdrawal = Withdrawal { at, because: because.to_owned() };
        withdrawal.check().map_err(|error| PlanError::Because(error.to_string()))?;
        if before.as_ref() == Some(&withdrawal) {
            return Ok(());
        }
        let custom = file.custom.as_ref().and_then(|custom| withdrawal.put_into(custom));
        file.custom = Some(custom.ok_or_else(missing)?);
        self.list(&role, &target, &file);
        let offers = self.state.channels.iter().filter(|(_, channel)| {
            let offered = channel.data.release.as_ref();
            channel.data.product == product && offered.is_some_and(|it| it.version == *version)
        });
        for (name, channel) in offers {
            let mut document = channel.data.clone();
            // Nodes may run it, so the next release still has to come after it.
            document.newest = document.newest_offered().cloned();
            document.release = None;
            if let Some((role, _)) = self.find(name) {
                self.list(&role, name, &TargetFile::of(&document.to_bytes(), None));
                self.channels.insert(name.clone(), document);
            }
        }
        Ok(())
    }

    /// Lists a release no more, wherever it is listed.
    pub(super) fn unlist(&mut self, target: &str) -> Result<(), PlanError> {
        let missing = || PlanError::NoRelease { target: target.to_owned() };
        self.find(target).ok_or_else(missing)?;
        let offers = |channel: &Channel| {
            let offer = channel.release.as_ref();
            offer.is_some_and(|it| target_name(&channel.product, &it.version) == target)
        };
        if let Some(by) = self.state.channels.values().find(|channel| offers(&channel.data)) {
            let (target, channel) = (target.to_owned(), by.data.channel.clone());
            return Err(PlanError::Offered { target, channel });
        }
        for targets in self.targets.values_mut() {
            if targets.targets.contains_key(target) {
                targets.to_mut().targets.remove(target);
            }
        }
        Ok(())
    }

    /// Lets a role that lists a target list this of it.
    fn list(&mut self, role: &Role, name: &str, file: &TargetFile) {
        if let Some(targets) = self.targets.get_mut(role) {
            targets.to_mut().targets.insert(name.to_owned(), file.clone());
        }
    }

    pub(super) fn renew(&mut self, roles: &[Role]) -> Result<(), PlanError> {
        for role in roles {
            let known = *role == Role::Root || self.targets.contains_key(role);
            if !known {
                return Err(PlanError::NoRole(role.clone()));
            }
            self.renewed.extend(self.with_history(role));
        }
        Ok(())
    }

    /// The metadata of a role as they are to be.
    pub(super) fn targets_of(&self, role: &Role) -> Option<&Targets> {
        self.targets.get(role).map(AsRef::as_ref)
    }

    /// What nodes would find under that name.
    pub(super) fn find(&self, name: &str) -> Option<(Role, TargetFile)> {
        let (role, file) = lookup(name, |role| self.targets_of(role))?;
        Some((role, file.clone()))
    }

    /// Whether nodes come to a role when they look for a name.
    fn covers(&self, role: &Role, name: &str) -> bool {
        let is_it = |asked: &Role, _: &Targets| (asked == role).then_some(());
        ask(name, |role| self.targets_of(role), is_it).is_some()
    }

    /// Lets a role list a target, and nobody else.
    fn put(&mut self, role: &Role, name: &str, file: TargetFile) -> Result<(), PlanError> {
        if !self.targets.contains_key(role) {
            return Err(PlanError::NoRole(role.clone()));
        }
        if self.in_history(role) {
            return Err(PlanError::History(role.clone()));
        }
        if !self.covers(role, name) {
            let (role, target) = (role.clone(), name.to_owned());
            return Err(PlanError::NotCovered { role, target });
        }
        for (other, targets) in &mut self.targets {
            if other == role {
                targets.to_mut().targets.insert(name.to_owned(), file.clone());
            } else if targets.targets.contains_key(name) {
                targets.to_mut().targets.remove(name);
            }
        }
        Ok(())
    }

    /// Payloads of all that changed, and of all whose signatures the new keys would not accept.
    pub(super) fn propose(
        self,
        expiry: &Expiry,
        now: UnixTime,
    ) -> Result<Option<Proposal>, PlanError> {
        let mut proposal = Proposal { payloads: Vec::new(), channels: self.channels.clone() };
        if self.changes_root() {
            proposal.payloads.push(next(&Role::Root, self.root.clone(), expiry, now));
        }
        for (role, targets) in &self.targets {
            if self.changes(role) || self.renewed.contains(role) {
                proposal.payloads.push(self.payload(role, targets, expiry, now));
            }
        }
        // One more round per level of delegation, at most: a payload changes no keys.
        let signers = Signers::of(Some(self.state), &proposal)?;
        let before = Signers::of(Some(self.state), &Proposal::default())?;
        for (role, signed) in self.state.targets_roles() {
            if proposal.payload(role).is_none() && self.targets.contains_key(role) {
                let (needed, was) = (signers.requirements(role), before.requirements(role));
                // They signed it: it was verified.
                if needed.iter().all(|by| was.iter().any(|was| was.has_keys_of(by))) {
                    continue;
                }
                let envelope = Envelope::parse(&signed.bytes).map_err(|source| {
                    crate::state::StateError::Untrusted { file: role.meta_name(), source }
                })?;
                // Nobody delegates to it any more: it rests.
                if !needed.iter().all(|by| by.is_met(role, &envelope)) {
                    proposal.payloads.push(self.payload(role, &signed.data, expiry, now));
                }
            }
        }
        proposal.payloads.sort_by(|a, b| order(&a.role).cmp(&order(&b.role)));
        Ok((!proposal.payloads.is_empty()).then_some(proposal))
    }

    /// Whether a role says something else than what is published.
    pub(super) fn changes(&self, role: &Role) -> bool {
        let Some(before) = self.state.targets_of(role) else { return true };
        let mut bound = before.data.unknown.clone();
        self.root.bind(&mut bound);
        let is = self.targets.get(role);
        bound != before.data.unknown || matches!(is, Some(Cow::Owned(is)) if *is != before.data)
    }

    fn payload(&self, role: &Role, targets: &Targets, expiry: &Expiry, now: UnixTime) -> Payload {
        let mut targets = targets.clone();
        self.root.bind(&mut targets.unknown);
        if self.in_history(role) {
            self.lasts_as_targets(&mut targets.unknown, expiry);
        }
        next(role, targets, expiry, now)
    }
}

/// Why a release was taken back, if it was.
fn withdrawn(file: &TargetFile) -> Option<Withdrawal> {
    Summary::parse_custom(&file.custom.as_ref()?.to_bytes()).ok()?.withdrawn
}

fn order(role: &Role) -> (u8, &str) {
    match role {
        Role::Root => (0, ""),
        Role::Targets => (1, ""),
        other => (2, other.name()),
    }
}
