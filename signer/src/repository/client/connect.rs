//! A client from options and environment.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use formats::reason::Reason;
use formats::reference::Reference;
use registry_auth::address::is_loopback_authority;
use registry_auth::{Proxies, hub};
use tokio::sync::Semaphore;

use super::super::{ClientOptions, RegistryError};
use super::RegistryClient;
use super::auth::{Auth, Source};
use super::credentials::{read_token, tls_config};
use super::files::Files;
use super::http::{self, Http};
use super::line::Connection;

/// Uploads at once: enough to fill a line with small blobs, few enough for any registry.
const UPLOADS: usize = 4;

impl RegistryClient {
    /// Prepares a client; connects only when it is used.
    pub fn connect(reference: Reference, options: &ClientOptions) -> Result<Self, RegistryError> {
        let Reference::Registry { authority, .. } = &reference else {
            return Err(RegistryError::ReadOnly(reference.to_string()));
        };
        let authority = authority.clone();
        let reference = at_hub(&reference).unwrap_or(reference);
        if options.plain_http && !is_loopback_authority(&authority) {
            return Err(RegistryError::PlainHttp(authority));
        }
        let failed = |message: String| RegistryError::Client {
            action: "prepare the client".to_owned(),
            registry: authority.clone(),
            message,
            reason: Reason::Config,
            hint: String::new(),
        };
        let source = match options.token_file.as_deref() {
            Some(path) => Source::Given(read_token(path)?),
            None => {
                Source::Files(Files::of_environment(&authority, reference.namespace().as_str())?)
            }
        };
        let scheme = if options.plain_http { "http" } else { "https" };
        let address = format!("{scheme}://{}/", hub::host(&authority));
        let odd = || failed(format!("{authority:?} is no address"));
        let base: url::Url = address.parse().map_err(|_| odd())?;
        let home = registry_auth::Url::parse(&address).map_err(|_| odd())?.origin().clone();
        let proxies = Proxies::from_environment(|name| std::env::var(name).ok())
            .map_err(|error| failed(error.to_string()))?;
        let client = http::client(
            tls_config(options, &authority)?,
            &proxies,
            &authority,
            options.patience.stall,
        )?;
        let line = Connection::new(options.patience, options.chunk_size, options.tell);
        let auth = Auth::new(source, home, options.token_host.clone(), proxies.clone());
        let (backoff, answered) = (options.backoff, AtomicBool::new(false));
        let http = Arc::new(Http { client, base, auth, proxies, backoff, line, answered });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let uploads = Arc::new(Semaphore::new(UPLOADS));
        let (pending, sources) = (Mutex::default(), Mutex::default());
        let crowd = Arc::default();
        Ok(RegistryClient { reference, authority, http, uploads, crowd, pending, sources, runtime })
    }
}

/// A reference at Docker Hub, with the namespace that it has there.
fn at_hub(reference: &Reference) -> Option<Reference> {
    let Reference::Registry { authority, namespace } = reference else { return None };
    let namespace = hub::namespace(authority, namespace.as_str()).parse().ok()?;
    Some(Reference::Registry { authority: authority.clone(), namespace })
}
