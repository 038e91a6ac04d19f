//! `[restart_lock]`: whom this node asks before it restarts into a release; see [`crate::restart_lock`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::source::SourceConfig;

/// `[restart_lock]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartLockConfig {
    /// `https://HOST[:PORT][/BASE]` of a server of the FleetLock protocol; absent: nobody is asked.
    pub url: Option<String>,
    /// The group of this node there.
    pub group: String,
    /// What this node calls itself there; the name of its reports when absent.
    pub id: Option<String>,
    /// PEM file of the only CAs to trust; the system's when absent.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate that proves this node to the server, and its chain.
    pub client_cert: Option<PathBuf>,
    /// PEM file of its key, closed to other users.
    pub client_key: Option<PathBuf>,
    /// File with `user:password` or a token, closed to other users.
    pub token_file: Option<PathBuf>,
    /// As in `[[source]]`.
    #[serde(serialize_with = "crate::source::without_password")]
    pub proxy: Option<String>,
}

impl Default for RestartLockConfig {
    fn default() -> Self {
        RestartLockConfig {
            url: None,
            group: "default".to_owned(),
            id: None,
            ca: None,
            client_cert: None,
            client_key: None,
            token_file: None,
            proxy: None,
        }
    }
}

impl RestartLockConfig {
    /// The same as that of a source: how the server is reached.
    pub(crate) fn as_source(&self, url: &str) -> SourceConfig {
        SourceConfig {
            ca: self.ca.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            token_file: self.token_file.clone(),
            proxy: self.proxy.clone(),
            ..SourceConfig::at(url)
        }
    }

    /// What no server could be asked with.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        if self.group.is_empty() || self.group.len() > 64 || !self.group.bytes().all(word) {
            let text = "is not 1 to 64 letters, digits, dots and hyphens";
            problems.push(format!("restart_lock.group {:?} {text}", self.group));
        }
        let shown = |id: &String| formats::report::shown(id, usize::MAX) == *id;
        if self.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 128 || !shown(id)) {
            problems.push("restart_lock.id is not 1 to 128 bytes on one line".to_owned());
        }
        if let Some(Err(error)) = self.url.as_deref().map(crate::source::check_server) {
            problems.push(format!("restart_lock.url: {error}"));
        }
        if let Some(Err(error)) = self.proxy.as_deref().map(crate::source::check_proxy) {
            problems.push(format!("restart_lock: {error}"));
        }
        problems
    }
}
