//! `[reports]`: what this node says of itself. Who gets it: `reports` of each `[[source]]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::{deserialize_period, serialize_period};

/// `[reports]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportsConfig {
    /// What people call this node; `node.id` when absent, and nothing without that.
    pub name: Option<String>,
    /// Between two reports that say the same. What is new is reported after the round that finds it.
    #[serde(deserialize_with = "deserialize_period", serialize_with = "serialize_period")]
    pub interval: Duration,
}

impl Default for ReportsConfig {
    fn default() -> Self {
        ReportsConfig { name: None, interval: Duration::from_secs(3600) }
    }
}
