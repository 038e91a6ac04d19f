//! Names of objects in a bucket. Pure.
//!
//! ```text
//!  PREFIX/oci-layout, index.json, blobs/<algorithm>/<hex>              an OCI image layout
//!  PREFIX/repositories/<name>/_blobs/<algorithm>/<hex>                 empty
//!  PREFIX/repositories/<name>/_manifests/<algorithm>/<hex>/<type>      empty; the media type, base64url
//!  PREFIX/repositories/<name>/_uploads/<algorithm>/<id>/state, bytes   an upload under way
//!  PREFIX/condemned/<algorithm>/<hex>                                  empty; garbage since then
//! ```
//!
//! Everything a start has to know is in names, so that listing them is enough.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use formats::digest::{Algorithm, Digest};
use formats::oci::RepositoryName;
use object_store::path::Path;

use super::super::backend::{LinkKind, UploadKey};
use crate::route::SessionId;

/// Stands for a media type that is not known.
const NO_TYPE: &str = "_";

/// The names below one prefix of a bucket.
#[derive(Debug, Clone)]
pub(super) struct ObjectKeys {
    prefix: Path,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ParsedKey {
    Blob(Digest),
    Link {
        name: RepositoryName,
        kind: LinkKind,
        digest: Digest,
        media_type: String,
    },
    /// The state of an upload; [`ObjectKeys::upload_bytes`] is no object of its own.
    Upload(UploadKey),
    Condemned(Digest),
}

impl ObjectKeys {
    pub(super) fn new(prefix: Path) -> Self {
        ObjectKeys { prefix }
    }

    fn below(&self, rest: &str) -> Path {
        Path::from(format!("{}/{rest}", self.prefix))
    }

    pub(super) fn layout(&self) -> Path {
        self.below("oci-layout")
    }

    pub(super) fn index(&self) -> Path {
        self.below("index.json")
    }

    pub(super) fn blobs(&self) -> Path {
        self.below("blobs")
    }

    pub(super) fn blob(&self, digest: &Digest) -> Path {
        self.below(&format!("blobs/{}", in_path(digest)))
    }

    pub(super) fn condemned_all(&self) -> Path {
        self.below("condemned")
    }

    pub(super) fn condemned(&self, digest: &Digest) -> Path {
        self.below(&format!("condemned/{}", in_path(digest)))
    }

    pub(super) fn repositories(&self) -> Path {
        self.below("repositories")
    }

    /// All manifests of a repository.
    pub(super) fn manifests(&self, name: &RepositoryName) -> Path {
        self.below(&format!("repositories/{name}/_manifests"))
    }

    /// Where the links of one manifest are: one for each media type it was pushed as.
    pub(super) fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Path {
        self.below(&format!("repositories/{name}/_manifests/{}", in_path(digest)))
    }

    pub(super) fn link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
        media_type: &str,
    ) -> Path {
        match kind {
            LinkKind::Blob => {
                self.below(&format!("repositories/{name}/_blobs/{}", in_path(digest)))
            }
            LinkKind::Manifest => {
                let word = match media_type {
                    "" => NO_TYPE.to_owned(),
                    text => URL_SAFE_NO_PAD.encode(text),
                };
                self.manifest(name, digest).join(word)
            }
        }
    }

    fn upload(&self, key: &UploadKey, what: &str) -> Path {
        let UploadKey { name, id, algorithm } = key;
        self.below(&format!("repositories/{name}/_uploads/{}/{id}/{what}", algorithm.name()))
    }

    /// What is known of an upload, and its last bytes.
    pub(super) fn upload_state(&self, key: &UploadKey) -> Path {
        self.upload(key, "state")
    }

    /// What its parts are put together to, to be looked at before it becomes a blob.
    pub(super) fn upload_bytes(&self, key: &UploadKey) -> Path {
        self.upload(key, "bytes")
    }

    /// What the object of that name is; `None` for strangers.
    pub(super) fn read(&self, path: &Path) -> Option<ParsedKey> {
        let rest = match self.prefix.as_ref() {
            "" => path.as_ref(),
            prefix => path.as_ref().strip_prefix(prefix)?.strip_prefix('/')?,
        };
        let (area, rest) = rest.split_once('/')?;
        match area {
            "blobs" => digest(rest).map(ParsedKey::Blob),
            "condemned" => digest(rest).map(ParsedKey::Condemned),
            "repositories" => repository(rest),
            _ => None,
        }
    }
}

fn in_path(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm().name(), digest.hex())
}

fn digest(text: &str) -> Option<Digest> {
    let (algorithm, hex) = text.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn repository(text: &str) -> Option<ParsedKey> {
    // No component of a name begins with `_`.
    let (name, rest) = text.split_once("/_")?;
    let name: RepositoryName = name.parse().ok()?;
    let (kind, rest) = rest.split_once('/')?;
    match kind {
        "blobs" => {
            let digest = digest(rest)?;
            Some(ParsedKey::Link { name, kind: LinkKind::Blob, digest, media_type: String::new() })
        }
        "manifests" => {
            let (path, word) = rest.rsplit_once('/')?;
            let media_type = match word {
                NO_TYPE => String::new(),
                word => String::from_utf8(URL_SAFE_NO_PAD.decode(word).ok()?).ok()?,
            };
            Some(ParsedKey::Link {
                name,
                kind: LinkKind::Manifest,
                digest: digest(path)?,
                media_type,
            })
        }
        "uploads" => {
            let (algorithm, rest) = rest.split_once('/')?;
            let id: SessionId = rest.strip_suffix("/state")?.parse().ok()?;
            let algorithm = Algorithm::from_name(algorithm).ok()?;
            Some(ParsedKey::Upload(UploadKey { name, id, algorithm }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name: RepositoryName = "racklet/demo".parse().unwrap();
        let digest = Digest::sha256_of(b"x");
        let id = SessionId::from_random([7; 16]);
        let key = UploadKey { name: name.clone(), id, algorithm: Algorithm::Sha512 };
        for prefix in ["", "p", "a/b"] {
            let keys = ObjectKeys::new(Path::from(prefix));
            let link = |kind, media_type: &str| ParsedKey::Link {
                name: name.clone(),
                kind,
                digest: digest.clone(),
                media_type: media_type.to_owned(),
            };
            let odd = "application/vnd.oci.image.manifest.v1+json";
            for (path, named) in [
                (keys.blob(&digest), ParsedKey::Blob(digest.clone())),
                (keys.condemned(&digest), ParsedKey::Condemned(digest.clone())),
                (keys.link(&name, LinkKind::Blob, &digest, ""), link(LinkKind::Blob, "")),
                (keys.link(&name, LinkKind::Manifest, &digest, odd), link(LinkKind::Manifest, odd)),
                (keys.link(&name, LinkKind::Manifest, &digest, ""), link(LinkKind::Manifest, "")),
                (keys.upload_state(&key), ParsedKey::Upload(key.clone())),
            ] {
                assert_eq!(keys.read(&path), Some(named), "{path}");
                assert_eq!(Path::parse(path.as_ref()).unwrap(), path, "nothing is escaped");
            }
            for stranger in ["x", "blobs/sha256/../x", "blobs/md5/00", "repositories/A/_blobs/x"] {
                assert_eq!(keys.read(&keys.below(stranger)), None, "{stranger}");
            }
            assert_eq!(keys.read(&keys.upload_bytes(&key)), None);
        }
        assert_eq!(ObjectKeys::new(Path::from("p")).read(&Path::from("q/blobs/sha256/x")), None);
    }
}
