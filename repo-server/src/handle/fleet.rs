//! Reports of nodes, and the pages that are made of them.

use std::sync::Arc;

use bytes::BytesMut;
use formats::digest::Sha256;
use formats::error_chain;
use formats::oci::RepositoryName;
use formats::report::{REPORT_LIMIT, ReportError, SignedReport};
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::reply;
use super::uploads;
use super::{App, RequestHead};
use crate::anchor;
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::fleet::view::{Context, Filter, Form, STYLE};
use crate::fleet::{Fleet, Overview, Signed, StoreFailure, Unkept, Verdict};
use crate::progress::RequestOpen;
use crate::route::FleetPage;
use crate::store::Store;

/// Names of releases that are looked up for a page. A fleet has a handful; hostile nodes cannot make a
/// page slow.
const LOOKED_UP: usize = 256;

/// Pages are read with a style sheet of this server and nothing else; nothing frames them.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) fn fleet(app: &App) -> Result<&Fleet, ApiError> {
    let off = || {
        ApiError::missing(
            Code::Unsupported,
            "this server has no fleet: it was started without --fleet",
        )
    };
    app.fleet.as_ref().ok_or_else(off)
}

/// `PUT` of a report. The answer leaves when it is durable.
pub(super) async fn put(
    app: &Arc<App>,
    node: Sha256,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    let fleet = fleet(app)?;
    let document = receive(body, open, "a report", REPORT_LIMIT).await?;
    let signed = SignedReport::verify(&document).map_err(|error| refused(app, &error))?;
    if signed.report().node != node {
        app.metrics.reported("foreign");
        let text = "the report is that of another node than the address says";
        return Err(ApiError::bad(Code::Denied, text));
    }
    match fleet.keep(signed).await {
        Ok(Verdict::Kept) => {
            app.metrics.reported("kept");
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        Ok(Verdict::Older(sequence)) => {
            app.metrics.reported("older");
            let mut response = reply::json(&serde_json::json!({ "sequence": sequence }));
            *response.status_mut() = StatusCode::CONFLICT;
            Ok(response)
        }
        Ok(Verdict::TooSoon) => {
            app.metrics.reported("too_soon");
            Err(uploads::too_many("this node reports too often"))
        }
        Err(Unkept::Full) => {
            app.metrics.reported("full");
            Err(uploads::too_many("too many reports wait to be kept"))
        }
        Err(Unkept::Failed) => {
            app.metrics.reported("failed");
            Err(ApiError::internal())
        }
    }
}

fn refused(app: &App, error: &ReportError) -> ApiError {
    let (word, status) = match error {
        ReportError::TooLong(_) => ("too_long", StatusCode::PAYLOAD_TOO_LARGE),
        ReportError::Json(_) | ReportError::Form(_) => ("form", StatusCode::BAD_REQUEST),
        ReportError::Type(_) => ("type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ReportError::Key | ReportError::Signature | ReportError::Foreign { .. } => {
            ("forged", StatusCode::FORBIDDEN)
        }
    };
    app.metrics.reported(word);
    ApiError::new(status, Code::Denied, error)
}

/// The body, if it is no longer than `limit`.
pub(super) async fn receive(
    mut body: Incoming,
    open: &RequestOpen,
    what: &str,
    limit: usize,
) -> Result<BytesMut, ApiError> {
    let too_long = || {
        let text = format!("{what} has at most {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let moving = open.progress().body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| uploads::cut_off())?;
        moving.moved();
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    open.progress().set_unread_body(false);
    Ok(bytes)
}

/// A page.
pub(super) async fn page(
    app: &Arc<App>,
    asked: &RequestHead,
    page: FleetPage,
    in_session: bool,
) -> Result<Response<Body>, ApiError> {
    fleet(app)?;
    if page == FleetPage::Style {
        let mut response = reply::bytes("text/css; charset=utf-8", STYLE);
        finish(&mut response);
        return Ok(response);
    }
    let (shared, form) = (Arc::clone(app), Form::of(&asked.headers, in_session));
    let made = tokio::task::spawn_blocking(move || make(&shared, page, form)).await;
    let made = made.map_err(|panic| {
        tracing::error!(%panic, "fleet");
        ApiError::internal()
    })?;
    let (media_type, document) = made.map_err(|error| {
        tracing::error!(error = error_chain(&error), "fleet");
        ApiError::internal()
    })?;
    let Some(document) = document else {
        return Err(ApiError::missing(Code::NameUnknown, "no such node has reported"));
    };
    let mut response = reply::bytes(media_type, document);
    finish(&mut response);
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept, authorization, cookie"));
    Ok(response)
}

pub(super) fn finish(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    // Our own forms say where they are from; others learn nothing.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
}

/// The media type of a page, and the page; none of a node that never reported. Blocks.
fn make(
    app: &App,
    page: FleetPage,
    form: Form,
) -> Result<(&'static str, Option<Vec<u8>>), StoreFailure> {
    let Some(fleet) = &app.fleet else { return Ok((form.media_type(), None)) };
    let text = |text: String| Some(text.into_bytes());
    Ok(match page {
        FleetPage::Overview => {
            let all = fleet.overview()?;
            app.metrics.fleet(&all);
            let locks = fleet.locks()?;
            app.metrics.holders(&locks);
            let context = Context { locks, ..context(app, fleet, &all) };
            (form.media_type(), text(form.overview(&all, &context)))
        }
        FleetPage::Nodes { state, release, reason, from } => {
            let filter = Filter { state, release, reason, from };
            (form.media_type(), text(form.nodes(&fleet.overview()?, &filter)))
        }
        FleetPage::Node(node) => {
            let found = fleet.node(&node)?;
            let locks = fleet.locks()?;
            let page = found.map(|(detail, transitions)| {
                form.node(&detail, &transitions, &locks, crate::fleet::unix_now())
            });
            (form.media_type(), page.and_then(text))
        }
        FleetPage::Report(node) => {
            ("application/json", fleet.node(&node)?.map(|(detail, _)| detail.document))
        }
        FleetPage::Style => (form.media_type(), None),
    })
}

/// What of the releases that nodes name is here, and how fresh the repositories are.
fn context(app: &App, fleet: &Fleet, all: &Overview) -> Context {
    let named = all.named().into_iter().take(LOOKED_UP);
    let repositories = app.store.repositories();
    let names = || repositories.iter().map(|(name, _)| name);
    let published =
        named.filter(|(product, version)| is_published(&app.store, names(), product, version));
    let fresh = app.fresh();
    let timestamps =
        fresh.iter().map(|it| (it.repository.clone(), it.expires.secs(), it.is_stale()));
    Context {
        published: published.collect(),
        timestamps: timestamps.collect(),
        locks: Vec::new(),
        signed: signed(app, fleet),
    }
}

/// What was signed for the repository that `/metadata` shows; a state that is refused has an alarm of its own.
fn signed(app: &App, fleet: &Fleet) -> Option<Arc<Signed>> {
    let name = app.tuf.repository(&app.store).ok()??;
    let manifest = anchor::newest(&app.store, &name).ok()??;
    fleet.signed(&manifest, || anchor::state(&app.store, &manifest, app.anchor.as_ref()).ok())
}

/// Whether one of these repositories is of that product, in whatever namespace, and has a tag of that version.
fn is_published<'a>(
    store: &Store,
    mut names: impl Iterator<Item = &'a RepositoryName>,
    product: &str,
    version: &str,
) -> bool {
    let Ok(version) = version.parse::<formats::version::Version>() else { return false };
    let tag = version.tag();
    let is_of = |name: &RepositoryName| {
        name.as_str().rsplit('/').next().is_some_and(|last| last == product)
    };
    names.any(|name| {
        is_of(name)
            && store.with(name, |repository| repository.tags.contains_key(&tag)).unwrap_or(false)
    })
}
