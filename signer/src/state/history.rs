//! Names of the roles that list old releases ([`crate::plan`] makes and fills them).

use formats::tuf::Role;

/// The role below which old releases are.
pub const HISTORY: &str = "history";
/// The role that lists what was moved last.
pub(crate) const RECENT: &str = "history-recent";
/// What closed roles are called before their number.
pub(crate) const CLOSED_PREFIX: &str = "history-";

/// Whether a role has the name of one that lists old releases.
pub fn is_history(role: &Role) -> bool {
    let name = role.name();
    let of_number = |rest: &str| rest.parse::<u32>().is_ok_and(|n| n > 0 && n.to_string() == rest);
    name == HISTORY || name == RECENT || name.strip_prefix(CLOSED_PREFIX).is_some_and(of_number)
}
