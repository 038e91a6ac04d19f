//! An embedded OCI registry that also shows its content as a classic TUF repository.
//!
//! ```text
//!   signer, skopeo, oras ──push──►  /v2/…        ┐
//!   update-agent ──────────pull──►  /v2/…        ├─► route ─► auth ─► handle ─► store ─► DIR
//!   python-tuf, go-tuf ────pull──►  /metadata,   ┘   pure     pure                       an OCI image
//!                                   /targets                                             layout
//!   update-agent ────────report──►  /fleet ─► fleet ─► SQLite (only with `--fleet`)
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
//! | `route` | method, path, query → `Route` | no |
//! | `auth` | token, right, repository → allowed, 401, 403, 405 | reads token files once |
//! | `range` | `Range` → bytes | no |
//! | `handle` | a request to its answer | through `store` |
//! | `store` | image layout, links, what is visible where, garbage collection | yes |
//! | `tuf_tree` | TUF file names → digests | through `store` |
//! | `amount` | spans of time and sizes of the command line | no |
//! | `alarm` | is the TUF timestamp renewed in time | through `store` |
//! | `fill` | how much room is left for tags and releases | through `store` |
//! | `anchor` | the state below the operator's trust root | through `store` |
//! | `refresh` | with `--refresh-key` only: renews snapshot and timestamp | through `signer` |
//! | `budget` | how many bytes of answers are in memory, as a sum | no |
//! | `fleet` | reports of nodes: verified, made durable, shown | through its `store` |
//! | `clients` | what one client may use, and which connection is closed for a newcomer | no |
//! | `serve` | sockets, TLS, timeouts, limits, background chores, shutdown | yes |
//! | [`cli`] | the command line | yes |
//!
//! Programs that embed it make a [`Config`] and [`start`] it, or [`Server::bind`] it on a runtime of
//! their own (see [`threads`]); `examples/serve.rs` is one. [`Store`] is for what is done to a
//! storage without a server: collecting garbage and reading every blob.
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

mod alarm;
mod amount;
mod anchor;
mod auth;
mod body;
mod budget;
mod clients;
mod config;
mod error;
mod fill;
mod fleet;
mod handle;
mod lock;
mod memory;
mod metrics;
mod progress;
mod range;
mod refresh;
mod route;
mod serve;
mod store;
mod tls;
mod tuf_tree;

// The public interface is:
pub mod cli;
pub use config::{ALARM_BEFORE, Collect, Config, Limits, Refresh, TlsFiles};
pub use error::ServerError;
pub use fleet::{FleetConfig, FleetPlace, PostgresPlace};
pub use serve::{Reloader, Running, Server, start, threads};
pub use store::bucket::s3::S3;
pub use store::gc::Collected;
pub use store::gc::plan::Plan as CollectionPlan;
pub use store::quota::Quota;
pub use store::{Store, StoreError};

/// What the power-cut proof and the fuzz targets of this workspace run. Not part of the interface: it
/// changes with the code.
#[doc(hidden)]
pub mod internal {
    pub use crate::auth::Tagging;
    pub use crate::range::{Part, part};
    pub use crate::route::{Reference, SessionId, route};
    pub use crate::store::backend::UploadKey;
    pub use crate::store::write::ManifestDestination;
}
