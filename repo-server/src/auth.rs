//! Who may do what: tokens from files, compared by their SHA-256 in constant time.
//!
//! A token file has one token per line: either the token itself, or `sha256:` and the 64 hex
//! digits of its SHA-256, so that the file need not hold a usable secret. Empty lines and lines
//! that begin with `#` are skipped. `create-only ` before a token makes it one that pushes and sets
//! new tags but moves none: for a build server that must not replace what was released. Clients send the token as `Authorization: Bearer …` or as the
//! password of `Authorization: Basic …`; the user name does not matter.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formats::digest::Sha256;
use http::StatusCode;
use storage::secret::{self, Readers, Rule};

use crate::config::Config;
use crate::error::{ApiError, Code, ServerError};
use crate::route::Right;

/// 16 characters: what `head -c12 /dev/urandom | base64` gives. Shorter tokens can be guessed.
const TOKEN_MIN: usize = 16;

/// 1 MiB: ten thousand tokens; bounds what a wrong path makes us read.
const FILE_LIMIT: u64 = 1 << 20;

/// The hashes of accepted tokens.
#[derive(Clone)]
pub struct Tokens(Vec<(Sha256, Kind)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    CreateOnly,
}

/// What a pusher may do with tags that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagging {
    /// Move them.
    Move,
    /// Leave them as they are.
    CreateOnly,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// Reads a token file, which only its owner (and group, read-only) may access.
    pub fn read(path: &Path) -> Result<Self, ServerError> {
        let bytes = secret::read(path, FILE_LIMIT, Rule::of(Readers::Group).or_pipe())
            .map_err(|error| ServerError::unread("token file", path, error))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| ServerError::Config(format!("{}: {error}", path.display())))?;
        Self::parse(text).map_err(|why| ServerError::Config(format!("{}: {why}", path.display())))
    }

    /// Parses the lines of a token file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            let number = number + 1;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (line, kind) = match line.strip_prefix("create-only ") {
                Some(rest) => (rest.trim(), Kind::CreateOnly),
                None => (line, Kind::Full),
            };
            let hash = match line.strip_prefix("sha256:") {
                Some(hex) => {
                    Sha256::from_hex(hex).map_err(|error| format!("line {number}: {error}"))?
                }
                None if line.len() < TOKEN_MIN => {
                    return Err(format!(
                        "line {number}: a token has at least {TOKEN_MIN} characters"
                    ));
                }
                None => Sha256::of(line.as_bytes()),
            };
            tokens.push((hash, kind));
        }
        if tokens.is_empty() {
            return Err("there is no token in it".to_owned());
        }
        Ok(Tokens(tokens))
    }

    /// Whether this is one of them. Takes the same time for every token of any content.
    fn accepts(&self, token: &[u8]) -> Option<Kind> {
        let offered = Sha256::of(token);
        let differ =
            |known: &Sha256| known.0.iter().zip(offered.0).fold(0, |d, (a, b)| d | (a ^ b));
        self.0.iter().fold(None, |found, (known, kind)| match differ(known) {
            0 => Some(*kind),
            _ => found,
        })
    }
}

/// What the server lets whom do.
#[derive(Debug, Clone)]
pub struct Access {
    push: Option<Tokens>,
    pull: Option<Tokens>,
    read_only: bool,
    allow_delete: bool,
}

enum Caller {
    Anonymous,
    Puller,
    Pusher(Kind),
    Unknown,
}

impl Access {
    /// Reads the token files.
    pub fn new(config: &Config) -> Result<Self, ServerError> {
        let read = |path: &Option<_>| path.as_deref().map(Tokens::read).transpose();
        Ok(Access {
            push: read(&config.push_tokens)?,
            pull: read(&config.pull_tokens)?,
            read_only: config.read_only,
            allow_delete: config.allow_delete,
        })
    }

    /// Allows or answers 401 (who are you?), 403 (not you) or 405 (nobody).
    ///
    /// A credential that is not known is refused everywhere: a client that believes to be logged
    /// in should hear that it is not. `Basic` with an empty password is what some clients send for
    /// "nobody".
    pub fn check(&self, right: Right, authorization: Option<&[u8]>) -> Result<Tagging, ApiError> {
        let caller = self.caller(authorization);
        let unauthorized =
            |text| Err(ApiError::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, text));
        let denied = |text| Err(ApiError::new(StatusCode::FORBIDDEN, Code::Denied, text));
        match (right, caller) {
            (Right::Open, _) => Ok(Tagging::CreateOnly),
            (_, Caller::Unknown) => unauthorized("this credential is not known here"),
            // Several clients send credentials only when this endpoint asks for them.
            (Right::Login, Caller::Anonymous) if self.push.is_some() || self.pull.is_some() => {
                unauthorized("log in with a token as password; pulling may work without")
            }
            (Right::Pull, Caller::Anonymous) if self.pull.is_some() => {
                unauthorized("pulling needs a token")
            }
            (Right::Login | Right::Pull, _) => Ok(Tagging::CreateOnly),
            (Right::Push | Right::Delete, _) if self.read_only => {
                denied("this server is read-only")
            }
            (Right::Push | Right::Delete, _) if self.push.is_none() => {
                denied("this server takes no pushes: it was started without --push-token-file")
            }
            (Right::Push | Right::Delete, Caller::Anonymous) => {
                unauthorized("pushing needs a token")
            }
            (Right::Push | Right::Delete, Caller::Puller) => denied("this token may only pull"),
            (Right::Delete, Caller::Pusher(Kind::CreateOnly)) => denied("this token may only add"),
            (Right::Delete, Caller::Pusher(_)) if !self.allow_delete => Err(ApiError {
                allow: Some("GET, HEAD"),
                ..ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    Code::Unsupported,
                    "deleting is off: the server was started without --allow-delete",
                )
            }),
            (Right::Push, Caller::Pusher(Kind::CreateOnly)) => Ok(Tagging::CreateOnly),
            (Right::Push | Right::Delete, Caller::Pusher(_)) => Ok(Tagging::Move),
        }
    }

    fn caller(&self, authorization: Option<&[u8]>) -> Caller {
        let Some(value) = authorization else { return Caller::Anonymous };
        let Some(token) = token(value) else { return Caller::Unknown };
        if token.is_empty() {
            return Caller::Anonymous;
        }
        let accepts = |tokens: &Option<Tokens>| tokens.as_ref()?.accepts(&token);
        match (accepts(&self.push), accepts(&self.pull)) {
            (Some(kind), _) => Caller::Pusher(kind),
            (None, Some(_)) => Caller::Puller,
            // No tokens, no accounts: whatever a client sends then means nothing.
            (None, None) if self.push.is_none() && self.pull.is_none() => Caller::Anonymous,
            (None, None) => Caller::Unknown,
        }
    }
}

