//! Blobs on their way up.
//!
//! ```text
//!  there already? ─► at another repository of this registry? mount it
//!  POST ─► PUT with all of it ─► 201
//!             └► broken off: wait, ask how much is there (end-13), PATCH the rest in chunks, PUT
//!                                └► nothing is known of it any more: begin anew, in chunks
//! ```

use formats::digest::Digest;
use formats::oci::RepositoryName;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::failure::Failure;
use super::http::{Http, text};
use super::transfer::Content;

/// 16 MiB: what is sent again at most once a line has broken; a registry may ask for more.
const CHUNK: u64 = 16 << 20;

/// 1 GiB: no registry asks for more than this.
const LARGEST_CHUNK: u64 = 1 << 30;

/// An upload that a registry keeps for us.
struct Session {
    location: Url,
    /// The next byte it wants.
    at: u64,
    chunk: u64,
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

    /// Uploads a blob, or has it shown here when `from` shows it already.
    pub(super) async fn push_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        content: &Content,
        from: Option<&RepositoryName>,
    ) -> Result<(), Failure> {
        let scope = push_scope(repository);
        let mut session = match from {
            Some(from) => match self.mount(repository, digest, from).await? {
                Some(session) => session,
                None => return Ok(()),
            },
            None => self.begin(&scope, repository).await?,
        };
        let mut failures = 0;
        let mut whole = true;
        loop {
            let done = match whole {
                true => self.finish(&scope, &session, digest, content).await,
                false => self.go_on(&scope, &mut session, digest, content, &mut failures).await,
            };
            let failure = match done {
                Ok(()) => return Ok(()),
                Err(failure) if failure.is_passing() || is_out_of_step(&failure) => failure,
                Err(failure) => return Err(failure),
            };
            let Some(pause) = self.backoff.pause(failures, failure.retry_after()) else {
                return Err(failure);
            };
            failures += 1;
            tokio::time::sleep(pause).await;
            // The answer may be all that was lost.
            if self.has_blob(&scope, repository, digest).await? {
                return Ok(());
            }
            whole = false;
            match self.status(&scope, &session).await {
                Ok(found) if found.at <= content.len => {
                    if found.at > session.at {
                        failures = 0;
                    }
                    session = found;
                }
                Ok(_) => session = self.begin(&scope, repository).await?,
                Err(gone) if is_gone(&gone) => session = self.begin(&scope, repository).await?,
                Err(failure) => return Err(failure),
            }
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
        let answer = self.send(&scope, Method::POST, url, &no_body).await?;
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
        let chunk = least.unwrap_or(0).clamp(CHUNK, LARGEST_CHUNK);
        Ok(Session { location: self.location(answer)?, at, chunk })
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
        let (from, to) = (session.at, content.len);
        let fill = |request: reqwest::RequestBuilder| {
            request
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, to.saturating_sub(from))
                .body(content.body(from, to))
        };
        self.once(scope, &Method::PUT, &url, &fill).await.map(drop)
    }

    /// The rest chunk by chunk: what was taken need not be sent again.
    async fn go_on(
        &self,
        scope: &str,
        session: &mut Session,
        digest: &Digest,
        content: &Content,
        failures: &mut u32,
    ) -> Result<(), Failure> {
        while session.at < content.len {
            let (from, to) = (session.at, content.len.min(session.at + session.chunk));
            let fill = |request: reqwest::RequestBuilder| {
                request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, to - from)
                    .header(CONTENT_RANGE, format!("{from}-{}", to - 1))
                    .body(content.body(from, to))
            };
            let url = session.location.clone();
            let answer = self.once(scope, &Method::PATCH, &url, &fill).await?;
            session.location = self.location(&answer)?;
            session.at = to;
            *failures = 0;
        }
        self.finish(scope, session, digest, content).await
    }
}

fn no_body(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.header(CONTENT_LENGTH, 0)
}

/// The upload is no more.
fn is_gone(failure: &Failure) -> bool {
    matches!(failure, Failure::Status { status: 400 | 404 | 405 | 410, .. } | Failure::Answer(_))
}

/// The registry wants other bytes than we sent, or knows nothing of them: ask it.
fn is_out_of_step(failure: &Failure) -> bool {
    matches!(failure, Failure::Status { status: 404 | 409 | 416, .. })
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
