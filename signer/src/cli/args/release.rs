//! The arguments of `release`.

use clap::{Args, Subcommand};
use formats::version::Version;

use super::{ChannelArgs, ListArgs};

const EXAMPLES: &str = "Examples:\n  \
     signer release withdraw 1.2.0 --product demo --because \"loses data on power cuts\"\n  \
     signer stage --share release withdraw 1.2.0 --product demo --because \"CVE-2026-1234\"";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ReleaseCommand {
    #[command(flatten)]
    Change(ReleaseChange),
    /// All releases, one line each: who offers them, and which were withdrawn
    List(ListArgs),
}

/// What changes a release.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ReleaseChange {
    /// Take a release back for good: no channel offers it, no node installs it, and nodes that run it
    /// say so
    ///
    /// Its images stay where they are, and nodes that run it go on. Publish a newer release for them:
    /// a node never goes back to an older one. Nothing undoes it; the version cannot be published again.
    #[command(after_help = EXAMPLES)]
    Withdraw(WithdrawArgs),
}

impl ReleaseChange {
    /// Whether nothing is to be changed.
    pub(in crate::cli) fn is_dry_run(&self) -> bool {
        let ReleaseChange::Withdraw(arguments) = self;
        arguments.by.dry.dry_run
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WithdrawArgs {
    #[command(flatten)]
    pub(in crate::cli) by: ChannelArgs,
    /// The product
    #[arg(long)]
    pub(in crate::cli) product: String,
    /// The release
    #[arg(value_name = "VERSION")]
    pub(in crate::cli) version: Version,
    /// Why, in one line for the people whose nodes run it; every node shows it
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) because: String,
}
