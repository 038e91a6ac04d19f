//! `status`: the node as it stands, for people.

use formats::boot_record::Slot;
use formats::reason::{Exit, Reason};
use formats::size;
use update_core::chooser::ChooserFloor;
use update_core::update::Standing;

use crate::agent::{Agent, MEND, RestartReport, SlotReport, StatusReport};
use crate::error::AgentError;
use crate::figures::time;
use crate::output::Output;
use crate::progress::Record;
use crate::state::{MetadataVersions, OfferReport};

/// `status`
pub(super) fn status(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let report = agent.status()?;
    output.report(&report, &text(&report));
    Ok(Exit::Done)
}

fn text(report: &StatusReport) -> String {
    let mut text = String::new();
    if report.example_keys {
        text += &format!("WARNING: {}\n", crate::example::WARNING);
    }
    text += &format!("{}\n", Headline::of(report).text());
    if let Some(withdrawn) = &report.withdrawn {
        text += &format!("WITHDRAWN: {}\n", withdrawn.sentence());
    }
    text += &now(report);
    text += &boot(report);
    text += &past(report);
    text
}

/// The slots, and what is under way.
fn now(report: &StatusReport) -> String {
    let mut text: String = Slot::BOTH.into_iter().map(|slot| slot_line(report, slot)).collect();
    text += &format!("update   {}\n", report.sentence);
    if let Some(restart) = &report.restart {
        text += &format!("restart  {}\n", restart_sentence(restart));
    }
    if let Some(lock) = &report.restart_lock {
        text += &format!("lock     {}\n", lock.sentence());
    }
    if let Some(OfferReport { version, wave: Some(wave), .. }) = &report.offer {
        let id = &report.node_id;
        text += &format!("node     {id}: at {wave} % of the roll-out of {version}\n");
    }
    if let Some(Record { reached, .. }) = &report.in_progress {
        let percent = reached.done.saturating_mul(100).checked_div(reached.total).unwrap_or(100);
        let rate = reached.rate.map_or_else(String::new, |rate| format!(", {}/s", size(rate)));
        let left = reached.left.map_or_else(String::new, |left| format!(", {left} s left"));
        text += &format!("running  {}: {percent} %{rate}{left}\n", reached.what);
    }
    text
}

/// The floor, and what the boot loader and other programs did.
fn boot(report: &StatusReport) -> String {
    let floor = &report.floor;
    let mut text =
        format!("floor    security version {} ({})\n", floor.security_version, floor.guarantee);
    if let ChooserFloor::Open(gap) = report.chooser_floor {
        text += &format!("chooser  booted without a floor: {}\n", gap.code());
    }
    for (slot, code) in &report.refused_by_chooser {
        text += &format!("chooser  refused slot {slot}: {code}\n");
    }
    for (slot, how) in &report.foreign {
        text += &format!("foreign  slot {slot} was written by another program since: {how}\n");
    }
    if !report.foreign.is_empty() {
        text += &format!("         {MEND}\n");
    }
    if let Some(at) = floor.older_since {
        text += &format!("noticed  on {}: this state was older than the TPM\n", time(at));
    }
    if !report.mixed.is_empty() {
        let mixed: Vec<&str> = report.mixed.iter().map(|name| name.as_str()).collect();
        let (mixed, slot) = (mixed.join(", "), report.booted.other());
        text += &format!("mixed    {mixed} still runs from slot {slot}\n");
    }
    text
}

/// What failed, and the last check.
fn past(report: &StatusReport) -> String {
    let mut text = String::new();
    for failure in &report.failures {
        text += &format!(
            "failed   {} on {}: {} ({})\n",
            failure.release.version,
            time(failure.at),
            failure.detail,
            failure.reason
        );
    }
    text += &match report.last_check {
        Some(at) => format!("checked  {}\n", time(at)),
        None => "checked  never\n".to_owned(),
    };
    text += &report.metadata.map_or_else(String::new, trust_line);
    if let Some(error) = &report.last_error {
        text += &format!("last error  {} on {}: {}\n", error.code, time(error.at), error.message);
    }
    text += &super::report::trouble(&report.reports);
    for part in &report.unread {
        text += &format!("newer    {part}: not known to this version, kept as it is\n");
    }
    text
}

