//! The offline statement of a bundle: made, signed, and tried as a node will.

use std::collections::BTreeMap;

use formats::digest::Sha256;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, media_type};
use formats::release::channel_target_name;
use formats::tuf::{
    DelegatedTo, KeyId, MetaFile, Offline, OfflineRule, Role, RoleKeys, TargetFile, UnixTime,
    envelope_bytes,
};
use serde::Serialize;

use super::super::{Signing, time};
use crate::error::SignerError;
use crate::journal::Event;
use crate::key::sign;
use crate::plan::PlanError;
use crate::published::Files;
use crate::state::State;
use crate::verify::{Release, verify_offline};

/// What was signed, for people.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OfflineReport {
    /// Until when nodes take the bundle.
    pub(super) expires: String,
    /// Who signs.
    pub(super) role: String,
    /// With which keys.
    pub(super) keyids: Vec<String>,
    /// SHA-256 of what is signed.
    pub(super) sha256: String,
    /// The timestamp it stands for.
    pub(super) timestamp: u64,
    /// What it is good for.
    pub(super) targets: Vec<String>,
}

/// A statement, and the artifact that carries it in a bundle.
pub(super) struct Statement {
    /// The manifest; its reference is `tuf:offline`.
    pub(super) manifest: Descriptor,
    /// Manifest, layer and empty config.
    pub(super) blobs: Vec<(Descriptor, Vec<u8>)>,
    pub(super) report: OfflineReport,
}

/// Signs that these releases may be installed until `now` plus `seconds`, and writes it down.
///
/// Errors: `config` when targets allow none; `expired` when it would outlast what targets allow, or
/// the root or a targets role; `sig_threshold` when the keys at hand are too few.
pub(super) fn make(
    signing: &mut Signing,
    found: &Files,
    state: &State,
    releases: &[Release],
    seconds: u64,
    now: UnixTime,
) -> Result<Statement, SignerError> {
    signing.check_clock(Some(state), None, now)?;
    let rule = allowed(state, seconds)?;
    let expires = now.plus(i64::try_from(seconds).unwrap_or(i64::MAX));
    outlived(state, expires)?;
    needed(state, expires)?;
    let mut statement = Offline {
        issued: now,
        expires,
        timestamp: MetaFile::of(state.timestamp.data.header.version, &state.timestamp.bytes),
        snapshot: MetaFile::of(state.snapshot.data.header.version, &state.snapshot.bytes),
        targets: targets(state, releases),
        unknown: Default::default(),
    };
    state.root.bind(&mut statement.unknown);
    let signed = statement.to_value();
    let message = signed.canonical();
    let (role, role_keys, by) = signers(state, &rule)?;
    let keyids = at_hand(signing, &role, &role_keys, by)?;
    let digest = Sha256::of(&message);
    let event = |keyid: &KeyId| Event::offline(&state.identity, (&digest, &statement), keyid, now);
    signing.record(&keyids.iter().map(event).collect::<Vec<_>>())?;
    let mut signatures = Vec::new();
    for key in keyids.iter().filter_map(|keyid| signing.keys.find(keyid)) {
        signatures.push(sign(key, &message)?);
    }
    let bytes = envelope_bytes(&signed, &signatures);
    // As a node reads it in its last second: what is refused there is never handed out.
    verify_offline(&found.files, signing.root()?, Some(&bytes), expires.plus(-1))?;
    let report = OfflineReport {
        expires: time(expires),
        role: role.to_string(),
        keyids: keyids.iter().map(ToString::to_string).collect(),
        sha256: digest.to_hex(),
        timestamp: statement.timestamp.version,
        targets: statement.targets.keys().cloned().collect(),
    };
    Ok(artifact(bytes, report))
}

/// The rule, if it allows that much.
fn allowed(state: &State, seconds: u64) -> Result<OfflineRule, SignerError> {
    let targets = &state.targets.data;
    let version = targets.header.version;
    let rule = OfflineRule::of(&targets.unknown).map_err(|source| {
        PlanError::Result(crate::state::StateError::Untrusted {
            file: Role::Targets.meta_name(),
            source,
        })
    })?;
    let Some(rule) = rule.filter(|rule| rule.longest > 0) else {
        let text = format!(
            "targets version {version} allow no bundle to outlast its timestamp; allow it with \
             `signer renew targets --expires offline=90d`"
        );
        return Err(SignerError::Offline(text));
    };
    if seconds == 0 || seconds > rule.longest {
        let text = format!(
            "--valid-for must be from 1 second to the {} days that targets version {version} \
             allow; allow more with `signer renew targets --expires offline=DURATION`",
            rule.longest / 86_400
        );
        return Err(SignerError::Expires(text));
    }
    Ok(rule)
}

