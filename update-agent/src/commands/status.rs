//! `status`, `history` and `verify`. None of them changes anything or waits for another agent.

use std::collections::BTreeMap;

use formats::boot_record::{Phase, Slot};
use formats::reason::{Exit, Reason};
use serde_json::{Value, json};
use update_core::chooser::ChooserFloor;
use update_core::update::{Node, Standing, next_slot, stand};

use super::VerifyArgs;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::output::{Output, bytes, time};
use crate::stage;

/// `status`
pub(super) fn status(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let node = agent.node()?;
    let report = agent.state.report();
    let standing = stand(&node);
    let floor = agent.floor()?;
    let older_since = agent.state.floor_record()?.older_since;
    // What cannot be asked now is `doctor`'s to tell.
    let mixed: Vec<String> = agent
        .disk
        .running_in(node.booted.other())
        .unwrap_or_default()
        .into_iter()
        .map(ToString::to_string)
        .collect();
    let chooser_floor = agent.disk.chooser_floor();
    let refused: BTreeMap<String, String> = Slot::BOTH
        .into_iter()
        .filter_map(|slot| Some((slot.to_string(), agent.disk.refused_by_chooser(slot)?)))
        .collect();
    let example = agent.trusts_example_keys();
    let pending = node.record.update.as_ref().map(|update| {
        json!({
            "slot": update.slot,
            "version": update.release.version,
            "security_version": update.release.security_version,
            "phase": phase(&update.phase),
            "tries_left": node.flags.of(update.slot).tries,
        })
    });
    let running = crate::progress::running(&agent.config.state_dir);
    let value = json!({
        "booted": node.booted,
        "next": next_slot(node.flags),
        "standing": word(&standing),
        "pending": pending,
        "slots": { "a": slot_value(&node, Slot::A), "b": slot_value(&node, Slot::B) },
        "floor": super::floor::value(&floor, older_since),
        "chooser_floor": chooser_floor.to_string(),
        "refused_by_chooser": refused,
        "mixed": mixed,
        "counting": node.record.counting,
        "failures": node.record.failures,
        "last_check": report.last_success,
        "last_error": report.last_error,
        "metadata": report.metadata,
        "offer": report.offer,
        "running": running,
        "example_keys": example,
        "product": agent.config.node.product,
        "channel": agent.config.node.channel,
        "hardware": agent.config.node.hardware,
        "backend": agent.config.boot.backend.name(),
    });
    let mut text = String::new();
    if example {
        text += &format!("WARNING: {}\n", crate::example::WARNING);
    }
    for slot in Slot::BOTH {
        text += &slot_line(&node, slot);
    }
    text += &format!("update   {}\n", sentence(&node, &standing));
    if let Some(running) = &running {
        let reached = &running.reached;
        let percent = reached.done.saturating_mul(100).checked_div(reached.total).unwrap_or(100);
        let rate = reached.rate.map_or_else(String::new, |rate| format!(", {}/s", bytes(rate)));
        let left = reached.left.map_or_else(String::new, |left| format!(", {left} s left"));
        text += &format!("running  {}: {percent} %{rate}{left}\n", reached.what);
    }
    text += &format!(
        "floor    security version {} ({})\n",
        floor.floor,
        super::floor::guarantee(&floor)
    );
    if let ChooserFloor::Open(gap) = chooser_floor {
        text += &format!("chooser  booted without a floor: {}\n", gap.code());
    }
    for (slot, code) in &refused {
        text += &format!("chooser  refused slot {slot}: {code}\n");
    }
    if let Some(at) = older_since {
        text += &format!("noticed  on {}: this state was older than the TPM\n", time(at));
    }
    if !mixed.is_empty() {
        text += &format!(
            "mixed    {} still runs from slot {}\n",
            mixed.join(", "),
            node.booted.other()
        );
    }
    for failure in &node.record.failures {
        text += &format!(
            "failed   {} on {}: {} ({})\n",
            failure.release.version,
            time(failure.at),
            failure.detail,
            failure.reason
        );
    }
    text += &match report.last_success {
        Some(at) => format!("checked  {}\n", time(at)),
        None => "checked  never\n".to_owned(),
    };
    if let Some(metadata) = report.metadata {
        let expires = u64::try_from(metadata.expires).unwrap_or(0);
        text += &format!(
            "trust    root {}, timestamp {}, snapshot {}, targets {}; until {}{}\n",
            metadata.root,
            metadata.timestamp,
            metadata.snapshot,
            metadata.targets,
            time(expires),
            match metadata.offline {
                Some(_) => ", by the offline statement of a bundle",
                None => "",
            }
        );
    }
    if let Some(error) = &report.last_error {
        text += &format!("last error  {} on {}: {}\n", error.code, time(error.at), error.message);
    }
    output.result(value, &text);
    Ok(Exit::Done)
}

