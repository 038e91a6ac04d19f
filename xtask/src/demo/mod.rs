//! stub
use anyhow::Result;
/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {}
pub(crate) fn run(_options: &Options) -> Result<()> {
    Ok(())
}
