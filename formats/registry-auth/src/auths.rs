//! Credentials in the files that people have (containers-auth.json(5), docker-login(1)).
//!
//! | order | file |
//! |---|---|
//! | 1 | `$REGISTRY_AUTH_FILE`; then no other is looked at |
//! | 2 | `$XDG_RUNTIME_DIR/containers/auth.json` |
//! | 3 | `$XDG_CONFIG_HOME/containers/auth.json`, or `~/.config/containers/auth.json` |
//! | 4 | `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json` |
//!
//! The first file that knows the registry decides. In it, a helper of that registry (`credHelpers`)
//! comes before the helper of all (`credsStore`), and both before what stands in the file (`auths`);
//! `host/namespace/repository` comes before `host/namespace` before `host`. Docker Hub's names are
//! one entry ([`crate::hub`]).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::credential::{Credential, Secret};
use crate::hub;

/// 1 MiB: what a wrong path makes us read at most.
pub const FILE_LIMIT: u64 = 1 << 20;

/// A file of credentials.
#[derive(Deserialize, Default)]
pub struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity: String,
    #[serde(rename = "registrytoken")]
    token: String,
}

/// Where a file's credential for a repository may be.
#[derive(Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// `docker-credential-PROGRAM`, which is asked for a server.
    Helper {
        /// What follows `docker-credential-`.
        program: &'a str,
        /// What it is asked for.
        server: String,
    },
    /// In the file, or why its entry cannot be used.
    Entry(Result<Credential, String>),
}

/// The files to look at.
#[derive(Debug, PartialEq, Eq)]
pub struct Paths {
    /// In order.
    pub files: Vec<PathBuf>,
    /// Whether somebody named the file, so that it must be there.
    pub named: bool,
}

/// The files to look at, by the environment.
pub fn paths(variable: impl Fn(&str) -> Option<OsString>) -> Paths {
    let set = |name: &str| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(path) = set("REGISTRY_AUTH_FILE") {
        return Paths { files: vec![path], named: true };
    }
    let home = set("HOME");
    let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
    let files = [
        set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        set("XDG_CONFIG_HOME")
            .or_else(|| below_home(".config"))
            .map(|dir| dir.join("containers/auth.json")),
        set("DOCKER_CONFIG").or_else(|| below_home(".docker")).map(|dir| dir.join("config.json")),
    ];
    Paths { files: files.into_iter().flatten().collect(), named: false }
}

impl AuthFile {
    /// Parses a file; an empty one holds nothing. The error says where, never what: a parser's
    /// words may quote secrets.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(AuthFile::default());
        }
        serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("is no file of credentials (line {line}, column {column})")
        })
    }

    /// Whether others must not read it.
    pub fn holds_secrets(&self) -> bool {
        let secret = |entry: &Entry| {
            let fields = [&entry.auth, &entry.password, &entry.identity, &entry.token];
            fields.iter().any(|it| !it.is_empty())
        };
        self.auths.values().any(secret)
    }

    /// Where the credential for a repository may be, best first. The first place that has one
    /// decides.
    pub fn places(&self, authority: &str, repository: &str) -> Vec<Place<'_>> {
        let keys = keys(authority, repository);
        let own = keys.iter().find_map(|key| {
            let mut helpers = self.helpers.iter();
            helpers.find(|(name, _)| canonical(name) == *key)
        });
        let all = self.store.as_deref().map(|program| (server(authority), program));
        let own = own.map(|(name, program)| (name.clone(), program.as_str()));
        let helpers = own.into_iter().chain(all).filter(|(_, program)| !program.is_empty());
        let helpers = helpers.map(|(server, program)| Place::Helper { program, server });
        let entries = keys.iter().filter_map(|key| {
            let (_, entry) = self.auths.iter().find(|(name, _)| canonical(name) == *key)?;
            let found = entry.credential().transpose()?;
            Some(Place::Entry(found.map_err(|why| format!("its entry for {key} {why}"))))
        });
        helpers.chain(entries).collect()
    }
}

impl Entry {
    /// An empty entry says that a helper knows: docker writes it so.
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if !self.token.is_empty() {
            return Ok(Some(Credential::Bearer(Secret::new(&self.token))));
        }
        if !self.identity.is_empty() {
            return Ok(Some(Credential::Identity(Secret::new(&self.identity))));
        }
        if self.auth.is_empty() {
            return Ok(user(&self.username, &self.password));
        }
        let bytes = STANDARD.decode(self.auth.trim()).map_err(|_| "is not base64")?;
        let text = String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| "is not text")?;
        // Docker pads with NUL on some machines.
        let (name, password) = text.trim_end_matches('\0').split_once(':').ok_or("has no colon")?;
        Ok(user(name, password))
    }
}

fn user(name: &str, password: &str) -> Option<Credential> {
    let credential =
        || Credential::Basic { user: name.to_owned(), password: Secret::new(password) };
    (!name.is_empty()).then(credential)
}

/// What a helper for all registries is asked for.
fn server(authority: &str) -> String {
    if hub::is_hub(authority) { hub::SERVER.to_owned() } else { authority.to_owned() }
}

