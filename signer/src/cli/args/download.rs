//! `download`.

use std::path::PathBuf;

use clap::Args;
use formats::release::ComponentName;
use formats::version::Version;

use super::repository::{RepoArgs, TrustArgs};

const EXAMPLES: &str = "Examples:\n  \
     signer download --repo docker://updates.example.org/racklet --root root.json \\\n      \
     --product demo --component os -o os.img\n  \
     signer download --repo oci-archive:bundle.tar --root root.json \\\n      \
     --product demo --version 1.0.0 --component firmware --hw board-b -o firmware.bin";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct DownloadArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
    /// The product
    #[arg(long, value_name = "PRODUCT")]
    pub(in crate::cli) product: String,
    /// The release; without, what the channel offers
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) version: Option<Version>,
    /// The channel
    #[arg(long, value_name = "CHANNEL", default_value = "stable", conflicts_with = "version")]
    pub(in crate::cli) channel: String,
    /// The component
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) component: ComponentName,
    /// A hardware id that it is for, where the release has several components of that name
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) hw: Option<String>,
    /// The file to be made; it must not exist
    #[arg(long, short, value_name = "FILE")]
    pub(in crate::cli) output: PathBuf,
}
