//! What happens on a node, as events that programs can select and people can look up.
//!
//! Each event is one sentence with fields. The `update-agent` program writes events to the journal with
//! all fields where its standard error is the journal, and otherwise as a line of text; a program that
//! embeds the agent finds them under the target [`TARGET`] of `tracing`. [`KINDS`] lists all of them, as
//! `docs/journal.md` and the catalog `systemd/update-agent.catalog` do.
//!
//! | field | holds |
//! |---|---|
//! | `MESSAGE_ID` | the kind of event |
//! | `UPDATE_PRODUCT`, `UPDATE_CHANNEL`, `UPDATE_MODE` | what the node follows, and how far it goes by itself |
//! | `UPDATE_VERSION` | the release that the event is about |
//! | `UPDATE_FROM_VERSION` | the release that runs |
//! | `UPDATE_SLOT` | the slot that the event is about: `a` or `b` |
//! | `UPDATE_SOURCE` | where the release comes from, without credentials |
//! | `UPDATE_WORK`, `UPDATE_PERCENT` | the piece of work under way, and how much of it is done |
//! | `UPDATE_COMMAND` | a command that is run |
//! | `UPDATE_HOOK` | the hook, as in the configuration |
//! | `UPDATE_REASON` | why, in words |
//! | `REASON_CODE` | why, as a code of `docs/exit-codes.md` |
//! | `TRIES_LEFT` | trial boots that are left after this one |
//! | `BYTES_FETCHED` | compressed bytes from sources |
//! | `BYTES_REUSED` | bytes of the images that the node had |
//! | `BYTES_WRITTEN` | bytes written to the slot |
//!
//! Values are printable text on one line of at most 16 KiB, or decimal numbers.

pub(crate) mod log;

use std::time::Duration;

use formats::boot_record::Slot;
use storage::log::printable;
use tracing::Level;

use crate::progress::reached::Reached;
use crate::stage::written::Written;

/// The target of all events.
pub const TARGET: &str = "update_agent::events";

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in the documentation.
    pub name: &'static str,
    /// Its `MESSAGE_ID`: 128 random bits. It never changes, and none is used again.
    pub id: &'static str,
    /// How urgent it is.
    pub level: Level,
    /// The fields that it may have, in the order of the module's table.
    pub fields: &'static [&'static str],
}

macro_rules! kinds {
    ($($constant:ident = $name:literal, $id:literal, $level:ident, [$($field:literal),*];)*) => {
        $(const $constant: Kind = Kind {
            name: $name, id: $id, level: Level::$level, fields: &[$($field),*],
        };)*
        /// Every kind of event.
        pub const KINDS: &[Kind] = &[$($constant),*];
    };
}

