//! Who may do what: tokens from files, compared by their SHA-256 in constant time.
//!
//! A token file has one token per line; empty lines and lines that begin with `#` are skipped:
//!
//! ```text
//! [create-only ] [REPOSITORY …] TOKEN | sha256:HEX
//! ```
//!
//! | word | means |
//! |---|---|
//! | `create-only` | it pushes and sets new tags but moves none: for a build server that must not replace what was released |
//! | `demo` | it is for this repository |
//! | `demo/*` | it is for all repositories below this name |
//! | `sha256:HEX` | 64 hex digits of the token's SHA-256, so that the file need not hold a usable secret |
//!
//! A token without a repository is for all of them. Clients send the token as `Authorization: Bearer
//! …` or as the password of `Authorization: Basic …`; the user name does not matter.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formats::digest::Sha256;
use formats::oci::RepositoryName;
use http::StatusCode;
use storage::secret::{self, Readers, Rule};

use crate::config::Config;
use crate::error::{ApiError, Code, ServerError};
use crate::route::Right;

/// 16 characters: what `head -c12 /dev/urandom | base64` gives. Shorter tokens can be guessed.
const TOKEN_MIN: usize = 16;

/// 1 MiB: ten thousand tokens; bounds what a wrong path makes us read.
const FILE_LIMIT: u64 = 1 << 20;

/// The hashes of accepted tokens, and what each is for.
#[derive(Clone)]
pub(crate) struct Tokens(Vec<Token>);

#[derive(Clone)]
struct Token {
    hash: Sha256,
    kind: TokenKind,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Full,
    CreateOnly,
}

/// The repositories that somebody may touch; `None`: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Scope(Option<Vec<Pattern>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// `demo`
    Exactly(RepositoryName),
    /// `demo/*`, kept as `demo/`.
    Below(String),
}

impl Scope {
    /// Reads the words before a token; `None` when one of them is no repository.
    fn parse(words: &[&str]) -> Option<Self> {
        let pattern = |word: &&str| {
            Some(match word.strip_suffix("/*") {
                Some(above) => {
                    Pattern::Below(format!("{}/", above.parse::<RepositoryName>().ok()?))
                }
                None => Pattern::Exactly(word.parse().ok()?),
            })
        };
        let patterns = words.iter().map(pattern).collect::<Option<Vec<_>>>()?;
        Some(Scope(Some(patterns).filter(|patterns| !patterns.is_empty())))
    }

    fn covers(&self, name: &RepositoryName) -> bool {
        let matches = |pattern: &Pattern| match pattern {
            Pattern::Exactly(known) => known == name,
            Pattern::Below(above) => name.as_str().starts_with(above.as_str()),
        };
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(matches))
    }

    fn covers_all(&self) -> bool {
        self.0.is_none()
    }
}

/// What a pusher may do with tags that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagging {
    /// Move them.
    Move,
    /// Leave them as they are.
    CreateOnly,
}

/// What a caller was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// What may be done with tags.
    pub tagging: Tagging,
    reads: Scope,
}

impl Grant {
    /// Whether the bytes of that repository, or of any when it is not named, may reach the caller.
    pub(crate) fn reads(&self, name: Option<&RepositoryName>) -> bool {
        name.map_or(self.reads.covers_all(), |name| self.reads.covers(name))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

impl Tokens {
    /// Reads a token file, which only its owner (and group, read-only) may access.
    pub(crate) fn read(path: &Path) -> Result<Self, ServerError> {
        let bytes = secret::read(path, FILE_LIMIT, Rule::of(Readers::Group).or_pipe())
            .map_err(|error| ServerError::unread("token file", path, error))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| ServerError::Config(format!("{}: {error}", path.display())))?;
        Self::parse(text).map_err(|why| ServerError::Config(format!("{}: {why}", path.display())))
    }

    /// Parses the lines of a token file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<Token> = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = Token::parse(line).map_err(|why| format!("line {}: {why}", number + 1))?;
            let same = tokens.iter().find(|known| known.hash == token.hash);
            if same.is_some_and(|it| (it.kind, &it.scope) != (token.kind, &token.scope)) {
                return Err(format!(
                    "line {}: this token is also on an earlier line, with other rights",
                    number + 1
                ));
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Err("it contains no token".to_owned());
        }
        Ok(Tokens(tokens))
    }

