//! What checks that do not pass on the running system mean for an update: a decision.
//!
//! | `health.before_apply` | a check says no | a check cannot run |
//! |---|---|---|
//! | `off` | not asked | not asked |
//! | `warn` | warning | warning |
//! | `refuse-broken` (default) | warning | no update |
//! | `refuse` | no update | no update |
//!
//! A check that cannot run fails every release; one that says no may be what the release mends.

use serde::{Deserialize, Serialize};

use super::once::{CheckResult, CheckState};

/// `health.before_apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeforeApply {
    /// The checks are not asked before an update.
    Off,
    /// Those that do not pass are named.
    Warn,
    /// Those that say no are named; one that cannot run stops the update.
    #[default]
    RefuseBroken,
    /// One that does not pass stops the update.
    Refuse,
}

/// What to warn of, one line for each check; `Err`: why there is no update.
pub(crate) fn judge(rule: BeforeApply, results: &[CheckResult]) -> Result<Vec<String>, String> {
    let refuses = |state: CheckState| match (rule, state) {
        (_, CheckState::Ok) => false,
        (BeforeApply::Refuse, _) | (BeforeApply::RefuseBroken, CheckState::CannotRun) => true,
        _ => false,
    };
    let line = |result: &CheckResult| {
        let CheckResult { check, why, .. } = result;
        let why = why.as_deref().unwrap_or_default();
        let what = match result.state {
            CheckState::CannotRun => "cannot run",
            _ => "does not pass",
        };
        format!("health check {check} {what} on the running system: {why}")
    };
    let against: Vec<String> =
        results.iter().filter(|result| refuses(result.state)).map(line).collect();
    if !against.is_empty() {
        return Err(against.join("; "));
    }
    if rule == BeforeApply::Off {
        return Ok(Vec::new());
    }
    Ok(results.iter().filter(|result| result.state != CheckState::Ok).map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_what_is_decided() {
        use BeforeApply::{Off, Refuse, RefuseBroken, Warn};
        let result = |state: CheckState| CheckResult {
            check: "web".to_owned(),
            kind: "http",
            state,
            why: (state != CheckState::Ok).then(|| "answers 503".to_owned()),
            took_ms: 1,
        };
        // (rule, what the check said: refuses, warns)
        for (rule, state, refuses, warns) in [
            (Off, CheckState::Ok, false, false),
            (Off, CheckState::Failed, false, false),
            (Off, CheckState::CannotRun, false, false),
            (Warn, CheckState::Ok, false, false),
            (Warn, CheckState::Failed, false, true),
            (Warn, CheckState::CannotRun, false, true),
            (RefuseBroken, CheckState::Ok, false, false),
            (RefuseBroken, CheckState::Failed, false, true),
            (RefuseBroken, CheckState::CannotRun, true, false),
            (Refuse, CheckState::Ok, false, false),
            (Refuse, CheckState::Failed, true, false),
            (Refuse, CheckState::CannotRun, true, false),
        ] {
            let found = judge(rule, &[result(CheckState::Ok), result(state)]);
            let name = format!("{rule:?} {state:?}: {found:?}");
            assert_eq!(found.is_err(), refuses, "{name}");
            assert_eq!(found.as_ref().is_ok_and(|lines| lines.len() == 1), warns, "{name}");
            let said = found.map_or_else(|why| why, |lines| lines.join(""));
            assert_eq!(said.contains("web") && said.contains("answers 503"), refuses || warns);
        }
        assert_eq!(judge(Refuse, &[]), Ok(Vec::new()));
    }
}
