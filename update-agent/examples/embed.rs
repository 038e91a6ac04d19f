//! A program with the agent inside: shows the node, asks what is offered, shows the plan, installs it.
//!
//! ```text
//! cargo run -p update-agent --example embed -- /etc/update-agent/update-agent.toml
//! ```
//!
//! It leaves the restart and the trial to its caller: after the boot, `Agent::health` and
//! `Agent::confirm` or `Agent::revert` end the trial, or the daemon `update-agent run` does.

use std::path::Path;
use std::process::ExitCode;

use update_agent::agent::{Agent, ApplyOptions, Attempt, Wish};
use update_agent::config::Config;
use update_agent::error::AgentError;
use update_agent::progress::Silent;

fn update(config: &Path) -> Result<(), AgentError> {
    let agent = Agent::open(Config::load(config)?)?;
    let status = agent.status()?;
    println!("slot {} runs, the floor is {}", status.booted, status.floor.security_version);
    let check = agent.check()?;
    println!("{} offers {:?}: {}", check.source, check.available, check.decision.code());

    let (wish, options) = (Wish::default(), ApplyOptions::default());
    let plan = match agent.plan(&wish, &options, &Silent)? {
        Attempt::Made(plan) => plan,
        Attempt::UpToDate(why) => {
            println!("nothing to do: {}", why.message);
            return Ok(());
        }
    };
    for component in &plan.components {
        println!("{}: fetch at most {} bytes", component.name, component.fetch);
    }

    if let Attempt::Made(report) = agent.apply(&wish, &options, &Silent)? {
        println!("{} is in slot {} and next: restart to try it", report.version, report.slot);
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(config) = std::env::args_os().nth(1) else {
        eprintln!("usage: embed CONFIG");
        return ExitCode::from(2);
    };
    match update(config.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {}", error.reason(), error.chain());
            ExitCode::from(error.reason().exit().code())
        }
    }
}
