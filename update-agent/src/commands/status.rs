//! `status`. It changes nothing, and waits for no other agent.

use std::collections::BTreeMap;

use formats::boot_record::{Phase, Slot};
use formats::reason::{Exit, Reason};
use serde_json::{Value, json};
use update_core::chooser::ChooserFloor;
use update_core::update::{Node, Standing, next_slot, stand};

use crate::agent::{Agent, FloorReport, MEND, Pending, floor_guarantee, version_of_os_release};
use crate::boot::bypass;
use crate::error::AgentError;
use crate::output::{Output, bytes, time};
use crate::restart;
use crate::state::{OfferReport, RestartAsked};

/// What `status` says first of a node.
#[derive(Debug, Clone)]
struct Headline<'a> {
    product: &'a str,
    channel: &'a str,
    /// The version that runs, as far as anybody knows.
    runs: Option<String>,
    slot: Slot,
    /// `confirmed`, `on trial` or `not confirmed`.
    state: &'static str,
    /// What is under way, if anything is.
    update: Option<String>,
    offer: Option<&'a OfferReport>,
    /// Seconds since the last check that reached a repository.
    checked: Option<u64>,
}

impl Headline<'_> {
    /// `demo on stable: runs 1.2.0 (slot b, confirmed), up to date, checked 3 min ago`
    fn text(&self) -> String {
        let Headline { product, channel, slot, state, .. } = self;
        let runs = match &self.runs {
            Some(version) => format!("runs {version} (slot {slot}, {state})"),
            None => format!("runs slot {slot} ({state}; its version is not known)"),
        };
        let checked = match self.checked {
            Some(ago) => format!("checked {}", self::ago(ago)),
            None => "never checked".to_owned(),
        };
        format!("{product} on {channel}: {runs}, {}{checked}", self.standing())
    }

    /// What is under way, or what the last offer came to.
    fn standing(&self) -> String {
        if let Some(update) = &self.update {
            return format!("{update}, ");
        }
        let Some(OfferReport { version, decision, .. }) = self.offer else { return String::new() };
        let runs_it = self.runs.as_ref() == Some(version);
        if runs_it || decision == Reason::UpToDate.code() {
            "up to date, ".to_owned()
        } else if decision == "install" {
            format!("{version} is available, ")
        } else if decision == Reason::Deferred.code() {
            format!("{version} is deferred, ")
        } else {
            format!("{version} is refused ({decision}), ")
        }
    }
}

