//! An embedded OCI registry that also shows its content as a classic TUF repository.
//!
//! ```text
//!   signer, skopeo, oras ──push──►  /v2/…        ┐
//!   update-agent ──────────pull──►  /v2/…        ├─► route ─► auth ─► handle ─► store ─► DIR
//!   python-tuf, go-tuf ────pull──►  /metadata,   ┘   pure     pure                       an OCI image
//!                                   /targets                                             layout
//! ```
//!
//! It serves the OCI distribution API 1.1 in full and stores bytes exactly as they came. It decides
//! nothing about trust and holds no signing key: an attacker who takes it over can delay and withhold
//! updates, and nothing else. It refuses to serve a byte under a digest it does not have, to build a path
//! from a name it did not parse, to follow a symbolic link in its storage, and to talk plain HTTP
//! to a network unless told so.
//!
//! | module | does | I/O |
//! |---|---|---|
//! | [`route`] | method, path, query → [`route::Route`] | no |
//! | [`auth`] | token, right, repository → allowed, 401, 403, 405 | reads token files once |
//! | [`range`] | `Range` → bytes | no |
//! | [`store`] | image layout, links, what is visible where | yes |
//! | [`tuf_tree`] | TUF file names → digests | through [`store`] |
//! | [`alarm`] | is the TUF timestamp renewed in time | through [`store`] |
//! | `anchor` | the state below the operator's trust root | through [`store`] |
//! | `refresh` | with `--refresh-key` only: renews snapshot and timestamp | through `signer` |
//! | `budget` | how many bytes of answers are in memory, as a sum | no |
//! | `clients` | what one client may use up, and who makes room for a newcomer | no |
//! | [`serve`] | sockets, TLS, timeouts, limits, shutdown | yes |
//!
//! ```
//! let dir = tempfile::tempdir()?;
//! let server = repo_server::start(repo_server::Config::new(dir.path().join("repository")))?;
//! assert!(server.url().starts_with("http://127.0.0.1:"));
//! server.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// They panic when the reader is gone, or the disk under a log is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod alarm;
mod anchor;
pub mod auth;
mod body;
mod budget;
mod clients;
pub mod config;
pub mod error;
mod handle;
mod lock;
mod memory;
mod metrics;
mod progress;
pub mod range;
mod refresh;
pub mod route;
pub mod serve;
pub mod store;
mod tls;
pub mod tuf_tree;

pub use config::{Collect, Config, Limits, Refresh, TlsFiles};
pub use error::ServerError;
pub use serve::{Reloader, Running, Server, start};
