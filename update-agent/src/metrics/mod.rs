//! Metrics: what a node tells Prometheus of itself.
//!
//! ```text
//!  records, flags ─► Facts ─► families ─► Page ─┬─► metrics.textfile   node_exporter's textfile collector
//!                    facts    families    page  ├─► metrics.listen     OpenMetrics, or text
//!                                               └─► `metrics`          once
//! ```
//!
//! A page is made of what is known at that moment, without the agent's lock: a value that is not known has
//! no sample. Labels are of fixed sets, of the configuration, or at most 64 samples to a metric. Nothing here
//! ends or delays an operation: what cannot be published is logged.

mod facts;
mod families;
mod last_check;
mod listener;
mod page;
mod textfile;

#[cfg(test)]
mod tests;

pub use self::page::Page;

pub(crate) use self::last_check::LastCheck;
pub(crate) use self::listener::start_listener;
pub(crate) use self::textfile::Textfile;
