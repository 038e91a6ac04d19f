//! The house rules: what our documents promise is there, and what they refer to is in the repository.
//!
//! | module | looks at |
//! |---|---|
//! | [`promises`] | `docs/threat-model.md`, `ARCHITECTURE.md`: promises, and the tests that hold them |
//! | [`codes`] | `docs/exit-codes.md`: the same codes as `formats::reason` |
//! | [`cases`] | `docs/*-cases.md`: every number once, with tests that are there |
//! | [`dependencies`] | every `Cargo.toml`: what it lists is named by a source |
//! | [`references`] | every text: files that it names, links, numbers that it cites |

#![allow(clippy::unwrap_used, reason = "a document that cannot be read is a failure")]

mod cases;
mod codes;
mod dependencies;
mod promises;
mod references;
