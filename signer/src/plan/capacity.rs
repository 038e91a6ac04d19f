//! How large the metadata of a role may become, and when it is said.

use formats::reason::Reason;
use formats::tuf::Role;
use update_core::trust::Limits;

use super::lint::{Finding, Level};

/// The largest metadata of a role that is published, in bytes. It is half of what nodes read: the rest is left for
/// signatures and growth.
pub fn largest(role: &Role) -> u64 {
    let limits = Limits::default();
    let read = if *role == Role::Root { limits.root_len } else { limits.targets_len };
    read / 2
}

/// What is to be said of metadata of `len` bytes: refused above [`largest`], told from half of it on. The other half
/// took longer to fill than anybody needs to react.
pub(crate) fn finding(role: &Role, len: u64) -> Option<Finding> {
    let most = largest(role);
    let said = |level, text| Some(Finding { level, reason: Reason::MetaLimit, text });
    let percent = len.saturating_mul(100) / most;
    let remedy = match role {
        Role::Root => "remove keys and roles that nobody uses",
        _ => "`signer release archive` moves old releases elsewhere, `signer prune` unlists them",
    };
    if len > most {
        let read = most * 2;
        let text = format!(
            "{role} would have {len} bytes, and at most {most} are published, because nodes read {read}: {remedy}"
        );
        return said(Level::Refused, text);
    }
    if percent < 50 {
        return None;
    }
    let text =
        format!("{role} is full by {percent} %, and nothing can be published at 100: {remedy}");
    said(Level::Warning, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_said_and_more_than_all_is_refused() {
        let level = |len| finding(&Role::Targets, len).map(|found| found.level);
        let most = largest(&Role::Targets);
        assert_eq!(level(most / 2 - 1), None);
        assert_eq!(level(most / 2), Some(Level::Warning));
        assert_eq!(level(most), Some(Level::Warning));
        assert_eq!(level(most + 1), Some(Level::Refused));
        assert!(finding(&Role::Targets, most).unwrap().text.contains("by 100 %"));
        assert!(largest(&Role::Root) < most);
    }
}