kinds! {
    STARTED = "started", "2a013f04f06d49eab508cf1e6a7c8e40", INFO,
        ["UPDATE_PRODUCT", "UPDATE_CHANNEL", "UPDATE_MODE", "UPDATE_VERSION", "UPDATE_SLOT"];
    OFFERED = "offered", "4f1bc8a95834431693f4f4b195f7162b", INFO, ["UPDATE_VERSION"];
    DECLINED = "declined", "07a7cdd5dc97495cb5172a845fa652d5", INFO,
        ["UPDATE_VERSION", "UPDATE_REASON", "REASON_CODE"];
    INSTALLING = "installing", "787db998955c40c0878ed44289ee1620", INFO,
        ["UPDATE_VERSION", "UPDATE_FROM_VERSION", "UPDATE_SLOT", "UPDATE_SOURCE"];
    WORKING = "working", "94cff5bf24f44a48a4b7a60aa4faef23", INFO, ["UPDATE_WORK", "UPDATE_PERCENT"];
    STAGED = "staged", "2920a6913eb84130b9b6ca9baf9d0c89", INFO,
        ["UPDATE_VERSION", "UPDATE_SLOT", "BYTES_FETCHED", "BYTES_REUSED", "BYTES_WRITTEN"];
    ACTIVATED = "activated", "0e7256426dd349e8b6496fc2ccbaf77d", INFO,
        ["UPDATE_VERSION", "UPDATE_SLOT", "BYTES_FETCHED", "BYTES_REUSED", "BYTES_WRITTEN"];
    INSTALL_FAILED = "install failed", "d242372bd8d8497390bc443a380a90d7", ERROR,
        ["UPDATE_VERSION", "UPDATE_REASON", "REASON_CODE"];
    RESTARTING = "restarting", "0018e2250bcd4519b71965edf775a1e7", INFO, ["UPDATE_COMMAND"];
    RESTART_FAILED = "restart failed", "dbc67b8e77324ae49a8d22249af47460", ERROR,
        ["UPDATE_REASON", "REASON_CODE"];
    ON_TRIAL = "on trial", "097317ce02b84d8f8dd1f66e084aa3ad", INFO,
        ["UPDATE_VERSION", "UPDATE_SLOT", "TRIES_LEFT"];
    TRIAL_FAILED = "trial failed", "123c7afa7eec4cdf8b675046d7142322", ERROR,
        ["UPDATE_VERSION", "UPDATE_SLOT", "UPDATE_REASON", "REASON_CODE"];
    CONFIRMED = "confirmed", "adb0b9f64dcd40368e79eaaccd9702ec", INFO,
        ["UPDATE_VERSION", "UPDATE_SLOT"];
    REVERTED = "reverted", "03144d52b59247fc959d5bcc69e82c11", WARN,
        ["UPDATE_VERSION", "UPDATE_SLOT", "UPDATE_REASON", "REASON_CODE"];
    RESTART_DELAYED = "restart delayed", "9eccff1ac05c403c98bff207f382a981", INFO, ["UPDATE_VERSION"];
    HOOK_FAILED = "hook failed", "d77d6103409a48dc9ce60b19e9116faf", WARN,
        ["UPDATE_HOOK", "UPDATE_REASON"];
    ROUND_FAILED = "round failed", "7b84c4a347234d7ab7facfed31488753", ERROR,
        ["UPDATE_REASON", "REASON_CODE"];
}

