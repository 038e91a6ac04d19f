//! Names: of roles, of their files, of targets. None of them is ever used as a path.

use std::fmt;

use super::TufError;

/// Longest role or target name in bytes; a name must fit an HTTP request line and an annotation.
pub const MAX_NAME: usize = 1024;

/// A role of a TUF repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Who may sign for every top-level role.
    Root,
    /// Which snapshot is the newest.
    Timestamp,
    /// Which versions of targets metadata belong together.
    Snapshot,
    /// Which files may be installed, and to whom that is delegated.
    Targets,
    /// Targets metadata of a role some other targets role delegated to. The name is text of
    /// somebody else: quoted in URLs, hashed where a file name is needed.
    Delegated(String),
}

impl Role {
    /// The four roles every root names.
    pub const TOP_LEVEL: [Role; 4] = [Role::Root, Role::Timestamp, Role::Snapshot, Role::Targets];

    /// The role a delegation of that name means; the names of top-level roles are refused, as
    /// are control characters, nothing, and more than [`MAX_NAME`] bytes.
    pub fn delegated(name: &str) -> Result<Self, TufError> {
        let refuse =
            |problem| Err(TufError::Format { at: format!("role name {}", shown(name)), problem });
        if name.is_empty() || name.len() > MAX_NAME {
            return refuse("has no length from 1 to 1024 bytes");
        }
        if name.chars().any(char::is_control) {
            return refuse("has control characters");
        }
        if Role::TOP_LEVEL.iter().any(|role| role.name() == name) {
            return refuse("belongs to a top-level role");
        }
        Ok(Role::Delegated(name.to_owned()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Role::Root => "root",
            Role::Timestamp => "timestamp",
            Role::Snapshot => "snapshot",
            Role::Targets => "targets",
            Role::Delegated(name) => name,
        }
    }

    /// The `_type` of its metadata.
    pub fn type_name(&self) -> &str {
        match self {
            Role::Delegated(_) => "targets",
            top => top.name(),
        }
    }

    /// The name its metadata has in `meta` of a snapshot or timestamp.
    pub fn meta_name(&self) -> String {
        format!("{}.json", self.name())
    }

    /// The file that holds its metadata: `2.root.json`, `timestamp.json`, `7.targets.json`. The
    /// version is left out of timestamps always, and of all but root when the repository has
    /// no consistent snapshots (TUF §6.2).
    ///
    /// Not a path: a delegated role's name may hold any character, see [`url_component`].
    pub fn file_name(&self, version: Option<u64>) -> String {
        match version {
            Some(version) => format!("{version}.{}.json", self.name()),
            None => self.meta_name(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Delegated(name) => write!(f, "delegated role {}", shown(name)),
            top => f.write_str(top.name()),
        }
    }
}

/// A file name as one component of a URL path: all but `A-Z a-z 0-9 - . _ ~` percent-encoded.
pub fn url_component(file_name: &str) -> String {
    crate::percent::encode(file_name)
}

/// Whether a target of that name may be asked for: relative, components neither empty nor `.`
/// nor `..`, at most [`MAX_NAME`] bytes, no backslash, no control character and no `%`, which
/// hides the others from some readers.
///
/// A name that is merely *listed* costs nothing and is not refused, so that one odd entry does
/// not make a foreign repository unreadable.
pub fn check_target_name(name: &str) -> Result<(), TufError> {
    let refuse =
        |problem| Err(TufError::PathRefused { name: name.chars().take(80).collect(), problem });
    if name.is_empty() || name.len() > MAX_NAME {
        return refuse("its length is not from 1 to 1024 bytes");
    }
    if name.chars().any(|c| c.is_control() || matches!(c, '\\' | '%')) {
        return refuse("it has a control character, \\ or %");
    }
    if name.split('/').any(|component| matches!(component, "" | "." | "..")) {
        return refuse("a component is empty, . or ..");
    }
    Ok(())
}

/// A foreign name in a message: bounded, quoted, control characters escaped.
pub(super) fn shown(name: &str) -> String {
    let cut: String = name.chars().take(80).collect();
    if cut.len() < name.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_60_names_that_leave_their_place_are_refused() {
        let long = "a".repeat(4096);
        for name in [
            "",
            "../x",
            "/etc/x",
            "a/../../x",
            "a\\..\\x",
            "%2e%2e/x",
            ".",
            "..",
            "a//b",
            "a/",
            "a/./b",
            "a\0b",
            "a\nb",
            &long,
        ] {
            let error = check_target_name(name).expect_err(name);
            assert_eq!(error.reason(), crate::reason::Reason::PathRefused, "{name:?}");
        }
        for name in
            ["demo/1.0.0", "a", ".hidden", "...", "a b", "ü/ß", "x?y", "demo/channels/s.json"]
        {
            assert_eq!(check_target_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn case_61_odd_role_names_are_quoted_never_paths() {
        for (name, file, url) in [
            ("../root", "3.../root.json", "3...%2Froot.json"),
            ("a/b", "3.a/b.json", "3.a%2Fb.json"),
            ("?", "3.?.json", "3.%3F.json"),
            ("#", "3.#.json", "3.%23.json"),
            ("..%2f", "3...%2f.json", "3...%252f.json"),
            ("ü", "3.ü.json", "3.%C3%BC.json"),
        ] {
            let role = Role::delegated(name).unwrap();
            assert_eq!(role.file_name(Some(3)), file);
            assert_eq!(url_component(&role.file_name(Some(3))), url);
        }
        for name in ["", "root", "targets", "a\0", "a\n", &"x".repeat(1025)] {
            Role::delegated(name).expect_err(name);
        }
    }
}
