//! The credential of a source, from the file that its configuration names.
//!
//! A credential belongs to one origin. It is sent to that origin, and to a token server as
//! [`registry_auth::realm`] says.

use std::path::Path;

use registry_auth::auths::{AuthFile, FILE_LIMIT, Place};
use storage::secret::{self, Readers, Rule};

use super::{Credential, HttpError};

/// 64 KiB: larger than any token; bounds a file named by mistake.
const TOKEN_LIMIT: u64 = 64 << 10;

/// Reads a token file: one line, `user:password` or a bare token.
///
/// Only its owner and the file's group may read it, see [`storage::secret`].
pub fn read_token_file(path: &Path) -> Result<Credential, HttpError> {
    let bytes = secret::read(path, TOKEN_LIMIT, Rule::of(Readers::Group))
        .map_err(|error| HttpError::unread("token file", path, error))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Credential::parse_line(text.trim_end_matches(['\r', '\n']))
        .map_err(|why| setup("token file", path, why.to_owned()))
}

/// Reads the credential for a registry from a file of docker's or podman's form.
///
/// What this agent would need a program or another kind of request for is refused: it runs no
/// credential helpers as root, and it sends nothing but `GET`.
pub fn read_auth_file(
    path: &Path,
    authority: &str,
    namespace: &str,
) -> Result<Credential, HttpError> {
    let fail = |why: String| setup("auth file", path, why);
    let bytes = secret::read(path, FILE_LIMIT, Rule::of(Readers::Group))
        .map_err(|error| HttpError::unread("auth file", path, error))?;
    let file = AuthFile::parse(&bytes).map_err(fail)?;
    match file.places(authority, namespace).into_iter().next() {
        Some(Place::Entry(Ok(Credential::Identity(_)))) => Err(fail(format!(
            "holds an identity token for {authority}; write user:password into a token_file"
        ))),
        Some(Place::Entry(found)) => found.map_err(fail),
        Some(Place::Helper { program, .. }) => Err(fail(format!(
            "leaves {authority} to docker-credential-{program}, which the agent does not run; \
             write user:password into a token_file"
        ))),
        None => Err(fail(format!("has no entry for {authority}"))),
    }
}

fn setup(what: &str, path: &Path, why: String) -> HttpError {
    HttpError::Setup { what: format!("{what} {}", path.display()), why }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use formats::reason::Reason;

    use super::*;

    #[test]
    fn files_of_docker_give_what_the_agent_can_send() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            read_auth_file(&path, "r.example:5000", "team")
        };
        let user = Credential::parse_line("u:p").unwrap();
        let entry = r#"{"username":"u","password":"p"}"#;
        for key in ["r.example:5000", "r.example:5000/team", "https://r.example:5000/v1/"] {
            let found = read(&format!("{{\"auths\":{{\"{key}\":{entry}}}}}"));
            assert_eq!(found, Ok(user.clone()), "{key}");
        }
        for (name, text, wanted) in [
            ("helper", r#"{"credsStore":"pass"}"#.to_owned(), "docker-credential-pass"),
            (
                "identity",
                r#"{"auths":{"r.example:5000":{"identitytoken":"i"}}}"#.to_owned(),
                "identity token",
            ),
            ("other", format!("{{\"auths\":{{\"r.example\":{entry}}}}}"), "no entry for"),
            ("broken", "{\"auths\": secret".to_owned(), "line 1"),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.reason(), Reason::Config, "{name}");
            let text = error.to_string();
            assert!(text.contains(wanted) && !text.contains("secret"), "{name}: {text}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = read_auth_file(&path, "r.example:5000", "").unwrap_err();
        assert_eq!(error.reason(), Reason::InsecurePerms);
    }
}
