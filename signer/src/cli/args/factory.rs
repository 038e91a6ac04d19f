//! `factory`.

use std::path::PathBuf;

use clap::Args;
use formats::version::Version;

use super::repository::{RepoArgs, TrustArgs};

const EXAMPLES: &str = "Examples:\n  \
     signer factory --repo oci:repo --keys keys --version 1.0.0 \\\n      \
     --config update-agent.toml --board generic-uefi.toml --dry-run\n  \
     signer factory --repo oci:repo --keys keys --version 1.0.0 \\\n      \
     --config update-agent.toml --board generic-uefi.toml --data tree/var -o node.img\n\n\
     docs/first-disk.md describes board profiles and the first boot.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct FactoryArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
    /// The release in slot a; without, what the node's channel offers
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) version: Option<Version>,
    /// The node's configuration, as it is on the node
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: PathBuf,
    /// The board profile
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) board: PathBuf,
    /// What else the data partition holds, with its owners: the /var of the image, for example
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// What GUIDs are drawn from; without, the other inputs. The same seed gives the same GUIDs
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) seed: Option<String>,
    /// Print what would be made
    #[arg(long, conflicts_with = "output")]
    pub(in crate::cli) dry_run: bool,
    /// The disk image to be made
    #[arg(long, short, value_name = "FILE", required_unless_present = "dry_run")]
    pub(in crate::cli) output: Option<PathBuf>,
}
