//! `plan` and `apply`.

use formats::reason::{Exit, Reason};
use formats::tuf::Role;
use formats::version::Version;
use serde_json::json;
use update_core::chooser::{Proof, ProofError, approve, place};
use update_core::policy::Decision;
use update_core::trust::TrustError;
use update_core::update::{Outcome, Task, begin};

use super::ApplyArgs;
use super::offer::{Offer, Wish, capacities, offer, rules, sources, word};
use crate::agent::{Agent, ApplyInputs, Ended};
use crate::chooser::machine;
use crate::error::AgentError;
use crate::output::{Output, bytes, time};
use crate::progress::{Progress, Recorded};
use crate::release::{Resolved, identity, resolve};
use crate::source::Source;
use crate::state::StateGuard;
use crate::trust::{self, Trusted};

/// What is to be installed, and from where.
struct Wanted<'a> {
    offer: Offer,
    resolved: Resolved,
    sources: Vec<&'a dyn Source>,
    proof: Option<Proof>,
}

/// Refreshes, decides, and fetches the documents of what is to be installed. Whatever speaks
/// against it ends here, before a byte of an image is fetched or a slot is touched.
fn wanted<'a>(
    agent: &'a Agent,
    held: &StateGuard,
    args: &ApplyArgs,
    all: &'a [Box<dyn Source>],
) -> Result<Wanted<'a>, AgentError> {
    let root = agent.shipped_root()?;
    let (mut trusted, best) = trust::refresh(&agent.state, held, &root, all)?;
    // What somebody carried here means itself; what is configured goes by the channel.
    let bundle = args.from.as_ref().map(|_| best.bundled()).transpose()?.flatten();
    let (version, bundle) = (args.version.as_ref(), bundle.as_deref());
    let found = offer(agent, held, &mut trusted, Wish { version, bundle, retry: args.retry })?;
    let Some(offer) = found else {
        return Err(AgentError::new(Reason::UpToDate, "the channel offers nothing yet"));
    };
    let why = offer.decided.why().to_owned();
    let chosen = match &offer.decided.decision {
        Decision::Install(chosen) => chosen.clone(),
        Decision::UpToDate => return Err(AgentError::new(Reason::UpToDate, why)),
        Decision::DeferUntil(until) => {
            let when = until.map_or_else(String::new, |at| format!(" (until {})", time(at)));
            return Err(AgentError::new(Reason::Deferred, format!("{why}{when}"))
                .hint("to install it all the same, name it: --version"));
        }
        Decision::Refuse(reason) => return Err(AgentError::new(*reason, why)),
    };
    // The source whose metadata was good comes first.
    let mut sources: Vec<&dyn Source> = vec![best];
    let place = best.describe();
    sources.extend(all.iter().map(AsRef::as_ref).filter(|source| source.describe() != place));
    agent.single_banks_accepted()?;
    agent.check_floor(offer.signed.summary.security_version)?;
    let resolved = resolve(
        &agent.config.node.product,
        &offer.signed,
        &chosen,
        &agent.config.policy.require,
        &sources,
        &|digest| agent.state.chunk_list(digest),
    )?;
    let proof = match agent.config.boot.verity {
        true => Some(proof(agent, &mut trusted, &offer, &resolved)?),
        false => None,
    };
    Ok(Wanted { offer, resolved, sources, proof })
}

