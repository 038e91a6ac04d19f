//! The words of the command line.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, Subcommand};
use formats::version::Version;

use crate::config::DEFAULT_PATH;
use crate::health::parse_period;

/// The heading of the options that every command has.
const EVERYWHERE: &str = "Options of every command";

/// Installs signed releases: writes the inactive slot, boots it on trial, confirms or reverts it.
#[derive(Debug, Parser)]
#[command(name = "update-agent", version, long_version = version(), max_term_width = 100)]
pub struct Cli {
    /// Configuration file.
    #[arg(long, global = true, help_heading = EVERYWHERE, default_value = DEFAULT_PATH, value_name = "FILE")]
    pub config: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Log more to standard error; given twice, log everything.
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `--version` prints after the name.
fn version() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| build_info::version(env!("CARGO_PKG_VERSION"), &[]));
    &TEXT
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is available, and what this node would do about it (exit 1: nothing to do).
    Check,
    /// Exactly what would be fetched and written.
    Plan(ApplyArgs),
    /// Refresh trust, write the inactive slot, read it back, make it next.
    Apply(ApplyArgs),
    /// Confirm the booted slot: its trial has passed.
    Confirm(ConfirmArgs),
    /// Cancel what is next or on trial, or go back to the other slot.
    Revert(RevertArgs),
    /// Mark a slot bad permanently: its release is not tried again, and it is no fallback.
    MarkBad(MarkBadArgs),
    /// The security-version floor and what keeps it (exit 12: its TPM is lost).
    Floor(FloorArgs),
    /// Forget the repository and begin again from the trust root; slots and the floor stay.
    Reset(ResetArgs),
    /// State of the slots, the trial, the floor and the last check.
    Status,
    /// Which rule decided about the last offer, from what is trusted already.
    Explain,
    /// What happened on this node.
    History,
    /// Whether this node can really update and revert, and what to do if not.
    Doctor,
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask each health check once, before the trial of a release does (exit 22: one does not pass; 23:
    /// one cannot run).
    Health,
    /// Compare a slot with what was signed, chunk by chunk.
    Verify(VerifyArgs),
    /// The daemon: observe, decide, act; finishes a trial after a boot.
    Run(RunArgs),
    /// Restart out of a trial that nobody has confirmed; on every other boot, do nothing. For the unit
    /// that acts when an agent has failed.
    RestartTrial,
    /// Choose the slot to boot, as the boot loader does.
    BootSelect(BootSelectArgs),
    /// In the initramfs of a slot: map the root file system that the chooser verified, through
    /// dm-verity, and print its device.
    MapRoot(MapRootArgs),
    /// Metrics of this node in Prometheus' text format, as `metrics.textfile` gets them.
    Metrics(MetricsArgs),
    /// Who this node is to servers that collect reports, and whether its reports arrive; or the report
    /// of this moment as a file.
    Report(ReportArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What is done with the configuration file.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ConfigCommand {
    /// Find what is wrong with it, without network and disk, and print every value that counts with
    /// where it comes from.
    Check {
        /// The file; that of --config when absent.
        file: Option<PathBuf>,
    },
}

/// Which release, from where.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ApplyArgs {
    /// A repository or bundle instead of the configured sources.
    #[arg(
        value_name = "REF|FILE|DIR",
        help = "docker://HOST[:PORT][/NS], oci:DIR[:NS], oci-archive:FILE.tar[:NS], or the path of \
                a bundle; the configured sources when absent"
    )]
    pub from: Option<String>,
    /// This version instead of what the channel offers or the bundle means.
    #[arg(long)]
    pub version: Option<Version>,
    /// Restart the machine afterwards.
    #[arg(long)]
    pub reboot: bool,
    /// Write the slot, but do not make it next.
    #[arg(long)]
    pub stage_only: bool,
    /// Try a release again that failed on this node.
    #[arg(long)]
    pub retry: bool,
    /// A file or device that may hold parts of the images, for instance an older image.
    #[arg(long = "seed", value_name = "PATH")]
    pub seeds: Vec<PathBuf>,
}