    /// Whether this is one of them. Takes the same time for every token of any content.
    fn accepts(&self, offered: &Sha256) -> Option<&Token> {
        let differ =
            |known: &Sha256| known.0.iter().zip(offered.0).fold(0, |d, (a, b)| d | (a ^ b));
        self.0.iter().fold(None, |found, known| match differ(&known.hash) {
            0 => Some(known),
            _ => found,
        })
    }
}

impl Token {
    /// Never says a word of the line: it may be the token.
    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (token, before) = words.split_last().ok_or("it has no token")?;
        let (kind, names) = match before.split_first() {
            Some((&"create-only", names)) => (TokenKind::CreateOnly, names),
            _ => (TokenKind::Full, before),
        };
        let scope = Scope::parse(names).ok_or(
            "expected [create-only] [REPOSITORY | REPOSITORY/* …] TOKEN; a token contains no \
             spaces",
        )?;
        let hash = match token.strip_prefix("sha256:") {
            Some(hex) => Sha256::from_hex(hex).map_err(|error| error.to_string())?,
            None if token.len() < TOKEN_MIN => {
                return Err(format!("a token has at least {TOKEN_MIN} characters"));
            }
            None => Sha256::of(token.as_bytes()),
        };
        Ok(Token { hash, kind, scope })
    }
}

/// What the server lets whom do.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    push: Option<Tokens>,
    pull: Option<Tokens>,
    read_only: bool,
    allow_delete: bool,
}

