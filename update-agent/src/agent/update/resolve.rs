//! Fetching every document of a release, and its proof for the chooser.

use formats::digest::Sha256;
use formats::reason::Reason;
use formats::tuf::Role;
use formats::version::Version;
use storage::host::Host;
use update_core::chooser::{Proof, ProofError, approve, place};
use update_core::policy::Decision;
use update_core::trust::TrustError;

use super::super::ROOT_LIMIT;
use super::super::node::NodeParts;
use super::{Offer, Plan};
use crate::boot::BootControl as _;
use crate::chooser;
use crate::config::Config;
use crate::error::AgentError;
use crate::figures::time;
use crate::release::{Resolved, resolve};
use crate::source::Source;
use crate::trust::{self, Trusted};

impl<'a> Offer<'a> {
    /// Fetches the documents of the release, and its proof where the chooser verifies.
    ///
    /// Errors: the decision where it is not to install; a floor that could not follow; a single bank
    /// that was not accepted; a document that no source has as signed; a proof that the chooser would
    /// refuse.
    pub(in crate::agent) fn resolve(self, node: NodeParts<'_>) -> Result<Plan<'a>, AgentError> {
        let Offer { mut refreshed, judged } = self;
        let chosen = match &judged.decided.decision {
            Decision::Install(chosen) => chosen,
            Decision::Refuse(reason @ Reason::VersionRollback) => {
                let error = AgentError::new(*reason, judged.decided.why());
                return Err(match way_back(node, judged.signed.index) {
                    Some(hint) => error.hint(hint),
                    None => error,
                });
            }
            other => return Err(not_now(other, judged.decided.why())),
        };
        // The source whose metadata was good comes first.
        let best = refreshed.best;
        let place = best.describe();
        let all = refreshed.sources.all.iter().map(AsRef::as_ref);
        let others = all.filter(|source| source.describe() != place);
        let sources: Vec<&dyn Source> = std::iter::once(best).chain(others).collect();
        node.check()?;
        node.floor().check(judged.signed.summary.security_version)?;
        let (product, require) = (&node.config.node.product, &node.config.policy.require);
        let resolved = resolve(product, &judged.signed, chosen, require, &sources, node.state)?;
        let proof = match node.config.boot.verity {
            true => {
                let version = &judged.signed.summary.version;
                Some(proof(node, &mut refreshed.trusted, version, &resolved)?)
            }
            false => None,
        };
        Ok(Plan { judged, resolved, sources, proof })
    }
}

/// How an operator who wants an older release gets it: without an update, where the other slot holds
/// it and boots.
fn way_back(node: NodeParts<'_>, wanted: Sha256) -> Option<String> {
    let other = node.disk.booted().ok()?.other();
    let record = node.state.boot_record().ok()?;
    if !node.disk.flags().ok()?.of(other).confirmed() {
        return None;
    }
    match record.slots.of(other) {
        Some(content) if content.release.index == wanted => {
            let version = &content.release.version;
            Some(format!(
                "slot {other} still holds {version}: `update-agent revert` goes back to it"
            ))
        }
        Some(_) => None,
        None => Some(format!(
            "slot {other} still holds what was there before this agent's first update: `update-agent \
             revert` goes back to it"
        )),
    }
}

fn not_now(decision: &Decision, why: &str) -> AgentError {
    match decision {
        Decision::DeferUntil(until) => {
            let when = until.map_or_else(String::new, |at| format!(" (until {})", time(at)));
            AgentError::new(Reason::Deferred, format!("{why}{when}"))
                .hint("to install it now, name it: --version")
        }
        Decision::Refuse(reason) => AgentError::new(*reason, why),
        Decision::UpToDate | Decision::Install(_) => AgentError::new(Reason::UpToDate, why),
    }
}

/// What a verifying chooser will ask for, asked before anything is written: the same walk from its
/// root, and whether it fits behind the image.
fn proof(
    node: NodeParts<'_>,
    trusted: &mut Trusted<'_>,
    version: &Version,
    resolved: &Resolved,
) -> Result<Proof, AgentError> {
    let proof = approved_proof(node, trusted, version)
        .map_err(|error| error.context("the chooser would refuse this release"))?;
    let component = &node.config.boot.component;
    let slot = node.disk.booted()?.other();
    let capacity = node.disk.capacities(slot)?.get(component).copied().unwrap_or(0);
    let own = resolved.components.iter().find(|one| one.identity.name == *component);
    let used = own.map_or(0, |own| own.identity.raw_size);
    if place(proof.to_bytes().len() as u64, capacity, used).is_none() {
        let text = format!("slot {slot} has no room for the release's proof behind the image");
        return Err(AgentError::new(Reason::SlotSize, text).hint("make the slots larger by a MiB"));
    }
    Ok(proof)
}

/// The proof of a release, once the chooser's root has led to it. Where `chooser.root` does not say
/// which one that is, every root the firmware could have had: from the first one on.
fn approved_proof(
    node: NodeParts<'_>,
    trusted: &mut Trusted<'_>,
    version: &Version,
) -> Result<Proof, AgentError> {
    let machine = chooser::machine(node.config);
    if let Some(root) = chooser_root(node.config, node.host)? {
        let proof = trusted.proof(trust::root_version(&root)?, version)?;
        approve(&proof, &root, machine)?;
        return Ok(proof);
    }
    let proof = trusted.proof(1, version)?;
    let first = Role::Root.file_name(Some(1));
    let root = proof.files.get(&first).map_or(&[][..], Vec::as_slice);
    let approved = approve(&proof, root, machine);
    approved.map_err(|error| match error {
        // It is the source's, no file of this node.
        ProofError::Trust(TrustError::ShippedRoot { source }) => {
            TrustError::Refused { file: first, source }.into()
        }
        error => error,
    })?;
    Ok(proof)
}

/// The root that the chooser in the firmware has, where the configuration says it.
fn chooser_root(config: &Config, host: &dyn Host) -> Result<Option<Vec<u8>>, AgentError> {
    let Some(path) = &config.chooser.root else { return Ok(None) };
    let root = host.read_trusted(path, ROOT_LIMIT).map_err(|error| {
        AgentError::from(error)
            .or_config()
            .context("chooser.root")
            .or_hint("copy the root.json that is in the firmware to this path")
    })?;
    Ok(Some(root))
}
