//! What the system refuses to a user, told as what helps.

use std::error::Error;
use std::io;

/// What an ordinary user does about a file or device of somebody else.
pub const OTHER_USER: &str = "run as root, or as the user that the files and devices belong to";

/// [`OTHER_USER`], if the cause of an error is that this process, which is not root's, may not do
/// something (EACCES, EPERM).
pub fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    (is_denied(error) && !rustix::process::geteuid().is_root()).then_some(OTHER_USER)
}

fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<io::Error>() {
            return refused.kind() == io::ErrorKind::PermissionDenied;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileError;

    #[test]
    fn a_refusal_is_found_below_other_errors() {
        let error = |errno: rustix::io::Errno| FileError::Io {
            action: "open",
            path: "/root/x".into(),
            source: errno.into(),
        };
        assert!(is_denied(&error(rustix::io::Errno::ACCESS)));
        assert!(is_denied(&error(rustix::io::Errno::PERM)));
        assert!(!is_denied(&error(rustix::io::Errno::NOENT)));
    }
}