/// Options of `confirm`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ConfirmArgs {
    /// Mark the booted slot as working although no trial is under way (first installation).
    #[arg(long)]
    pub adopt: bool,
}

/// Options of `revert`.
#[derive(Debug, Clone, clap::Args)]
pub struct RevertArgs {
    /// Restart the machine afterwards, if that is needed to leave the slot.
    #[arg(long)]
    pub reboot: bool,
    /// Why, for the history.
    #[arg(long, default_value = "by an operator")]
    pub reason: String,
}

/// Options of `mark-bad`.
#[derive(Debug, Clone, clap::Args)]
pub struct MarkBadArgs {
    /// The slot; the one on trial or next when absent.
    #[arg(long, value_parser = parse_slot)]
    pub slot: Option<formats::boot_record::Slot>,
    /// Restart the machine afterwards, if that is needed to leave the slot.
    #[arg(long)]
    pub reboot: bool,
    /// Why, for the history.
    #[arg(long, default_value = "marked bad by an operator")]
    pub reason: String,
}

/// Options of `floor`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct FloorArgs {
    /// Begin anew with the TPM that is there now, after it was cleared or exchanged.
    #[arg(long)]
    pub renew: bool,
}

/// Options of `reset`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ResetArgs {
    /// Belong to the repository of this trust root from now on; needs --yes.
    #[arg(long, value_name = "FILE", requires = "yes")]
    pub root: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// Options of `verify`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct VerifyArgs {
    /// The slot; both when absent.
    #[arg(long, value_parser = parse_slot)]
    pub slot: Option<formats::boot_record::Slot>,
}

fn parse_slot(text: &str) -> Result<formats::boot_record::Slot, String> {
    match text {
        "a" => Ok(formats::boot_record::Slot::A),
        "b" => Ok(formats::boot_record::Slot::B),
        _ => Err("a slot is a or b".to_owned()),
    }
}

/// Options of `run`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct RunArgs {
    /// Finish what a boot left to do, poll once, act once, and end.
    #[arg(long)]
    pub once: bool,
}

/// Options of `report`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Write the signed report of this moment to this file (`-`: to standard output), for
    /// `repo-server fleet import`.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Options of `metrics`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MetricsArgs {
    /// In the OpenMetrics format, as `metrics.listen` serves it on request.
    #[arg(long)]
    pub openmetrics: bool,
}

/// Options of `boot-select`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct BootSelectArgs {
    /// Do everything a boot does to the disk and to the simulated kernel's files, then print the
    /// choice instead of booting it. Without it, this program boots a slot only as /init of an
    /// initramfs.
    #[arg(long, required = true)]
    pub simulate: bool,
}

/// Options of `map-root`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MapRootArgs {
    /// How long the disk may take to appear (`45s`, `2m`).
    #[arg(long, default_value = "30s", value_parser = seconds, value_name = "DURATION")]
    pub wait: Duration,
}

/// A period as the configuration has it; a number alone is seconds, as it was.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).or_else(|_| parse_period(text))
}

impl Command {
    /// Whether what the metrics say may be other than before.
    pub(super) fn may_change_the_node(&self) -> bool {
        match self {
            Command::Check
            | Command::Plan(_)
            | Command::Apply(_)
            | Command::Confirm(_)
            | Command::Revert(_)
            | Command::MarkBad(_)
            | Command::Floor(_)
            | Command::Reset(_)
            | Command::Explain
            | Command::Run(_)
            | Command::BootSelect(_) => true,
            Command::Status
            | Command::History
            | Command::Doctor
            | Command::Health
            | Command::Verify(_)
            | Command::Metrics(_)
            | Command::Report(_)
            | Command::Config(_)
            | Command::RestartTrial
            | Command::MapRoot(_)
            | Command::Completions { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
