//! Certificates of one registry, where docker and podman look for them (containers-certs.d(5)):
//!
//! ```text
//!  /etc/docker/certs.d/HOST:PORT/*.crt            further CAs that may sign the registry's certificate
//!                                *.cert + *.key   what proves this client to the registry
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directories for a registry, in order; the first that exists counts.
pub fn directories(authority: &str, variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let roots = [
        config.map(|dir| dir.join("containers/certs.d")),
        Some(PathBuf::from("/etc/containers/certs.d")),
        Some(PathBuf::from("/etc/docker/certs.d")),
    ];
    roots.into_iter().flatten().map(|root| root.join(authority)).collect()
}

/// What lies in such a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `*.crt`, in order of their names.
    pub cas: Vec<PathBuf>,
    /// `*.cert` and its `*.key`: the first pair by name.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Sorts a directory's names out; a `*.cert` without its `*.key`, or the other way round, is an
/// error, as it is for docker.
pub fn sort_out(directory: &Path, names: &[OsString]) -> Result<Files, String> {
    let mut names: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
    names.sort();
    let ending = |name: &Path, wanted: &str| name.extension().is_some_and(|it| it == wanted);
    let mut files = Files::default();
    for name in &names {
        let partner = match name.extension().and_then(|it| it.to_str()) {
            Some("cert") => name.with_extension("key"),
            Some("key") => name.with_extension("cert"),
            _ => continue,
        };
        if !names.contains(&partner) {
            let (name, partner) = (name.display(), partner.display());
            return Err(format!("{name} needs {partner} beside it"));
        }
        if ending(name, "cert") && files.client.is_none() {
            files.client = Some((directory.join(name), directory.join(partner)));
        }
    }
    let cas = names.iter().filter(|name| ending(name, "crt"));
    files.cas = cas.map(|name| directory.join(name)).collect();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_by_their_endings() {
        let sorted = |names: &[&str]| {
            let names: Vec<OsString> = names.iter().map(OsString::from).collect();
            sort_out(Path::new("/d"), &names)
        };
        let found = sorted(&["b.crt", "a.crt", "z.key", "z.cert", "c.cert", "c.key", "README"]);
        let path = |name: &str| Path::new("/d").join(name);
        let wanted = Files {
            cas: vec![path("a.crt"), path("b.crt")],
            client: Some((path("c.cert"), path("c.key"))),
        };
        assert_eq!(found, Ok(wanted));
        assert_eq!(sorted(&[]), Ok(Files::default()));
        assert_eq!(sorted(&["a.cert"]), Err("a.cert needs a.key beside it".to_owned()));
        assert_eq!(sorted(&["a.key"]), Err("a.key needs a.cert beside it".to_owned()));
    }

    #[test]
    fn places_are_named_after_the_registry() {
        let all = directories("r.example:5000", |name| (name == "HOME").then(|| "/home/a".into()));
        let all: Vec<_> = all.iter().map(|it| it.display().to_string()).collect();
        assert_eq!(
            all,
            [
                "/home/a/.config/containers/certs.d/r.example:5000",
                "/etc/containers/certs.d/r.example:5000",
                "/etc/docker/certs.d/r.example:5000",
            ]
        );
    }
}