fn slot_value(node: &Node, slot: Slot) -> Value {
    let flags = *node.flags.of(slot);
    let content = node.record.slots.of(slot).as_ref();
    json!({
        "priority": flags.priority,
        "tries": flags.tries,
        "successful": flags.successful,
        "bootable": flags.bootable(),
        "version": content.map(|content| content.release.version.to_string()),
        "security_version": content.map(|content| content.release.security_version),
        "index": content.map(|content| format!("sha256:{}", content.release.index)),
        "confirmed": flags.confirmed(),
    })
}

fn slot_line(node: &Node, slot: Slot) -> String {
    let flags = *node.flags.of(slot);
    let content = node.record.slots.of(slot).as_ref();
    let version = content.map_or("(not written by this agent)".to_owned(), |content| {
        content.release.version.to_string()
    });
    let mut marks = Vec::new();
    if node.booted == slot {
        marks.push("booted");
    }
    if next_slot(node.flags) == Some(slot) {
        marks.push("next");
    }
    marks.push(match (flags.confirmed(), flags.bootable()) {
        (true, _) => "confirmed",
        (false, true) => "on trial",
        (false, false) if flags.priority > 0 => "tries used up",
        (false, false) => "not bootable",
    });
    format!(
        "slot {slot}   {version}: {} (priority {}, tries {}, successful {})\n",
        marks.join(", "),
        flags.priority,
        flags.tries,
        u8::from(flags.successful)
    )
}

fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Staging => "staging",
        Phase::Staged => "staged",
        Phase::Trial { .. } => "trial",
        Phase::Reverting { .. } => "reverting",
    }
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Idle => "idle",
        Standing::Interrupted => "interrupted",
        Standing::Staged => "staged",
        Standing::AwaitingReboot => "awaiting_reboot",
        Standing::OnTrial { .. } => "on_trial",
        Standing::ConfirmUnfinished => "confirm_unfinished",
        Standing::Lost { .. } => "lost",
        Standing::RevertUnfinished => "revert_unfinished",
        Standing::Leaving => "leaving",
    }
}

fn sentence(node: &Node, standing: &Standing) -> String {
    let what = node.record.update.as_ref().map_or_else(String::new, |update| {
        format!("{} in slot {}", update.release.version, update.slot)
    });
    match standing {
        Standing::Idle => "none under way".to_owned(),
        Standing::Interrupted => format!("{what}: writing was interrupted; `apply` resumes it"),
        Standing::Staged => format!("{what}: written and verified, not next"),
        Standing::AwaitingReboot => format!("{what}: next; reboot to try it"),
        Standing::OnTrial { tries_left, .. } => {
            format!("{what}: on trial, {tries_left} tries left after this boot")
        }
        Standing::ConfirmUnfinished => format!("{what}: confirmed; the record follows"),
        Standing::Lost { detail, .. } => format!("{what}: reverted ({detail})"),
        Standing::RevertUnfinished => format!("{what}: being given up"),
        Standing::Leaving => format!("slot {} was given up; reboot to leave it", node.booted),
    }
}

/// `history`
pub(super) fn history(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let history = agent.state.history()?;
    let mut text = String::new();
    for event in &history.events {
        let version = event.release.as_ref().map_or("", |_| " ");
        let release = event.release.as_ref().map_or_else(String::new, |r| r.version.to_string());
        let slot = event.slot.map_or_else(String::new, |slot| format!(" slot {slot}"));
        let why = match (event.reason, event.detail.as_str()) {
            (Some(reason), detail) => format!(": {detail} ({reason})"),
            (None, "") => String::new(),
            (None, detail) => format!(": {detail}"),
        };
        text += &format!("{}  {}{version}{release}{slot}{why}\n", time(event.at), event.event);
    }
    if text.is_empty() {
        text = "nothing has happened yet".to_owned();
    }
    output.result(json!({ "events": history.events }), &text);
    Ok(Exit::Done)
}

/// `verify`: reads slots whole and compares every chunk with the list that was signed.
pub(super) fn verify(agent: &Agent, args: VerifyArgs, output: Output) -> Result<Exit, AgentError> {
    let record = agent.state.boot_record()?;
    let slots = args.slot.map_or(Slot::BOTH.to_vec(), |slot| vec![slot]);
    let progress = crate::progress::start(output.json);
    let mut good = Vec::new();
    for slot in slots {
        let Some(content) = record.slots.of(slot) else {
            if args.slot.is_some() {
                let text = format!("slot {slot} holds nothing this agent wrote");
                return Err(AgentError::new(Reason::BootRecord, text));
            }
            continue;
        };
        for component in &content.components {
            let Some(list) = agent.state.chunk_list(&component.chunks) else {
                let text = format!("the chunk list of {} in slot {slot} is gone", component.name);
                return Err(AgentError::new(Reason::StoreCorrupt, text)
                    .hint("it comes back with the next update"));
            };
            let device = agent.disk.open_to_read(slot, &component.name)?;
            stage::read_back(&component.name, device.as_ref(), &list, progress.as_ref())
                .map_err(|error| AgentError::from(error).context(format!("slot {slot}")))?;
            good.push(json!({ "slot": slot, "component": component.name }));
        }
    }
    let text = format!("{} images are exactly what was signed", good.len());
    output.result(json!({ "verified": good }), &text);
    Ok(Exit::Done)
}
