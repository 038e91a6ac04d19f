//! Who signs, and for how long.

use std::path::PathBuf;

use clap::Args;

/// Heading of options that many commands share.
pub(super) const KEYS: &str = "Keys and trust";

pub(super) const EXPIRES: &str = "How long signatures of a role last from now on (7d, 12h, 1y); at first root \
                       1y, targets 90d, snapshot 7d, timestamp 1d; offline=DURATION|none in targets \
                       bounds `bundle --valid-for`, at first 90d";

/// Who signs, and what they trust.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct SigningArgs {
    /// Directory with keys, root.json, signer.toml and signer.log
    #[arg(long, help_heading = KEYS, value_name = "DIR")]
    pub(in crate::cli) keys: Option<PathBuf>,
    /// A further key; `sign` then uses only the keys given with this option
    #[arg(long, help_heading = KEYS, value_name = "FILE|pkcs11:…|cmd:…")]
    pub(in crate::cli) key: Vec<String>,
    /// Trust root, instead of root.json with the keys
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(in crate::cli) root: Option<PathBuf>,
    /// signer.toml, instead of SIGNER_CONFIG, the one with the keys or in the repository's directory
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// signer.log, instead of the one with the keys
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(in crate::cli) log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DryRunArgs {
    /// Say what would be signed and uploaded and who must sign, and do none of it. Needs no key; images
    /// are built to be measured
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// After an online key was stolen.
#[derive(Debug, Args)]
pub(in crate::cli) struct RecoveryArgs {
    /// Continue from this state instead of the published one, which whoever stole the key may have
    /// made
    #[arg(long, value_name = "ts-N")]
    pub(in crate::cli) base: Option<String>,
}