/// `3 min ago`: the largest unit.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `status`
pub(super) fn status(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let (node, floor) = agent.node_to_show()?;
    let report = agent.state.report();
    let standing = stand(&node);
    let older_since = agent.state.floor_record().ok().and_then(|file| file.older_since);
    // What cannot be asked now is `doctor`'s to tell.
    let mixed: Vec<String> = agent
        .disk
        .running_in(node.booted.other(), node.flags)
        .unwrap_or_default()
        .into_iter()
        .map(ToString::to_string)
        .collect();
    let chooser_floor = agent.disk.chooser_floor();
    let refused: BTreeMap<String, String> = Slot::BOTH
        .into_iter()
        .filter_map(|slot| Some((slot.to_string(), agent.disk.refused_by_chooser(slot)?)))
        .collect();
    let foreign: BTreeMap<String, String> = Slot::BOTH
        .into_iter()
        .filter_map(|slot| Some((slot.to_string(), (*node.evidence.foreign.of(slot))?.to_string())))
        .collect();
    let unread = agent.state.unread();
    let example = agent.trusts_example_keys();
    let pending = node.record.update.as_ref().map(|update| {
        json!({
            "slot": update.slot,
            "version": update.release.version,
            "security_version": update.release.security_version,
            "phase": phase(&update.phase),
            "tries_left": node.flags.of(update.slot).tries,
            "failed": failed_check(&update.phase),
            "passed_over": update.passed_over,
            "withheld": update.withheld,
        })
    });
    // In a boot that has nothing to leave and nothing to try, an earlier request is history.
    let restart = agent.restart_pending().filter(|pending| match standing {
        Standing::OnTrial { .. } | Standing::Leaving => pending.leaves(),
        Standing::AwaitingReboot => !pending.leaves(),
        _ => false,
    });
    let running = crate::progress::running(&agent.config.state_dir);
    let installed = node.record.slots.of(node.booted).as_ref();
    let runs = match installed {
        Some(content) => Some(content.release.version.to_string()),
        None => {
            version_of_os_release(&agent.config.node.os_release).map(|version| version.to_string())
        }
    };
    let headline = Headline {
        product: &agent.config.node.product,
        channel: &agent.config.node.channel,
        runs,
        slot: node.booted,
        state: match (node.flags.of(node.booted).confirmed(), &standing) {
            (true, _) => "confirmed",
            (false, Standing::OnTrial { .. }) => "on trial",
            (false, _) => "not confirmed",
        },
        update: under_way(&node, &standing),
        offer: report.offer.as_ref(),
        checked: report.last_success.map(|at| agent.state.now().saturating_sub(at)),
    };
    let node_id = agent.node_id();
    let withdrawn = agent.withdrawn();
    let value = json!({
        "booted": node.booted,
        "next": next_slot(node.flags),
        "standing": word(&standing),
        "pending": pending,
        "restart": restart.as_ref().map(|pending| restart_value(agent, pending)),
        "unread": unread,
        "slots": { "a": slot_value(&node, Slot::A), "b": slot_value(&node, Slot::B) },
        "floor": FloorReport::new(&floor, older_since),
        "chooser_floor": chooser_floor.to_string(),
        "refused_by_chooser": refused,
        "mixed": mixed,
        "foreign": foreign,
        "counting": node.record.counting,
        "failures": node.record.failures,
        "last_check": report.last_success,
        "last_error": report.last_error,
        "metadata": report.metadata,
        "offer": report.offer,
        "withdrawn": withdrawn,
        // The command at work; both names say the same, `running` is the older one.
        "running": running,
        "in_progress": running,
        "runs": headline.runs,
        "node_id": node_id,
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
    text += &format!("{}\n", headline.text());
    if let Some(withdrawn) = &withdrawn {
        text += &format!("WITHDRAWN: {}\n", withdrawn.sentence());
    }
    for slot in Slot::BOTH {
        text += &slot_line(&node, slot);
    }
    text += &format!("update   {}\n", sentence(agent, &node, &standing));
    if let Some(pending) = &restart {
        text += &format!("restart  {}\n", restart_sentence(agent, pending));
    }
    if let Some(OfferReport { version, wave: Some(wave), .. }) = &report.offer {
        text += &format!("node     {node_id}: at {wave} % of the roll-out of {version}\n");
    }
    if let Some(running) = &running {
        let reached = &running.reached;
        let percent = reached.done.saturating_mul(100).checked_div(reached.total).unwrap_or(100);
        let rate = reached.rate.map_or_else(String::new, |rate| format!(", {}/s", bytes(rate)));
        let left = reached.left.map_or_else(String::new, |left| format!(", {left} s left"));
        text += &format!("running  {}: {percent} %{rate}{left}\n", reached.what);
    }
    text += &format!("floor    security version {} ({})\n", floor.floor, floor_guarantee(&floor));
    if let ChooserFloor::Open(gap) = chooser_floor {
        text += &format!("chooser  booted without a floor: {}\n", gap.code());
    }
    for (slot, code) in &refused {
        text += &format!("chooser  refused slot {slot}: {code}\n");
    }
    for (slot, how) in &foreign {
        text += &format!("foreign  slot {slot} was written by another program since: {how}\n");
    }
    if !foreign.is_empty() {
        text += &format!("         {MEND}\n");
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
                Some(end) if end <= metadata.expires => {
                    ", by the offline statement of a bundle".to_owned()
                }
                Some(end) => {
                    let end = time(u64::try_from(end).unwrap_or(0));
                    format!("; the bundle until {end}, by its offline statement")
                }
                None => String::new(),
            }
        );
    }
    if let Some(error) = &report.last_error {
        text += &format!("last error  {} on {}: {}\n", error.code, time(error.at), error.message);
    }
    for part in &unread {
        text += &format!("newer    {part}: not known to this version, kept as it is\n");
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

fn phase(phase: &Phase) -> &str {
    match phase {
        Phase::Staging => "staging",
        Phase::Staged => "staged",
        Phase::Trial { .. } => "trial",
        Phase::Reverting { .. } => "reverting",
        Phase::Unknown { name } => name,
    }
}

/// Why the last trial boot failed, where it could say so.
fn failed_check(phase: &Phase) -> Option<&str> {
    match phase {
        Phase::Trial { failed, .. } => failed.as_deref(),
        _ => None,
    }
}

/// What the next request to restart will be, and in how many seconds.
fn next_request(agent: &Agent, pending: &Pending) -> (String, u64) {
    (
        restart::shown(&agent.config.boot, pending.asked.purpose, pending.means),
        pending.wait().as_secs(),
    )
}

fn restart_value(agent: &Agent, pending: &Pending) -> Value {
    let (next, seconds) = next_request(agent, pending);
    json!({
        "why": pending.asked.why,
        "at": pending.asked.at,
        "times": pending.asked.times,
        "refused": pending.asked.refused,
        "next": next,
        "next_in": seconds,
    })
}

/// `the trial failed (web: …): asked for on …, 2 times; next: reboot(2) in 40 s`
fn restart_sentence(agent: &Agent, pending: &Pending) -> String {
    let RestartAsked { why, times, at, refused, .. } = &pending.asked;
    let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
    let refused = refused.as_ref().map_or_else(String::new, |why| format!(", refused ({why})"));
    let (next, seconds) = next_request(agent, pending);
    let at = time(*at);
    format!("{why}: asked for {times}, last on {at}{refused}; next: {next} in {seconds} s")
}

pub(crate) fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Idle => "idle",
        Standing::Interrupted => "interrupted",
        Standing::Staged => "staged",
        Standing::AwaitingReboot | Standing::PassedOver => "awaiting_reboot",
        Standing::OnTrial { .. } => "on_trial",
        Standing::ConfirmUnfinished => "confirm_unfinished",
        Standing::Lost { .. } => "lost",
        Standing::RevertUnfinished => "revert_unfinished",
        Standing::Leaving => "leaving",
    }
}

