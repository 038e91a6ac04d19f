//! The health checks on the running system, before a release is written whose trial they decide.

use formats::reason::Reason;

use super::{Agent, CheckResult};
use crate::error::AgentError;
use crate::health::{BeforeApply, judge_before_apply};

impl Agent {
    /// Asks each health check once on the running system, all at the same time. Changes nothing.
    ///
    /// Errors: the checks are configured so that no trial could ever pass.
    pub fn ask_checks(&self) -> Result<Vec<CheckResult>, AgentError> {
        self.config.health.usable()?;
        Ok(self.environment.ask_checks(&self.config))
    }

    /// What to warn of before an update, as `health.before_apply` says. A broken check is found here,
    /// not by the trial of a good release.
    pub(super) fn ask_before_apply(&self) -> Result<Vec<String>, AgentError> {
        let rule = self.config.health.before_apply;
        if rule == BeforeApply::Off {
            return Ok(Vec::new());
        }
        judge_before_apply(rule, &self.ask_checks()?).map_err(|why| {
            AgentError::new(Reason::Unhealthy, why).hint(
                "the new release would fail the same way: mend the check and try it with \
                 `update-agent health`; if only the new release can pass it, set \
                 health.before_apply = \"warn\"",
            )
        })
    }
}
