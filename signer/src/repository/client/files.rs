//! Credentials from the files people already have (containers-auth.json(5), docker-login(1)).
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
//! `host/namespace/repository` comes before `host/namespace` before `host`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use formats::reason::Reason;
use serde::Deserialize;
use storage::files::StoreError;
use storage::secret::{self, Readers, Rule};

use super::super::RegistryError;
use super::auth::{Credentials, Secret};
use super::credentials::unread;

/// 1 MiB: what a wrong path makes us read at most.
const FILE_LIMIT: u64 = 1 << 20;

#[derive(Deserialize, Default)]
struct File {
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

/// What a helper prints.
#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The files to look at, in order, and whether the first one must be there.
fn paths(variable: impl Fn(&str) -> Option<OsString>) -> (Vec<PathBuf>, bool) {
    let set = |name: &str| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    if let Some(path) = set("REGISTRY_AUTH_FILE") {
        return (vec![path], true);
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
    (files.into_iter().flatten().collect(), false)
}

/// The credentials for a repository of a registry, as this process's environment says.
pub(super) fn find(authority: &str, repository: &str) -> Result<Credentials, RegistryError> {
    let (paths, required) = paths(|name| std::env::var_os(name));
    for path in paths {
        let Some(file) = read(&path, required)? else { continue };
        if let Some(found) = look_up(&file, authority, repository, &path)? {
            return Ok(found);
        }
    }
    Ok(Credentials::None)
}

fn failed(path: &Path, why: String, reason: Reason) -> RegistryError {
    RegistryError::Credential { what: "credentials file", path: path.to_owned(), why, reason }
}

fn read(path: &Path, required: bool) -> Result<Option<File>, RegistryError> {
    let bytes = |readers| match secret::read(path, FILE_LIMIT, Rule::of(readers)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Read(error)) if error.is_missing() && !required => Ok(None),
        Err(error) => Err(unread("credentials file", path, error)),
    };
    let parsed = |text: &[u8]| {
        // The text of a parser may quote what it read: secrets, here.
        serde_json::from_slice::<File>(text).map_err(|error| {
            let place = format!("(line {}, column {})", error.line(), error.column());
            failed(path, format!("is not such a file {place}"), Reason::Config)
        })
    };
    let Some(text) = bytes(Readers::Everybody)? else { return Ok(None) };
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let open = parsed(&text)?;
    let secret = |entry: &Entry| {
        let fields = [&entry.auth, &entry.password, &entry.identity, &entry.token];
        fields.iter().any(|it| !it.is_empty())
    };
    if !open.auths.values().any(secret) {
        return Ok(Some(open));
    }
    // It holds a secret: then everybody may not even read it.
    bytes(Readers::Group)?.map(|text| parsed(&text)).transpose()
}

/// A key of the file, as it is compared: `https://host/v1/` is `host`.
fn plain(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    match rest {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    }
}

/// `host/a/b`, `host/a`, `host`.
fn keys(authority: &str, repository: &str) -> Vec<String> {
    let mut key = format!("{authority}/{repository}");
    let mut all = vec![key.clone()];
    while key.len() > authority.len() {
        let Some(at) = key.rfind('/') else { break };
        key.truncate(at);
        all.push(key.clone());
    }
    all
}

fn look_up(
    file: &File,
    authority: &str,
    repository: &str,
    path: &Path,
) -> Result<Option<Credentials>, RegistryError> {
    let keys = keys(authority, repository);
    let helper = keys.iter().find_map(|key| {
        let mut helpers = file.helpers.iter();
        helpers.find(|(name, _)| plain(name) == key).map(|(name, helper)| (name.as_str(), helper))
    });
    let store = file.store.as_ref().filter(|it| !it.is_empty()).map(|it| (authority, it));
    for (server, helper) in helper.into_iter().chain(store) {
        if helper.is_empty() {
            continue;
        }
        if let Some(found) = ask(helper, server, path)? {
            return Ok(Some(found));
        }
    }
    for key in &keys {
        if let Some((_, entry)) = file.auths.iter().find(|(name, _)| plain(name) == key) {
            let found = entry.credentials().map_err(|why| {
                failed(path, format!("its entry for {key} {why}"), Reason::Config)
            })?;
            // An empty entry says that a helper knows: docker writes it so.
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if !self.token.is_empty() {
            return Ok(Some(Credentials::Bearer(Secret::new(&self.token))));
        }
        if !self.identity.is_empty() {
            return Ok(Some(Credentials::Identity(Secret::new(&self.identity))));
        }
        let (user, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let bytes = STANDARD.decode(self.auth.trim()).map_err(|_| "is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "is not text")?;
            // Docker pads with NUL on some machines.
            let text = text.trim_end_matches('\0');
            let (user, password) = text.split_once(':').ok_or("has no colon")?;
            (user.to_owned(), password.to_owned())
        };
        if user.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credentials::Basic { user, password: Secret::new(&password) }))
    }
}

/// Asks `docker-credential-<helper>`: the server's name on its stdin, an answer on its stdout.
fn ask(helper: &str, server: &str, path: &Path) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    let wrong = |why: String| failed(path, format!("{program}: {why}"), Reason::Config);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !helper.bytes().all(good) {
        return Err(failed(path, "names an odd credential helper".to_owned(), Reason::Config));
    }
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| wrong(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read is its own affair; its answer counts.
        let _ = writeln!(stdin, "{server}");
    }
    let done = child.wait_with_output().map_err(|error| wrong(error.to_string()))?;
    if !done.status.success() {
        // It says so on stdout, in these words, by protocol.
        let text = String::from_utf8_lossy(&done.stdout);
        return match text.contains("credentials not found") {
            true => Ok(None),
            false => Err(wrong(format!("failed ({})", done.status))),
        };
    }
    let helped: Helped = serde_json::from_slice(&done.stdout)
        .map_err(|_| wrong("its answer is not what helpers say".to_owned()))?;
    let secret = Secret::new(&helped.secret);
    Ok(Some(match helped.username.as_str() {
        "<token>" => Credentials::Identity(secret),
        user => Credentials::Basic { user: user.to_owned(), password: secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: Option<Credentials>) -> String {
        match found {
            None => "none".to_owned(),
            Some(Credentials::None) => "nobody".to_owned(),
            Some(Credentials::Basic { user, password }) => format!("{user}:{}", password.expose()),
            Some(Credentials::Identity(token)) => format!("identity {}", token.expose()),
            Some(Credentials::Bearer(token)) => format!("bearer {}", token.expose()),
        }
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let auth = |text: &str| STANDARD.encode(text);
        let text = format!(
            r#"{{"auths": {{
                "r.example": {{"auth": "{}"}},
                "r.example/team": {{"username": "team", "password": "b:c"}},
                "r.example/team/app": {{"identitytoken": "id"}},
                "https://index.docker.io/v1/": {{"auth": "{}"}},
                "bearer.example": {{"registrytoken": "tok"}},
                "empty.example": {{}},
                "r.example:5000": {{"auth": "{}"}}
            }}, "unknown": {{"x": [1]}}}}"#,
            auth("all:a"),
            auth("hub:h"),
            auth("port:p\0\0"),
        );
        let file: File = serde_json::from_str(&text).unwrap();
        for (authority, repository, wanted) in [
            ("r.example", "other/x", "all:a"),
            ("r.example", "team/other", "team:b:c"),
            ("r.example", "team/app", "identity id"),
            ("r.example", "teams/app", "all:a"),
            ("r.example:5000", "team/app", "port:p"),
            ("index.docker.io", "library/x", "hub:h"),
            ("bearer.example", "x", "bearer tok"),
            ("empty.example", "x", "none"),
            ("example", "x", "none"),
        ] {
            let found = look_up(&file, authority, repository, Path::new("x")).unwrap();
            assert_eq!(shown(found), wanted, "{authority}/{repository}");
        }
        for odd in ["!", "bm9jb2xvbg=="] {
            let entry = Entry { auth: odd.to_owned(), ..Entry::default() };
            assert!(entry.credentials().is_err(), "{odd}");
        }
    }

    #[test]
    fn the_order_of_files() {
        let all =
            [("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/home/a"), ("DOCKER_CONFIG", "/docker")];
        let look = |vars: &[(&str, &str)]| {
            let vars: Vec<_> = vars
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let (found, required) = paths(|name| {
                let found = vars.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| OsString::from(value))
            });
            let found: Vec<_> = found.iter().map(|it| it.display().to_string()).collect();
            (found.join(" "), required)
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

    #[test]
    fn odd_helpers_are_not_run() {
        for odd in ["../x", "a b", "a;b", "/bin/sh"] {
            assert!(ask(odd, "r.example", Path::new("x")).is_err(), "{odd}");
        }
    }
}
