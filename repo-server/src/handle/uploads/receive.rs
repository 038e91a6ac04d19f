//! Bytes of a request that become bytes of a session.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use super::super::{App, RequestHead, blocking};
use super::open_sessions::discard;
use super::session::{OpenUpload, Session, Writing, open, too_many, unknown};
use crate::error::{ApiError, Code};
use crate::progress::RequestOpen;

/// 256 KiB: written at once, so that disk work is not done per network packet.
const BATCH: usize = 256 << 10;

/// What follows a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterBody {
    /// The upload goes on with another request.
    KeepOpen,
    /// All of it is there.
    Finish,
}

/// The right to send a body: only so many at once.
pub(in crate::handle) fn permit(app: &App) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = Arc::clone(&app.receiving).try_acquire_owned();
    permit.map_err(|_| too_many("too many uploads are being received"))
}

/// The body ended before its announced end.
pub(in crate::handle) fn cut_off() -> ApiError {
    ApiError::bad(Code::BlobUploadInvalid, "the request body ended early")
}

/// Writes a body to the end of the session.
pub(super) async fn receive(
    app: &Arc<App>,
    asked: &RequestHead,
    session: &Arc<Session>,
    mut writing: Writing,
    mut body: Incoming,
    open: &RequestOpen,
    then: AfterBody,
) -> Result<Writing, ApiError> {
    if body.is_end_stream() {
        return Ok(writing);
    }
    let _permit = permit(app)?;
    let announced = expect_in_order(asked, session)?;
    if let (Some(announced), Some(exact)) = (announced, body.size_hint().exact())
        && announced != exact
    {
        // Before a byte of it is written.
        return Err(other_length(announced, exact));
    }
    let most = app.limits.blob_bytes.saturating_sub(session.stored());
    if body.size_hint().lower() > most {
        return Err(too_large(app));
    }
    let moving = open.progress().body();
    let (mut batch, mut waiting, mut total) = (Vec::new(), 0, 0_u64);
    loop {
        let frame = body.frame().await;
        moving.moved();
        let ended = !matches!(frame, Some(Ok(_)));
        let broken = matches!(frame, Some(Err(_)));
        if frame.is_none() {
            open.progress().set_unread_body(false);
        }
        if let Some(Ok(frame)) = frame
            && let Ok(data) = frame.into_data()
        {
            waiting += data.len();
            total += data.len() as u64;
            batch.push(data);
        }
        let over = total > most;
        if (waiting >= BATCH || ended) && !over {
            let pause = ended && (broken || then == AfterBody::KeepOpen);
            writing = write(app, session, writing, std::mem::take(&mut batch), pause).await?;
            waiting = 0;
        }
        match (over, broken, ended) {
            (true, _, _) => {
                discard(app, session, writing).await?;
                return Err(too_large(app));
            }
            (_, true, _) => return Err(cut_off()),
            (_, _, true) => break,
            _ => {}
        }
    }
    match announced {
        Some(announced) if announced != total => {
            // A body without a length: what came cannot be told from what was meant.
            discard(app, session, writing).await?;
            Err(other_length(announced, total))
        }
        _ => Ok(writing),
    }
}

pub(super) async fn write(
    app: &Arc<App>,
    session: &Arc<Session>,
    mut writing: Writing,
    batch: Vec<Bytes>,
    pause: bool,
) -> Result<Writing, ApiError> {
    let session = Arc::clone(session);
    let written = blocking(app, move |store| {
        let Some(growing) = open(store, &session, &mut writing)? else { return Ok(None) };
        let OpenUpload { upload, charge } = growing;
        let written = batch.iter().try_for_each(|piece| {
            charge.grow(piece.len() as u64)?;
            upload.write(piece)
        });
        let paused = if pause { upload.pause() } else { Ok(()) };
        session.stored.store(upload.stored(), Ordering::Relaxed);
        written.and(paused)?;
        session.touch();
        Ok(Some(writing))
    });
    written.await?.ok_or_else(unknown)
}

fn other_length(announced: u64, comes: u64) -> ApiError {
    let text = format!("Content-Range announces {announced} bytes, but the body has {comes}");
    ApiError::bad(Code::SizeInvalid, text)
}

pub(super) fn too_large(app: &App) -> ApiError {
    let text = format!("the blob exceeds the limit of {} bytes", app.limits.blob_bytes);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, text)
}

/// Checks `Content-Range: <first>-<last>` against what is there; gives the announced length.
fn expect_in_order(asked: &RequestHead, session: &Session) -> Result<Option<u64>, ApiError> {
    let Some(value) = asked.headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let bad = || ApiError::bad(Code::BlobUploadInvalid, "expected Content-Range: <first>-<last>");
    let range = value.to_str().ok().and_then(chunk).ok_or_else(bad)?;
    let stored = session.stored();
    if range.0 != stored {
        let text = format!("the next byte of this upload is {stored}");
        let error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, text);
        return Err(ApiError { upload: Some((session.location(), stored)), ..error });
    }
    Ok(Some(range.1.saturating_sub(range.0).saturating_add(1)))
}

/// `0-99`, and `bytes 0-99/*` as some clients write it.
fn chunk(text: &str) -> Option<(u64, u64)> {
    let text = text.trim().trim_start_matches("bytes ");
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}
