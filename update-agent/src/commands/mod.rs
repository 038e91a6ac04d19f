//! The command line: what can be asked, and how the answer ends the process.

mod apply;
mod boot_select;
mod config;
mod doctor;
mod floor;
mod guard;
mod health;
mod history;
mod interrupted;
mod metrics;
mod offer;
mod reset;
mod restart_trial;
mod run;
mod status;
mod trial;
mod verify;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, Subcommand};
use formats::reason::Exit;
use formats::version::Version;

use crate::agent::Agent;
use crate::config::{Config, DEFAULT_PATH};
use crate::error::AgentError;
use crate::health::parse_period;
use crate::metrics::Textfile;
use crate::output::Output;

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

/// Runs a command line to its end.
pub fn run(cli: &Cli) -> Exit {
    start_log(cli);
    let output = if cli.json { Output::JSON } else { Output::TEXT };
    interrupted::watch(&cli.command, output);
    output.end(run_to(cli, output))
}

/// Prints help or the version, or what is wrong with the command line.
pub fn explain_usage(error: &clap::Error) -> Exit {
    let printed = error.print().and_then(|()| std::io::Write::flush(&mut std::io::stdout()));
    match error.exit_code() {
        0 => {
            storage::report::note(printed);
            Output::TEXT.end(Exit::Done)
        }
        _ => Exit::Usage,
    }
}

fn run_to(cli: &Cli, output: Output) -> Exit {
    if let Command::Completions { shell } = &cli.command {
        let mut command = <Cli as clap::CommandFactory>::command();
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut command, "update-agent", &mut script);
        storage::report::print(&script);
        return Exit::Done;
    }
    // An initramfs has no configuration: the chooser's word is all that counts.
    if let Command::MapRoot(args) = &cli.command {
        return match crate::chooser::map_root(args.wait) {
            Ok(node) => {
                let node = node.display().to_string();
                output.result(serde_json::json!({ "root": node }), &node);
                Exit::Done
            }
            Err(error) => {
                output.error(&error);
                error.reason().exit()
            }
        };
    }
    if let Command::Config(ConfigCommand::Check { file }) = &cli.command {
        let path = file.as_ref().unwrap_or(&cli.config);
        return config::check(path, output).unwrap_or_else(|error| {
            output.error(&error);
            error.reason().exit()
        });
    }
    // The configuration may be why the agent failed.
    if let Command::RestartTrial = &cli.command {
        return restart_trial::restart_trial(&cli.config, output).unwrap_or_else(|error| {
            output.error(&error);
            error.reason().exit()
        });
    }
    // What only looks makes nothing, not even a state directory.
    let open = match cli.command {
        Command::Doctor | Command::Health | Command::Metrics(_) => Agent::look,
        _ => Agent::open,
    };
    let agent = match Config::load(&cli.config).and_then(open) {
        Ok(agent) => agent,
        Err(error) => {
            output.error(&error);
            return error.reason().exit();
        }
    };
    if agent.trusts_example_keys() {
        tracing::warn!("{}", crate::example::WARNING);
    }
    let exit = perform(&agent, &cli.command, output).unwrap_or_else(|error| {
        output.error(&error);
        error.reason().exit()
    });
    if cli.command.may_change_the_node() {
        Textfile::of(&agent).write();
    }
    exit
}

impl Command {
    /// Whether what the metrics say may be other than before.
    fn may_change_the_node(&self) -> bool {
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
            | Command::Config(_)
            | Command::RestartTrial
            | Command::MapRoot(_)
            | Command::Completions { .. } => false,
        }
    }
}

/// Performs one command to its end. Operations of the library keep their errors for `status`
/// themselves.
fn perform(agent: &Agent, command: &Command, output: Output) -> Result<Exit, AgentError> {
    match command {
        Command::Check => offer::check(agent, output),
        Command::Plan(args) => apply::plan(agent, args, output),
        Command::Apply(args) => apply::apply(agent, args, output),
        Command::Confirm(args) => trial::confirm(agent, *args, output),
        Command::Revert(args) => trial::revert(agent, args, output),
        Command::MarkBad(args) => trial::mark_bad(agent, args, output),
        Command::Floor(args) => floor::floor(agent, *args, output),
        Command::Reset(args) => reset::reset(agent, args, output),
        Command::Status => status::status(agent, output),
        Command::Explain => offer::explain(agent, output),
        Command::History => history::history(agent, output),
        Command::Doctor => Ok(doctor::doctor(agent, output)),
        Command::Health => health::health(agent, output),
        Command::Verify(args) => verify::verify(agent, *args, output),
        Command::Run(args) => run::run(agent, *args, output),
        Command::BootSelect(_) => agent.keeping_error(|| boot_select::simulate(agent, output)),
        Command::Metrics(args) => metrics::metrics(agent, *args, output),
        Command::Completions { .. }
        | Command::MapRoot(_)
        | Command::RestartTrial
        | Command::Config(_) => Ok(Exit::Done),
    }
}

fn start_log(cli: &Cli) {
    let daemon = matches!(cli.command, Command::Run(_));
    let level = match (cli.verbose, daemon) {
        (0, false) => tracing::Level::WARN,
        (0, true) | (1, _) => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    crate::events::log::start(level, daemon);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
