//! The command line: what can be asked, and how the answer ends the process.

mod apply;
mod args;
mod boot_select;
mod config;
mod doctor;
mod floor;
mod guard;
mod health;
mod history;
mod interrupted;
mod map_root;
mod metrics;
mod offer;
mod report;
mod reset;
mod restart_trial;
mod run;
mod status;
mod trial;
mod verify;

use formats::reason::Exit;

pub use self::args::{
    ApplyArgs, BootSelectArgs, Cli, Command, ConfigCommand, ConfirmArgs, FloorArgs, MapRootArgs,
    MarkBadArgs, MetricsArgs, ReportArgs, ResetArgs, RevertArgs, RunArgs, VerifyArgs,
};

use crate::agent::Agent;
use crate::config::Config;
use crate::error::AgentError;
use crate::metrics::Textfile;
use crate::output::Output;

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
        return map_root::map_root(args, output).unwrap_or_else(|error| {
            output.error(&error);
            error.reason().exit()
        });
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
        Command::Report(args) => report::report(agent, args, output),
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
