//! Repository references: where a repository is, in the transports people know from skopeo.
//!
//! | form | repository |
//! |---|---|
//! | `docker://host[:port][/namespace]` | a registry |
//! | `oci:DIR[:namespace]` | an OCI image layout in a directory |
//! | `oci-archive:FILE.tar[:namespace]` | an OCI image layout in a tar |
//!
//! In all of them the repository `tuf` holds the metadata and one repository per product its
//! releases, both below the namespace. As with skopeo, a path ends at the first colon.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::oci::{NameError, RepositoryName};
use crate::userinfo::hidden;

/// Why a text is not a repository reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// None of the transports.
    #[error(
        "{0:?} is not a repository: write docker://HOST[:PORT][/NS], oci:DIR[:NS] or oci-archive:FILE.tar[:NS]"
    )]
    Transport(String),
    /// None of the transports, and no path either, where a path would do.
    #[error(
        "there is no file or directory {0:?}, and it names no repository: write \
         docker://HOST[:PORT][/NS], oci:DIR[:NS] or oci-archive:FILE.tar[:NS]"
    )]
    Nowhere(String),
    /// A transport without a path or host.
    #[error("{0:?} names no place after its transport")]
    Place(String),
    /// A host with characters no host has, or a port that is no port.
    #[error("{0:?} is not HOST or HOST:PORT")]
    Host(String),
    /// The namespace is not a repository name. A path with a colon ends up here.
    // The cause is in the text, so it is no source: whoever prints both would print it twice.
    #[error("namespace: {0}")]
    Namespace(NameError),
    /// A place as other programs write it.
    #[error("{text:?} is written in another way here: write {instead}")]
    Foreign {
        /// What was given.
        text: String,
        /// What is probably meant.
        instead: String,
    },
    /// Something after the namespace.
    #[error("{text:?} is a repository and {more:?}: leave out {more:?}")]
    TooMuch {
        /// What was given.
        text: String,
        /// What is too much: a tag, a `/`.
        more: String,
    },
}

impl ReferenceError {
    /// The same where a path that leads somewhere would have done: a word without a transport is a file
    /// name that is mistyped.
    #[must_use]
    pub fn or_path(self) -> Self {
        match self {
            ReferenceError::Transport(text) if !text.contains(':') => ReferenceError::Nowhere(text),
            other => other,
        }
    }
}

impl From<NameError> for ReferenceError {
    fn from(error: NameError) -> Self {
        ReferenceError::Namespace(error)
    }
}

/// The part of repository names before `tuf` or the product; may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace(Option<RepositoryName>);

impl Namespace {
    /// The repository of that name in this namespace.
    pub fn repository(&self, name: &str) -> Result<RepositoryName, NameError> {
        match &self.0 {
            Some(namespace) => format!("{namespace}/{name}").parse(),
            None => name.parse(),
        }
    }

    /// The namespace as text; empty when there is none.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", RepositoryName::as_str)
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            Ok(Namespace(None))
        } else {
            text.parse().map(|name| Namespace(Some(name)))
        }
    }
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A registry.
    Registry {
        /// `host` or `host:port`.
        authority: String,
        /// The namespace in it.
        namespace: Namespace,
    },
    /// An image layout in a directory.
    Layout {
        /// The directory.
        path: PathBuf,
        /// The namespace in it.
        namespace: Namespace,
    },
    /// An image layout in a tar file.
    Archive {
        /// The file.
        path: PathBuf,
        /// The namespace in it.
        namespace: Namespace,
    },
}

