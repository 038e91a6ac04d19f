//! The arguments of changes: what `signer NAME` does at once, and `signer stage NAME` for others to
//! sign.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::plan::retention::LEAST_STATES;

use super::channel::RolloutArgs;
use super::component::ReleaseArgs;
use super::key::PASSPHRASE;
use super::repository::RepoArgs;
use super::signing::{DryRunArgs, EXPIRES, RecoveryArgs, SigningArgs};

/// What can be done at once or staged, beside the changes of channels.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once, of the command line")]
pub(in crate::cli) enum ChangeCommand {
    /// Make keys, a trust root and a first repository
    Init(InitArgs),
    /// Build, upload and sign a release; it becomes visible as a whole or not at all
    Publish(PublishArgs),
    /// Let another role sign for some names, for others, or for none any more
    Delegate(DelegateArgs),
    /// Change keys and thresholds; without --role, to what signer.toml says
    Rotate(RotateArgs),
    /// Remove keys from every role that has them
    Revoke(RevokeArgs),
    /// Sign root, targets or delegated roles again, for a new expiry
    Renew(RenewArgs),
    /// Unlist releases that no channel offers, and remove what nobody needs any more
    ///
    /// The newest releases of a product stay, and so do withdrawn ones and those that deltas start from. Nodes
    /// that run an unlisted release go on; nobody installs it any more. Its images stay until the newest
    /// states do not list it either. Then their tags go and, in a directory, their blobs.
    Prune(PruneArgs),
}

impl ChangeCommand {
    /// Whether nothing is to be changed.
    pub(in crate::cli) fn is_dry_run(&self) -> bool {
        match self {
            ChangeCommand::Init(_) => false,
            ChangeCommand::Publish(arguments) => arguments.dry.dry_run,
            ChangeCommand::Delegate(arguments) => arguments.dry.dry_run,
            ChangeCommand::Rotate(arguments) => arguments.dry.dry_run,
            ChangeCommand::Revoke(arguments) => arguments.dry.dry_run,
            ChangeCommand::Renew(arguments) => arguments.dry.dry_run,
            ChangeCommand::Prune(arguments) => arguments.dry.dry_run,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    /// How many root keys must sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) root_threshold: u32,
    /// Public keys of the root role; private keys beside them sign
    #[arg(long, value_name = "A.pub,B.pub", value_delimiter = ',')]
    pub(in crate::cli) root_keys: Vec<PathBuf>,
    /// How many targets keys must sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) targets_threshold: u32,
    /// Public keys of the targets role
    #[arg(long, value_name = "A.pub,B.pub", value_delimiter = ',')]
    pub(in crate::cli) targets_keys: Vec<PathBuf>,
    /// Name of the repository in everything that is signed for it. By default it is derived from
    /// REF, the keys and the time
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) id: Option<String>,
    #[arg(long, help = PASSPHRASE)]
    pub(in crate::cli) passphrase: bool,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(in crate::cli) expires: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    #[command(flatten)]
    pub(in crate::cli) release: ReleaseArgs,
    /// Let this channel offer it
    #[arg(long, value_name = "CHANNEL")]
    pub(in crate::cli) channel: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) rollout: RolloutArgs,
    /// The delegated role that signs for it
    #[arg(long, value_name = "ROLE")]
    pub(in crate::cli) role: Option<String>,
    /// zstd level
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(in crate::cli) level: i32,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(in crate::cli) expires: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DelegateArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    /// Name of the delegated role
    #[arg(long, value_name = "ROLE")]
    pub(in crate::cli) role: String,
    /// Target names it may sign for, such as demo/*; * does not match a /
    #[arg(long, value_name = "PATTERN", required_unless_present = "remove")]
    pub(in crate::cli) path: Vec<String>,
    /// Its public keys. Without them, an existing role gets other paths
    #[arg(long, value_name = "A.pub,B.pub", value_delimiter = ',')]
    pub(in crate::cli) role_keys: Vec<PathBuf>,
    /// How many of them must sign
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) threshold: u32,
    /// Remove the role, and with it everything that it signed
    #[arg(long, conflicts_with_all = ["path", "role_keys", "terminating", "period"])]
    pub(in crate::cli) remove: bool,
    /// Ask no later role for these names (a terminating delegation of TUF)
    #[arg(long)]
    pub(in crate::cli) terminating: bool,
    /// The role that delegates
    #[arg(long, value_name = "ROLE", default_value = "targets")]
    pub(in crate::cli) by: String,
    /// How long its signatures are valid
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) period: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RotateArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    /// The role whose keys change
    #[arg(long, value_name = "ROLE")]
    pub(in crate::cli) role: Vec<String>,
    /// Public key to add
    #[arg(long, value_name = "A.pub", requires = "role")]
    pub(in crate::cli) add: Vec<PathBuf>,
    /// Key to remove
    #[arg(long, value_name = "A.pub|KEYID", requires = "role")]
    pub(in crate::cli) remove: Vec<String>,
    /// How many keys must sign from now on
    #[arg(long, value_name = "N", requires = "role")]
    pub(in crate::cli) threshold: Option<u32>,
    #[command(flatten)]
    pub(in crate::cli) recovery: RecoveryArgs,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(in crate::cli) expires: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeArgs {
    /// The keys
    #[arg(value_name = "A.pub|KEYID", required = true)]
    pub(in crate::cli) revoked: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    /// Public key that replaces them
    #[arg(long, value_name = "A.pub")]
    pub(in crate::cli) replace: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) recovery: RecoveryArgs,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RenewArgs {
    /// Which roles
    #[arg(value_name = "ROLE", required = true)]
    pub(in crate::cli) roles: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(in crate::cli) expires: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    /// How many of the newest releases of each product stay, whoever offers them
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) keep: u32,
    /// Only releases of this product
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) product: Option<String>,
    /// How many of the newest states stay in this run, at least 16. Default: as signer.toml says, or
    /// 256
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(LEAST_STATES..))]
    pub(in crate::cli) states: Option<u64>,
    /// Blobs of a directory that nothing needs stay for so long: longer than a staged release waits for
    /// signatures
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    pub(in crate::cli) grace: String,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(in crate::cli) expires: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}