fn sentence(agent: &Agent, node: &Node, standing: &Standing) -> String {
    let what = node.record.update.as_ref().map_or_else(String::new, |update| {
        format!("{} in slot {}", update.release.version, update.slot)
    });
    let sentence = match standing {
        Standing::Idle => "none under way".to_owned(),
        Standing::Interrupted => format!("{what}: writing was interrupted; `apply` resumes it"),
        Standing::Staged => {
            let withheld = node.record.update.as_ref().and_then(|update| update.withheld.as_ref());
            let why = withheld.map_or_else(String::new, |why| format!(" for now: {why}"));
            format!("{what}: written and verified, not next{why}")
        }
        Standing::PassedOver | Standing::AwaitingReboot if passed_over(node, standing) => {
            format!("{what}: {}", bypass::sentence(&agent.config.boot, node.booted.other()))
        }
        Standing::PassedOver | Standing::AwaitingReboot => {
            format!("{what}: next; {} to try it", agent.config.boot.how_to_try())
        }
        Standing::OnTrial { tries_left, .. } => {
            let failed = node.record.update.as_ref().and_then(|own| failed_check(&own.phase));
            let failed = failed.map_or_else(String::new, |why| format!("; it failed: {why}"));
            format!("{what}: on trial, {tries_left} tries left after this boot{failed}")
        }
        Standing::ConfirmUnfinished => format!("{what}: confirmed; the record follows"),
        Standing::Lost { detail, .. } => format!("{what}: reverted ({detail})"),
        Standing::RevertUnfinished => format!("{what}: being reverted"),
        Standing::Leaving => format!("slot {} was marked bad; reboot to leave it", node.booted),
    };
    match node.record.update.as_ref().map(|update| &update.phase) {
        Some(Phase::Unknown { name }) => {
            format!("{sentence} (by the flags; phase {name:?} is not known to this version)")
        }
        _ => sentence,
    }
}