/// Why something is as it is: a stable code, and words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Why<'a> {
    /// A reason code, or the word for a decision.
    pub(crate) code: &'a str,
    /// In words.
    pub(crate) text: &'a str,
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
    /// The daemon begins.
    Started {
        product: &'a str,
        channel: &'a str,
        mode: &'a str,
        version: Option<&'a str>,
        slot: Option<Slot>,
    },
    /// A release may be installed, and waits for an operator or a restart.
    Offered { version: &'a str, next_step: &'a str },
    /// A release is offered, and the rules do not let it be installed now.
    Declined { version: &'a str, why: Why<'a> },
    /// A release is about to be written.
    Installing { version: &'a str, from: Option<&'a str>, slot: Slot, source: &'a str },
    /// Long work goes on; at most once a minute.
    Working(&'a Reached),
    /// A release is written and read back. It is not next.
    Staged { version: &'a str, slot: Slot, moved: Written },
    /// A release is next.
    Activated { version: &'a str, slot: Slot, moved: Written },
    /// A release could not be installed.
    InstallFailed { version: &'a str, why: Why<'a> },
    /// The machine is asked to restart.
    Restarting { command: &'a str },
    /// The machine refused to restart.
    RestartFailed { why: Why<'a> },
    /// The health checks of a trial begin.
    OnTrial { version: Option<&'a str>, slot: Slot, tries_left: u8 },
    /// The health checks failed.
    TrialFailed { version: Option<&'a str>, slot: Slot, why: Why<'a> },
    /// A slot is confirmed.
    Confirmed { version: Option<&'a str>, slot: Slot },
    /// A slot was given up; the other one boots.
    Reverted { version: Option<&'a str>, slot: Slot, why: Why<'a> },
    /// A hook, or the server of the restart lock, put a restart off.
    RestartDelayed { version: &'a str, who: &'a str, again: Duration, left: Duration },
    /// A hook failed; what it was asked goes on without it.
    HookFailed { hook: &'a str, why: &'a str },
    /// A round of the daemon failed.
    RoundFailed { why: Why<'a> },
}

/// The fields of one event; those it does not have are absent from it.
#[derive(Debug, Default)]
struct Fields<'a> {
    product: Option<&'a str>,
    channel: Option<&'a str>,
    mode: Option<&'a str>,
    version: Option<&'a str>,
    from_version: Option<&'a str>,
    slot: Option<Slot>,
    source: Option<&'a str>,
    work: Option<&'a str>,
    percent: Option<u64>,
    command: Option<&'a str>,
    hook: Option<&'a str>,
    why: Option<Why<'a>>,
    tries_left: Option<u64>,
    moved: Option<Written>,
}

impl Event<'_> {
    /// Which kind it is.
    pub(crate) fn kind(&self) -> &'static Kind {
        match self {
            Event::Started { .. } => &STARTED,
            Event::Offered { .. } => &OFFERED,
            Event::Declined { .. } => &DECLINED,
            Event::Installing { .. } => &INSTALLING,
            Event::Working(_) => &WORKING,
            Event::Staged { .. } => &STAGED,
            Event::Activated { .. } => &ACTIVATED,
            Event::InstallFailed { .. } => &INSTALL_FAILED,
            Event::Restarting { .. } => &RESTARTING,
            Event::RestartFailed { .. } => &RESTART_FAILED,
            Event::OnTrial { .. } => &ON_TRIAL,
            Event::TrialFailed { .. } => &TRIAL_FAILED,
            Event::Confirmed { .. } => &CONFIRMED,
            Event::Reverted { .. } => &REVERTED,
            Event::RestartDelayed { .. } => &RESTART_DELAYED,
            Event::HookFailed { .. } => &HOOK_FAILED,
            Event::RoundFailed { .. } => &ROUND_FAILED,
        }
    }

    /// What people read.
    fn sentence(&self) -> String {
        match self {
            Event::Started { product, channel, mode, version, slot } => {
                let runs = match slot {
                    Some(slot) => format!("; runs {} in slot {slot}", known(*version)),
                    None => String::new(),
                };
                format!("following {product} on {channel}, mode {mode}{runs}")
            }
            Event::Offered { version, next_step } => format!("{version} {next_step}"),
            Event::Declined { version, why } => format!("{version}: {}", why.text),
            Event::Installing { version, from, slot, source } => {
                format!("installing {version} in slot {slot} from {source}; {} runs", known(*from))
            }
            Event::Working(reached) => reached.to_string(),
            Event::Staged { version, slot, moved } => {
                format!("{version} is in slot {slot}, verified; {}; it is not next", told(moved))
            }
            Event::Activated { version, slot, moved } => {
                format!("{version} is in slot {slot}, verified, and next; {}", told(moved))
            }
            Event::InstallFailed { version, why } => {
                format!("{version} was not installed: {}", why.text)
            }
            Event::Restarting { command } => format!("restarting: {command}"),
            Event::RestartFailed { why } => format!("the restart failed: {}", why.text),
            Event::OnTrial { version, slot, tries_left } => format!(
                "slot {slot} is on trial ({}), tries left: {tries_left}; checking health",
                known(*version)
            ),
            Event::TrialFailed { version, slot, why } => {
                format!("the trial of slot {slot} failed ({}): {}", known(*version), why.text)
            }
            Event::Confirmed { version, slot } => {
                format!("slot {slot} is confirmed ({})", known(*version))
            }
            Event::Reverted { version, slot, why } => {
                format!("slot {slot} was given up ({}): {}", known(*version), why.text)
            }
            Event::RestartDelayed { version, who, again, left } => format!(
                "the restart into {version} is put off: {who} is asked again in {} s, and \
                 may put it off for {} s more",
                again.as_secs(),
                left.as_secs()
            ),
            Event::HookFailed { hook, why } => format!("hooks.{hook}: {why}"),
            Event::RoundFailed { why } => why.text.to_owned(),
        }
    }

    fn fields(&self) -> Fields<'_> {
        let none = Fields::default();
        match *self {
            Event::Started { product, channel, mode, version, slot } => Fields {
                product: Some(product),
                channel: Some(channel),
                mode: Some(mode),
                version,
                slot,
                ..none
            },
            Event::HookFailed { hook, why } => {
                let why = Some(Why { code: "", text: why });
                Fields { hook: Some(hook), why, ..none }
            }
            Event::Offered { version, .. } | Event::RestartDelayed { version, .. } => {
                Fields { version: Some(version), ..none }
            }
            Event::Declined { version, why } | Event::InstallFailed { version, why } => {
                Fields { version: Some(version), why: Some(why), ..none }
            }
            Event::Installing { version, from, slot, source } => Fields {
                version: Some(version),
                from_version: from,
                slot: Some(slot),
                source: Some(source),
                ..none
            },
            Event::Working(reached) => {
                Fields { work: Some(&reached.what), percent: Some(reached.percent()), ..none }
            }
            Event::Staged { version, slot, moved } | Event::Activated { version, slot, moved } => {
                Fields { version: Some(version), slot: Some(slot), moved: Some(moved), ..none }
            }
            Event::Restarting { command } => Fields { command: Some(command), ..none },
            Event::RestartFailed { why } | Event::RoundFailed { why } => {
                Fields { why: Some(why), ..none }
            }
            Event::OnTrial { version, slot, tries_left } => {
                let tries_left = Some(u64::from(tries_left));
                Fields { version, slot: Some(slot), tries_left, ..none }
            }
            Event::Confirmed { version, slot } => Fields { version, slot: Some(slot), ..none },
            Event::TrialFailed { version, slot, why } | Event::Reverted { version, slot, why } => {
                Fields { version, slot: Some(slot), why: Some(why), ..none }
            }
        }
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self) {
        let (kind, fields) = (self.kind(), self.fields());
        let text = |value: Option<&str>| value.map(printable);
        let (product, channel) = (text(fields.product), text(fields.channel));
        let (version, from) = (text(fields.version), text(fields.from_version));
        let (source, work) = (text(fields.source), text(fields.work));
        let command = text(fields.command);
        let reason = text(fields.why.map(|why| why.text));
        let code = text(fields.why.map(|why| why.code).filter(|code| !code.is_empty()));
        let slot = fields.slot.map(|slot| slot.to_string());
        let moved = fields.moved;
        // The level of a place in the code is a constant: one place for each.
        macro_rules! tell_at {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    $level,
                    MESSAGE_ID = kind.id,
                    UPDATE_PRODUCT = product.as_deref(),
                    UPDATE_CHANNEL = channel.as_deref(),
                    UPDATE_MODE = fields.mode,
                    UPDATE_VERSION = version.as_deref(),
                    UPDATE_FROM_VERSION = from.as_deref(),
                    UPDATE_SLOT = slot.as_deref(),
                    UPDATE_SOURCE = source.as_deref(),
                    UPDATE_WORK = work.as_deref(),
                    UPDATE_PERCENT = fields.percent,
                    UPDATE_COMMAND = command.as_deref(),
                    UPDATE_HOOK = fields.hook,
                    UPDATE_REASON = reason.as_deref(),
                    REASON_CODE = code.as_deref(),
                    TRIES_LEFT = fields.tries_left,
                    BYTES_FETCHED = moved.map(|moved| moved.fetched),
                    BYTES_REUSED = moved.map(|moved| moved.reused_seed + moved.reused_target),
                    BYTES_WRITTEN = moved.map(|moved| moved.written),
                    "{}",
                    printable(&self.sentence())
                )
            };
        }
        match kind.level {
            Level::ERROR => tell_at!(Level::ERROR),
            Level::WARN => tell_at!(Level::WARN),
            _ => tell_at!(Level::INFO),
        }
    }
}

/// What was moved, for people.
fn told(moved: &Written) -> String {
    use formats::size;
    let reused = moved.reused_seed + moved.reused_target;
    format!("fetched {}, reused {}", size(moved.fetched), size(reused))
}

fn known(version: Option<&str>) -> &str {
    version.unwrap_or("a system of no known version")
}

#[cfg(test)]
mod tests;