/// What a verifying chooser will ask for, asked before anything is written: the same walk from its
/// root, and whether it fits behind the image.
fn proof(
    agent: &Agent,
    trusted: &mut Trusted<'_>,
    offer: &Offer,
    resolved: &Resolved,
) -> Result<Proof, AgentError> {
    let version = &offer.signed.summary.version;
    let proof = approved_proof(agent, trusted, version)
        .map_err(|error| error.context("the chooser would refuse this release"))?;
    let component = &agent.config.boot.component;
    let slot = agent.disk.booted()?.other();
    let capacity = agent.disk.capacities(slot)?.get(component).copied().unwrap_or(0);
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
    agent: &Agent,
    trusted: &mut Trusted<'_>,
    version: &Version,
) -> Result<Proof, AgentError> {
    let machine = machine(&agent.config);
    if let Some(root) = agent.chooser_root()? {
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

/// `plan`: exactly what would be fetched and written. Writes no slot.
pub(super) fn plan(agent: &Agent, args: &ApplyArgs, output: Output) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    agent.settle(&held)?;
    let sources = sources(agent, args.from.as_deref())?;
    let wanted = match wanted(agent, &held, args, &sources) {
        Err(error) if error.reason() == Reason::UpToDate => return nothing(output, &error),
        other => other?,
    };
    let slot = agent.disk.booted()?.other();
    let capacity = capacities(agent, slot)?;
    let task = Task::Apply {
        release: identity(&wanted.offer.signed),
        tries: agent.config.boot.tries,
        activate: !args.stage_only,
    };
    begin(agent.node()?, task)?;
    let mut components = Vec::new();
    let mut text = format!("{} to slot {slot}:\n", wanted.offer.signed.summary.version);
    let progress = agent.environment.progress(output.json);
    let seeds = agent.operator_seeds(&args.seeds, progress.as_ref());
    for component in &wanted.resolved.components {
        let name = component.identity.name.to_string();
        let planned = agent.planned(component, &seeds, &wanted.sources, progress.as_ref())?;
        text += &format!(
            "  {name}: {} image, {} to fetch at most, {} reused, {} zeros\n",
            bytes(component.identity.raw_size),
            bytes(planned.fetch),
            bytes(planned.reuse),
            bytes(planned.zeros),
        );
        components.push(json!({
            "name": name,
            "raw_size": component.identity.raw_size,
            "capacity": capacity.get(&name),
            "fetch": planned.fetch,
            "delta": planned.delta,
            "reuse": planned.reuse,
            "zeros": planned.zeros,
        }));
    }
    let value = json!({
        "version": wanted.offer.signed.summary.version,
        "slot": slot,
        "decision": word(&wanted.offer.decided.decision),
        "rules": rules(&wanted.offer.decided),
        "components": components,
        "sources": wanted.sources.iter().map(|source| source.describe()).collect::<Vec<_>>(),
    });
    output.result(value, &text);
    Ok(Exit::Done)
}

/// `apply`: refresh, stage, activate.
pub(super) fn apply(agent: &Agent, args: &ApplyArgs, output: Output) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    agent.settle(&held)?;
    if !args.stage_only {
        // A release that could never be confirmed would only come back.
        agent.config.health.usable()?;
    }
    match apply_held(agent, &held, args, output) {
        Err(error) if error.reason() == Reason::UpToDate => nothing(output, &error),
        Err(error) => Err(error),
        Ok((ended, notes)) => {
            report(agent, &ended, &notes, output)?;
            if args.reboot && matches!(ended.outcome, Outcome::Activated(_)) {
                drop(held);
                agent.reboot()?;
            }
            Ok(Exit::Done)
        }
    }
}

/// The work of `apply`, for a caller that holds the lock; with what the rules noted.
pub(super) fn apply_held(
    agent: &Agent,
    held: &StateGuard,
    args: &ApplyArgs,
    output: Output,
) -> Result<(Ended, Vec<String>), AgentError> {
    let all = sources(agent, args.from.as_deref())?;
    let wanted = wanted(agent, held, args, &all)?;
    let progress = agent.environment.progress(output.json);
    let progress: Box<dyn Progress> = Box::new(Recorded::new(progress, &agent.config.state_dir));
    let supply = ApplyInputs {
        resolved: &wanted.resolved,
        sources: &wanted.sources,
        seeds: &args.seeds,
        progress: progress.as_ref(),
        order: &wanted.offer.signed.summary.order,
        proof: wanted.proof,
    };
    let task = Task::Apply {
        release: identity(&wanted.offer.signed),
        tries: agent.config.boot.tries,
        activate: !args.stage_only,
    };
    agent.prepare_single_banks(held)?;
    let ended = agent.run(held, task, Some(&supply))?;
    agent.state.save_journal(held, None)?;
    if let Outcome::Failed { reason, detail } = &ended.outcome {
        return Err(AgentError::new(*reason, detail.clone()));
    }
    Ok((ended, wanted.offer.decided.notes))
}

fn report(
    agent: &Agent,
    ended: &Ended,
    notes: &[String],
    output: Output,
) -> Result<(), AgentError> {
    let (slot, staged) = match &ended.outcome {
        Outcome::Activated(slot) => (*slot, false),
        Outcome::Staged(slot) => (*slot, true),
        _ => return Ok(()),
    };
    let record = agent.state.boot_record()?;
    let content = record.slots.of(slot).as_ref();
    let version = content.map_or_else(String::new, |content| content.release.version.to_string());
    let written = &ended.written;
    let value = json!({
        "slot": slot,
        "version": version,
        "activated": !staged,
        "fetched": written.fetched,
        "written": written.written,
        "reused": written.reused_seed + written.reused_target,
        "zeroed": written.zeroed,
        "notes": notes,
    });
    let next = if staged {
        "it is not next: run `update-agent apply` to activate it"
    } else {
        "it is next: reboot to try it"
    };
    let mut text = format!(
        "{version} is in slot {slot}, verified; fetched {}, reused {}; {next}",
        bytes(written.fetched),
        bytes(written.reused_seed + written.reused_target),
    );
    for note in notes {
        text += &format!("\nnote: {note}");
    }
    output.result(value, &text);
    Ok(())
}

fn nothing(output: Output, error: &AgentError) -> Result<Exit, AgentError> {
    let text = error.chain();
    output.result(json!({ "code": error.reason().code(), "message": text }), &text);
    Ok(Exit::Nothing)
}
