//! The house rules: what our documents promise is there, and what they refer to is in the repository.
//!
//! | module | looks at |
//! |---|---|
//! | [`promises`] | `docs/threat-model.md`, `ARCHITECTURE.md`: promises, and the tests that hold them |
//! | [`codes`] | `docs/exit-codes.md`: the same codes as `formats::reason` |
//! | [`cases`] | `docs/*-cases.md`: every number once, with tests that are there |
//! | [`configuration`] | `docs/reference/configuration.md`: the keys and defaults of the example |
//! | [`media_types`] | `docs/reference/formats.md`: every media type of the source |
//! | [`dependencies`] | every `Cargo.toml`: what it lists is named by a source |
//! | [`book`] | `docs/SUMMARY.md`: every page once, links that stay in the book |
//! | [`references`] | every text: files that it names, links, numbers that it cites |

#![allow(clippy::unwrap_used, reason = "a document that cannot be read is a failure")]

mod book;
mod cases;
mod codes;
mod configuration;
mod dependencies;
mod media_types;
mod promises;
mod references;