impl Reference {
    /// The namespace in the repository.
    pub fn namespace(&self) -> &Namespace {
        match self {
            Reference::Registry { namespace, .. }
            | Reference::Layout { namespace, .. }
            | Reference::Archive { namespace, .. } => namespace,
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let shown = || hidden(text).chars().take(100).collect::<String>();
        if let Some(rest) = text.strip_prefix("docker://") {
            let (authority, namespace) = rest.split_once('/').unwrap_or((rest, ""));
            if !is_authority(authority) {
                let shown = shown();
                let authority = shown.strip_prefix("docker://").unwrap_or_default();
                let authority = authority.split('/').next().unwrap_or_default().to_owned();
                return Err(ReferenceError::Host(authority));
            }
            if let Some(more) = too_much(namespace) {
                return Err(ReferenceError::TooMuch { text: shown(), more: more.to_owned() });
            }
            let namespace = namespace.parse()?;
            return Ok(Reference::Registry { authority: authority.to_owned(), namespace });
        }
        if let Some(instead) = foreign(text) {
            return Err(ReferenceError::Foreign { text: shown(), instead });
        }
        let (transport, place) =
            text.split_once(':').ok_or_else(|| ReferenceError::Transport(shown()))?;
        let (path, namespace) = place.split_once(':').unwrap_or((place, ""));
        if !matches!(transport, "oci" | "oci-archive") {
            return Err(ReferenceError::Transport(shown()));
        }
        if path.is_empty() {
            return Err(ReferenceError::Place(shown()));
        }
        let (path, namespace) = (PathBuf::from(path), namespace.parse()?);
        Ok(match transport {
            "oci" => Reference::Layout { path, namespace },
            _ => Reference::Archive { path, namespace },
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace().as_str();
        let (text, separator) = match self {
            Reference::Registry { authority, .. } => (format!("docker://{authority}"), "/"),
            Reference::Layout { path, .. } => (format!("oci:{}", path.display()), ":"),
            Reference::Archive { path, .. } => (format!("oci-archive:{}", path.display()), ":"),
        };
        let separator = if namespace.is_empty() { "" } else { separator };
        write!(f, "{text}{separator}{namespace}")
    }
}

/// How a place that is written as for other programs is written here.
fn foreign(text: &str) -> Option<String> {
    let registry =
        |rest: &str| hidden(&format!("docker://{rest}")).chars().take(109).collect::<String>();
    if let Some((scheme, rest)) = text.split_once("://") {
        let plain = ", and plain_http = true or --plain-http (loopback only)";
        let is_word = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        return match scheme {
            "oci" | "oci-archive" if rest.starts_with('/') => Some(format!("{scheme}:{rest}")),
            "http" => Some(registry(rest) + plain),
            _ if is_word => Some(registry(rest)),
            _ => None,
        };
    }
    // `HOST:PORT/NS`; without a port it may be any path.
    let (authority, _) = text.split_once('/').unwrap_or((text, ""));
    let (host, port) = authority.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_transport = matches!(host, "oci" | "oci-archive");
    (is_port && !is_transport && is_authority(authority)).then(|| registry(text))
}

/// What follows the name of a namespace: a tag, a digest, or a `/` at its end.
fn too_much(namespace: &str) -> Option<&str> {
    let end = namespace.find([':', '@']).unwrap_or(namespace.trim_end_matches('/').len());
    namespace.get(end..).filter(|more| !more.is_empty())
}

/// `host`, `host:port` or `[address]:port`; no user, no path.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let address_fits = address.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b));
            (
                if address_fits { address } else { "" },
                port.strip_prefix(':').or(port.is_empty().then_some("1")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("1")),
        },
    };
    let bracketed = text.starts_with('[');
    let host_fits = !host.is_empty()
        && (bracketed || host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)));
    host_fits && port.is_some_and(|port| !port.starts_with('+') && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transports_are_read_and_written_back() {
        for text in [
            "docker://127.0.0.1:5443/racklet",
            "docker://registry.example",
            "docker://[::1]:5000/a/b",
            "docker://[::1]",
            "oci:repo",
            "oci:/srv/repo:racklet/prod",
            "oci-archive:/media/usb/bundle.tar",
            "oci-archive:bundle.tar:racklet",
        ] {
            assert_eq!(text.parse::<Reference>().map(|r| r.to_string()).as_deref(), Ok(text));
        }
        let reference: Reference = "oci:repo:racklet".parse().unwrap();
        assert_eq!(reference.namespace().repository("tuf").unwrap().as_str(), "racklet/tuf");
        let reference: Reference = "oci:repo".parse().unwrap();
        assert_eq!(reference.namespace().repository("tuf").unwrap().as_str(), "tuf");
    }

    #[test]
    fn places_of_other_programs_are_answered_with_ours() {
        for (text, answer) in [
            ("https://host/x", "write docker://host/x"),
            ("http://127.0.0.1:5000", "write docker://127.0.0.1:5000, and plain_http"),
            ("oci://127.0.0.1:5000/x", "write docker://127.0.0.1:5000/x"),
            ("oci:///srv/repo", "write oci:/srv/repo"),
            ("dockr://host/x", "write docker://host/x"),
            ("127.0.0.1:5000/racklet", "write docker://127.0.0.1:5000/racklet"),
            ("registry.example:443", "write docker://registry.example:443"),
            ("docker://host/ns:latest", "leave out \":latest\""),
            ("docker://host/ns@sha256:0a1b", "leave out \"@sha256:0a1b\""),
            ("docker://host/ns:1.0@sha256:0a1b", "leave out \":1.0@sha256:0a1b\""),
            ("docker://host/ns/", "leave out \"/\""),
            ("docker://host:5000/", ""),
            ("oci:5000", ""),
            ("stick/2026-11-28T12:00.tar", "is not a repository"),
        ] {
            let found = match text.parse::<Reference>() {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            assert!(
                found.contains(answer) && found.is_empty() == answer.is_empty(),
                "{text}: {found}"
            );
        }
    }

    #[test]
    fn no_error_repeats_a_password() {
        for text in [
            "docker://user:hidden@host/x",
            "docker://user:hid/hidden@host/x",
            "https://user:hidden@host/x",
            "http://user:hidden@host:5000",
            "oci://user:hidden@host/x:latest",
            "ftp://user:hidden@host",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hidden"), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_is_told_once() {
        let error = "docker://host/UPPER".parse::<Reference>().unwrap_err();
        assert!(std::error::Error::source(&error).is_none(), "{error}");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "repo",
            "oci:",
            "oci-archive:",
            "dir:repo",
            "https://host/x",
            "docker://",
            "docker:///x",
            "docker://user@host/x",
            "docker://host:port/x",
            "docker://host:99999/x",
            "docker://host:/x",
            "docker://ho st/x",
            "docker://[::1/x",
            "docker://[..%]:1/x",
            "docker://host/UPPER",
            "docker://host/../x",
            "oci:dir:a:b",
            "oci:dir:/abs",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
