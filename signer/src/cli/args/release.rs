//! The arguments of `release`.

use clap::{Args, Subcommand};
use formats::version::Version;

use super::channel::ChannelArgs;
use super::repository::{ListArgs, RepoArgs};
use super::signing::{DryRunArgs, EXPIRES, SigningArgs};

const EXAMPLES: &str = "Examples:\n  \
     signer release withdraw 1.2.0 --product demo --because \"loses data on power cuts\"\n  \
     signer stage --share release withdraw 1.2.0 --product demo --because \"CVE-2026-1234\"";

const ARCHIVE_EXAMPLES: &str = "Examples:\n  \
     signer release archive --dry-run\n  \
     signer release archive\n  \
     signer stage --share release archive --keep 8";

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
    /// Move old releases out of the metadata that every node reads; from then on, publish does the
    /// same
    ///
    /// The releases that channels offer and the newest of each product stay in targets. All others are listed
    /// by roles below `history`, which the keys of targets sign for: nodes find them there, with the same
    /// content, when they ask for one. Run it once, when a product has many more releases than it keeps.
    #[command(after_help = ARCHIVE_EXAMPLES)]
    Archive(ArchiveArgs),
}

impl ReleaseChange {
    /// Whether nothing is to be changed.
    pub(in crate::cli) fn is_dry_run(&self) -> bool {
        match self {
            ReleaseChange::Withdraw(arguments) => arguments.by.dry.dry_run,
            ReleaseChange::Archive(arguments) => arguments.dry.dry_run,
        }
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

#[derive(Debug, Args)]
pub(in crate::cli) struct ArchiveArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    /// How many of the newest releases of each product stay in targets, from now on. Default: as
    /// before, at first 16
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) keep: Option<u32>,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(in crate::cli) expires: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}
