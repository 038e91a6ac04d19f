//! Blobs on their way up.
//!
//! ```text
//!  there already? ─► at another repository of this registry? mount it
//!  POST ─► PUT with all of it ─► 201
//!             └► broken off, or too large: ask how much is there (end-13), PATCH the rest in pieces, PUT
//!                                └► nothing is known of it any more: begin anew, in pieces
//! ```
//!
//! Whatever only saves bytes may be refused: then they are sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use formats::digest::Digest;
use formats::oci::RepositoryName;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::answer::text;
use super::failure::Failure;
use super::http::Http;
use super::pulse::{BodyProgress, Pulse};
use super::transfer::Content;
use super::upload_plan::{Next, Trouble, UploadPlan, Way};
use crate::progress::bytes;

/// An upload that a registry keeps for us.
struct Session {
    location: Url,
    /// The next byte it wants.
    at: u64,
    /// The smallest piece it takes (`OCI-Chunk-Min-Length`).
    least: u64,
}

/// What rights a push takes.
pub(super) fn push_scope(repository: &RepositoryName) -> String {
    format!("repository:{repository}:pull,push")
}

impl Http {
    /// Whether a blob is there.
    pub(super) async fn has_blob(
        &self,
        scope: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Failure> {
        let url = self.url(&format!("{repository}/blobs/{digest}"))?;
        match self.send(scope, Method::HEAD, url, &|request| request).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_not_found() => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The answer that has a blob; `None` when there is no such blob or repository.
    pub(super) async fn open(
        &self,
        scope: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Response>, Failure> {
        let url = self.url(&format!("{repository}/blobs/{digest}"))?;
        match self.send(scope, Method::GET, url, &|request| request).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether a blob need not be sent. A registry that does not say so gets it; it is not asked
    /// again.
    pub(super) async fn need_not_send(
        &self,
        scope: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> bool {
        if !self.line.looks.load(Ordering::Relaxed) {
            return false;
        }
        match self.has_blob(scope, repository, digest).await {
            Ok(there) => there,
            Err(failure) => {
                if matches!(failure, Failure::Status { .. }) {
                    self.line.looks.store(false, Ordering::Relaxed);
                }
                false
            }
        }
    }

    /// Uploads a blob, or has it shown here when `from` shows it already.
    pub(super) async fn push_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        content: &Content,
        from: Option<&RepositoryName>,
    ) -> Result<(), Failure> {
        let scope = push_scope(repository);
        let mounted = match from {
            // Refused or lost, it would only have saved bytes.
            Some(from) => self.mount(repository, digest, from).await.ok(),
            None => None,
        };
        let mut session = match mounted {
            Some(None) => return Ok(()),
            Some(Some(session)) => session,
            None => self.begin(&scope, repository).await?,
        };
        let what = format!("push blob {digest} to {repository}");
        let mut plan = UploadPlan::of(content.len);
        loop {
            plan.within(session.least, self.line.most.load(Ordering::Relaxed));
            let done = match plan.way {
                Way::Whole => self.finish(&scope, &session, digest, content).await,
                Way::Pieces(size) => {
                    self.go_on(&scope, &mut session, digest, content, size, &mut plan).await
                }
            };
            let Err(failure) = done else { return Ok(()) };
            match plan.failed(trouble(&failure)) {
                Next::GiveUp => return Err(failure),
                Next::Smaller(size) => {
                    self.line.most.fetch_min(size, Ordering::Relaxed);
                    self.line
                        .say(&format!("{what}: {failure}, going on in pieces of {}", bytes(size)));
                }
                Next::After(nth) => {
                    let Some(pause) = self.backoff.pause(nth, failure.retry_after()) else {
                        return Err(failure);
                    };
                    self.line.again(&what, &failure, pause);
                    tokio::time::sleep(pause).await;
                    // The answer may be all that was lost.
                    if self.need_not_send(&scope, repository, digest).await {
                        return Ok(());
                    }
                }
            }
            session = match plan.goes_on() {
                true => self.resume(&scope, repository, &session, content, &mut plan).await?,
                false => self.begin(&scope, repository).await?,
            };
        }
    }

    /// Where an upload goes on; from its beginning when the registry does not say.
    async fn resume(
        &self,
        scope: &str,
        repository: &RepositoryName,
        session: &Session,
        content: &Content,
        plan: &mut UploadPlan,
    ) -> Result<Session, Failure> {
        match self.status(scope, session).await {
            Ok(found) if found.at <= content.len => {
                plan.found(found.at > session.at);
                Ok(found)
            }
            _ => self.begin(scope, repository).await,
        }
    }

    async fn begin(&self, scope: &str, repository: &RepositoryName) -> Result<Session, Failure> {
        let url = self.url(&format!("{repository}/blobs/uploads/"))?;
        let answer = self.send(scope, Method::POST, url, &no_body).await?;
        self.session(&answer, 0)
    }

    /// end-11; `None` when the blob is shown now.
    async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<Option<Session>, Failure> {
        let scope = format!("{} repository:{from}:pull", push_scope(repository));
        let mut url = self.url(&format!("{repository}/blobs/uploads/"))?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.as_str());
        let asked = self.once(&scope, &Method::POST, &url, &no_body);
        let answer = self.line.patience.answer(0, asked).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(None),
            _ => self.session(&answer, 0).map(Some),
        }
    }

    /// end-13. A registry that has nothing may say `0-0`.
    async fn status(&self, scope: &str, session: &Session) -> Result<Session, Failure> {
        let url = session.location.clone();
        let answer = self.send(scope, Method::GET, url, &|request| request).await?;
        let at = received(&answer).ok_or(Failure::Answer("does not say how much is there"))?;
        self.session(&answer, at)
    }

    fn session(&self, answer: &Response, at: u64) -> Result<Session, Failure> {
        let least = text(answer.headers(), "oci-chunk-min-length").and_then(|it| it.parse().ok());
        Ok(Session { location: self.location(answer)?, at, least: least.unwrap_or(0) })
    }

    /// The rest in one request, which also ends it.
    async fn finish(
        &self,
        scope: &str,
        session: &Session,
        digest: &Digest,
        content: &Content,
    ) -> Result<(), Failure> {
        let mut url = session.location.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        self.carry(scope, Method::PUT, &url, content, (session.at, content.len)).await.map(drop)
    }

    /// The rest piece by piece: what was taken need not be sent again.
    async fn go_on(
        &self,
        scope: &str,
        session: &mut Session,
        digest: &Digest,
        content: &Content,
        size: u64,
        plan: &mut UploadPlan,
    ) -> Result<(), Failure> {
        while session.at < content.len {
            let (from, to) = (session.at, content.len.min(session.at.saturating_add(size)));
            let url = session.location.clone();
            let answer = self.carry(scope, Method::PATCH, &url, content, (from, to)).await?;
            session.location = self.location(&answer)?;
            session.at = to;
            plan.took();
        }
        self.finish(scope, session, digest, content).await
    }

    /// One request with these bytes; ended when nothing moves, never because it is long.
    async fn carry(
        &self,
        scope: &str,
        method: Method,
        url: &Url,
        content: &Content,
        (from, to): (u64, u64),
    ) -> Result<Response, Failure> {
        let pulse = Arc::new(Pulse::default());
        let fill = |request: reqwest::RequestBuilder| {
            let request = request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, to.saturating_sub(from))
                .body(content.body(from, to, &pulse));
            match method == Method::PATCH {
                true => request.header(CONTENT_RANGE, format!("{from}-{}", to.saturating_sub(1))),
                false => request,
            }
        };
        let patience = &self.line.patience;
        patience.watch(&pulse, self.once(scope, &method, url, &fill)).await.map_err(|failure| {
            match failure {
                // By the kernel: nothing was acknowledged.
                Failure::Transport(error) if error.is_timeout() && !error.is_connect() => {
                    let taken = BodyProgress { sent: 0, ..pulse.last().1 };
                    Failure::Stalled { taken, limit: patience.stall }
                }
                failure => failure,
            }
        })
    }
}

fn no_body(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.header(CONTENT_LENGTH, 0)
}

/// What a failure means for an upload.
pub(super) fn trouble(failure: &Failure) -> Trouble {
    match failure {
        Failure::Status { status: 413, .. } => Trouble::TooLarge,
        failure if failure.is_missing_repository() => Trouble::Final,
        Failure::Status { status: 404 | 409 | 416 | 500, .. } => Trouble::OutOfStep,
        Failure::Status { status: 400, code, .. } if code == "DIGEST_INVALID" => Trouble::Final,
        Failure::Status { status: 400 | 405 | 411 | 501, .. } => Trouble::Unknown,
        Failure::Answer(_) => Trouble::Unknown,
        failure if failure.is_passing() => Trouble::Passing,
        _ => Trouble::Final,
    }
}

/// How much is there: `Range: 0-<last>`, also as `bytes=0-<last>`.
fn received(answer: &Response) -> Option<u64> {
    match text(answer.headers(), "range") {
        None => Some(0),
        Some(range) => next_byte(range),
    }
}

fn next_byte(range: &str) -> Option<u64> {
    let range = range.trim().trim_start_matches("bytes=").trim_start_matches("bytes ");
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok();
    match (number(first)?, number(last)?) {
        // One byte, or none: sent again, it is refused, and begun anew.
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there() {
        for (range, wanted) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", Some(0)),
            ("0-18446744073709551615", None),
            ("5-9", None),
            ("0", None),
            ("-", None),
            ("", None),
        ] {
            assert_eq!(next_byte(range), wanted, "{range}");
        }
    }
}
