//! What a registry answers: its body within bounds, its errors, its headers.

use bytes::{Bytes, BytesMut};
use registry_auth::explain::Exchange;
use registry_auth::retry::parse_retry_after;
use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::failure::Failure;
use super::patience::Patience;

/// What is read of an answer that only says what is wrong.
const ERROR_LIMIT: usize = 16 << 10;

/// The next part of an answer, if it comes in time.
pub(super) async fn next(
    answer: &mut Response,
    patience: &Patience,
) -> Result<Option<Bytes>, Failure> {
    let part = async { answer.chunk().await.map_err(Failure::Transport) };
    patience.answer(0, part).await
}

/// At most that many bytes of an answer.
pub(super) async fn read_limited(mut answer: Response, limit: usize) -> Result<BytesMut, Failure> {
    let mut body = BytesMut::new();
    while let Some(part) = next(&mut answer, &Patience::default()).await? {
        if body.len() + part.len() > limit {
            return Err(Failure::Answer("is too long"));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// The answer if it is a good one.
pub(super) async fn good(at: Exchange, mut answer: Response) -> Result<Response, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let asked = text(answer.headers(), RETRY_AFTER.as_str()).and_then(parse_retry_after);
    let mut body = Vec::new();
    // As much as comes of it: an answer that breaks off has said enough.
    while let Ok(Some(part)) = answer.chunk().await {
        body.extend_from_slice(&part);
        if body.len() > ERROR_LIMIT {
            break;
        }
    }
    Err(Failure::status(at, status.as_u16(), &body, asked))
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
