//! Where an update's bytes come from: a registry, a directory or a bundle.
//!
//! Nothing a [`Source`] returns is trusted. Whole objects are compared with the digest they were
//! asked for by; parts of blobs ([`Source::ranges`]) are for a caller that checks each part against
//! a signed digest. Tags are used once, for [`Source::tuf_state`]; everything else is asked for by
//! digest, so a tag that moves in between changes nothing (case 95).
//!
//! ```text
//!  docker://host/ns  ──► RegistrySource ─┐
//!  oci:DIR           ──► LayoutSource   ─┼─► Source ──► trust, stage
//!  oci-archive:FILE  ──► LayoutSource   ─┘
//! ```

mod error;
mod layout;
mod registry;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::oci::{Descriptor, Manifest, annotation, media_type};
use formats::reference::{Namespace, Reference, ReferenceError};
use formats::userinfo::hidden;
use formats::version::Version;
use serde::{Deserialize, Serialize, Serializer};

pub use self::error::FetchError;
pub use self::layout::LayoutSource;
pub use self::registry::RegistrySource;

use registry_auth::hub;

use crate::http::{
    Credential, HttpError, Limits, Options, Origin, Proxies, Proxy, Scheme, Url, read_auth_file,
    read_token_file,
};

/// Takes a piece of a blob and its offset; breaks to get no more.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> ControlFlow<()> + 'a;

/// A repository that can be read. Shared between threads; every call blocks.
pub trait Source: Send + Sync {
    /// Which repository this is, without credentials.
    fn describe(&self) -> String;

    /// The files of the newest TUF state, or that it still is the one `known` was given out for.
    ///
    /// `known` is the opaque `etag` of an earlier answer of this source. One request at most.
    fn tuf_state(&self, known: Option<&str>) -> Result<TufState, FetchError>;

    /// A file of a TUF state, of at most `max` bytes, with the descriptor's digest.
    fn tuf_file(&self, file: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError>;

    /// A manifest or index of a product, of at most `max` bytes, with that digest.
    fn manifest(&self, product: &str, digest: &Digest, max: u64) -> Result<Vec<u8>, FetchError>;

    /// A whole blob of a product, of at most `max` bytes, with the descriptor's size and digest.
    fn blob(&self, product: &str, blob: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError>;

    /// Gives `sink` the bytes of ascending, disjoint ranges of one blob, in order and each once, in
    /// pieces of at most 256 KiB that never straddle two ranges.
    ///
    /// The bytes are **not** verified. Returns `Ok` early when the sink breaks.
    fn ranges(
        &self,
        product: &str,
        blob: &Descriptor,
        ranges: &[Range<u64>],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError>;

    /// The releases that a bundle says it holds, in the order of its index; `None` for whatever is
    /// no bundle: a registry, or a whole repository in a directory.
    ///
    /// Names only, from bytes that nobody signed: whether there is such a release, and what it is,
    /// the signed target says.
    fn bundled(&self) -> Result<Option<Vec<NamedRelease>>, FetchError> {
        Ok(None)
    }

    /// The offline statement beside the TUF state of a bundle, unverified. Registries have none:
    /// whoever can be reached must be as fresh as its timestamp says.
    fn offline_statement(&self) -> Result<Option<Vec<u8>>, FetchError> {
        Ok(None)
    }

    /// Bytes of bodies received over the network so far; 0 for directories and bundles.
    fn bytes_fetched(&self) -> u64;
}

/// A release as a bundle names it. Not to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRelease {
    /// The product.
    pub product: String,
    /// The version.
    pub version: Version,
    /// Digest of the release index.
    pub index: Digest,
}

/// What [`Source::tuf_state`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TufState {
    /// The same state as before.
    Unchanged,
    /// Another state, or the first one seen.
    Changed {
        /// What to ask with next time.
        etag: Option<String>,
        /// Descriptors by TUF file name (`1.root.json`, `timestamp.json`, `targets/NAME`).
        files: BTreeMap<String, Descriptor>,
    },
}

impl TufState {
    /// Reads the manifest of a TUF state. Layers without a file name are left out.
    pub(crate) fn parse(what: &str, bytes: &[u8], etag: String) -> Result<Self, FetchError> {
        let manifest = Manifest::parse(bytes).map_err(FetchError::document(what))?;
        let form = |why: String| FetchError::Form { what: what.to_owned(), why };
        match manifest.artifact_type.as_deref() {
            None | Some(media_type::TUF_STATE) => {}
            Some(other) => return Err(form(format!("artifactType {other:?} is no TUF state"))),
        }
        let mut files = BTreeMap::new();
        for layer in manifest.layers {
            let Some(name) = layer.annotation(annotation::TUF_FILENAME).map(str::to_owned) else {
                continue;
            };
            // Of what nobody signed, no more is kept than is used.
            let file = Descriptor::new(media_type::TUF_METADATA, layer.digest, layer.size);
            if files.insert(name.clone(), file).is_some() {
                return Err(form(format!("the file {name:?} is in it twice")));
            }
        }
        Ok(TufState::Changed { etag: Some(etag), files })
    }
}

/// `[[source]]` of the configuration.
///
/// ```
/// let source: update_agent::source::SourceConfig = toml::from_str(
///     "url = 'docker://127.0.0.1:5443/racklet'\nca = '/etc/update-agent/ca.pem'",
/// ).unwrap();
/// assert!(source.token_file.is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// `docker://HOST[:PORT][/NS]`, `oci:DIR[:NS]`, `oci-archive:FILE.tar[:NS]`, or the path of an
    /// existing directory or tar.
    pub url: String,
    /// PEM file of the only CAs to trust for this source; the system's when absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate that proves this node to the server, and its chain.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    /// PEM file of its key, closed to other users.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// File with `user:password` or a token, closed to other users.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// File of docker's or podman's form with an entry for the registry, instead of `token_file`.
    /// Credential helpers are not run.
    #[serde(default)]
    pub auth_file: Option<PathBuf>,
    /// A token server on another host that may be shown the credential.
    #[serde(default)]
    pub token_host: Option<String>,
    /// HTTP instead of HTTPS, for loopback only.
    #[serde(default)]
    pub plain_http: bool,
    /// `http://[USER:PASSWORD@]HOST[:PORT]`, or `none`; absent: what `https_proxy`, `all_proxy` and
    /// `no_proxy` of the environment say.
    #[serde(default, serialize_with = "without_password")]
    pub proxy: Option<String>,
    /// Whether the server of this repository gets the reports of this node.
    #[serde(default)]
    pub reports: bool,
}