/// The token in an `Authorization` header.
fn token(value: &[u8]) -> Option<Vec<u8>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = STANDARD.decode(rest).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some(pair.get(colon + 1..)?.to_vec());
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PUSH: &str = "0123456789abcdef-push";
    const ADD: &str = "0123456789abcdef-add";
    const PULL: &str = "0123456789abcdef-pull";

    fn access(push: bool, pull: bool, read_only: bool, allow_delete: bool) -> Access {
        let hash = Sha256::of(PUSH.as_bytes());
        let hashed = format!("# comment\n\nsha256:{hash}\ncreate-only {ADD}\n");
        Access {
            push: push.then(|| Tokens::parse(&hashed).unwrap()),
            pull: pull.then(|| Tokens::parse(PULL).unwrap()),
            read_only,
            allow_delete,
        }
    }

    fn basic(token: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("anyone:{token}")))
    }

    #[test]
    fn who_may_do_what() {
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        let open = access(true, false, false, false);
        let closed = access(true, true, false, true);
        let no_push = access(false, false, false, true);
        let read_only = access(true, false, true, true);
        let ok = 200;
        for (row, access, right, credential, wanted) in [
            ("anyone pulls", &open, Right::Pull, None, ok),
            ("anyone pulls with an empty password", &open, Right::Pull, Some(basic("")), ok),
            ("a wrong token pulls nothing", &open, Right::Pull, bearer("wrong"), 401),
            ("login is asked for", &open, Right::Login, None, 401),
            ("login works", &open, Right::Login, Some(basic(PUSH)), ok),
            ("nobody pushes", &open, Right::Push, None, 401),
            ("an empty password pushes nothing", &open, Right::Push, Some(basic("")), 401),
            ("a wrong password pushes nothing", &open, Right::Push, Some(basic("wrong")), 401),
            (
                "the hash is not the token",
                &open,
                Right::Push,
                bearer(&Sha256::of(PUSH.as_bytes()).to_hex()),
                401,
            ),
            (
                "an unsigned JWT is no token",
                &open,
                Right::Push,
                bearer("eyJhbGciOiJub25lIn0.e30."),
                401,
            ),
            ("a prefix is not the token", &open, Right::Push, bearer(&PUSH[..20]), 401),
            ("another scheme", &open, Right::Push, Some(format!("Digest {PUSH}")), 401),
            ("broken base64", &open, Right::Push, Some("Basic !!".to_owned()), 401),
            ("bearer pushes", &open, Right::Push, bearer(PUSH), ok),
            ("basic pushes", &open, Right::Push, Some(basic(PUSH)), ok),
            ("delete is off", &open, Right::Delete, bearer(PUSH), 405),
            ("delete needs a token first", &open, Right::Delete, None, 401),
            ("delete is on", &closed, Right::Delete, bearer(PUSH), ok),
            ("pull needs a token", &closed, Right::Pull, None, 401),
            ("pull token pulls", &closed, Right::Pull, bearer(PULL), ok),
            ("push token pulls", &closed, Right::Pull, bearer(PUSH), ok),
            ("create-only pushes", &closed, Right::Push, bearer(ADD), ok),
            ("create-only pulls", &closed, Right::Pull, bearer(ADD), ok),
            ("create-only deletes nothing", &closed, Right::Delete, bearer(ADD), 403),
            ("pull token does not push", &closed, Right::Push, bearer(PULL), 403),
            ("pull token does not delete", &closed, Right::Delete, bearer(PULL), 403),
            ("health is open", &closed, Right::Open, None, ok),
            ("no push at all", &no_push, Right::Push, bearer(PUSH), 403),
            ("no login without accounts", &no_push, Right::Login, None, ok),
            ("read-only", &read_only, Right::Push, bearer(PUSH), 403),
            ("read-only delete", &read_only, Right::Delete, bearer(PUSH), 403),
        ] {
            let found = access.check(right, credential.as_deref().map(str::as_bytes));
            assert_eq!(found.map_or_else(|error| error.status.as_u16(), |_| ok), wanted, "{row}");
        }
    }

    #[test]
    fn token_files_others_can_use_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, PUSH).unwrap();
        for (mode, good) in [(0o600, true), (0o440, true), (0o644, false), (0o620, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Tokens::read(&path).is_ok(), good, "{mode:o}");
        }
        for bad in ["", "# nothing", "short", "sha256:00"] {
            assert!(Tokens::parse(bad).is_err(), "{bad:?}");
        }
    }
}
