//! Which repository a command is about, how it is reached, and with which keys: flags come before the
//! environment, and that before `[repository]` of `signer.toml`.
//!
//! No file of the working directory is read unless it is named: whoever can write there would choose
//! where credentials are sent to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{RegistryArgs, SigningArgs, TrustArgs};
use super::{opened, signing};
use crate::error::SignerError;
use crate::policy::{POLICY_FILE, RepositoryPolicy};
use crate::repository::{Access, Registry};

/// The repository of commands that have no `--repo`.
const REPO_VARIABLE: &str = "SIGNER_REPO";
/// `signer.toml` of commands that have no `--config`.
const CONFIG_VARIABLE: &str = "SIGNER_CONFIG";

/// What a command goes by. At first what flags say; [`Place::settled`] adds what they leave open.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) repo: Option<String>,
    pub(super) registry: RegistryArgs,
    /// Keys, trust root, `signer.toml` and log.
    pub(super) signing: SigningArgs,
}

impl Place {
    /// The place of a command that may sign.
    pub(super) fn of(
        repo: Option<&str>,
        registry: &RegistryArgs,
        signing: &SigningArgs,
    ) -> Result<Self, SignerError> {
        let repo = repo.map(str::to_owned);
        let (registry, mut signing) = (registry.clone(), signing.clone());
        signing.config = signing.config.or_else(|| variable(CONFIG_VARIABLE).map(PathBuf::from));
        let (config, keys) = (signing.config.as_deref(), signing.keys.as_deref());
        // What lies in the repository's directory does not say where the repository is.
        let section = signing::policy(config, keys, None)?.repository;
        let place = Place { repo, registry, signing };
        let repo = variable(REPO_VARIABLE).map(|repo| repo.to_string_lossy().into_owned());
        Ok(place.settled(repo, section.as_ref()))
    }

    /// The place of a command that only reads.
    pub(super) fn to_read(
        repo: Option<&str>,
        registry: &RegistryArgs,
        trust: &TrustArgs,
        config: Option<&Path>,
    ) -> Result<Self, SignerError> {
        let (keys, root) = (trust.keys.clone(), trust.root.clone());
        let config = config.map(Path::to_owned);
        Place::of(repo, registry, &SigningArgs { keys, root, config, ..SigningArgs::default() })
    }

    /// Adds what is said elsewhere. A section about another repository than the one that is named says
    /// nothing: its credentials are not for others.
    fn settled(mut self, variable: Option<String>, section: Option<&RepositoryPolicy>) -> Self {
        self.repo = self.repo.or(variable);
        let named = self.repo.as_deref();
        let section = section.filter(|section| named.is_none_or(|text| section.is(text)));
        let Some(section) = section else { return self };
        self.repo = Some(self.repo.unwrap_or_else(|| section.url.to_string()));
        let SigningArgs { keys, root, .. } = &mut self.signing;
        // A directory of keys that is named brings its own trust root.
        if keys.is_none() && root.is_none() {
            *root = section.root.clone();
        }
        *keys = keys.take().or_else(|| section.keys.clone());
        let flags = &mut self.registry;
        let fill = |flag: &mut Option<PathBuf>, from: &Option<PathBuf>| {
            *flag = flag.take().or_else(|| from.clone());
        };
        fill(&mut flags.ca, &section.ca);
        fill(&mut flags.token_file, &section.token_file);
        // Certificate and key belong together.
        if flags.client_cert.is_none() {
            fill(&mut flags.client_cert, &section.client_cert);
            fill(&mut flags.client_key, &section.client_key);
        }
        flags.token_host = flags.token_host.take().or_else(|| section.token_host.clone());
        flags.plain_http |= section.plain_http;
        flags.chunk_size = flags.chunk_size.or(section.chunk_size);
        let limit = section.stall_limit.map(Duration::from_secs);
        flags.stall_limit = flags.stall_limit.or(limit);
        self
    }

    /// The repository, which a command cannot do without.
    pub(super) fn repo(&self) -> Result<&str, SignerError> {
        let missing = || {
            let text = format!(
                "name the repository: --repo REF, {REPO_VARIABLE}, or url in [repository] of \
                 {POLICY_FILE}"
            );
            SignerError::Usage(text)
        };
        self.repo.as_deref().ok_or_else(missing)
    }

    /// Opens the repository.
    pub(super) fn open(&self, access: Access) -> Result<Box<dyn Registry>, SignerError> {
        opened(self.repo()?, &self.registry, access)
    }

    /// What to verify against.
    pub(super) fn trust(&self) -> TrustArgs {
        let SigningArgs { root, keys, .. } = self.signing.clone();
        // With a trust root of its own, a directory of keys is only for signing.
        TrustArgs { keys: keys.filter(|_| root.is_none()), root }
    }
}

/// A variable with something in it.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const OURS: &str = "docker://ours.example/racklet";

    fn section() -> RepositoryPolicy {
        let lines = "keys = \"k\"\nroot = \"r\"\nca = \"ca\"\ntoken_file = \"t\"\ntoken_host = \"h\"\n\
                     client_cert = \"c\"\nclient_key = \"ck\"\nplain_http = true\nchunk_size = \"8MiB\"\n\
                     stall_limit = \"5m\"";
        let text = format!("[repository]\nurl = \"{OURS}\"\n{lines}");
        Policy::parse(&text).unwrap().repository.unwrap()
    }

    fn flags(repo: Option<&str>, set: impl FnOnce(&mut Place)) -> Place {
        let mut place = Place { repo: repo.map(str::to_owned), ..Place::default() };
        set(&mut place);
        place
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_file() {
        let (ours, theirs) = (Some(OURS), Some("oci:theirs"));
        for (name, flag, variable, file, is) in [
            ("nothing", None, None, false, None),
            ("file", None, None, true, ours),
            ("variable", None, theirs, true, theirs),
            ("flag", Some("oci:flag"), theirs, true, Some("oci:flag")),
            ("flag without a file", theirs, None, false, theirs),
        ] {
            let file = file.then(section);
            let variable = variable.map(str::to_owned);
            let settled = flags(flag, |_| {}).settled(variable, file.as_ref());
            assert_eq!(settled.repo.as_deref(), is, "{name}");
            let applies = is == ours;
            assert_eq!(settled.signing.keys.is_some(), applies, "{name}: keys");
            assert_eq!(settled.registry.token_file.is_some(), applies, "{name}: the token");
            assert_eq!(settled.registry.ca.is_some(), applies, "{name}: the CA");
            assert_eq!(settled.registry.plain_http, applies, "{name}: HTTP");
        }
    }

    #[test]
    fn a_flag_replaces_what_belongs_together() {
        let settled = |set: fn(&mut Place)| flags(Some(OURS), set).settled(None, Some(&section()));
        let keys = settled(|place| place.signing.keys = Some("mine".into()));
        assert_eq!((keys.signing.keys, keys.signing.root), (Some("mine".into()), None));
        let root = settled(|place| place.signing.root = Some("mine".into()));
        assert_eq!(root.signing.root, Some("mine".into()));
        assert_eq!(root.signing.keys, Some("k".into()), "the section's keys still sign");
        let certificate = settled(|place| {
            place.registry.client_cert = Some("mine".into());
            place.registry.client_key = Some("mine.key".into());
        });
        assert_eq!(certificate.registry.client_key, Some("mine.key".into()));
        let all = settled(|_| {});
        assert_eq!(all.registry.stall_limit, Some(Duration::from_secs(300)));
        assert_eq!(all.registry.chunk_size, Some(8 << 20));
        assert_eq!(all.trust().root, Some("r".into()));
    }
}
