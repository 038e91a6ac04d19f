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

/// Why a text is not a repository reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// None of the transports.
    #[error(
        "{0:?} is not a repository: write docker://HOST[:PORT][/NS], oci:DIR[:NS] or oci-archive:FILE.tar[:NS]"
    )]
    Transport(String),
    /// A transport without a path or host.
    #[error("{0:?} names no place after its transport")]
    Place(String),
    /// A host with characters no host has, or a port that is no port.
    #[error("{0:?} is not HOST or HOST:PORT")]
    Host(String),
    /// The namespace is not a repository name. A path with a colon ends up here.
    #[error("namespace: {0}")]
    Namespace(#[from] NameError),
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
        let shown = || text.chars().take(100).collect::<String>();
        if let Some(rest) = text.strip_prefix("docker://") {
            let (authority, namespace) = rest.split_once('/').unwrap_or((rest, ""));
            if !is_authority(authority) {
                return Err(ReferenceError::Host(authority.chars().take(100).collect()));
            }
            let namespace = namespace.parse()?;
            return Ok(Reference::Registry { authority: authority.to_owned(), namespace });
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
