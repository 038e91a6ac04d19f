//! A thin HTTP client for bytes nobody trusts yet.
//!
//! It asks with `GET`, and puts reports with `PUT`; synchronously: each [`Client`] owns one single-threaded runtime, which
//! runs while a call waits. So nothing here may be called from inside another tokio runtime.
//!
//! ```text
//!  Client::get ──► redirects, tokens ──► pooled or new connection (TCP, proxy, TLS, h1 or h2)
//!     │                                       every step with its own timeout
//!     └──► Answer::read ──► pieces (minimum rate, idle timeout) ──► caller's limits
//!  Client::ranges  ──► resumes where the bytes stopped, retries with backoff (download.rs);
//!                      of long ranges a few requests are in flight (segments.rs)
//! ```
//!
//! How registries are reached is decided in [`registry_auth`], as for `signer`: which token server sees
//! a credential, which way goes through a proxy, how far away an address is, when to try again.
//!
//! Refused, whatever the server says: content encodings, redirects out of TLS or towards the
//! node's own network, more than [`Limits::redirects`] of them, credentials for another origin,
//! and bodies longer than the caller's limit. Only closed single ranges are asked for, and
//! `Accept-Ranges` is not consulted: there are servers that answer ranges without it.

mod answer;
mod auth;
mod connect;
mod download;
mod error;
mod options;
mod patience;
mod proxy;
mod range;
mod rate;
mod request;
mod segments;
mod tls;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub use registry_auth::retry::RetryPolicy;
pub use registry_auth::{Credential, Distance, Origin, Proxies, Proxy, Scheme, Url};

pub use self::answer::Answer;
pub use self::auth::{read_auth_file, read_token_file};
pub use self::download::{Remote, Small};
pub use self::error::HttpError;
pub use self::options::{Limits, Options};
pub use self::range::coalesce;
pub use self::request::{Request, Sent};

use registry_auth::retry::Retry;
use registry_auth::token::{self, Asking, TokenCache, TokenRequest};
use registry_auth::{Challenge, Secret, challenge, credential, url};

use self::connect::{Pool, Via};
use self::patience::Patience;

/// The largest answer of a token server.
const TOKEN_ANSWER: u64 = token::ANSWER_LIMIT as u64;

/// The client. Connections are kept and reused between calls; it may be shared between threads.
pub struct Client {
    /// `Some` until dropped.
    runtime: Option<Runtime>,
    options: Options,
    tls: OnceLock<Arc<ClientConfig>>,
    pool: Pool,
    tokens: TokenCache,
    fetched: AtomicU64,
    /// Each download's jitter has its own seed.
    seed: AtomicU64,
    /// Since when, and how long, an attempt may wait; `None` between attempts.
    patience: Mutex<Option<(Instant, Patience)>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Client {
    /// A client. Reads the CA file, if one is named; connects nowhere.
    pub fn new(options: Options) -> Result<Self, HttpError> {
        let setup = |why: String| HttpError::Setup { what: "HTTP client".to_owned(), why };
        if let Some((origin, _)) = &options.credential
            && origin.scheme() == Scheme::Http
            && !origin.is_loopback()
        {
            return Err(setup(format!(
                "a credential for {origin} would cross the network in the clear: use https"
            )));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Two: name resolution blocks, and a hanging one must not stop the next.
            .max_blocking_threads(2)
            .thread_keep_alive(Duration::from_secs(1))
            .build()
            .map_err(|error| setup(error.to_string()))?;
        let seed = match options.seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|error| setup(error.to_string()))?,
        };
        let client = Client {
            runtime: Some(runtime),
            tls: OnceLock::new(),
            pool: Pool::default(),
            tokens: TokenCache::default(),
            fetched: AtomicU64::new(0),
            seed: AtomicU64::new(seed),
            patience: Mutex::new(None),
            options,
        };
        if client.options.ca.is_some() || client.options.client_cert.is_some() {
            client.tls()?;
        }
        Ok(client)
    }

