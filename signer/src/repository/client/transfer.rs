//! Files and downloads as the streams that the HTTP client takes and gives.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::answer::{next, text};
use super::failure::Failure;
use super::http::Http;
use super::pulse::{BodyProgress, Pulse};
use crate::progress::Progress;

/// 256 KiB, at first: seconds on the slowest line that images are sent over.
const FIRST_PART: u64 = 256 << 10;
/// 16 KiB: a line that takes no such part within a stall limit is no line.
const LEAST_PART: u64 = 16 << 10;
/// 1 MiB: smaller ones cost a fast line throughput: 8 KiB parts are measured at a hundredth.
const MOST_PART: u64 = 1 << 20;

/// What is uploaded: a file, and how much of it the progress knows of.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    shown: Arc<AtomicU64>,
    progress: Progress,
}

impl Content {
    pub(super) fn new(file: File, len: u64, progress: Progress) -> Self {
        Content { file: Arc::new(file), len, shown: Arc::default(), progress }
    }

    /// The bytes from `from` to `to`, as a body that tells its pulse.
    pub(super) fn body(&self, from: u64, to: u64, pulse: &Arc<Pulse>) -> reqwest::Body {
        pulse.beats(BodyProgress { sent: 0, len: to.saturating_sub(from) });
        reqwest::Body::wrap_stream(FileStream {
            content: self.clone(),
            pulse: Arc::clone(pulse),
            from,
            at: from,
            end: to,
            part: FIRST_PART,
            asked: Instant::now(),
        })
    }

    /// Bytes that are sent again are not progress.
    fn sent(&self, at: u64) {
        let before = self.shown.fetch_max(at, Ordering::Relaxed);
        self.progress.add(at.saturating_sub(before));
    }
}

/// A part of a file. Reads block, for as long as a page cache needs.
///
/// A part is asked for when the connection has room again, so the one before was taken then.
struct FileStream {
    content: Content,
    pulse: Arc<Pulse>,
    from: u64,
    at: u64,
    end: u64,
    part: u64,
    asked: Instant,
}

impl Stream for FileStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.content.sent(self.at);
        let (from, at, end) = (self.from, self.at, self.end);
        let now = Instant::now();
        self.part = next_part(self.part, now - self.asked);
        self.asked = now;
        let limit = end.saturating_sub(at).min(self.part);
        if limit == 0 {
            return Poll::Ready(None);
        }
        let mut part = vec![0; usize::try_from(limit).unwrap_or(0)];
        if let Err(error) = self.content.file.read_exact_at(&mut part, at) {
            return Poll::Ready(Some(Err(error)));
        }
        self.at += limit;
        if self.at == end {
            // Nobody has to ask for what comes after the last part.
            self.content.sent(end);
        }
        self.pulse.beats(BodyProgress { sent: self.at - from, len: end - from });
        Poll::Ready(Some(Ok(part.into())))
    }
}

/// How large the next part is, when the one before took so long: large ones for a fast line; small
/// ones for a slow line, so that it is seen to move.
fn next_part(part: u64, took: Duration) -> u64 {
    match took.as_millis() {
        0..200 => (part * 2).min(MOST_PART),
        200..2000 => part,
        _ => (part / 2).max(LEAST_PART),
    }
}

/// A download as a blocking reader. One that breaks off goes on where it was; a registry that gives no
/// parts of a blob gives it from its beginning again.
///
/// Nothing of it is verified, also not that both times it was the same.
pub(super) struct BlobReader<'a> {
    runtime: &'a tokio::runtime::Runtime,
    http: &'a Http,
    /// What it is, for lines about it.
    what: String,
    scope: String,
    url: Url,
    answer: Response,
    /// Bytes that were handed out, or wait in `rest`.
    at: u64,
    /// Bytes that come again before those that are new.
    again: u64,
    rest: Bytes,
    failures: u32,
}

impl<'a> BlobReader<'a> {
    pub(super) fn new(
        runtime: &'a tokio::runtime::Runtime,
        http: &'a Http,
        what: String,
        scope: String,
        answer: Response,
        url: Url,
    ) -> Self {
        let (at, again, rest, failures) = (0, 0, Bytes::new(), 0);
        BlobReader { runtime, http, what, scope, url, answer, at, again, rest, failures }
    }

    /// After a failure: the rest of the blob, or all of it.
    fn resume(&mut self, failure: Failure) -> Result<(), Failure> {
        let pause = self.http.backoff.pause(self.failures, failure.retry_after());
        let Some(pause) = pause.filter(|_| failure.is_passing()) else { return Err(failure) };
        self.failures += 1;
        self.http.line.again(&self.what, &failure, pause);
        std::thread::sleep(pause);
        let ranged = self.ask(Some(format!("bytes={}-", self.at)));
        self.answer = match ranged {
            Ok(answer) => answer,
            Err(Failure::Status { .. }) => self.ask(None)?,
            Err(failure) => return Err(failure),
        };
        // RFC 9110 §15.3.7: who ignores the range answers 200 with all of it.
        let from = text(self.answer.headers(), CONTENT_RANGE.as_str());
        let from: Option<u64> =
            from.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
        self.again = match (self.answer.status(), from) {
            (StatusCode::PARTIAL_CONTENT, Some(from)) if from <= self.at => self.at - from,
            (StatusCode::PARTIAL_CONTENT, _) => {
                return Err(Failure::Answer("has another part of the blob"));
            }
            _ => self.at,
        };
        Ok(())
    }

    fn ask(&self, range: Option<String>) -> Result<Response, Failure> {
        let fill = |request: reqwest::RequestBuilder| match &range {
            Some(range) => request.header(RANGE, range),
            None => request,
        };
        self.runtime.block_on(self.http.send(&self.scope, Method::GET, self.url.clone(), &fill))
    }

    /// The bytes of a part that are new.
    fn new_of(&mut self, mut part: Bytes) -> Bytes {
        let old = usize::try_from(self.again).unwrap_or(usize::MAX).min(part.len());
        let new = part.split_off(old);
        self.again -= old as u64;
        self.at += new.len() as u64;
        if !new.is_empty() {
            self.failures = 0;
        }
        new
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let patience = self.http.line.patience;
            match self.runtime.block_on(next(&mut self.answer, &patience)) {
                Ok(Some(part)) => self.rest = self.new_of(part),
                Ok(None) => return Ok(0),
                Err(failure) => self.resume(failure).map_err(io::Error::other)?,
            }
        }
        let part = self.rest.split_to(buffer.len().min(self.rest.len()));
        if let Some(space) = buffer.get_mut(..part.len()) {
            space.copy_from_slice(&part);
        }
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_the_line() {
        let after = |times: &[u64]| {
            let next = |part, ms: &u64| next_part(part, Duration::from_millis(*ms));
            times.iter().fold(FIRST_PART, next) >> 10
        };
        for (case, times, kib) in [
            ("fast", &[1, 1, 1, 1][..], 1024),
            ("as fast as its parts", &[500, 500, 500], 256),
            ("2 Mbit/s", &[1000, 1000], 256),
            ("64 kbit/s", &[32_000, 16_000, 8_000, 4_000, 2_000], 16),
            ("it stops for a while", &[1, 1, 60_000, 1], 1024),
        ] {
            assert_eq!(after(times), kib, "{case}");
        }
    }
}
