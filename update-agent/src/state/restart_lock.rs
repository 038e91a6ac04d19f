//! The note that this node may hold a restart lock: it is durable before a server is asked, and goes when one
//! has said that the lock is given back.

use serde::{Deserialize, Serialize};

use crate::restart_lock::{Lock, NotGranted};

/// A lock that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockNote {
    /// Which.
    pub lock: Lock,
    /// Unix seconds: since when it has been asked for.
    pub at: u64,
    /// Whether the server granted it.
    pub granted: bool,
    /// Why it was not granted, or not given back, the last time.
    #[serde(default)]
    pub why: Option<NotGranted>,
}
