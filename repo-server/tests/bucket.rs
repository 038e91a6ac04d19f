//! The storage in a bucket of a real S3 server: the endpoints as on a directory, and what only a
//! bucket can do.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

#[path = "distribution.rs"]
mod distribution;
