//! The arguments of `fleet`.

use clap::{Args, Subcommand};

use super::RegistryArgs;

const EXAMPLES: &str = "Examples:\n  \
     signer fleet status\n  \
     signer fleet status --server https://updates.example:5443 --token-file pull-token --json";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum FleetCommand {
    /// Which release runs on how many nodes, and why not on the others
    ///
    /// Reads what nodes report to a repo-server with --fleet; orders nothing. A token has to be one for all
    /// repositories.
    #[command(after_help = EXAMPLES)]
    Status(FleetStatusArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FleetStatusArgs {
    /// The server; by default that of SIGNER_REPO, or of the repository of signer.toml
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) server: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
}