/// Refuses a statement that would outlast what it does not replace.
fn outlived(state: &State, expires: UnixTime) -> Result<(), SignerError> {
    let roles = state.targets_roles();
    let all = roles.map(|(role, signed)| (role.clone(), &signed.data.header));
    for (role, header) in all.chain([(Role::Root, &state.root.header)]) {
        if header.expires < expires {
            let text = format!(
                "{role} version {} ends at {}, before the bundle would at {}; renew it first, or \
                 give a shorter --valid-for",
                header.version,
                time(header.expires),
                time(expires)
            );
            return Err(SignerError::Expires(text));
        }
    }
    Ok(())
}

/// Refuses a statement that ends while timestamp and snapshot are good by themselves: it would be
/// said to end the bundle, and does not.
fn needed(state: &State, expires: UnixTime) -> Result<(), SignerError> {
    let (timestamp, snapshot) = (&state.timestamp.data.header, &state.snapshot.data.header);
    let own = timestamp.expires.min(snapshot.expires);
    if expires > own {
        return Ok(());
    }
    let text = format!(
        "without --valid-for the bundle is good until {}; give a longer one, or leave it out",
        time(own)
    );
    Err(SignerError::Usage(text))
}

/// The releases, and the channels of their products.
fn targets(state: &State, releases: &[Release]) -> BTreeMap<String, TargetFile> {
    let mut names: Vec<String> = Vec::new();
    for release in releases {
        let product = &release.listed.product;
        names.push(release.listed.target.clone());
        let channels = state.channels.values().map(|channel| &channel.data);
        let own = channels.filter(|channel| channel.product == *product);
        names.extend(own.map(|channel| channel_target_name(product, &channel.channel)));
    }
    let file = |name: String| {
        let target = state.target(&name)?;
        // What a release consists of stands in targets; here it is only named.
        let file = TargetFile { custom: None, unknown: Default::default(), ..target.clone() };
        Some((name, file))
    };
    names.into_iter().filter_map(file).collect()
}

/// Who signs statements: the role, its keys, and who names them.
fn signers(state: &State, rule: &OfflineRule) -> Result<(Role, RoleKeys, String), SignerError> {
    let targets = &state.targets.data;
    let Some(name) = &rule.role else {
        let role = Role::Targets;
        let keys = state.root.role(&role).ok_or_else(|| PlanError::NoRole(role.clone()))?;
        return Ok((role, keys.clone(), format!("root version {}", state.root.header.version)));
    };
    let missing = || PlanError::NoRole(Role::Delegated(name.clone()));
    let Some(DelegatedTo::Roles(roles)) = targets.delegations.as_ref().map(|all| &all.to) else {
        return Err(missing().into());
    };
    let role = roles.iter().find(|role| role.role.name() == name).ok_or_else(missing)?;
    let by = format!("targets version {}", targets.header.version);
    Ok((role.role.clone(), role.keys.clone(), by))
}

/// The keys at hand, as many as the threshold asks for, in the order of the role.
fn at_hand(
    signing: &Signing,
    role: &Role,
    keys: &RoleKeys,
    by: String,
) -> Result<Vec<KeyId>, SignerError> {
    let found = keys.keyids.iter().filter(|keyid| signing.keys.find(keyid).is_some());
    let found: Vec<KeyId> = found.take(keys.threshold as usize).copied().collect();
    if found.len() < keys.threshold as usize {
        let (role, threshold, found) = (role.clone(), keys.threshold, found.len());
        return Err(PlanError::KeysMissing { role, by, threshold, found }.into());
    }
    Ok(found)
}

fn artifact(bytes: Vec<u8>, report: OfflineReport) -> Statement {
    let layer = Descriptor::of(media_type::OFFLINE, &bytes);
    let config = Descriptor::empty();
    let manifest = Manifest::artifact(media_type::OFFLINE, config.clone(), vec![layer.clone()]);
    let manifest_bytes = manifest.to_bytes();
    let manifest = Descriptor::of(media_type::MANIFEST, &manifest_bytes);
    let blobs =
        vec![(manifest.clone(), manifest_bytes), (layer, bytes), (config, EMPTY_CONFIG.to_vec())];
    Statement { manifest, blobs, report }
}
