//! A repository in a registry (distribution-spec 1.1, pull).

use std::ops::{ControlFlow, Range};
use std::slice;

use formats::digest::Digest;
use formats::oci::{Descriptor, MANIFEST_LIMIT, RepositoryName, media_type};
use formats::reference::Namespace;

use super::error::{check_digest, check_limit};
use super::{FetchError, Sink, Source, TufState};
use crate::http::{Client, HttpError, Options, Origin, Remote, Request, Small, Url};

/// 8 KiB: on a line of 10 Mbit/s and 25 ms a request costs as much as 32, and four are in flight.
const GAP: u64 = 8 << 10;

/// The kinds of manifest we read.
const ACCEPT: &[&str] = &[media_type::MANIFEST, media_type::INDEX];

/// A namespace of a registry.
#[derive(Debug)]
pub struct RegistrySource {
    client: Client,
    origin: Origin,
    namespace: Namespace,
}

impl RegistrySource {
    /// A source at `origin`. Reads the CA file of the options; connects nowhere.
    pub fn new(origin: Origin, namespace: Namespace, options: Options) -> Result<Self, FetchError> {
        Ok(RegistrySource { client: Client::new(options)?, origin, namespace })
    }

    fn repository(&self, name: &str) -> Result<Repository, FetchError> {
        let name = self.namespace.repository(name)?;
        Ok(Repository { scope: format!("repository:{name}:pull"), name })
    }

    fn fetch_blob(&self, name: &str, blob: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        let repository = self.repository(name)?;
        let what = format!("blob {} of {}", blob.digest, repository.name);
        check_limit(&what, blob.size, max)?;
        let url = repository.url(&self.origin, "blobs", &blob.digest.to_string())?;
        let remote = Remote { url: &url, scope: &repository.scope, size: blob.size };
        let all = 0..blob.size;
        let mut restarted = false;
        loop {
            let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
            let answers =
                self.client.ranges(remote, slice::from_ref(&all), 0, &mut |_, piece| {
                    bytes.extend_from_slice(piece);
                    ControlFlow::Continue(())
                })?;
            match check_digest(&what, &blob.digest, &bytes) {
                // Put together from several answers: they may be of different versions.
                Err(_) if answers.count > 1 && !restarted => restarted = true,
                done => return done.map(|()| bytes),
            }
        }
    }
}

impl Source for RegistrySource {
    fn describe(&self) -> String {
        let namespace = self.namespace.as_str();
        let separator = if namespace.is_empty() { "" } else { "/" };
        format!("docker://{}{separator}{namespace}", self.origin.authority())
    }

    fn tuf_state(&self, known: Option<&str>) -> Result<TufState, FetchError> {
        self.client.begin_attempt();
        let repository = self.repository("tuf")?;
        let what = format!("{}:latest", repository.name);
        let url = repository.url(&self.origin, "manifests", "latest")?;
        let get = Request {
            accept: ACCEPT,
            if_none_match: known.filter(|tag| is_etag(tag)),
            scope: &repository.scope,
            ..Request::new(&url)
        };
        let Small::Found { etag, content_type, body } = self.client.small(&get, MANIFEST_LIMIT)?
        else {
            return Ok(TufState::Unchanged);
        };
        // Some registries send no tag or ignore ours; the digest then tells.
        let own = format!("\"{}\"", Digest::sha256_of(&body));
        let etag = etag.filter(|tag| is_etag(tag)).unwrap_or(own);
        if known == Some(etag.as_str()) {
            return Ok(TufState::Unchanged);
        }
        check_media_type(&what, content_type.as_deref(), &body)?;
        TufState::parse(&what, &body, etag)
    }

    fn tuf_file(&self, file: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.fetch_blob("tuf", file, max)
    }

    fn manifest(&self, product: &str, digest: &Digest, max: u64) -> Result<Vec<u8>, FetchError> {
        self.client.end_attempt();
        let repository = self.repository(product)?;
        let what = format!("manifest {digest} of {}", repository.name);
        let url = repository.url(&self.origin, "manifests", &digest.to_string())?;
        let get = Request { accept: ACCEPT, scope: &repository.scope, ..Request::new(&url) };
        let Small::Found { content_type, body, .. } = self.client.small(&get, max)? else {
            let why = "a manifest asked for by digest is `not modified`".to_owned();
            return Err(HttpError::Protocol { origin: self.origin.to_string(), why }.into());
        };
        // Docker-Content-Digest is the server's word; the bytes decide (case 89).
        check_digest(&what, digest, &body)?;
        check_media_type(&what, content_type.as_deref(), &body)?;
        Ok(body)
    }

    fn blob(&self, product: &str, blob: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.client.end_attempt();
        self.fetch_blob(product, blob, max)
    }

    fn ranges(
        &self,
        product: &str,
        blob: &Descriptor,
        ranges: &[Range<u64>],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        self.client.end_attempt();
        let repository = self.repository(product)?;
        let url = repository.url(&self.origin, "blobs", &blob.digest.to_string())?;
        let remote = Remote { url: &url, scope: &repository.scope, size: blob.size };
        self.client.ranges(remote, ranges, GAP, sink)?;
        Ok(())
    }

    fn bytes_fetched(&self) -> u64 {
        self.client.bytes_fetched()
    }
}

/// A repository's name, and the token scope to read it.
struct Repository {
    name: RepositoryName,
    scope: String,
}

impl Repository {
    fn url(&self, origin: &Origin, kind: &str, reference: &str) -> Result<Url, FetchError> {
        let path = format!("/v2/{}/{kind}/{reference}", self.name);
        Ok(Url::new(origin, &path).map_err(HttpError::from)?)
    }
}

/// Whether a text can be sent back as an entity tag. 256 bytes: ours and everybody's are below 100.
fn is_etag(text: &str) -> bool {
    text.len() <= 256
        && text.strip_prefix("W/").unwrap_or(text).starts_with('"')
        && text.ends_with('"')
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Refuses a document whose header calls it another kind of manifest than it does itself
/// (CVE-2021-41190). A header without an opinion, such as `application/json`, is let pass.
fn check_media_type(what: &str, header: Option<&str>, body: &[u8]) -> Result<(), FetchError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        media_type: Option<String>,
    }
    let header = header.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let own = serde_json::from_slice::<Kind>(body).ok().and_then(|kind| kind.media_type);
    match own {
        Some(own) if header.starts_with("application/vnd.") && header != own => {
            let why = format!("its header says {header:?}, its mediaType {own:?}");
            Err(FetchError::Form { what: what.to_owned(), why })
        }
        _ => Ok(()),
    }
}
