//! The FleetLock protocol: who may restart now.

use std::sync::Arc;

use http::{HeaderMap, Response};
use hyper::body::Incoming;

use super::fleet::{fleet, receive};
use super::uploads;
use super::{App, reply};
use crate::body::Body;
use crate::error::ApiError;
use crate::fleet::Unkept;
use crate::fleet::lock::{Answer, Asked, BODY_LIMIT, HEADER, Refusal, parse};
use crate::progress::RequestOpen;

/// A request of the protocol. The answer leaves when the lock is durable.
pub(super) async fn post(
    app: &Arc<App>,
    asked: Asked,
    headers: &HeaderMap,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    let fleet = fleet(app)?;
    let body = receive(body, open, "a request", BODY_LIMIT).await?;
    let mut values = headers.get_all(HEADER).iter().map(|value| value.as_bytes());
    let header = values.next().filter(|_| values.next().is_none());
    let request = match parse(asked, header, &body) {
        Ok(request) => request,
        Err(refusal) => {
            app.metrics.locked(refusal.kind);
            return Ok(refuse(&refusal));
        }
    };
    let group = request.group.clone();
    match fleet.lock(request).await {
        Ok(answer) => {
            app.metrics.locked(word(&answer));
            Ok(match Refusal::of(&answer, &group) {
                Some(refusal) => refuse(&refusal),
                None => reply::json(&serde_json::json!({})),
            })
        }
        Err(Unkept::Full) => {
            app.metrics.locked("busy");
            Err(uploads::too_many("too many requests wait to be kept"))
        }
        Err(Unkept::Failed) => {
            app.metrics.locked("failed");
            Err(ApiError::internal())
        }
    }
}

/// What became of a request, for the metrics.
fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Granted => "granted",
        Answer::Kept => "kept",
        Answer::Released(true) => "released",
        Answer::Released(false) => "not_held",
        Answer::Full(_) => "full",
        Answer::UnknownGroup => "unknown_group",
    }
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = reply::json(&refusal.body());
    *response.status_mut() = refusal.status;
    response
}

/// An error of any request, in the form of this protocol.
pub(super) fn refused(error: &ApiError) -> Response<Body> {
    let (head, _) = reply::error(error).into_parts();
    let refusal = Refusal::of_status(error.status, error.message.clone());
    Response::from_parts(head, Body::bytes(refusal.body().to_string().into_bytes()))
}
