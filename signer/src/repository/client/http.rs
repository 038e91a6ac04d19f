//! One request and its answer: credentials, another try when it may help, bounds on what is read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use url::Url;

use super::super::RegistryError;
use super::answer::{good, text};
use super::auth::Auth;
use super::backoff::Backoff;
use super::failure::Failure;
use super::line::Connection;
use formats::error_chain;
use formats::reason::Reason;
use registry_auth::address::is_loopback_authority;
use registry_auth::explain::Exchange;
use registry_auth::{Origin, Proxies, Scheme, Secret, challenge};

/// Longer than any handshake over a bad line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// As many as any registry needs to hand a blob over to its storage.
const REDIRECTS: usize = 5;
/// The client of one registry.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) client: Client,
    /// `https://host:port/`.
    pub(super) base: Url,
    pub(super) auth: Auth,
    pub(super) proxies: Proxies,
    pub(super) backoff: Backoff,
    /// What is known of the way there.
    pub(super) line: Connection,
    /// Whether it ever answered: one that never did is a wrong address, mostly.
    pub(super) answered: AtomicBool,
}

/// Attempts to reach a registry that never answered.
const FIRST_CONTACT: u32 = 2;

/// A client that speaks TLS as configured, through these proxies and no others. It has no limit on how long an
/// answer takes ([`Patience`](super::patience::Patience) has); a peer that acknowledges nothing for `stall` is gone.
pub(super) fn client(
    tls: rustls::ClientConfig,
    proxies: &Proxies,
    registry: &str,
    stall: Duration,
) -> Result<Client, RegistryError> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .proxy(proxy_of(proxies.clone()))
        .user_agent(concat!("racklet-signer/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(stall)
        .redirect(redirect::Policy::custom(follow));
    builder.build().map_err(|error| RegistryError::Client {
        action: "prepare the client".to_owned(),
        registry: registry.to_owned(),
        message: error_chain(&error),
        reason: Reason::Config,
        hint: String::new(),
    })
}

/// The proxy for each address, as the client wants it: with user and password in its URL.
fn proxy_of(proxies: Proxies) -> reqwest::Proxy {
    reqwest::Proxy::custom(move |url| {
        let proxy = proxies.of(&origin_of(url)?)?;
        let mut address: Url = proxy.to_string().parse().ok()?;
        if let Some((user, password)) = proxy.user() {
            address.set_username(&user).ok()?;
            address.set_password(Some(password.expose())).ok()?;
        }
        Some(address)
    })
}

/// Where an address is, however long its path and query are.
fn origin_of(url: &Url) -> Option<Origin> {
    let scheme = match url.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    Some(Origin::new(scheme, host, url.port()))
}

/// Storage behind a registry may be elsewhere; credentials do not go there (the client drops them
/// with the host), and nothing goes from TLS to plain HTTP.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let plain = attempt.url().scheme() != "https";
    let was_plain = attempt.previous().last().is_some_and(|url| url.scheme() != "https");
    let here = attempt.url().host_str().is_some_and(is_loopback_authority);
    if plain && !(was_plain && here) {
        let shown = shown(attempt.url());
        return attempt.error(format!(
            "leads to {shown}, which is plain HTTP; a proxy before the registry has to tell it \
             X-Forwarded-Proto: https"
        ));
    }
    if attempt.previous().len() > REDIRECTS {
        let shown = shown(attempt.url());
        return attempt.error(format!("leads on and on, at last to {shown}"));
    }
    attempt.follow()
}

/// An address without its query, which may carry somebody's signature or token.
fn shown(url: &Url) -> String {
    let text = url.as_str().split(['?', '#']).next().unwrap_or_default();
    text.chars().take(120).collect()
}

impl Http {
    /// `/v2/<rest>`.
    pub(super) fn url(&self, rest: &str) -> Result<Url, Failure> {
        self.base.join(&format!("v2/{rest}")).map_err(|_| Failure::Answer("has an odd name in it"))
    }

    /// What is beside the repositories of the same server.
    pub(super) fn beside(&self, path: &str) -> Result<Url, Failure> {
        self.base.join(path).map_err(|_| Failure::Answer("has an odd name in it"))
    }

    /// Where an upload goes on; it may be relative. Never from TLS to plain HTTP.
    pub(super) fn location(&self, answer: &Response) -> Result<Url, Failure> {
        let odd = || Failure::Answer("names no place for the upload");
        let text = text(answer.headers(), "location").ok_or_else(odd)?;
        let url = answer.url().join(text).map_err(|_| odd())?;
        if self.is_ours(&url) || url.scheme() == "https" {
            return Ok(url);
        }
        let (there, ours) = (shown(&url), self.base.as_str().trim_end_matches('/'));
        Err(Failure::Location(match self.base.scheme() {
            "https" => format!("{there}, which is plain HTTP"),
            _ => format!("{there}, which is not {ours}"),
        }))
    }

    /// Whether this is the registry itself, and not a storage behind it.
    fn is_ours(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Sends a request once, with credentials where they belong; once more when they were not
    /// known to be needed, or ran out.
    pub(super) async fn once(
        &self,
        scope: &str,
        method: &Method,
        url: &Url,
        fill: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, Failure> {
        let mut asked = false;
        loop {
            let mut request = fill(self.client.request(method.clone(), url.clone()));
            if self.is_ours(url)
                && let Some(header) = self.auth.header(&self.client, scope).await?
            {
                let mut value = reqwest::header::HeaderValue::from_str(Secret::expose(&header))
                    .map_err(|_| Failure::Token("credentials hold odd bytes".to_owned()))?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let answer = request.send().await.map_err(|error| self.lost(error, url))?;
            self.answered.store(true, Ordering::Relaxed);
            if answer.status() == StatusCode::UNAUTHORIZED && !asked && self.is_ours(answer.url()) {
                let headers = answer.headers().get_all(WWW_AUTHENTICATE).iter();
                let values = headers.filter_map(|value| value.to_str().ok());
                if let Some(challenge) = challenge::choose(values) {
                    self.auth.learn(challenge, scope);
                    asked = true;
                    continue;
                }
            }
            return good(Exchange::of(method.as_str(), url.path()), answer).await;
        }
    }

    fn lost(&self, error: reqwest::Error, url: &Url) -> Failure {
        let proxy = origin_of(url).and_then(|asked| self.proxies.of(&asked).cloned());
        Failure::lost(error, proxy.as_ref())
    }

    /// The same for requests that may be repeated: failures that pass are waited for.
    pub(super) async fn send(
        &self,
        scope: &str,
        method: Method,
        url: Url,
        fill: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, Failure> {
        let mut nth = 0;
        // The body of a manifest is sent at once.
        let sent = u64::from(method == Method::PUT);
        loop {
            let answer = self.once(scope, &method, &url, fill);
            match self.line.patience.answer(sent, answer).await {
                Err(failure) if failure.is_passing() => {
                    if nth >= FIRST_CONTACT && !self.answered.load(Ordering::Relaxed) {
                        return Err(failure);
                    }
                    let Some(pause) = self.backoff.pause(nth, failure.retry_after()) else {
                        return Err(failure);
                    };
                    self.line.again(&format!("{method} {}", url.path()), &failure, pause);
                    tokio::time::sleep(pause).await;
                    nth += 1;
                }
                other => return other,
            }
        }
    }
}