/// Whether something else than the boot loader's choice started this boot.
fn passed_over(node: &Node, standing: &Standing) -> bool {
    *standing == Standing::PassedOver
        || node.record.update.as_ref().is_some_and(|update| update.passed_over > 0)
}

/// [`sentence`], shorter, for the headline; `None`: nothing is under way.
fn under_way(node: &Node, standing: &Standing) -> Option<String> {
    let version = node.record.update.as_ref().map(|update| update.release.version.to_string());
    let version = version.unwrap_or_else(|| "an update".to_owned());
    Some(match standing {
        Standing::Idle => return None,
        Standing::Interrupted => format!("{version} is partly written"),
        Standing::Staged => format!("{version} is written"),
        Standing::AwaitingReboot | Standing::PassedOver => {
            format!("{version} is next, after a reboot")
        }
        Standing::OnTrial { tries_left, .. } => format!("{tries_left} tries left"),
        Standing::ConfirmUnfinished => format!("{version} is being confirmed"),
        Standing::Lost { .. } => format!("{version} was reverted"),
        Standing::RevertUnfinished => format!("{version} is being reverted"),
        Standing::Leaving => "marked bad; reboot to leave it".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headlines() {
        let offer = |version: &str, decision: &str| OfferReport {
            version: version.to_owned(),
            decision: decision.to_owned(),
            why: String::new(),
            rule: None,
            wave: None,
        };
        let base = Headline {
            product: "demo",
            channel: "stable",
            runs: Some("1.2.0".to_owned()),
            slot: Slot::B,
            state: "confirmed",
            update: None,
            offer: None,
            checked: Some(200),
        };
        let (same, newer) = (offer("1.2.0", "install"), offer("1.3.0", "install"));
        let (current, deferred) = (offer("1.2.0", "up_to_date"), offer("1.3.0", "deferred"));
        let refused = offer("1.3.0", "hw_mismatch");
        let of = |offer| Headline { offer: Some(offer), ..base.clone() };
        let runs = "demo on stable: runs 1.2.0 (slot b, confirmed)";
        for (headline, text) in [
            (of(&current), format!("{runs}, up to date, checked 3 min ago")),
            (of(&same), format!("{runs}, up to date, checked 3 min ago")),
            (of(&newer), format!("{runs}, 1.3.0 is available, checked 3 min ago")),
            (of(&deferred), format!("{runs}, 1.3.0 is deferred, checked 3 min ago")),
            (of(&refused), format!("{runs}, 1.3.0 is refused (hw_mismatch), checked 3 min ago")),
            (Headline { checked: None, ..base.clone() }, format!("{runs}, never checked")),
            (
                Headline { update: Some("1.3.0 is next, after a reboot".to_owned()), ..of(&newer) },
                format!("{runs}, 1.3.0 is next, after a reboot, checked 3 min ago"),
            ),
            (
                Headline { runs: None, state: "not confirmed", ..base.clone() },
                "demo on stable: runs slot b (not confirmed; its version is not known), checked 3 \
                 min ago"
                    .to_owned(),
            ),
        ] {
            assert_eq!(headline.text(), text);
        }
    }

    #[test]
    fn how_long_ago() {
        for (seconds, text) in [
            (0, "just now"),
            (59, "just now"),
            (60, "1 min ago"),
            (3599, "59 min ago"),
            (7200, "2 h ago"),
            (172_799, "47 h ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }
}
