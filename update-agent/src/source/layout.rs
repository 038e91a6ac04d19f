//! A repository in an OCI image layout: a directory, or a tar read in place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use formats::digest::Digest;
use formats::oci::{Descriptor, MANIFEST_LIMIT, Manifest, NamedManifest, media_type};
use formats::reference::Namespace;
use formats::release::is_word;
use formats::tuf::OFFLINE_LIMIT;
use formats::version::Version;
use storage::layout::{Layout, LayoutError};

use super::error::check_limit;
use super::{FetchError, NamedRelease, Sink, Source, TufState};

/// 256 KiB: the piece a sink is given.
const PIECE: usize = 256 << 10;
/// 4 states of a layout without `tuf:latest`: two are one too many, the others are for the message.
const STATES_LIMIT: usize = 4;
/// 256 releases: more than fit on a medium; bounds the look-ups of signed targets.
const BUNDLED_LIMIT: usize = 256;

/// An image layout.
pub struct LayoutSource {
    layout: Box<dyn Layout>,
    namespace: Namespace,
    place: String,
}

impl LayoutSource {
    /// Opens a directory or a tar.
    pub fn open(path: &Path, namespace: Namespace) -> Result<Self, FetchError> {
        if !path.exists() {
            return Err(FetchError::NoSuchPlace(path.to_path_buf()));
        }
        let transport = if path.is_dir() { "oci" } else { "oci-archive" };
        let separator = if namespace.as_str().is_empty() { "" } else { ":" };
        let place = format!("{transport}:{}{separator}{}", path.display(), namespace.as_str());
        Ok(LayoutSource { layout: storage::layout::open(path)?, namespace, place })
    }

    /// The TUF state, by its name and descriptor: the reference `[ns/]tuf:latest`, or else the only
    /// reference that other tools may have made of it.
    fn state(&self) -> Result<(String, Descriptor), FetchError> {
        let wanted = format!("{}:latest", self.namespace.repository("tuf")?);
        let named = self.layout.named()?;
        if let Some(found) = resolve(&named, &wanted)? {
            return Ok((wanted, found));
        }
        let mut states: BTreeMap<Digest, (String, Descriptor)> = BTreeMap::new();
        for manifest in named {
            let name = &*manifest.name;
            let fits = matches!(name, "latest" | "tuf:latest") || name.ends_with("/tuf:latest");
            // Several states are refused; so many are not even looked at.
            if !fits || states.len() == STATES_LIMIT || states.contains_key(&manifest.digest) {
                continue;
            }
            let descriptor = descriptor_of(&manifest);
            if self.is_state(&descriptor)? {
                states.insert(manifest.digest.clone(), (name.to_owned(), descriptor));
            }
        }
        let place = self.place.clone();
        match states.len() {
            0 => Err(FetchError::NoState { place, wanted }),
            1 => Ok(states.into_values().next().expect("a map of one has a first value")),
            _ => {
                let names: Vec<String> = states.into_values().map(|(name, _)| name).collect();
                Err(FetchError::ManyStates { place, found: names.join(", ") })
            }
        }
    }

    fn is_state(&self, descriptor: &Descriptor) -> Result<bool, FetchError> {
        let bytes = self.layout.read_blob(&descriptor.digest, MANIFEST_LIMIT)?;
        let parsed = Manifest::parse(&bytes);
        Ok(parsed.is_ok_and(|m| m.artifact_type.as_deref() == Some(media_type::TUF_STATE)))
    }

    fn whole(&self, blob: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        let what = format!("blob {} of {}", blob.digest, self.place);
        check_limit(&what, blob.size, max)?;
        let opened = self.open_blob(&blob.digest)?;
        let found = opened.len();
        if found != blob.size {
            return Err(FetchError::Length { what, expected: blob.size, found });
        }
        Ok(opened.read_verified(max)?)
    }

    fn open_blob(&self, digest: &Digest) -> Result<storage::layout::Blob, FetchError> {
        let blob = self.layout.open_blob(digest)?;
        Ok(blob.ok_or_else(|| LayoutError::MissingBlob(digest.clone()))?)
    }
}

