//! Who we are to a registry: what it asks for (`WWW-Authenticate`), and what it is told.
//!
//! ```text
//!  request ─► 401, Basic                        ─► user and password with every request
//!          └► 401, Bearer realm=…,service=…     ─► token for exactly these repositories ─► request
//! ```
//!
//! Nobody's credential is looked for before a registry asks: a helper that is missing or locked is of
//! no matter where no login is needed. Where credentials may go, [`registry_auth::realm`] decides.

use std::sync::{Mutex, PoisonError};

use registry_auth::explain::Exchange;
use registry_auth::token::{ANSWER_LIMIT, Asking, TokenCache, TokenRequest, parse_token};
use registry_auth::{Challenge, Credential, Origin, Proxies, Secret, credential};
use tokio::sync::OnceCell;

use super::super::RegistryError;
use super::answer::{good, read_limited};
use super::credentials::FoundCredential;
use super::failure::Failure;
use super::files::Files;

/// Where a credential is, or may be.
#[derive(Debug)]
pub(super) enum Source {
    /// In the file that was named.
    Given(FoundCredential),
    /// In people's files.
    Files(Files),
}

/// What we are, and the tokens we got for it.
#[derive(Debug)]
pub(super) struct Auth {
    source: Source,
    /// What was found when it was asked for.
    found: OnceCell<Option<FoundCredential>>,
    registry: Origin,
    token_host: Option<String>,
    proxies: Proxies,
    challenge: Mutex<Option<Challenge>>,
    tokens: TokenCache,
}

impl Auth {
    pub(super) fn new(
        source: Source,
        registry: Origin,
        token_host: Option<String>,
        proxies: Proxies,
    ) -> Self {
        let (challenge, tokens, found) = (Mutex::default(), TokenCache::default(), OnceCell::new());
        Auth { source, found, registry, token_host, proxies, challenge, tokens }
    }

    /// What the registry said it wants; forgets the token that it refused for `scope`.
    pub(super) fn learn(&self, challenge: Challenge, scope: &str) {
        self.tokens.forget(&self.registry, scope);
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge);
    }

    /// What to say in `Authorization` for requests within `scope`.
    pub(super) async fn header(
        &self,
        client: &reqwest::Client,
        scope: &str,
    ) -> Result<Option<Secret>, Failure> {
        if let Source::Given(FoundCredential {
            credential: token @ Credential::Bearer(_), ..
        }) = &self.source
        {
            return Ok(token.header());
        }
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(challenge) = challenge else { return Ok(None) };
        let credential = self.credential().await?;
        match (challenge, credential) {
            (_, Some(token @ Credential::Bearer(_))) => Ok(token.header()),
            (Challenge::Basic, credential) => Ok(credential.and_then(Credential::header)),
            (Challenge::Bearer { realm, service }, credential) => {
                let token = match self.tokens.token(&self.registry, scope) {
                    Some(token) => token,
                    None => {
                        let asking = Asking {
                            registry: &self.registry,
                            token_host: self.token_host.as_deref(),
                            scope,
                            client_id: "racklet-signer",
                        };
                        let request = asking.request(&realm, service.as_deref(), credential)?;
                        self.token(client, request, scope).await?
                    }
                };
                Ok(Some(credential::bearer(&token)))
            }
        }
    }

    /// What there is for this registry; files and helpers are asked once, off the network's threads.
    async fn credential(&self) -> Result<Option<&Credential>, Failure> {
        let find = || async {
            match &self.source {
                Source::Given(found) => Ok(Some(found.clone())),
                Source::Files(files) => {
                    let files = files.clone();
                    let found = tokio::task::spawn_blocking(move || files.find()).await;
                    found
                        .map_err(|panic| Failure::File(std::io::Error::other(panic)))?
                        .map_err(|error: RegistryError| Failure::Credential(Box::new(error)))
                }
            }
        };
        let found = self.found.get_or_try_init(find).await?;
        Ok(found.as_ref().map(|found| &found.credential))
    }

    async fn token(
        &self,
        client: &reqwest::Client,
        request: TokenRequest,
        scope: &str,
    ) -> Result<Secret, Failure> {
        let (url, request) = match request {
            TokenRequest::Get { url, authorization } => {
                let request = client.get(url.to_request());
                match &authorization {
                    Some(secret) => {
                        let request = request.header("authorization", secret.expose());
                        (url, request)
                    }
                    None => (url, request),
                }
            }
            // OAuth 2: distribution's docs/spec/auth/oauth.md.
            TokenRequest::Post { url, form } => {
                let kind = "application/x-www-form-urlencoded";
                let request = client.post(url.to_request()).header("content-type", kind);
                (url, request.body(form.expose().to_owned()))
            }
        };
        let proxy = self.proxies.of(url.origin());
        let answer = request.send().await.map_err(|error| Failure::lost(error, proxy))?;
        let answer = good(Exchange::Token, answer).await.map_err(|failure| match failure {
            Failure::Status { .. } => {
                Failure::TokenServer { url: url.to_string(), failure: Box::new(failure) }
            }
            other => other,
        })?;
        let body = read_limited(answer, ANSWER_LIMIT).await?;
        let none = || Failure::Token(format!("the token server {url} answers without a token"));
        let token = parse_token(&body).ok_or_else(none)?;
        self.tokens.keep(&self.registry, scope, token.clone());
        Ok(token)
    }

    /// Which credential the registry refused, and what to do then.
    pub(super) fn refused(&self, authority: &str) -> String {
        let found = match (&self.source, self.found.get()) {
            (Source::Given(found), _) => Some(found),
            (Source::Files(_), found) => found.and_then(Option::as_ref),
        };
        match (found, &self.source) {
            (Some(FoundCredential { credential: Credential::Basic { user, .. }, file }), _) => {
                format!("the registry refuses the password of {user:?} from {file}: log in again")
            }
            (Some(FoundCredential { file, .. }), _) => {
                format!("the registry refuses the token from {file}: log in again, or renew it")
            }
            (None, Source::Files(files)) => format!(
                "no credentials for {authority} in {}: `docker login {authority}`, or give \
                 --token-file",
                files.describe()
            ),
            (None, Source::Given(_)) => String::new(),
        }
    }
}
