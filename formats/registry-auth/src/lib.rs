//! How registries are reached, decided once for `signer` and `update-agent`.
//!
//! ```text
//!  WWW-Authenticate ─► challenge ─► realm (may it see the credential?) ─► token request ─► tokens
//!  docker's, podman's files ─► auths ─► credential          certs.d, PEM ─► tls
//!  environment ─► proxy        addresses, names ─► address   failures ─► retry, explain
//! ```
//!
//! Nothing here opens a file, a socket or a clock; the one exception is
//! [`tls::system_roots`], which reads the system's certificates. The programs' HTTP clients are the
//! drivers: they read files, send requests, and ask this crate what that means. It refuses to send a
//! credential anywhere but to the registry it is for and to that registry's own token server.
//!
//! ```
//! use registry_auth::{challenge, realm, Challenge, Origin, Scheme};
//!
//! let header = "Negotiate, Bearer realm=\"https://auth.example/token\",service=\"r\"";
//! let Some(Challenge::Bearer { realm, .. }) = challenge::choose([header]) else { panic!() };
//! let registry = Origin::new(Scheme::Https, "registry.example", None);
//! let server = realm::token_server(&realm, &registry, None).unwrap();
//! assert!(!server.trusted, "another host: it gets no credential");
//! let server = realm::token_server(&realm, &registry, Some("auth.example")).unwrap();
//! assert!(server.trusted, "the operator said so");
//! ```

pub mod address;
pub mod auths;
pub mod certs_d;
pub mod challenge;
pub mod credential;
pub mod explain;
pub mod helper;
pub mod hub;
pub mod proxy;
pub mod realm;
pub mod retry;
pub mod tls;
pub mod token;
pub mod url;

pub use self::address::Distance;
pub use self::challenge::Challenge;
pub use self::credential::{Credential, Secret};
pub use self::proxy::{Proxies, Proxy, ProxyError};
pub use self::url::{Origin, Scheme, Url, UrlError};