/// What is shown of `proxy`.
pub(crate) fn without_password<S: Serializer>(
    proxy: &Option<String>,
    s: S,
) -> Result<S::Ok, S::Error> {
    let shown = proxy.as_deref().map(|text| match text {
        "none" => text.to_owned(),
        _ => Proxy::parse(text).map_or_else(|error| error.shown, |proxy| proxy.to_string()),
    });
    shown.serialize(s)
}

impl SourceConfig {
    /// The source at a place, with everything else as it is by default.
    pub fn at(url: &str) -> Self {
        SourceConfig {
            url: url.to_owned(),
            ca: None,
            client_cert: None,
            client_key: None,
            token_file: None,
            auth_file: None,
            token_host: None,
            plain_http: false,
            proxy: None,
            reports: false,
        }
    }
}

/// Opens a source. A registry is not contacted yet; a layout must be there.
pub fn open(config: &SourceConfig, limits: Limits) -> Result<Box<dyn Source>, FetchError> {
    let reference = parse_place(&config.url)?;
    match &reference {
        Reference::Registry { .. } => {
            let (origin, namespace, options) = registry(config, limits)?;
            Ok(Box::new(RegistrySource::new(origin, namespace, options)?))
        }
        Reference::Layout { path, .. } | Reference::Archive { path, .. } => {
            Ok(Box::new(LayoutSource::open(path, reference.namespace().clone())?))
        }
    }
}

/// How the registry of a source is reached. Reads its credential; connects nowhere.
pub(crate) fn registry(
    config: &SourceConfig,
    limits: Limits,
) -> Result<(Origin, Namespace, Options), FetchError> {
    match parse_place(&config.url)? {
        Reference::Registry { authority, namespace } => {
            let scheme = if config.plain_http { Scheme::Http } else { Scheme::Https };
            let origin = origin_of(scheme, hub::host(&authority))?;
            if config.plain_http && !origin.is_loopback() {
                return Err(HttpError::PlainHttp { origin: origin.to_string() }.into());
            }
            let namespace: Namespace = hub::namespace(&authority, namespace.as_str()).parse()?;
            let credential = credential(config, &authority, &namespace)?;
            let options = Options {
                ca: config.ca.clone(),
                client_cert: config.client_cert.clone(),
                client_key: config.client_key.clone(),
                plain_http: false,
                credential: credential.map(|credential| (origin.clone(), credential)),
                credential_file: config.token_file.clone().or_else(|| config.auth_file.clone()),
                token_host: config.token_host.clone(),
                proxies: proxies(config)?,
                limits,
                seed: None,
            };
            Ok((origin, namespace, options))
        }
        Reference::Layout { path, .. } | Reference::Archive { path, .. } => {
            Err(FetchError::NoSuchPlace(path))
        }
    }
}

