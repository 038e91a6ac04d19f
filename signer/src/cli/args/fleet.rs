//! The arguments of `fleet`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RegistryArgs;
use super::repository::{RepoArgs, TrustArgs};

const EXAMPLES: &str = "Examples:\n  \
     signer fleet status\n  \
     signer fleet status --server https://updates.example:5443 --token-file pull-token --json";

const AFFECTED_EXAMPLES: &str = "Examples:\n  \
     signer fleet affected CVE-2024-3094 --osv DSA-5649-1.json\n  \
     signer fleet affected CVE-2024-3094 --osv DSA-5649-1.json --vex our-vex.json --json";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum FleetCommand {
    /// Which release runs on how many nodes, and why not on the others
    ///
    /// Reads what nodes report to a repo-server with --fleet; orders nothing. A token has to be one for all
    /// repositories.
    #[command(after_help = EXAMPLES)]
    Status(FleetStatusArgs),
    /// Which nodes run a release that has a vulnerability
    ///
    /// Puts together what nodes report, the SBOMs and VEX statements that were signed with their releases, and the
    /// documents that are given. Asks no database in the network. What cannot be told is said to be unknown.
    #[command(after_help = AFFECTED_EXAMPLES)]
    Affected(FleetAffectedArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FleetAffectedArgs {
    /// The vulnerability, for instance CVE-2024-3094
    #[arg(value_name = "ID")]
    pub(in crate::cli) vulnerability: String,
    /// A record of it as osv.dev has it (OSV, JSON): which versions of which packages; repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) osv: Vec<PathBuf>,
    /// A VEX document (OpenVEX or CycloneDX, JSON) that counts before those of the releases; repeatable
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) vex: Vec<PathBuf>,
    /// The distribution of packages whose SBOM does not say it, for instance debian-13
    #[arg(long, value_name = "NAME-VERSION")]
    pub(in crate::cli) distro: Option<String>,
    /// The server; by default that of the repository
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) server: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FleetStatusArgs {
    /// The server; by default that of SIGNER_REPO, or of the repository of signer.toml
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) server: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryArgs,
}