enum Caller<'a> {
    Anonymous,
    Puller(&'a Scope),
    Pusher(TokenKind, &'a Scope),
    Unknown,
}

impl Access {
    /// Reads the token files.
    pub(crate) fn new(config: &Config) -> Result<Self, ServerError> {
        let read = |path: &Option<_>| path.as_deref().map(Tokens::read).transpose();
        Ok(Access {
            push: read(&config.push_tokens)?,
            pull: read(&config.pull_tokens)?,
            read_only: config.read_only,
            allow_delete: config.allow_delete,
        })
    }

    /// Allows or answers 401 (unknown client), 403 (not this client) or 405 (no client). `about` is
    /// the repository that is asked for; without one, all are.
    ///
    /// An unknown credential is refused everywhere: a client that believes it is logged in learns
    /// that it is not. `Basic` with an empty password is what some clients send for "no credential".
    pub(crate) fn check(
        &self,
        right: Right,
        about: Option<&RepositoryName>,
        authorization: Option<&[u8]>,
    ) -> Result<Grant, ApiError> {
        self.decide(right, about, self.caller(authorization))
    }

    /// The same for a token, by its SHA-256.
    pub(crate) fn check_token(
        &self,
        right: Right,
        about: Option<&RepositoryName>,
        token: &Sha256,
    ) -> Result<Grant, ApiError> {
        self.decide(right, about, self.caller_of(token))
    }

    fn decide(
        &self,
        right: Right,
        about: Option<&RepositoryName>,
        caller: Caller<'_>,
    ) -> Result<Grant, ApiError> {
        let reads = match &caller {
            Caller::Puller(scope) | Caller::Pusher(_, scope) if self.pull.is_some() => {
                (*scope).clone()
            }
            _ => Scope::default(),
        };
        let grant = Grant { tagging: Tagging::CreateOnly, reads };
        let unauthorized =
            |text| Err(ApiError::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, text));
        let denied = |text| Err(ApiError::new(StatusCode::FORBIDDEN, Code::Denied, text));
        match (right, caller) {
            (Right::Open, _) => Ok(grant),
            (_, Caller::Unknown) => unauthorized("unknown credential"),
            // Several clients send credentials only when this endpoint asks for them.
            (Right::Login, Caller::Anonymous) if self.push.is_some() || self.pull.is_some() => {
                unauthorized("log in with a token as the password; pulling may not need one")
            }
            (Right::Pull | Right::Report, Caller::Anonymous) if self.pull.is_some() => {
                unauthorized("pulling needs a token")
            }
            (Right::Pull, _) if !grant.reads(about) => denied(OTHER_REPOSITORY),
            (Right::Login | Right::Pull | Right::Report, _) => Ok(grant),
            (Right::Push | Right::Delete, _) if self.read_only => {
                denied("this server is read-only")
            }
            (Right::Push | Right::Delete, _) if self.push.is_none() => {
                denied("pushing is disabled: the server was started without --push-token-file")
            }
            (Right::Push | Right::Delete, Caller::Anonymous) => {
                unauthorized("pushing needs a token")
            }
            (Right::Push | Right::Delete, Caller::Puller(_)) => {
                denied("this token allows pulling only")
            }
            (Right::Push | Right::Delete, Caller::Pusher(_, scope))
                if !about.map_or(scope.covers_all(), |name| scope.covers(name)) =>
            {
                denied(OTHER_REPOSITORY)
            }
            (Right::Delete, Caller::Pusher(TokenKind::CreateOnly, _)) => {
                denied("this token is create-only: it deletes nothing")
            }
            (Right::Delete, Caller::Pusher(..)) if !self.allow_delete => Err(ApiError {
                allow: Some("GET, HEAD"),
                ..ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    Code::Unsupported,
                    "deleting is disabled: the server was started without --allow-delete",
                )
            }),
            (Right::Push, Caller::Pusher(TokenKind::CreateOnly, _)) => Ok(grant),
            (Right::Push | Right::Delete, Caller::Pusher(..)) => {
                Ok(Grant { tagging: Tagging::Move, ..grant })
            }
        }
    }

    fn caller(&self, authorization: Option<&[u8]>) -> Caller<'_> {
        let Some(value) = authorization else { return Caller::Anonymous };
        let Some(token) = token(value) else { return Caller::Unknown };
        if token.is_empty() {
            return Caller::Anonymous;
        }
        self.caller_of(&Sha256::of(&token))
    }

    fn caller_of(&self, token: &Sha256) -> Caller<'_> {
        let (push, pull) = (find(&self.push, token), find(&self.pull, token));
        match (push, pull) {
            (Some(token), _) => Caller::Pusher(token.kind, &token.scope),
            (None, Some(token)) => Caller::Puller(&token.scope),
            // No tokens, no accounts: whatever a client sends then means nothing.
            (None, None) if self.push.is_none() && self.pull.is_none() => Caller::Anonymous,
            (None, None) => Caller::Unknown,
        }
    }
}

const OTHER_REPOSITORY: &str = "this token does not cover this repository";