/// How a server is reached at `config.url`, which is the URL of a service and no registry: by the rules of
/// sources, but for HTTP to other machines where no secret is shown. Reads its credential; connects nowhere.
pub(crate) fn server(config: &SourceConfig, limits: Limits) -> Result<(Url, Options), FetchError> {
    let url = check_server(&config.url)?;
    let origin = url.origin().clone();
    let credential = config.token_file.as_deref().map(read_token_file).transpose()?;
    let options = Options {
        ca: config.ca.clone(),
        client_cert: config.client_cert.clone(),
        client_key: config.client_key.clone(),
        plain_http: origin.scheme() == Scheme::Http && config.token_file.is_none(),
        credential: credential.map(|credential| (origin, credential)),
        credential_file: config.token_file.clone(),
        token_host: None,
        proxies: proxies(config)?,
        limits,
        seed: None,
    };
    Ok((url, options))
}

/// The URL of a service. One with a query would lose it.
pub(crate) fn check_server(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(HttpError::from)?;
    if text.contains(['?', '#', '@']) {
        let why = "it is more than scheme, host, port and path";
        return Err(HttpError::Url { url: hidden(text), why }.into());
    }
    Ok(url)
}

fn credential(
    config: &SourceConfig,
    authority: &str,
    namespace: &Namespace,
) -> Result<Option<Credential>, FetchError> {
    Ok(match (&config.token_file, &config.auth_file) {
        (None, None) => None,
        (Some(path), None) => Some(read_token_file(path)?),
        (None, Some(path)) => Some(read_auth_file(path, authority, namespace.as_str())?),
        (Some(_), Some(path)) => {
            let why = "cannot be combined with token_file: remove one of them".to_owned();
            return Err(
                HttpError::Setup { what: format!("auth file {}", path.display()), why }.into()
            );
        }
    })
}

fn proxies(config: &SourceConfig) -> Result<Proxies, FetchError> {
    Ok(match config.proxy.as_deref() {
        Some("none") => Proxies::default(),
        Some(proxy) => Proxies::only(Proxy::parse(proxy).map_err(HttpError::from)?),
        None => {
            Proxies::from_environment(|name| std::env::var(name).ok()).map_err(HttpError::from)?
        }
    })
}

fn origin_of(scheme: Scheme, authority: &str) -> Result<Origin, FetchError> {
    let prefix = if scheme == Scheme::Https { "https" } else { "http" };
    let url = Url::parse(&format!("{prefix}://{authority}/")).map_err(HttpError::from)?;
    Ok(url.origin().clone())
}

/// Refuses a text that names no proxy.
pub(crate) fn check_proxy(text: &str) -> Result<(), FetchError> {
    if text != "none" {
        Proxy::parse(text).map_err(HttpError::from)?;
    }
    Ok(())
}

