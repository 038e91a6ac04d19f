//! Method, path and query to a [`Route`], or the error to answer. Pure.
//!
//! Names, tags, digests and session ids become types here, by their grammar; nothing that a client
//! wrote reaches the storage in any other form.
//!
//! | id | request | route |
//! |---|---|---|
//! | end-1 | `GET /v2/` | [`Route::Ping`] |
//! | end-2, 10 | `GET`, `HEAD`, `DELETE /v2/<name>/blobs/<digest>` | [`Route::Blob`], [`Route::DeleteBlob`] |
//! | end-3, 7, 9 | `GET`, `HEAD`, `PUT`, `DELETE /v2/<name>/manifests/<ref>` | [`Route::Manifest`], [`Route::PutManifest`], [`Route::DeleteManifest`] |
//! | end-4, 11 | `POST /v2/<name>/blobs/uploads/` | [`Route::StartUpload`] |
//! | end-5, 6, 13, 14 | `PATCH`, `PUT`, `GET`, `DELETE /v2/<name>/blobs/uploads/<id>` | [`Route::Upload`] |
//! | end-8 | `GET /v2/<name>/tags/list` | [`Route::Tags`] |
//! | end-12 | `GET /v2/<name>/referrers/<digest>` | [`Route::Referrers`] |
//! | – | `GET /metadata/<file>`, `GET /targets/<dir>/<sha256>.<name>` | [`Route::Metadata`], [`Route::Target`] |
//! | – | `PUT /fleet/v1/reports/<node>` | [`Route::PutReport`] |
//! | – | `GET /fleet/…` | [`Route::Fleet`] |
//! | – | `GET`, `POST /fleet/login`, `POST /fleet/logout` | [`Route::LoginForm`], [`Route::LogIn`], [`Route::LogOut`] |
//! | – | `POST /v1/pre-reboot`, `POST /v1/steady-state` | [`Route::Lock`] |
//! | – | `GET /healthz`, `GET /metrics` | [`Route::Health`], [`Route::Metrics`] |

use std::fmt;
use std::str::FromStr;

use formats::digest::{Algorithm, Digest, Sha256};
use formats::oci::{RepositoryName, Tag};
use formats::percent;
use http::{Method, StatusCode};

use crate::error::{ApiError, Code};
use crate::fleet::lock::Asked;

/// Tags one answer lists at most; a `Link` leads to the next page. Bounds memory whatever `n` says.
pub(crate) const TAGS_PAGE: usize = 10_000;

/// Keys of queries with one value; `tag` may come many times.
const ONCE: [&str; 11] = [
    "artifactType",
    "digest",
    "digest-algorithm",
    "from",
    "last",
    "mount",
    "n",
    "next",
    "reason",
    "release",
    "state",
];

/// What a request asks for. `HEAD` is the route of `GET`; the body is left out when answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// end-1.
    Ping,
    /// Is the server up, and what does it hold.
    Health,
    /// Figures for the operator.
    Metrics,
    /// A node reports.
    PutReport(Sha256),
    /// A page of the fleet.
    Fleet(FleetPage),
    /// The form for a token, and the page that it leads to.
    LoginForm(Option<String>),
    /// A token, for a cookie.
    LogIn,
    /// The end of a session.
    LogOut,
    /// A node wants to restart, or has restarted.
    Lock(Asked),
    /// end-2.
    Blob(RepositoryName, Digest),
    /// end-10.
    DeleteBlob(RepositoryName, Digest),
    /// end-3.
    Manifest(RepositoryName, Reference),
    /// end-7a and end-7b: the manifest, and further tags for it.
    PutManifest(RepositoryName, Reference, Vec<Tag>),
    /// end-9.
    DeleteManifest(RepositoryName, Reference),
    /// end-4 and end-11.
    StartUpload(RepositoryName, Start),
    /// end-5, 6, 13, 14.
    Upload(RepositoryName, SessionId, Step),
    /// end-8.
    Tags {
        /// The repository.
        name: RepositoryName,
        /// At most this many, already capped to [`TAGS_PAGE`].
        n: Option<usize>,
        /// Only tags that sort after this text.
        last: Option<String>,
    },
    /// end-12.
    Referrers {
        /// The repository.
        name: RepositoryName,
        /// The subject.
        digest: Digest,
        /// Only referrers of this type.
        artifact_type: Option<String>,
        /// Only referrers whose digest sorts after this text.
        last: Option<String>,
    },
    /// A TUF metadata file, its name percent-decoded. A key to look up, never a path.
    Metadata(String),
    /// A TUF target with a consistent-snapshot prefix.
    Target {
        /// What stands before the last `/`, percent-decoded; may be empty.
        dir: String,
        /// The hash in front of the name.
        hash: Sha256,
        /// The name after the hash.
        name: String,
    },
}