fn find<'a>(tokens: &'a Option<Tokens>, token: &Sha256) -> Option<&'a Token> {
    tokens.as_ref()?.accepts(token)
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
            let about = "demo".parse().unwrap();
            let found = access.check(right, Some(&about), credential.as_deref().map(str::as_bytes));
            assert_eq!(found.map_or_else(|error| error.status.as_u16(), |_| ok), wanted, "{row}");
        }
    }

    /// A token for some repositories reaches no other, and a repository is no prefix of a word.
    #[test]
    fn tokens_are_for_repositories() {
        let push = format!("create-only demo/* {ADD}\ntuf racklet/demo {PUSH}\n");
        let access = |pull: Option<&str>| Access {
            push: Some(Tokens::parse(&push).unwrap()),
            pull: pull.map(|text| Tokens::parse(text).unwrap()),
            read_only: false,
            allow_delete: true,
        };
        let (open, closed) = (access(None), access(Some(&format!("demo/* {PULL}"))));
        for (row, access, token, right, about, wanted) in [
            ("below", &open, ADD, Right::Push, Some("demo/a"), 200),
            ("far below", &open, ADD, Right::Push, Some("demo/a/b"), 200),
            ("the name itself is not below it", &open, ADD, Right::Push, Some("demo"), 403),
            ("a longer word", &open, ADD, Right::Push, Some("demolition/a"), 403),
            ("elsewhere", &open, ADD, Right::Push, Some("evil/tuf"), 403),
            ("the metadata", &open, ADD, Right::Push, Some("tuf"), 403),
            ("one of two", &open, PUSH, Right::Push, Some("tuf"), 200),
            ("the other", &open, PUSH, Right::Delete, Some("racklet/demo"), 200),
            ("not below", &open, PUSH, Right::Delete, Some("racklet/demo/a"), 403),
            ("everybody pulls", &open, ADD, Right::Pull, Some("tuf"), 200),
            ("everybody sees the metadata", &open, ADD, Right::Pull, None, 200),
            ("pulls below", &closed, PULL, Right::Pull, Some("demo/a"), 200),
            ("pulls nothing else", &closed, PULL, Right::Pull, Some("tuf"), 403),
            ("nor from all at once", &closed, PULL, Right::Pull, None, 403),
            ("a pusher pulls what he pushes", &closed, PUSH, Right::Pull, Some("tuf"), 200),
            ("and nothing else", &closed, PUSH, Right::Pull, Some("demo/a"), 403),
            ("login", &closed, PULL, Right::Login, None, 200),
            ("no such token", &closed, "demo/*", Right::Login, None, 401),
        ] {
            let about: Option<RepositoryName> = about.map(|name| name.parse().unwrap());
            let credential = format!("Bearer {token}");
            let found = access.check(right, about.as_ref(), Some(credential.as_bytes()));
            assert_eq!(found.map_or_else(|error| error.status.as_u16(), |_| 200), wanted, "{row}");
        }
        let grant = |access: &Access, token: &str| {
            let (about, credential) = ("demo/a".parse().unwrap(), format!("Bearer {token}"));
            access.check(Right::Push, Some(&about), Some(credential.as_bytes())).unwrap()
        };
        let (tuf, own) = ("tuf".parse().unwrap(), "demo/b".parse().unwrap());
        let reads =
            |grant: &Grant| [grant.reads(Some(&tuf)), grant.reads(Some(&own)), grant.reads(None)];
        assert_eq!(reads(&grant(&open, ADD)), [true, true, true], "mounts from anywhere");
        assert_eq!(reads(&grant(&closed, ADD)), [false, true, false], "mounts what it may pull");
    }

    #[test]
    fn token_files_that_say_two_things_are_refused() {
        let same = format!("{PUSH}\n{PUSH}\n");
        assert!(Tokens::parse(&same).is_ok(), "twice the same");
        for (row, text) in [
            ("other rights", format!("{PUSH}\ncreate-only {PUSH}\n")),
            ("other repositories", format!("a/* {PUSH}\nb/* {PUSH}\n")),
            ("no repository", format!("Demo {PUSH}\n")),
            ("everything", format!("* {PUSH}\n")),
            ("a path", format!("../* {PUSH}\n")),
            ("a short token", "a/* short".to_owned()),
            ("a phrase", "correct horse battery staple".to_owned()),
        ] {
            let error = Tokens::parse(&text).expect_err(row);
            assert!(error.starts_with("line ") && !error.contains("horse"), "{row}: {error}");
        }
    }

    #[test]
    fn token_files_others_can_use_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, PUSH).unwrap();
        for (mode, good) in [(0o600, true), (0o440, true), (0o644, false), (0o622, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Tokens::read(&path).is_ok(), good, "{mode:o}");
        }
        for bad in ["", "# nothing", "short", "sha256:00"] {
            assert!(Tokens::parse(bad).is_err(), "{bad:?}");
        }
    }
}
