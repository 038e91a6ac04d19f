//! A token exchanged for a cookie: for people, who read the pages with a browser. Scripts send the token itself.
//!
//! ```text
//!  GET  /fleet/…        without a credential, by a browser ─► 303 /fleet/login?next=…
//!  POST /fleet/login    the token ─► 303 back, with a cookie; or the form again
//!  POST /fleet/logout   ─► 303 /fleet/login, without the cookie
//! ```
//!
//! Both are taken from our own pages only, and count towards the rate of requests of their sender.

use std::sync::Arc;

use formats::digest::Sha256;
use formats::percent;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::fleet::{finish, fleet, receive};
use super::{App, RequestHead, reply};
use crate::auth::Grant;
use crate::body::Body;
use crate::error::{ApiError, Code};
use crate::fleet::session::{AGE, COOKIE, RANDOM};
use crate::fleet::{unix_now, view};
use crate::lock::LockMutex as _;
use crate::progress::RequestOpen;
use crate::route::{FleetPage, Right, Route, route};

/// 8 KiB: a token and an address.
const FORM: usize = 8 << 10;
/// What a browser says of where a request comes from (Fetch Metadata).
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The first page.
const FIRST: &str = "/fleet/";

/// What the session of a request allows; `None` without one.
pub(super) fn grant(app: &App, headers: &HeaderMap, right: Right) -> Option<Grant> {
    let sessions = app.sessions.locked();
    let token = sessions.token(cookie(headers)?, unix_now())?;
    drop(sessions);
    app.access().check_token(right, None, &token).ok()
}

/// The answer to a browser that shows no credential: the way to the form. Everybody else is told what is missing.
pub(super) fn form_instead(
    asked: &RequestHead,
    route: &Route,
    path: &str,
    query: Option<&str>,
) -> Option<Response<Body>> {
    let reads = matches!(asked.method, Method::GET | Method::HEAD);
    let is_page = matches!(route, Route::Fleet(page) if *page != FleetPage::Style);
    let sent_some = asked.headers.contains_key(header::AUTHORIZATION);
    if !reads || !is_page || sent_some || !view::wants_html(&asked.headers) {
        return None;
    }
    let wanted = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    Some(to(&format!("/fleet/login?next={}", percent::encode(&wanted))))
}

/// The form; whoever is logged in, or need not be, is led on.
pub(super) fn form(
    app: &App,
    asked: &RequestHead,
    next: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    fleet(app)?;
    let next = known(next.unwrap_or(FIRST));
    let is_open = app.access().check(Right::Pull, None, None).is_ok();
    if is_open || grant(app, &asked.headers, Right::Pull).is_some() {
        return Ok(to(&next));
    }
    Ok(shown(StatusCode::OK, &next, None))
}

/// A token, from the form.
pub(super) async fn log_in(
    app: &Arc<App>,
    asked: &RequestHead,
    body: Incoming,
    open: &RequestOpen,
) -> Result<Response<Body>, ApiError> {
    fleet(app)?;
    from_here(asked)?;
    let form = receive(body, open, "a form", FORM).await?;
    let next = known(&field(&form, "next").unwrap_or_default());
    if app.access().check(Right::Pull, None, None).is_ok() {
        return Ok(to(&next));
    }
    let token = field(&form, "token").unwrap_or_default();
    let token = token.trim();
    let hash = Sha256::of(token.as_bytes());
    let allowed = match token.is_empty() {
        true => Err("Give a token."),
        false => {
            app.access().check_token(Right::Pull, None, &hash).map_err(|error| match error.status {
                StatusCode::UNAUTHORIZED => "This token is not known here.",
                _ => "This token is for some repositories; the pages need one for all.",
            })
        }
    };
    if let Err(why) = allowed {
        return Ok(shown(StatusCode::FORBIDDEN, &next, Some(why)));
    }
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).map_err(|_| ApiError::internal())?;
    let value = app.sessions.locked().begin(hash, random, unix_now());
    let mut response = to(&next);
    set_cookie(&mut response, app, &value, AGE);
    Ok(response)
}