/// What a request needs to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Anyone may.
    Open,
    /// The credential endpoint: clients ask it which credentials to send.
    Login,
    /// Reading.
    Pull,
    /// Reporting, and asking for the restart lock: whoever may read anything.
    Report,
    /// Writing.
    Push,
    /// Deleting tags, manifests or blobs.
    Delete,
}

impl Route {
    /// A word for it in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Route::Ping => "ping",
            Route::Health => "health",
            Route::Metrics => "metrics",
            Route::PutReport(_) => "put_report",
            Route::Fleet(_) | Route::LoginForm(_) | Route::LogIn | Route::LogOut => "fleet",
            Route::Lock(_) => "lock",
            Route::Blob(..) => "blob",
            Route::Manifest(..) => "manifest",
            Route::PutManifest(..) => "put_manifest",
            Route::StartUpload(..) | Route::Upload(..) => "upload",
            Route::DeleteBlob(..) | Route::DeleteManifest(..) => "delete",
            Route::Tags { .. } => "tags",
            Route::Referrers { .. } => "referrers",
            Route::Metadata(_) => "metadata",
            Route::Target { .. } => "target",
        }
    }

    /// The repository that is asked for; `None` where it is none, or all of them.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Route::Blob(name, _)
            | Route::DeleteBlob(name, _)
            | Route::Manifest(name, _)
            | Route::PutManifest(name, ..)
            | Route::DeleteManifest(name, _)
            | Route::StartUpload(name, _)
            | Route::Upload(name, ..)
            | Route::Tags { name, .. }
            | Route::Referrers { name, .. } => Some(name),
            Route::Ping
            | Route::Health
            | Route::Metrics
            | Route::PutReport(_)
            | Route::Fleet(_)
            | Route::LoginForm(_)
            | Route::LogIn
            | Route::LogOut
            | Route::Lock(_)
            | Route::Metadata(_)
            | Route::Target { .. } => None,
        }
    }

    /// What the caller must be allowed to do.
    pub fn right(&self) -> Right {
        match self {
            // Who is not logged in yet sees a form.
            Route::Health
            | Route::LoginForm(_)
            | Route::LogIn
            | Route::LogOut
            | Route::Fleet(FleetPage::Style) => Right::Open,
            Route::Ping => Right::Login,
            Route::PutReport(_) | Route::Lock(_) => Right::Report,
            Route::Metrics
            | Route::Fleet(_)
            | Route::Blob(..)
            | Route::Manifest(..)
            | Route::Tags { .. }
            | Route::Referrers { .. }
            | Route::Metadata(_)
            | Route::Target { .. } => Right::Pull,
            Route::PutManifest(..) | Route::StartUpload(..) | Route::Upload(..) => Right::Push,
            Route::DeleteBlob(..) | Route::DeleteManifest(..) => Right::Delete,
        }
    }
}

/// A page of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetPage {
    /// The sums.
    Overview,
    /// A list of nodes.
    Nodes {
        /// Only those in this state.
        state: Option<String>,
        /// Only those with this release.
        release: Option<String>,
        /// Only those with this reason.
        reason: Option<String>,
        /// Without the first so many.
        from: usize,
    },
    /// One node.
    Node(Sha256),
    /// Its last report, as it came.
    Report(Sha256),
    /// The style sheet.
    Style,
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A tag.
    Tag(Tag),
    /// A digest.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

/// How an upload begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A session; the algorithm is what the client means to finish with.
    Session(Algorithm),
    /// The whole blob in the body of the `POST`.
    Whole(Digest),
    /// Make a blob of another repository visible here; `None` means of any repository.
    Mount(Digest, Option<RepositoryName>),
}