/// A key of the file, as it is compared: `https://host/v1/` is `host`, and Docker Hub has one name.
fn canonical(key: &str) -> String {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let plain = match rest {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    let (host, path) = plain.split_at(plain.find('/').unwrap_or(plain.len()));
    if hub::is_hub(host) { format!("{}{path}", hub::NAME) } else { plain.to_owned() }
}

/// `host/a/b`, `host/a`, `host`.
fn keys(authority: &str, repository: &str) -> Vec<String> {
    let host = if hub::is_hub(authority) { hub::NAME } else { authority };
    let mut key =
        if repository.is_empty() { host.to_owned() } else { format!("{host}/{repository}") };
    let mut all = vec![key.clone()];
    while key.len() > host.len() {
        let Some(at) = key.rfind('/') else { break };
        key.truncate(at);
        all.push(key.clone());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(place: &Place<'_>) -> String {
        match place {
            Place::Helper { program, server } => format!("{program} {server}"),
            Place::Entry(Err(why)) => why.clone(),
            Place::Entry(Ok(Credential::Basic { user, password })) => {
                format!("{user}:{}", password.expose())
            }
            Place::Entry(Ok(Credential::Identity(token))) => format!("identity {}", token.expose()),
            Place::Entry(Ok(Credential::Bearer(token))) => format!("bearer {}", token.expose()),
        }
    }

    fn first(file: &AuthFile, authority: &str, repository: &str) -> String {
        file.places(authority, repository).first().map_or("none".to_owned(), shown)
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let auth = |text: &str| STANDARD.encode(text);
        let text = format!(
            r#"{{"auths": {{
                "r.example": {{"auth": "{}"}},
                "r.example/team": {{"username": "team", "password": "b:c"}},
                "r.example/team/app": {{"identitytoken": "id"}},
                "bearer.example": {{"registrytoken": "tok"}},
                "empty.example": {{}},
                "odd.example": {{"auth": "!"}},
                "colon.example": {{"auth": "bm9jb2xvbg=="}},
                "r.example:5000": {{"auth": "{}"}}
            }}, "unknown": {{"x": [1]}}}}"#,
            auth("all:a"),
            auth("port:p\0\0"),
        );
        let file = AuthFile::parse(text.as_bytes()).unwrap();
        assert!(file.holds_secrets());
        for (authority, repository, wanted) in [
            ("r.example", "other/x", "all:a"),
            ("r.example", "", "all:a"),
            ("r.example", "team/other", "team:b:c"),
            ("r.example", "team/app", "identity id"),
            ("r.example", "teams/app", "all:a"),
            ("r.example:5000", "team/app", "port:p"),
            ("bearer.example", "x", "bearer tok"),
            ("empty.example", "x", "none"),
            ("example", "x", "none"),
            ("odd.example", "x", "its entry for odd.example is not base64"),
            ("colon.example", "x", "its entry for colon.example has no colon"),
        ] {
            assert_eq!(first(&file, authority, repository), wanted, "{authority}/{repository}");
        }
    }

    #[test]
    fn docker_hub_is_one_entry_whatever_it_is_called() {
        let entry = "{\"username\":\"u\",\"password\":\"p\"}";
        for key in ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"] {
            let text = format!("{{\"auths\":{{\"{key}\":{entry}}}}}");
            let file = AuthFile::parse(text.as_bytes()).unwrap();
            for authority in ["docker.io", "registry-1.docker.io", "index.docker.io"] {
                assert_eq!(first(&file, authority, "acme"), "u:p", "{key} for {authority}");
            }
            assert_eq!(first(&file, "auth.docker.io", "acme"), "none");
        }
        let text = format!("{{\"auths\":{{\"docker.io/acme\":{entry}}}}}");
        let file = AuthFile::parse(text.as_bytes()).unwrap();
        assert_eq!(first(&file, "docker.io", "acme"), "u:p");
        assert_eq!(first(&file, "docker.io", "other"), "none");
        let file = AuthFile::parse(b"{\"credsStore\":\"pass\"}").unwrap();
        assert_eq!(first(&file, "docker.io", "acme"), "pass https://index.docker.io/v1/");
        assert_eq!(first(&file, "r.example:5000", "acme"), "pass r.example:5000");
    }

    #[test]
    fn helpers_come_before_entries() {
        let text = br#"{"auths":{"r.example":{"username":"u","password":"p"}},
            "credHelpers":{"r.example":"own","other.example":""},"credsStore":"all"}"#;
        let file = AuthFile::parse(text).unwrap();
        let shown: Vec<_> = file.places("r.example", "x").iter().map(shown).collect();
        assert_eq!(shown, ["own r.example", "all r.example", "u:p"]);
        assert_eq!(first(&file, "other.example", "x"), "all other.example");
    }

    #[test]
    fn broken_files_are_said_to_be_so_without_their_content() {
        let error = AuthFile::parse(b"{\"auths\": a-secret").map(drop).unwrap_err();
        assert_eq!(error, "is no file of credentials (line 1, column 11)");
        assert!(!AuthFile::parse(b" \n").unwrap().holds_secrets());
    }

    #[test]
    fn the_order_of_files() {
        let all =
            [("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/home/a"), ("DOCKER_CONFIG", "/docker")];
        let look = |vars: &[(&str, &str)]| {
            let found = paths(|name| {
                let found = vars.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            });
            let files: Vec<_> = found.files.iter().map(|it| it.display().to_string()).collect();
            (files.join(" "), found.named)
        };
        let three = "/run/user/1/containers/auth.json /home/a/.config/containers/auth.json \
                     /docker/config.json";
        assert_eq!(look(&all), (three.to_owned(), false));
        let home = "/home/a/.config/containers/auth.json /home/a/.docker/config.json";
        assert_eq!(look(&all[1..2]).0, home);
        let named = [&all[..], &[("REGISTRY_AUTH_FILE", "/a.json")]].concat();
        assert_eq!(look(&named), ("/a.json".to_owned(), true));
        assert_eq!(look(&[]).0, "");
    }
}