fn trust_line(metadata: MetadataVersions) -> String {
    let offline = match metadata.offline {
        Some(end) if end <= metadata.expires => ", by the offline statement of a bundle".to_owned(),
        Some(end) => {
            let end = time(u64::try_from(end).unwrap_or(0));
            format!("; the bundle until {end}, by its offline statement")
        }
        None => String::new(),
    };
    format!(
        "trust    root {}, timestamp {}, snapshot {}, targets {}; until {}{offline}\n",
        metadata.root,
        metadata.timestamp,
        metadata.snapshot,
        metadata.targets,
        time(u64::try_from(metadata.expires).unwrap_or(0)),
    )
}

fn slot_line(report: &StatusReport, slot: Slot) -> String {
    let SlotReport { version, priority, tries, successful, bootable, confirmed, .. } =
        report.slots.of(slot);
    let version = version.as_deref().unwrap_or("(not written by this agent)");
    let mut marks = Vec::new();
    if report.booted == slot {
        marks.push("booted");
    }
    if report.next == Some(slot) {
        marks.push("next");
    }
    marks.push(match (confirmed, bootable) {
        (true, _) => "confirmed",
        (false, true) => "on trial",
        (false, false) if *priority > 0 => "tries used up",
        (false, false) => "not bootable",
    });
    format!(
        "slot {slot}   {version}: {} (priority {priority}, tries {tries}, successful {})\n",
        marks.join(", "),
        u8::from(*successful)
    )
}

/// `the trial failed (web: …): asked for on …, 2 times; next: reboot(2) in 40 s`
fn restart_sentence(restart: &RestartReport) -> String {
    let RestartReport { why, times, at, refused, next, next_in } = restart;
    let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
    let refused = refused.as_ref().map_or_else(String::new, |why| format!(", refused ({why})"));
    let at = time(*at);
    format!("{why}: asked for {times}, last on {at}{refused}; next: {next} in {next_in} s")
}

/// What `status` says first of a node.
#[derive(Debug, Clone)]
struct Headline<'a> {
    product: &'a str,
    channel: &'a str,
    /// The version that runs, as far as anybody knows.
    runs: Option<&'a str>,
    slot: Slot,
    /// `confirmed`, `on trial` or `not confirmed`.
    state: &'static str,
    /// What is under way, if anything is.
    update: Option<String>,
    offer: Option<&'a OfferReport>,
    /// Seconds since the last check that reached a repository.
    checked: Option<u64>,
}

impl<'a> Headline<'a> {
    fn of(report: &'a StatusReport) -> Self {
        Headline {
            product: &report.product,
            channel: &report.channel,
            runs: report.runs.as_deref(),
            slot: report.booted,
            state: match (report.slots.of(report.booted).confirmed, &report.standing) {
                (true, _) => "confirmed",
                (false, Standing::OnTrial { .. }) => "on trial",
                (false, _) => "not confirmed",
            },
            update: under_way(report),
            offer: report.offer.as_ref(),
            checked: report.last_check.map(|at| report.now.saturating_sub(at)),
        }
    }

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
        let runs_it = self.runs == Some(version.as_str());
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

/// What is under way, in a few words; `None`: nothing is.
fn under_way(report: &StatusReport) -> Option<String> {
    let version = report.pending.as_ref().map(|update| update.version.to_string());
    let version = version.unwrap_or_else(|| "an update".to_owned());
    Some(match &report.standing {
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
            until: None,
        };
        let base = Headline {
            product: "demo",
            channel: "stable",
            runs: Some("1.2.0"),
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