/// The end of a session.
pub(super) fn log_out(app: &App, asked: &RequestHead) -> Result<Response<Body>, ApiError> {
    fleet(app)?;
    from_here(asked)?;
    if let Some(value) = cookie(&asked.headers) {
        app.sessions.locked().end(value);
    }
    let mut response = to("/fleet/login");
    set_cookie(&mut response, app, "", 0);
    Ok(response)
}

/// Refuses what another site made a browser send. Browsers say where a form is from; what says nothing is none of them.
fn from_here(asked: &RequestHead) -> Result<(), ApiError> {
    let text = |name: HeaderName| asked.headers.get(name).and_then(|value| value.to_str().ok());
    let host = asked.authority.as_deref().or(text(header::HOST));
    let is_here = match (text(SITE), text(header::ORIGIN)) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            let of = origin.split_once("://").map(|(_, authority)| authority);
            of.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
        }
        (None, None) => false,
    };
    let refuse = || {
        let text = "this form is taken from the pages of this server only; a script sends its token with each request";
        ApiError::new(StatusCode::FORBIDDEN, Code::Denied, text)
    };
    is_here.then_some(()).ok_or_else(refuse)
}

/// The page that is wanted, if it is one of ours; else the first. The cookie is sent below `/fleet/`.
fn known(next: &str) -> String {
    let (path, query) =
        next.split_once('?').map_or((next, None), |(path, query)| (path, Some(query)));
    let is_text = next.bytes().all(|byte| byte.is_ascii_graphic());
    match route(&Method::GET, path, query) {
        Ok(Route::Fleet(page)) if is_text && path != "/fleet" && page != FleetPage::Style => {
            next.to_owned()
        }
        _ => FIRST.to_owned(),
    }
}

/// A field of a form (`application/x-www-form-urlencoded`).
fn field(form: &[u8], name: &str) -> Option<String> {
    let form = std::str::from_utf8(form).ok()?;
    let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    percent::decode_utf8(&value.replace('+', " "))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        values.flat_map(|value| value.split(';')).filter_map(|it| it.trim().split_once('='));
    pairs.find(|(name, value)| *name == COOKIE && !value.is_empty()).map(|(_, value)| value)
}

fn set_cookie(response: &mut Response<Body>, app: &App, value: &str, age: u64) {
    let secure = if app.secure { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={value}; Path=/fleet/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    response.headers_mut().insert(header::SET_COOKIE, reply::value(&text));
}

/// The form, and what was wrong with what came from it.
fn shown(status: StatusCode, next: &str, wrong: Option<&str>) -> Response<Body> {
    let mut response =
        reply::bytes("text/html; charset=utf-8", view::login(next, wrong).into_bytes());
    *response.status_mut() = status;
    finish(&mut response);
    response
}

fn to(next: &str) -> Response<Body> {
    let mut response = reply::empty(StatusCode::SEE_OTHER);
    response.headers_mut().insert(header::LOCATION, reply::value(next));
    finish(&mut response);
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept, authorization, cookie"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_are_led_to() {
        for page in ["/fleet/", "/fleet/nodes", "/fleet/nodes?state=silent&release=1.4.2%2Bx"] {
            assert_eq!(known(page), page);
        }
        for other in [
            "",
            "/fleet",
            "/fleet/login",
            "/fleet/style.css",
            "/v2/",
            "//evil.example/fleet/",
            "https://evil.example/fleet/",
            "/fleet/../v2/",
            "/fleet/nodes?state=a\r\nSet-Cookie: x=y",
            "/\\evil.example",
        ] {
            assert_eq!(known(other), FIRST, "{other:?}");
        }
    }

    #[test]
    fn fields_of_forms_are_read() {
        let form = b"next=%2Ffleet%2F&token=a%2Bb+c&token=second";
        assert_eq!(field(form, "token").as_deref(), Some("a+b c"));
        assert_eq!(field(form, "next").as_deref(), Some("/fleet/"));
        assert_eq!(field(form, "other"), None);
        assert_eq!(field(b"token=%ff", "token"), None);
        assert_eq!(field(b"\xff", "token"), None);
    }

    #[test]
    fn the_cookie_is_found_beside_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        for value in ["a=b; other=racklet_fleet", "racklet_fleet=; x=y", "c=d;racklet_fleet=0a1b"] {
            headers.append(header::COOKIE, value.parse().unwrap());
        }
        assert_eq!(cookie(&headers), Some("0a1b"));
    }
}