/// The one manifest of a name.
fn resolve(named: &[NamedManifest], wanted: &str) -> Result<Option<Descriptor>, LayoutError> {
    let mut found = named.iter().filter(|manifest| &*manifest.name == wanted);
    let Some(first) = found.next() else { return Ok(None) };
    if found.any(|other| other.digest != first.digest) {
        return Err(LayoutError::AmbiguousReference(wanted.to_owned()));
    }
    Ok(Some(descriptor_of(first)))
}

fn descriptor_of(named: &NamedManifest) -> Descriptor {
    Descriptor::new(media_type::MANIFEST, named.digest.clone(), named.size)
}

impl Source for LayoutSource {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn tuf_state(&self, known: Option<&str>) -> Result<TufState, FetchError> {
        let (_, state) = self.state()?;
        let etag = state.digest.to_string();
        if known == Some(etag.as_str()) {
            return Ok(TufState::Unchanged);
        }
        let bytes = self.whole(&state, MANIFEST_LIMIT)?;
        TufState::parse(&format!("TUF state in {}", self.place), &bytes, etag)
    }

    fn tuf_file(&self, file: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.whole(file, max)
    }

    fn manifest(&self, _product: &str, digest: &Digest, max: u64) -> Result<Vec<u8>, FetchError> {
        Ok(self.open_blob(digest)?.read_verified(max)?)
    }

    fn blob(&self, _product: &str, blob: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.whole(blob, max)
    }

    fn ranges(
        &self,
        _product: &str,
        blob: &Descriptor,
        ranges: &[Range<u64>],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        // Opened once: what is verified is read from the same file (S13).
        let opened = self.open_blob(&blob.digest)?;
        let mut buffer = vec![0; PIECE];
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let left = usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE);
                let piece = &mut buffer[..left];
                opened.read_at(piece, at)?;
                if sink(at, piece).is_break() {
                    return Ok(());
                }
                at += left as u64;
            }
        }
        Ok(())
    }

    fn bundled(&self) -> Result<Option<Vec<NamedRelease>>, FetchError> {
        let (state, _) = self.state()?;
        // Copied without its name: then nothing says which of the others are releases.
        let Some(prefix) = state.strip_suffix("tuf:latest") else { return Ok(None) };
        let mut releases = Vec::new();
        for manifest in self.layout.named()? {
            let Some(name) = manifest.name.strip_prefix(prefix) else { continue };
            let Some((product, tag)) = name.split_once(':') else { continue };
            if product == "tuf" {
                // Only a repository keeps its older states.
                if tag.starts_with("ts-") {
                    return Ok(None);
                }
                continue;
            }
            let version = tag.parse().ok().and_then(|tag| Version::of_tag(&tag));
            let Some(version) = version else { continue };
            if !is_word(product, 64) {
                continue;
            }
            if releases.len() == BUNDLED_LIMIT {
                let why = format!("names more than {BUNDLED_LIMIT} releases");
                return Err(FetchError::Form { what: self.place.clone(), why });
            }
            let (product, index) = (product.to_owned(), manifest.digest);
            releases.push(NamedRelease { product, version, index });
        }
        Ok(Some(releases))
    }

    fn offline_statement(&self) -> Result<Option<Vec<u8>>, FetchError> {
        let (state, _) = self.state()?;
        let Some(prefix) = state.strip_suffix("latest") else { return Ok(None) };
        let Some(found) = resolve(&self.layout.named()?, &format!("{prefix}offline"))? else {
            return Ok(None);
        };
        let what = format!("offline statement in {}", self.place);
        let bytes = self.whole(&found, MANIFEST_LIMIT)?;
        let manifest = Manifest::parse(&bytes).map_err(FetchError::document(&what))?;
        if manifest.artifact_type.as_deref() != Some(media_type::OFFLINE) {
            let why = "is of another artifact type".to_owned();
            return Err(FetchError::Form { what, why });
        }
        match manifest.layers.as_slice() {
            [only] => Ok(Some(self.whole(only, OFFLINE_LIMIT)?)),
            _ => Err(FetchError::Form { what, why: "has not exactly one layer".to_owned() }),
        }
    }

    fn bytes_fetched(&self) -> u64 {
        0
    }
}
