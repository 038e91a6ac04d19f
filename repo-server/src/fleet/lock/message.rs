//! Requests and answers of the FleetLock protocol: JSON, and a word for what went wrong.

use formats::report::shown;
use formats::tuf::UnixTime;
use http::StatusCode;
use serde::Deserialize;

use super::{Answer, Asked, ClientId, Group, Holder, Request};

/// 4 KiB: an id and a group are 200 bytes; clients may say more.
pub(crate) const BODY_LIMIT: usize = 4096;
/// The header that every request has, with the value `true`: it was meant for this protocol.
pub(crate) const HEADER: &str = "fleet-lock-protocol";
/// Holders that a refusal names.
const NAMED: usize = 3;
/// Characters of an id in a refusal.
const SHOWN: usize = 64;

#[derive(Deserialize)]
struct Body {
    client_params: Params,
}

#[derive(Deserialize)]
struct Params {
    id: String,
    group: String,
}

/// A request that is refused: status, `kind` and `value` of the protocol. Kinds are of a fixed set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) value: String,
}

impl Refusal {
    fn bad(kind: &'static str, value: impl Into<String>) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, kind, value: value.into() }
    }

    /// What the server says of requests of any kind, in the form of this protocol.
    pub(crate) fn of_status(status: StatusCode, value: String) -> Self {
        let kind = match status {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "denied",
            StatusCode::NOT_FOUND => "unsupported",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "busy",
            status if status.is_server_error() => "internal_error",
            _ => "bad_request",
        };
        Refusal { status, kind, value }
    }

    /// Why an answer grants nothing; none if it does.
    pub(crate) fn of(answer: &Answer, group: &Group) -> Option<Self> {
        match answer {
            Answer::Granted | Answer::Kept | Answer::Released(_) => None,
            Answer::Full(holders) => Some(Refusal {
                status: StatusCode::LOCKED,
                // The word of the specification's example.
                kind: "failed_lock_semaphore_full",
                value: full(group, holders),
            }),
            Answer::UnknownGroup => Some(Refusal {
                status: StatusCode::NOT_FOUND,
                kind: "unknown_group",
                value: format!("this server has no group {group}: it is named by --fleet-group"),
            }),
        }
    }

    /// The document of the protocol.
    pub(crate) fn body(&self) -> serde_json::Value {
        serde_json::json!({ "kind": self.kind, "value": self.value })
    }
}

/// Who holds, and until when at the latest.
fn full(group: &Group, holders: &[Holder]) -> String {
    let named: Vec<String> = holders.iter().take(NAMED).map(named).collect();
    let more = holders.len().saturating_sub(NAMED);
    let and = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (many, verb) = match holders.len() {
        1 => ("1 node".to_owned(), "restarts"),
        count => (format!("{count} nodes"), "restart"),
    };
    format!("{many} of group {group} {verb} already: {}{and}", named.join(", "))
}

fn named(holder: &Holder) -> String {
    let until = UnixTime::from_secs(i64::try_from(holder.until).unwrap_or(i64::MAX));
    format!("{} (until {until} at the latest)", shown(holder.client.as_str(), SHOWN))
}

/// A request by its header and its body.
pub(crate) fn parse(asked: Asked, header: Option<&[u8]>, body: &[u8]) -> Result<Request, Refusal> {
    if header != Some(b"true") {
        let text = format!("requests of this protocol have the header `{HEADER}: true`");
        return Err(Refusal::bad("missing_header", text));
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        Refusal::bad("bad_request", format!("no request of the FleetLock protocol: {error}"))
    })?;
    let Params { id, group } = body.client_params;
    let client = ClientId::parse(&id).map_err(|why| Refusal::bad("bad_id", why))?;
    let group = Group::parse(&group).map_err(|why| Refusal::bad("bad_group", why))?;
    Ok(Request { asked, group, client })
}