    /// Sends one request, follows redirects and answers a token challenge. Does not retry.
    ///
    /// Returns whatever final status the server gave.
    pub fn get(&self, get: &Request<'_>) -> Result<Answer<'_>, HttpError> {
        self.block_on(async {
            let Some(left) = self.patience_left() else { return self.exchange(get).await };
            timeout(left, self.exchange(get)).await.unwrap_or_else(|_| {
                let (origin, after) = (get.url.origin().to_string(), self.options.limits.patience);
                Err(HttpError::Timeout { origin, phase: "answer", after })
            })
        })
    }

    /// From now on until [`Client::end_attempt`], everything together may wait for
    /// [`Limits::patience`], however the server spends it: silence, trickles, errors that ask to be
    /// tried again.
    pub fn begin_attempt(&self) {
        let limits = &self.options.limits;
        let patience = Patience::new(limits.patience, limits.min_rate);
        *self.patience() = Some((Instant::now(), patience));
    }

    /// Each exchange has its own limits again.
    pub fn end_attempt(&self) {
        *self.patience() = None;
    }

    fn patience(&self) -> MutexGuard<'_, Option<(Instant, Patience)>> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: no attempt is under way.
    fn patience_left(&self) -> Option<Duration> {
        self.patience().as_ref().map(|(begin, patience)| patience.left(begin.elapsed()))
    }

    fn came(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        if let Some((begin, patience)) = &mut *self.patience() {
            patience.earn(begin.elapsed(), bytes);
        }
    }

    /// How long to wait before trying again, or `None` to give up.
    fn next_delay(&self, retry: &mut Retry, error: &HttpError) -> Option<Duration> {
        let delay = retry.next_delay(error.retry_after())?;
        self.patience_left().is_none_or(|left| delay < left).then_some(delay)
    }

    /// The status of an answer that comes within `limit`, however the time is spent.
    pub fn status(&self, url: &Url, limit: Duration) -> Result<StatusCode, HttpError> {
        let get = Request::new(url);
        let exchange = async { timeout(limit, self.exchange(&get)).await };
        match self.block_on(exchange) {
            Ok(answer) => Ok(answer?.status()),
            Err(_) => {
                let origin = url.origin().to_string();
                Err(HttpError::Timeout { origin, phase: "answer", after: limit })
            }
        }
    }

    /// Opens a TCP connection and closes it again, within [`Limits::connect`].
    pub fn reach(&self, host: &str, port: u16) -> Result<(), HttpError> {
        let origin = Origin::new(Scheme::Http, host, Some(port));
        self.block_on(connect::dial_tcp(&origin, None, self.options.limits.connect)).map(drop)
    }

    /// Bytes of bodies received so far, wanted or not.
    pub fn bytes_fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    fn retry(&self) -> Retry {
        Retry::new(self.options.limits.retry, self.seed.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep(&self, delay: Duration) {
        self.block_on(async { tokio::time::sleep(delay).await });
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.as_ref().expect("the runtime lives until drop").block_on(future)
    }

    async fn exchange(&self, get: &Request<'_>) -> Result<Answer<'_>, HttpError> {
        let home = get.url.origin();
        let mut url = get.url.clone();
        let mut seen = vec![url.clone()];
        let mut via: Option<Via> = None;
        let mut token_asked = false;
        loop {
            let authorization = self.authorization(url.origin(), get.scope);
            let answer = self.send(&url, get, authorization, via.as_ref()).await?;
            let distance = answer.distance();
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && url.origin() == home && !token_asked {
                token_asked = true;
                match self.fetch_token(&answer, home, get.scope, distance).await? {
                    true => answer.drain().await,
                    false => return Ok(answer),
                }
                continue;
            }
            let redirected = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirected || self.options.limits.redirects == 0 {
                return answer.plain();
            }
            let next = self.redirect(&answer, &seen)?;
            answer.drain().await;
            let farthest = via.map_or(distance, |via| via.distance.max(distance));
            via = (next.origin() != home)
                .then(|| Via { from: url.origin().clone(), distance: farthest });
            url = next;
            seen.push(url.clone());
        }
    }

    /// The next URL, if it may be followed.
    fn redirect(&self, answer: &Answer<'_>, seen: &[Url]) -> Result<Url, HttpError> {
        let from = answer.url.origin();
        let location = answer.header(header::LOCATION).ok_or_else(|| HttpError::Protocol {
            origin: from.to_string(),
            why: format!("status {} without a Location", answer.status()),
        })?;
        let shown: String =
            location.split('?').next().unwrap_or_default().chars().take(120).collect();
        let refuse = |why| HttpError::Redirect { from: from.to_string(), to: shown.clone(), why };
        let next = answer.url.join(location).map_err(|_| refuse("it is no http or https URL"))?;
        url::may_redirect(from, next.origin()).map_err(refuse)?;
        if seen.contains(&next) {
            return Err(refuse("it has been there already"));
        }
        if seen.len() > self.options.limits.redirects {
            return Err(refuse("too many redirects"));
        }
        Ok(next)
    }

    /// What to show an origin: a token for the scope, else the credential; to others nothing.
    fn authorization(&self, origin: &Origin, scope: &str) -> Option<Secret> {
        if let Some(token) = self.tokens.token(origin, scope) {
            return Some(credential::bearer(&token));
        }
        match &self.options.credential {
            Some((owner, credential)) if owner == origin => credential.header(),
            _ => None,
        }
    }

    /// Asks the token server that a 401 names. `false` when there is none to ask.
    async fn fetch_token(
        &self,
        refusal: &Answer<'_>,
        home: &Origin,
        scope: &str,
        distance: Distance,
    ) -> Result<bool, HttpError> {
        self.tokens.forget(home, scope);
        let headers = refusal.parts.headers.get_all(header::WWW_AUTHENTICATE).iter();
        let asked = challenge::choose(headers.filter_map(|value| value.to_str().ok()));
        let Some(Challenge::Bearer { realm, service }) = asked else { return Ok(false) };
        let owned = self.options.credential.as_ref().filter(|(owner, _)| owner == home);
        let secret = owned.map(|(_, credential)| credential);
        if let Some(Credential::Bearer(_)) = secret {
            return Ok(false);
        }
        let token_host = self.options.token_host.as_deref();
        let asking = Asking { registry: home, token_host, scope, client_id: "update-agent" };
        let request = asking.request(&realm, service.as_deref(), secret)?;
        let TokenRequest::Get { url, authorization } = request else { return Ok(false) };
        let via = (url.origin() != home).then(|| Via { from: home.clone(), distance });
        let mut answer = self.send(&url, &Request::new(&url), authorization, via.as_ref()).await?;
        if answer.status() != StatusCode::OK {
            return Err(answer.refusal());
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.piece().await? {
            if (body.len() + piece.len()) as u64 > TOKEN_ANSWER {
                return Err(answer.too_long(TOKEN_ANSWER));
            }
            body.extend_from_slice(&piece);
        }
        let token = token::parse_token(&body).ok_or_else(|| HttpError::Protocol {
            origin: url.origin().to_string(),
            why: "the token server's answer holds no token".to_owned(),
        })?;
        self.tokens.keep(home, scope, token);
        Ok(true)
    }

    /// One request on one connection; a fresh one if an idle one turns out to be gone.
    async fn send(
        &self,
        url: &Url,
        get: &Request<'_>,
        authorization: Option<Secret>,
        via: Option<&Via>,
    ) -> Result<Answer<'_>, HttpError> {
        let origin = url.origin();
        if origin.scheme() == Scheme::Http && !self.options.plain_http && !origin.is_loopback() {
            return Err(HttpError::PlainHttp { origin: origin.to_string() });
        }
        loop {
            let mut connection = match self.pool.take(origin).await {
                Some(idle) => idle,
                None => {
                    let https = origin.scheme() == Scheme::Https;
                    let tls = if https { Some(self.tls()?) } else { None };
                    connect::dial(origin, via, &self.options, tls).await?
                }
            };
            if let Some(via) = via {
                via.check(origin, connection.distance)?;
            }
            let secret = authorization.as_ref().map(Secret::expose);
            let request = get.build(url, secret, connection.is_http2())?;
            let after = self.options.limits.first_byte;
            match timeout(after, connection.send(request)).await {
                Ok(Ok(response)) => return Ok(Answer::new(self, url, response, connection)),
                Ok(Err(error)) => match connect::from_hyper(origin, &error) {
                    HttpError::Broken { .. } if connection.reused => {}
                    error => return Err(error),
                },
                Err(_) => {
                    let origin = origin.to_string();
                    return Err(HttpError::Timeout { origin, phase: "answer", after });
                }
            }
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, HttpError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = tls::client_config(&self.options)?;
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Name resolution cannot be cancelled and must not hold us up.
            runtime.shutdown_background();
        }
    }
}
