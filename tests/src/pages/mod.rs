//! Runs what the documents print: every `sh` and `console` block of a page, as a reader would.
//!
//! ```text
//!  README.md, docs/**/*.md ──► Page ──► Site::follow ──► Report
//!                              parse      one shell,       commands run,
//!                              (pure)     an empty folder  Fault: page, line, what
//! ```
//!
//! | in a page | means |
//! |---|---|
//! | ```` ```sh ```` | commands; each ends with exit code 0 |
//! | ```` ```console ```` | lines after `$ ` are commands, the others what they print, both streams |
//! | a line `…` in a `console` block | any number of lines |
//! | a command that ends with `# exit code N` | it ends with that one |
//! | `<!-- after: PAGE -->` | that page (from the top folder) is followed first, in the same folder |
//! | `<!-- given: COMMAND -->` | what the reader has and the test has not |
//!
//! A page is one story: one POSIX shell from an empty folder, so `cd`, `alias`, `umask` and variables
//! last. Printed lines are compared after [`mask`] took out what no two runs share. The loopback
//! address of a page is replaced by one of the run's own, so its ports are free for certain.

mod mask;
mod page;
mod story;

pub use mask::{mask, same_lines};
pub use page::{Fault, Page, Step};
pub use story::{Reader, Report, Site};
