//! Programs of the operator's that run around an update: `[hooks]` of the configuration.
//!
//! | hook | runs | what its exit status does |
//! |---|---|---|
//! | `before_apply` | when a release is verified and the rules let it be installed, before a slot is written | 0: go on; otherwise the update is refused (`hook_refused`) until the next attempt |
//! | `before_restart` | before a restart into a release, once the restart lock is held; never on a trial, or to leave a slot that was given up | 0: restart; otherwise asked again, until `restart_delay_limit` is over |
//! | `after_confirm` | once a release is confirmed, durably | 75: run again in the next round; otherwise done |
//! | `after_revert` | once the confirmed slot runs again, and the failure is recorded | the same |
//!
//! A hook runs as the agent does, in a process group of its own, without input, and in an environment
//! that holds nothing but `PATH` and the variables of [`HookFacts`]. What is left of it after `timeout` is
//! killed with all its children. The end of its output is logged. It runs under the agent's lock: commands
//! that change the node's state end with `busy`.
//!
//! After a power cut a hook may run a second time for the same event: `after_confirm` and `after_revert`
//! are remembered until one has run to its end. `update_core::hooks` has the rules.

use storage::log::printable;
use update_core::hooks::{NOT_NOW, Said};

use crate::config::{Config, HooksConfig};
use crate::health::command::{self, End, Outcome};
use crate::health::explain;
use crate::health::memory::Kills;

/// One of the hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before a slot is written.
    BeforeApply,
    /// Before a restart into a release.
    BeforeRestart,
    /// After a release is confirmed.
    AfterConfirm,
    /// After a release was reverted.
    AfterRevert,
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 4] =
        [Hook::BeforeApply, Hook::BeforeRestart, Hook::AfterConfirm, Hook::AfterRevert];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Hook::BeforeApply => "before_apply",
            Hook::BeforeRestart => "before_restart",
            Hook::AfterConfirm => "after_confirm",
            Hook::AfterRevert => "after_revert",
        }
    }
}

impl HooksConfig {
    /// The program of a hook and its arguments; empty when there is none.
    pub fn command(&self, hook: Hook) -> &[String] {
        match hook {
            Hook::BeforeApply => &self.before_apply,
            Hook::BeforeRestart => &self.before_restart,
            Hook::AfterConfirm => &self.after_confirm,
            Hook::AfterRevert => &self.after_revert,
        }
    }
}

/// What a hook is told, as variables of its environment. None of them holds a secret; all are printable
/// text on one line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HookFacts {
    /// `UPDATE_VERSION`: the release.
    pub version: String,
    /// `UPDATE_SLOT`: its slot, `a` or `b`.
    pub slot: String,
    /// `UPDATE_FROM_VERSION`: what ran when the update began; empty when that is not known.
    pub from_version: String,
    /// `UPDATE_REASON_CODE`: why it was reverted, as a code of `docs/exit-codes.md`.
    pub reason_code: String,
    /// `UPDATE_REASON`: the same in words.
    pub reason: String,
    /// `UPDATE_WAITED`: seconds since the restart was first asked for.
    pub waited: u64,
}

/// Where programs of the system are.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables of a hook, all of them.
pub(crate) fn environment(
    config: &Config,
    hook: Hook,
    facts: &HookFacts,
) -> [(&'static str, String); 11] {
    let limit = config.hooks.restart_delay_limit.as_secs();
    [
        ("PATH", PATH.to_owned()),
        ("UPDATE_HOOK", hook.name().to_owned()),
        ("UPDATE_PRODUCT", printable(&config.node.product)),
        ("UPDATE_CHANNEL", printable(&config.node.channel)),
        ("UPDATE_VERSION", printable(&facts.version)),
        ("UPDATE_FROM_VERSION", printable(&facts.from_version)),
        ("UPDATE_SLOT", printable(&facts.slot)),
        ("UPDATE_REASON_CODE", printable(&facts.reason_code)),
        ("UPDATE_REASON", printable(&facts.reason)),
        ("UPDATE_WAITED", facts.waited.to_string()),
        ("UPDATE_WAIT_LIMIT", limit.to_string()),
    ]
}

/// Runs a hook to its end; where there is none, it agrees.
pub(crate) fn run(config: &Config, hook: Hook, facts: &HookFacts) -> Said {
    let argv = config.hooks.command(hook);
    if argv.is_empty() {
        return Said::Yes;
    }
    let variables = environment(config, hook, facts);
    let before = Kills::now();
    let ended = command::run_in(argv, config.hooks.timeout, |command| {
        command.env_clear().envs(variables);
    });
    if let Ok(Outcome { tail, .. }) = &ended
        && !tail.is_empty()
    {
        tracing::info!("hook {}: {tail}", hook.name());
    }
    match ended {
        Ok(Outcome { end: End::Exit(0), .. }) => Said::Yes,
        Ok(Outcome { end: End::Exit(NOT_NOW), .. }) => Said::NotNow,
        Ok(other) => Said::Failed(explain(&other, before)),
        Err(why) => Said::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(hook: &str) -> Config {
        let text = include_str!("../../update-agent.example.toml");
        let text = text.replace("#before_apply = []", &format!("before_apply = {hook}"));
        Config::parse(&text.replace("#timeout = \"1m\"", "timeout = \"1s\""), Path::new("/"))
            .unwrap()
    }

    fn said(script: &str) -> Said {
        let hook = format!("[\"/bin/sh\", \"-c\", {script:?}]");
        run(&config(&hook), Hook::BeforeApply, &HookFacts::default())
    }

    #[test]
    fn a_hook_says_what_its_exit_status_says() {
        assert_eq!(said("exit 0"), Said::Yes);
        assert_eq!(said("echo busy; exit 75"), Said::NotNow);
        assert_eq!(said("echo no; exit 1"), Said::Failed("exit status 1: no".to_owned()));
        assert!(matches!(said("sleep 100 & wait"), Said::Failed(why) if why.contains("killed")));
        let missing = run(&config("[\"/no/hook\"]"), Hook::BeforeApply, &HookFacts::default());
        assert!(matches!(missing, Said::Failed(why) if why.contains("/no/hook")));
        assert_eq!(run(&config("[]"), Hook::BeforeApply, &HookFacts::default()), Said::Yes);
    }

    /// Whatever the agent's own environment holds: tests have many variables.
    #[test]
    fn the_environment_is_what_the_page_says() {
        let page = include_str!("../../../docs/hooks.md");
        let config = config("[]");
        let facts = HookFacts { reason: "a\nUPDATE_SLOT=b".to_owned(), ..HookFacts::default() };
        for (name, value) in environment(&config, Hook::AfterRevert, &facts) {
            assert!(page.lines().any(|line| line.starts_with(&format!("| `{name}`"))), "{name}");
            assert!(!value.contains('\n'), "{name}");
        }
        let count = page.lines().filter(|line| line.starts_with("| `UPDATE_")).count();
        assert_eq!(count, 10, "docs/hooks.md has others");
        let alone =
            "test \"$(env | grep -cv -e ^UPDATE_ -e ^PATH= -e ^PWD= -e ^_= -e ^SHLVL=)\" = 0";
        assert_eq!(said(alone), Said::Yes);
    }

    #[test]
    fn every_hook_is_in_the_example_and_on_the_page() {
        let example = include_str!("../../update-agent.example.toml");
        let page = include_str!("../../../docs/hooks.md");
        for hook in Hook::ALL {
            assert!(example.contains(&format!("\n#{} = []\n", hook.name())), "{}", hook.name());
            assert!(page.contains(&format!("| `{}` |", hook.name())), "{}", hook.name());
        }
    }
}
