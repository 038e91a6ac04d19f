//! Credentials from the files people already have, and the helpers these name. Which files, and
//! which entry of them: [`registry_auth::auths`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::reason::Reason;
use registry_auth::auths::{self, AuthFile, FILE_LIMIT, Paths, Place};
use registry_auth::helper;
use storage::FileError;
use storage::StoreError;
use storage::secret::{self, Readers, Rule};

use super::super::RegistryError;
use super::credentials::{FoundCredential, unread};
use super::helpers;

/// Long enough to unlock a keychain or to type a PIN; a pipeline must not hang.
const HELPER_LIMIT: Duration = Duration::from_secs(120);

const WHAT: &str = "credentials file";

/// The files to look at for one repository.
#[derive(Debug, Clone)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Somebody named the file: it must be there.
    named: bool,
    authority: String,
    namespace: String,
}

impl Files {
    /// The files of this process's environment. A file that was named is read at once, so that a
    /// wrong name is not found out in the middle.
    pub(super) fn of_environment(authority: &str, namespace: &str) -> Result<Self, RegistryError> {
        let Paths { files: paths, named } = auths::paths(|name| std::env::var_os(name));
        if named {
            for path in &paths {
                read(path, named)?;
            }
        }
        let (authority, namespace) = (authority.to_owned(), namespace.to_owned());
        Ok(Files { paths, named, authority, namespace })
    }

    /// What there is for the repository. Blocks for as long as a helper takes.
    pub(super) fn find(&self) -> Result<Option<FoundCredential>, RegistryError> {
        for path in &self.paths {
            let Some(file) = read(path, self.named)? else { continue };
            for place in file.places(&self.authority, &self.namespace) {
                let (credential, file) = match place {
                    Place::Entry(found) => {
                        let found = found.map_err(|why| failed(path, why))?;
                        (Some(found), path.display().to_string())
                    }
                    Place::Helper { program, server } => {
                        let Some(program) = helper::program(program) else {
                            return Err(failed(path, "names an odd credential helper".to_owned()));
                        };
                        let found = helpers::ask(Path::new(&program), &server, HELPER_LIMIT)
                            .map_err(|why| failed(path, format!("{program}: {why}")))?;
                        (found, program)
                    }
                };
                if let Some(credential) = credential {
                    return Ok(Some(FoundCredential { credential, file }));
                }
            }
        }
        Ok(None)
    }

    /// The files, for people.
    pub(super) fn describe(&self) -> String {
        let names: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        if names.is_empty() { "any file (HOME is not set)".to_owned() } else { names.join(", ") }
    }
}

fn failed(path: &Path, why: String) -> RegistryError {
    RegistryError::Credential { what: WHAT, path: path.to_owned(), why, reason: Reason::Config }
}

fn read(path: &Path, named: bool) -> Result<Option<AuthFile>, RegistryError> {
    let bytes = |readers| match secret::read(path, FILE_LIMIT, Rule::of(readers)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if !named && is_absent(&error) => Ok(None),
        Err(error) => Err(unread(WHAT, path, error)),
    };
    let parsed = |text: &[u8]| AuthFile::parse(text).map_err(|why| failed(path, why));
    let Some(text) = bytes(Readers::Everybody)? else { return Ok(None) };
    let open = parsed(&text)?;
    if !open.holds_secrets() {
        return Ok(Some(open));
    }
    // It holds a secret: then everybody may not even read it.
    bytes(Readers::Group)?.map(|text| parsed(&text)).transpose()
}

/// A path that leads nowhere, also one that cannot exist (`HOME=/dev/null`), is no file.
fn is_absent(error: &StoreError) -> bool {
    use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    match error {
        StoreError::Read(FileError::Io { source, .. }) => {
            matches!(source.kind(), NotFound | NotADirectory | InvalidFilename)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_cannot_exist_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let long = dir.path().join("n".repeat(300));
        for path in [dir.path().join("none"), file.join("config.json"), long] {
            assert!(read(&path, false).unwrap().is_none(), "{}", path.display());
            assert!(read(&path, true).is_err(), "named: {}", path.display());
        }
    }
}