/// What is done with an open upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// end-5: more bytes.
    Append,
    /// end-6: the last bytes, if any, and the digest of the whole.
    Finish(Digest),
    /// end-13: how many bytes are there.
    Status,
    /// end-14: give up.
    Cancel,
}

/// The name of an upload session: a random UUID, 36 characters. Safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// The id made of 16 random bytes (RFC 9562 version 4).
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = formats::digest::hex(&bytes);
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        SessionId(parts.join("-"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let good = text.len() == 36
            && text.bytes().enumerate().all(|(i, byte)| match i {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if good {
            Ok(SessionId(text.to_owned()))
        } else {
            Err(ApiError::missing(Code::BlobUploadUnknown, "no such upload session"))
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The route of a request, or the error to answer.
pub fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, ApiError> {
    let query = Query(query.unwrap_or_default());
    query.check()?;
    if path == "/healthz" {
        return read_only(method, Route::Health);
    }
    if path == "/metrics" {
        return read_only(method, Route::Metrics);
    }
    if let Some(rest) = path.strip_prefix("/fleet") {
        return fleet(method, rest, &query);
    }
    if let Some(asked) = lock(path) {
        return match *method {
            Method::POST => Ok(Route::Lock(asked)),
            _ => Err(ApiError::method("POST")),
        };
    }
    if path == "/v2/" || path == "/v2" {
        return read_only(method, Route::Ping);
    }
    if let Some(rest) = path.strip_prefix("/v2/") {
        return registry(method, rest, &query);
    }
    if let Some(file) = path.strip_prefix("/metadata/") {
        let file = percent::decode_utf8(file)
            .filter(|file| !file.is_empty())
            .ok_or_else(no_such_endpoint)?;
        return read_only(method, Route::Metadata(file));
    }
    if let Some(target) = path.strip_prefix("/targets/") {
        return read_only(method, self::target(target)?);
    }
    Err(no_such_endpoint())
}

/// What is asked for at a path of the FleetLock protocol, whose errors have a form of their own.
pub(crate) fn lock(path: &str) -> Option<Asked> {
    match path {
        "/v1/pre-reboot" => Some(Asked::PreReboot),
        "/v1/steady-state" => Some(Asked::SteadyState),
        _ => None,
    }
}

fn fleet(method: &Method, rest: &str, query: &Query) -> Result<Route, ApiError> {
    let node = |hex: &str| Sha256::from_hex(hex).map_err(|_| no_such_endpoint());
    if let Some(hex) = rest.strip_prefix("/v1/reports/") {
        let node = node(hex)?;
        return match *method {
            Method::PUT => Ok(Route::PutReport(node)),
            Method::GET | Method::HEAD => Ok(Route::Fleet(FleetPage::Report(node))),
            _ => Err(ApiError::method("GET, HEAD, PUT")),
        };
    }
    if rest == "/login" {
        return match *method {
            Method::POST => Ok(Route::LogIn),
            Method::GET | Method::HEAD => Ok(Route::LoginForm(query.first("next")?)),
            _ => Err(ApiError::method("GET, HEAD, POST")),
        };
    }
    let page = match rest {
        "/logout" => {
            return match *method {
                Method::POST => Ok(Route::LogOut),
                _ => Err(ApiError::method("POST")),
            };
        }
        "" | "/" => FleetPage::Overview,
        "/style.css" => FleetPage::Style,
        "/nodes" => FleetPage::Nodes {
            state: query.first("state")?,
            release: query.first("release")?,
            reason: query.first("reason")?,
            from: query.count("from")?.unwrap_or(0),
        },
        other => {
            FleetPage::Node(node(other.strip_prefix("/nodes/").ok_or_else(no_such_endpoint)?)?)
        }
    };
    read_only(method, Route::Fleet(page))
}

fn registry(method: &Method, rest: &str, query: &Query) -> Result<Route, ApiError> {
    if let Some(name) = rest.strip_suffix("/tags/list") {
        let name = repository(name)?;
        let (n, last) = (query.number("n")?, query.first("last")?);
        return read_only(method, Route::Tags { name, n, last });
    }
    let uploads = rest.strip_suffix('/').unwrap_or(rest).strip_suffix("/blobs/uploads");
    if let Some(name) = uploads {
        let name = repository(name)?;
        return match *method {
            Method::POST => Ok(Route::StartUpload(name, start(query)?)),
            _ => Err(ApiError::method("POST")),
        };
    }
    let (head, last) = rest.rsplit_once('/').ok_or_else(no_such_endpoint)?;
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        let (name, id) = (repository(name)?, last.parse()?);
        return match *method {
            Method::PATCH => Ok(Route::Upload(name, id, Step::Append)),
            Method::PUT => {
                let finish = Step::Finish(query.digest("digest")?.ok_or_else(no_digest)?);
                Ok(Route::Upload(name, id, finish))
            }
            Method::GET | Method::HEAD => Ok(Route::Upload(name, id, Step::Status)),
            Method::DELETE => Ok(Route::Upload(name, id, Step::Cancel)),
            _ => Err(ApiError::method("GET, HEAD, PATCH, PUT, DELETE")),
        };
    }
    if let Some(name) = head.strip_suffix("/blobs") {
        let (name, digest) = (repository(name)?, digest(last)?);
        return match *method {
            Method::GET | Method::HEAD => Ok(Route::Blob(name, digest)),
            Method::DELETE => Ok(Route::DeleteBlob(name, digest)),
            _ => Err(ApiError::method("GET, HEAD, DELETE")),
        };
    }
    if let Some(name) = head.strip_suffix("/manifests") {
        let (name, reference) = (repository(name)?, reference(last)?);
        return match *method {
            Method::GET | Method::HEAD => Ok(Route::Manifest(name, reference)),
            Method::PUT => Ok(Route::PutManifest(name, reference, query.tags()?)),
            Method::DELETE => Ok(Route::DeleteManifest(name, reference)),
            _ => Err(ApiError::method("GET, HEAD, PUT, DELETE")),
        };
    }
    if let Some(name) = head.strip_suffix("/referrers") {
        let (name, digest) = (repository(name)?, digest(last)?);
        let artifact_type = query.first("artifactType")?.filter(|wanted| !wanted.is_empty());
        let last = query.first("last")?;
        return read_only(method, Route::Referrers { name, digest, artifact_type, last });
    }
    Err(no_such_endpoint())
}

fn start(query: &Query) -> Result<Start, ApiError> {
    if let Some(mount) = query.digest("mount")? {
        let from = query.first("from")?.map(|from| repository(&from)).transpose()?;
        return Ok(Start::Mount(mount, from));
    }
    if let Some(digest) = query.digest("digest")? {
        return Ok(Start::Whole(digest));
    }
    let algorithm = match query.first("digest-algorithm")? {
        Some(name) => Algorithm::from_name(&name)
            .map_err(|error| ApiError::bad(Code::DigestInvalid, error))?,
        None => Algorithm::Sha256,
    };
    Ok(Start::Session(algorithm))
}

/// `<dir>/<sha256>.<name>`, as TUF clients ask for a target under consistent snapshots (TUF §6.2).
fn target(path: &str) -> Result<Route, ApiError> {
    let path = percent::decode_utf8(path).ok_or_else(no_such_endpoint)?;
    let (dir, file) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
    let (hash, name) = file.split_once('.').ok_or_else(no_such_endpoint)?;
    let hash = Sha256::from_hex(hash).map_err(|_| no_such_endpoint())?;
    Ok(Route::Target { dir: dir.to_owned(), hash, name: name.to_owned() })
}

fn read_only(method: &Method, route: Route) -> Result<Route, ApiError> {
    match *method {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(ApiError::method("GET, HEAD")),
    }
}

fn repository(text: &str) -> Result<RepositoryName, ApiError> {
    text.parse().map_err(|error| ApiError::bad(Code::NameInvalid, error))
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    let text = percent::decode_utf8(text).unwrap_or_default();
    text.parse().map_err(|error| ApiError::bad(Code::DigestInvalid, error))
}

fn reference(text: &str) -> Result<Reference, ApiError> {
    let text = percent::decode_utf8(text).unwrap_or_default();
    if text.contains(':') {
        return digest(&text).map(Reference::Digest);
    }
    let tag = text.parse().map_err(|error| ApiError::bad(Code::ManifestInvalid, error))?;
    Ok(Reference::Tag(tag))
}

fn no_such_endpoint() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, Code::Unsupported, "no such endpoint")
}

fn no_digest() -> ApiError {
    ApiError::bad(
        Code::DigestInvalid,
        "the request that finishes an upload needs ?digest=<algorithm>:<hex>",
    )
}

/// The part behind `?`. `+` stays `+`: media types hold it, and no value here can hold a space.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn all(&self, key: &str) -> impl Iterator<Item = Result<String, ApiError>> {
        self.0.split('&').filter_map(move |pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            (found == key).then(|| {
                percent::decode_utf8(value).ok_or_else(|| {
                    ApiError::bad(
                        Code::Unsupported,
                        format_args!("{key}= is not valid percent-encoding"),
                    )
                })
            })
        })
    }

    fn first(&self, key: &str) -> Result<Option<String>, ApiError> {
        self.all(key).next().transpose()
    }

    /// Refuses keys that come twice. Of two values, a proxy in front may believe the other.
    fn check(&self) -> Result<(), ApiError> {
        match ONCE.iter().find(|key| self.all(key).nth(1).is_some()) {
            Some(key) => {
                let text = format_args!("{key}= is given more than once");
                Err(ApiError::bad(Code::Unsupported, text))
            }
            None => Ok(()),
        }
    }

    fn digest(&self, key: &str) -> Result<Option<Digest>, ApiError> {
        self.first(key)?.map(|text| digest(&text)).transpose()
    }

    fn tags(&self) -> Result<Vec<Tag>, ApiError> {
        self.all("tag")
            .map(|tag| tag?.parse().map_err(|error| ApiError::bad(Code::ManifestInvalid, error)))
            .collect()
    }

    /// A count; whatever is larger than a page is a page.
    fn number(&self, key: &str) -> Result<Option<usize>, ApiError> {
        Ok(self.count(key)?.map(|count| count.min(TAGS_PAGE)))
    }

    fn count(&self, key: &str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.first(key)? else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::bad(Code::Unsupported, format_args!("{key}= is not a number")));
        }
        Ok(Some(text.parse().unwrap_or(usize::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ID: &str = "01234567-89ab-4def-8123-456789abcdef";

    fn get(target: &str) -> Result<Route, ApiError> {
        ask(Method::GET, target)
    }

    fn ask(method: Method, target: &str) -> Result<Route, ApiError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        route(&method, path, query)
    }

    #[test]
    fn every_endpoint_of_the_specification_has_its_route() {
        let name: RepositoryName = "a/b".parse().unwrap();
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        let tag: Tag = "v1".parse().unwrap();
        let id: SessionId = ID.parse().unwrap();
        let (n, t) = (name.clone(), Reference::Tag(tag.clone()));
        let d = Reference::Digest(digest.clone());
        let upload = |step| Route::Upload(n.clone(), id.clone(), step);
        let start = |start| Route::StartUpload(n.clone(), start);
        for (end, method, target, wanted) in [
            ("end-1", Method::GET, "/v2/".to_owned(), Route::Ping),
            (
                "end-2",
                Method::GET,
                format!("/v2/a/b/blobs/sha256:{HEX}"),
                Route::Blob(n.clone(), digest.clone()),
            ),
            (
                "end-2",
                Method::HEAD,
                format!("/v2/a/b/blobs/sha256%3A{HEX}"),
                Route::Blob(n.clone(), digest.clone()),
            ),
            (
                "end-3",
                Method::GET,
                "/v2/a/b/manifests/v1".to_owned(),
                Route::Manifest(n.clone(), t.clone()),
            ),
            (
                "end-3",
                Method::HEAD,
                format!("/v2/a/b/manifests/sha256:{HEX}"),
                Route::Manifest(n.clone(), d.clone()),
            ),
            (
                "end-4a",
                Method::POST,
                "/v2/a/b/blobs/uploads/".to_owned(),
                start(Start::Session(Algorithm::Sha256)),
            ),
            (
                "end-4b",
                Method::POST,
                format!("/v2/a/b/blobs/uploads/?digest=sha256:{HEX}"),
                start(Start::Whole(digest.clone())),
            ),
            (
                "end-4c",
                Method::POST,
                "/v2/a/b/blobs/uploads/?digest-algorithm=sha512".to_owned(),
                start(Start::Session(Algorithm::Sha512)),
            ),
            ("end-5", Method::PATCH, format!("/v2/a/b/blobs/uploads/{ID}"), upload(Step::Append)),
            (
                "end-6",
                Method::PUT,
                format!("/v2/a/b/blobs/uploads/{ID}?digest=sha256:{HEX}"),
                upload(Step::Finish(digest.clone())),
            ),
            (
                "end-7a",
                Method::PUT,
                "/v2/a/b/manifests/v1".to_owned(),
                Route::PutManifest(n.clone(), t.clone(), vec![]),
            ),
            (
                "end-7b",
                Method::PUT,
                format!("/v2/a/b/manifests/sha256:{HEX}?tag=v1"),
                Route::PutManifest(n.clone(), d.clone(), vec![tag]),
            ),
            (
                "end-8a",
                Method::GET,
                "/v2/a/b/tags/list".to_owned(),
                Route::Tags { name: n.clone(), n: None, last: None },
            ),
            (
                "end-8b",
                Method::GET,
                "/v2/a/b/tags/list?n=2&last=v0".to_owned(),
                Route::Tags { name: n.clone(), n: Some(2), last: Some("v0".to_owned()) },
            ),
            (
                "end-9",
                Method::DELETE,
                "/v2/a/b/manifests/v1".to_owned(),
                Route::DeleteManifest(n.clone(), t),
            ),
            (
                "end-10",
                Method::DELETE,
                format!("/v2/a/b/blobs/sha256:{HEX}"),
                Route::DeleteBlob(n.clone(), digest.clone()),
            ),
            (
                "end-11",
                Method::POST,
                format!("/v2/a/b/blobs/uploads/?mount=sha256:{HEX}&from=a/b"),
                start(Start::Mount(digest.clone(), Some(n.clone()))),
            ),
            (
                "end-11",
                Method::POST,
                format!("/v2/a/b/blobs/uploads/?mount=sha256:{HEX}"),
                start(Start::Mount(digest.clone(), None)),
            ),
            (
                "end-12a",
                Method::GET,
                format!("/v2/a/b/referrers/sha256:{HEX}"),
                Route::Referrers {
                    name: n.clone(),
                    digest: digest.clone(),
                    artifact_type: None,
                    last: None,
                },
            ),
            (
                "end-12b",
                Method::GET,
                format!("/v2/a/b/referrers/sha256:{HEX}?artifactType=a/b+c"),
                Route::Referrers {
                    name: n.clone(),
                    digest: digest.clone(),
                    artifact_type: Some("a/b+c".to_owned()),
                    last: None,
                },
            ),
            ("end-13", Method::GET, format!("/v2/a/b/blobs/uploads/{ID}"), upload(Step::Status)),
            ("end-14", Method::DELETE, format!("/v2/a/b/blobs/uploads/{ID}"), upload(Step::Cancel)),
        ] {
            assert_eq!(ask(method, &target), Ok(wanted), "{end} {target}");
        }
    }

    #[test]
    fn hostile_names_end_here() {
        for (target, status) in [
            ("/v2/../manifests/x", 400),
            ("/v2/a/../b/manifests/x", 400),
            ("/v2/%2e%2e%2fetc/manifests/x", 400),
            ("/v2/a//b/manifests/x", 400),
            ("/v2//manifests/x", 400),
            ("/v2/A/manifests/x", 400),
            ("/v2/a%00/manifests/x", 400),
            ("/v2/_uploads/manifests/x", 400),
            ("/v2/a/_manifests/manifests/x", 400),
            ("/v2/a/manifests/..", 400),
            ("/v2/a/manifests/%2e%2e%2fx", 400),
            ("/v2/a/manifests/sha256:baddigeststring", 400),
            ("/v2/a/manifests/md5:00", 400),
            ("/v2/a/manifests/", 400),
            ("/v2/a/blobs/latest", 400),
            ("/v2/a/blobs/sha256:..%2f..%2fetc%2fpasswd", 400),
            ("/v2/a/blobs/uploads/../../../x", 404),
            ("/v2/a/blobs/uploads/..%2fx", 404),
            ("/v2/a/referrers/sha256:zz", 400),
            ("/v2/a/tags/list?n=-1", 400),
            ("/v2/a/tags/list?n=abc", 400),
            ("/v2/a/tags/list?last=%zz", 400),
            ("/v2/_catalog", 404),
            ("/targets/../../etc/passwd", 404),
            ("/targets/x/nothash.name", 404),
            ("/metadata/", 404),
            ("/", 404),
            ("//v2/", 404),
        ] {
            let found = get(target).expect_err(target).status.as_u16();
            assert_eq!(found, status, "{target}");
        }
        let long = format!("/v2/{}/manifests/x", "a".repeat(300));
        assert_eq!(get(&long).unwrap_err().code, Code::NameInvalid);
    }

    #[test]
    fn what_may_occur_once_does_not_occur_twice() {
        for key in ONCE {
            let target = format!("/v2/a/blobs/uploads/?{key}=sha256:{HEX}&x=1&{key}=sha256:{HEX}");
            let error = ask(Method::POST, &target).expect_err(key);
            assert_eq!(error.status.as_u16(), 400, "{key}");
            assert!(error.message.contains("once"), "{key}: {}", error.message);
        }
        let tags = format!("/v2/a/manifests/sha256:{HEX}?tag=v1&tag=v2");
        assert!(ask(Method::PUT, &tags).is_ok());
    }

    #[test]
    fn a_huge_page_is_a_page() {
        for n in ["9223372036854775808", "99999999999999999999999", "10001"] {
            let found = get(&format!("/v2/a/tags/list?n={n}")).unwrap();
            assert!(matches!(found, Route::Tags { n: Some(TAGS_PAGE), .. }), "{n}: {found:?}");
        }
    }

    #[test]
    fn only_reads_are_open_to_all() {
        assert_eq!(get("/v2/a/manifests/x").unwrap().right(), Right::Pull);
        for (method, target) in [
            (Method::POST, "/v2/a/blobs/uploads/".to_owned()),
            (Method::POST, format!("/v2/a/blobs/uploads/?mount=sha256:{HEX}&from=b")),
            (Method::PATCH, format!("/v2/a/blobs/uploads/{ID}")),
            (Method::PUT, format!("/v2/a/blobs/uploads/{ID}?digest=sha256:{HEX}")),
            (Method::GET, format!("/v2/a/blobs/uploads/{ID}")),
            (Method::DELETE, format!("/v2/a/blobs/uploads/{ID}")),
            (Method::PUT, "/v2/a/manifests/x".to_owned()),
        ] {
            assert_eq!(ask(method, &target).unwrap().right(), Right::Push, "{target}");
        }
        for target in ["/v2/a/manifests/x".to_owned(), format!("/v2/a/blobs/sha256:{HEX}")] {
            assert_eq!(ask(Method::DELETE, &target).unwrap().right(), Right::Delete);
        }
    }

    #[test]
    fn the_endpoints_of_the_restart_lock() {
        for (path, asked) in
            [("/v1/pre-reboot", Asked::PreReboot), ("/v1/steady-state", Asked::SteadyState)]
        {
            let found = ask(Method::POST, path).unwrap();
            assert_eq!((&found, found.right()), (&Route::Lock(asked), Right::Report));
            assert_eq!(get(path).unwrap_err().allow, Some("POST"), "{path}");
        }
        for path in ["/v1/", "/v1/pre-reboot/", "/v2/v1/pre-reboot", "/V1/pre-reboot"] {
            assert_eq!(ask(Method::POST, path).unwrap_err().status.as_u16(), 404, "{path}");
        }
    }

    #[test]
    fn targets_are_found_by_their_hash() {
        let found = get(&format!("/targets/demo/channels/{HEX}.stable.json")).unwrap();
        let Route::Target { dir, hash, name } = found else { panic!("{found:?}") };
        assert_eq!((dir.as_str(), name.as_str()), ("demo/channels", "stable.json"));
        assert_eq!(hash.to_hex(), HEX);
        // A version keeps its `~` in URLs, escaped or not.
        for version in ["1.1.0~rc1", "1.1.0%7Erc1"] {
            let found = get(&format!("/targets/demo/{HEX}.{version}")).unwrap();
            let Route::Target { name, .. } = found else { panic!("{found:?}") };
            assert_eq!(name, "1.1.0~rc1");
        }
    }
}