/// Refuses a text that can be no place, whatever exists: for places that are used later.
pub(crate) fn check_place(text: &str) -> Result<(), FetchError> {
    match parse_place(text) {
        Ok(_) | Err(FetchError::NoSuchPlace(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A path with colons in it, which the syntax takes for a path and a namespace: what is there is
/// meant, unless the shorter path is there, too.
fn colons(text: &str) -> Option<Reference> {
    let (transport, place) = text.split_once(':')?;
    let (shorter, _) = place.split_once(':')?;
    let (path, namespace) = (Path::new(place), Namespace::default());
    if Path::new(shorter).exists() || !path.exists() {
        return None;
    }
    let path = path.to_path_buf();
    match transport {
        "oci" => Some(Reference::Layout { path, namespace }),
        "oci-archive" => Some(Reference::Archive { path, namespace }),
        _ => None,
    }
}

/// A reference, or the path of something that exists.
pub(crate) fn parse_place(text: &str) -> Result<Reference, FetchError> {
    let error = match text.parse() {
        Ok(reference) => return Ok(colons(text).unwrap_or(reference)),
        Err(ReferenceError::Transport(_)) if text == "-" => {
            return Err(FetchError::NotFile("standard input".into()));
        }
        Err(error) => error,
    };
    if let Some(reference) = colons(text) {
        return Ok(reference);
    }
    // What is there is meant, however it is named.
    let path = Path::new(text);
    let may_be_path = matches!(error, ReferenceError::Transport(_))
        || (matches!(error, ReferenceError::Foreign { .. }) && path.exists());
    if !may_be_path {
        return Err(error.into());
    }
    let (path, namespace) = (path.to_path_buf(), Namespace::default());
    if path.is_dir() {
        Ok(Reference::Layout { path, namespace })
    } else if path.exists() {
        Ok(Reference::Archive { path, namespace })
    } else if text.contains('/') || text.ends_with(".tar") {
        Err(FetchError::NoSuchPlace(path))
    } else {
        Err(error.or_path().into())
    }
}

#[cfg(test)]
mod tests {
    use formats::reason::Reason;

    use super::*;

    fn reason(text: &str) -> Reason {
        match open(&SourceConfig::at(text), Limits::default()) {
            Ok(source) => panic!("{text} opened as {}", source.describe()),
            Err(error) => error.reason(),
        }
    }

    #[test]
    fn places_that_cannot_be_opened_say_why() {
        assert_eq!(reason("nonsense"), Reason::Usage);
        assert_eq!(reason("docker://user:secret@host/x"), Reason::Usage);
        assert_eq!(reason("https://host/x"), Reason::Usage, "not written as one");
        assert_eq!(reason("/no/such/bundle.tar"), Reason::Unreachable);
        assert_eq!(reason("oci-archive:/no/such/bundle.tar"), Reason::Unreachable);
    }

    #[test]
    fn what_is_at_hand_is_taken_or_explained() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("upd 2026-11-28T12:00.tar");
        std::fs::write(&file, b"").unwrap();
        let text = format!("oci-archive:{}", file.display());
        let Ok(Reference::Archive { path, namespace }) = parse_place(&text) else {
            panic!("a path with colons")
        };
        assert_eq!((path, namespace.as_str()), (file.clone(), ""));
        let said = |text: &str| match open(&SourceConfig::at(text), Limits::default()) {
            Ok(source) => panic!("{text} opened as {}", source.describe()),
            Err(error) => error.to_string(),
        };
        let folder = said(&dir.path().display().to_string());
        let named = "holds upd 2026-11-28T12:00.tar: name one of them";
        assert_eq!(folder.matches(named).count(), 1, "{folder}");
        for pipe in ["-", "/dev/null"] {
            assert!(said(pipe).contains("a bundle must be one"), "{}", said(pipe));
        }
        std::fs::write(&file, b"\x1f\x8b\x08".repeat(1000)).unwrap();
        assert!(said(&file.display().to_string()).contains("unpack it first: gunzip"));
    }

    #[test]
    fn registries_are_described_without_secrets() {
        let source = open(&SourceConfig::at("docker://Host:5000/ns"), Limits::default()).unwrap();
        assert_eq!(source.describe(), "docker://host:5000/ns");
        assert_eq!(source.bytes_fetched(), 0);
    }

    #[test]
    fn a_secret_is_never_sent_in_the_clear() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "secret\n").unwrap();
        let open = |url: &str, plain_http| {
            let token_file = Some(file.clone());
            let config = SourceConfig { plain_http, token_file, ..SourceConfig::at(url) };
            open(&config, Limits::default()).map(|source| source.describe())
        };
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let shared = open("docker://host/ns", false).unwrap_err();
        assert_eq!(shared.reason(), Reason::InsecurePerms, "{shared}");
        for mode in [0o640, 0o600] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(open("docker://host/ns", false).is_ok(), "{mode:o}");
        }
        assert!(open("docker://127.0.0.1:1/ns", true).is_ok(), "loopback");
        let clear = open("docker://host/ns", true).unwrap_err();
        assert_eq!(clear.reason(), Reason::Config, "{clear}");
        assert!(!clear.to_string().contains("secret"));
    }

    #[test]
    fn one_file_name_stands_for_one_layer() {
        let layer = |bytes: &[u8]| {
            Descriptor::of(media_type::TUF_METADATA, bytes)
                .annotated(annotation::TUF_FILENAME, "timestamp.json")
        };
        let state = |layers| {
            let manifest = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers);
            TufState::parse("tuf:latest", &manifest.to_bytes(), "e".to_owned())
        };
        let other = Descriptor::of("text/plain", b"readme");
        let Ok(TufState::Changed { files, .. }) = state(vec![layer(b"1"), other]) else {
            panic!("a good state")
        };
        assert_eq!(files.into_keys().collect::<Vec<_>>(), ["timestamp.json"]);
        let twice = state(vec![layer(b"1"), layer(b"2")]).unwrap_err();
        assert_eq!(twice.reason(), Reason::BundleFormat, "{twice}");
    }
}
