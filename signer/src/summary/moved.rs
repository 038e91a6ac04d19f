//! Releases that move between targets and the history: the same content, listed by another role.

use std::collections::BTreeMap;

use formats::json::Object;
use formats::tuf::{Role, TargetFile};

use super::Change;
use crate::plan::KEEP_MEMBER;
use crate::state::{is_history, lookup};

/// Eight releases: each is named; of more, how many there are, and the first and the last name.
const NAMED: usize = 8;

/// What comes to a role from others, and goes to them.
#[derive(Default)]
pub(super) struct Moved {
    from: BTreeMap<Role, Vec<String>>,
    to: BTreeMap<Role, Vec<String>>,
}

impl Moved {
    /// Whether all that happens to a name is that it moves; then it is noted.
    pub(super) fn takes(
        &mut self,
        change: Change<'_>,
        role: &Role,
        name: &str,
        (was, is): (Option<&TargetFile>, Option<&TargetFile>),
    ) -> bool {
        let found = lookup(name, |role| change.listed_by(role));
        let (others, other, same) = match (was, is) {
            (None, Some(is)) => {
                let before = change.before.and_then(|state| state.find(name));
                let Some((from, file)) = before else { return false };
                let is_here = found.is_some_and(|(found, _)| found == *role);
                (&mut self.from, from, is_here && file == is)
            }
            (Some(was), None) => {
                let Some((to, file)) = found else { return false };
                (&mut self.to, to, file == was)
            }
            _ => return false,
        };
        let ours = |role: &Role| *role == Role::Targets || is_history(role);
        let moves = same && other != *role && ours(&other) && ours(role);
        if moves {
            others.entry(other).or_default().push(name.to_owned());
        }
        moves
    }

    pub(super) fn lines(self) -> Vec<String> {
        let mut lines = Vec::new();
        for (role, names) in self.to {
            line(&mut lines, &names, ("moves", "move"), &format!("to {role}"));
        }
        for (role, names) in self.from {
            line(&mut lines, &names, ("comes", "come"), &format!("from {role}"));
        }
        lines
    }
}

fn line(lines: &mut Vec<String>, names: &[String], (one, many): (&str, &str), place: &str) {
    if names.len() <= NAMED {
        let each = names.iter();
        lines.extend(each.map(|name| format!("~ release {name} {one} {place}, unchanged")));
    } else if let [first, .., last] = names {
        let count = names.len();
        lines.push(format!("~ {count} releases {many} {place}, unchanged: {first} to {last}"));
    }
}

/// How many releases stay in targets.
pub(super) fn keep_line(lines: &mut Vec<String>, old: Option<&Object>, new: &Object) {
    let is = new.get(KEEP_MEMBER);
    if old.and_then(|old| old.get(KEEP_MEMBER)) == is {
        return;
    }
    let said = match is.map(|is| (is, is.as_int())) {
        Some((_, Some(keep))) => {
            format!("the newest {keep} releases of each product stay in targets")
        }
        Some((other, None)) => {
            format!("{KEEP_MEMBER} is {}", String::from_utf8_lossy(&other.to_bytes()))
        }
        None => format!("{KEEP_MEMBER} is gone"),
    };
    let mark = if old.is_some_and(|old| old.contains_key(KEEP_MEMBER)) { '~' } else { '+' };
    lines.push(format!("{mark} {said}"));
}
