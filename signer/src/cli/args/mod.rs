//! The arguments.

mod change;
mod channel;
mod component;
mod download;
mod factory;
mod fleet;
mod key;
mod release;
mod repository;
mod signing;

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand, ValueEnum};
use formats::version::Version;

use self::signing::EXPIRES;
use crate::commands::Form;

pub(super) use self::change::{
    ChangeCommand, DelegateArgs, InitArgs, PruneArgs, PublishArgs, RenewArgs, RevokeArgs,
    RotateArgs,
};
pub(super) use self::channel::{ChannelArgs, ChannelChange, ChannelCommand, SetArgs};
pub(super) use self::component::{components, mixtures};
pub(super) use self::download::DownloadArgs;
pub(super) use self::factory::FactoryArgs;
pub(super) use self::fleet::{FleetAffectedArgs, FleetCommand, FleetStatusArgs};
pub(super) use self::key::KeyCommand;
pub(super) use self::release::{ArchiveArgs, ReleaseChange, ReleaseCommand, WithdrawArgs};
pub(super) use self::repository::{ListArgs, RegistryArgs, RepoArgs, TrustArgs};
pub(super) use self::signing::{DryRunArgs, RecoveryArgs, SigningArgs};

const LONG_ABOUT: &str = "Keys, releases and channels of a Racklet Update repository.\n\n\
     A repository REF is docker://HOST[:PORT][/NS], oci:DIR[:NS] or, for reading, \
     oci-archive:FILE.tar[:NS]. Commands that name none take SIGNER_REPO, or what [repository] of \
     signer.toml says, which also names credentials and keys (docs/signer-toml.md).";

/// Keys, releases and channels of a Racklet Update repository
#[derive(Debug, Parser)]
#[command(name = "signer", version, long_version = version())]
#[command(arg_required_else_help = true, max_term_width = 100, long_about = LONG_ABOUT)]
pub struct Arguments {
    /// One JSON object on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What `--version` prints after the name.
fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let features =
            [("registry", cfg!(feature = "registry")), ("pkcs11", cfg!(feature = "pkcs11"))];
        build_info::version(env!("CARGO_PKG_VERSION"), &features)
    });
    &TEXT
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Change(ChangeCommand),
    /// What channels offer, how fast, and at what times of day; moves no image
    Channel {
        #[command(subcommand)]
        command: ChannelCommand,
    },
    /// Which releases there are; taking one back
    Release {
        #[command(subcommand)]
        command: ReleaseCommand,
    },
    /// Make a change in a file that others sign: stage COMMAND …, then sign, then commit
    Stage {
        /// The file to write
        #[arg(long, short, value_name = "FILE", global = true)]
        out: Option<PathBuf>,
        /// Put it into the repository instead; signers find it by the name that is printed
        #[arg(long, global = true, conflicts_with = "out")]
        share: bool,
        #[command(subcommand)]
        change: StageCommand,
    },
    /// Show what a staged change would publish, and sign it
    Sign(SignArgs),
    /// Publish a staged change that has enough signatures
    Commit {
        /// The staged change; several copies are put together
        #[arg(value_name = "FILE|staged-…", required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        repo: RepoArgs,
        #[command(flatten)]
        signing: SigningArgs,
        #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
        expires: Vec<String>,
    },
    /// Make, import and list keys
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Renew snapshot and timestamp, from a timer
    Refresh {
        #[command(flatten)]
        repo: RepoArgs,
        #[command(flatten)]
        signing: SigningArgs,
        #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
        expires: Vec<String>,
    },
    /// Write releases with all their metadata to a tar or directory, for nodes without a network
    Bundle(BundleArgs),
    /// Write the image of a component to a file, verified as nodes do
    Download(DownloadArgs),
    /// Make the first disk of a node from a published release
    Factory(FactoryArgs),
    /// What nodes report of themselves to a repo-server
    Fleet {
        #[command(subcommand)]
        command: FleetCommand,
    },
    /// Show what is in a repository or bundle
    Inspect {
        /// The repository or bundle; by default SIGNER_REPO, or the repository of signer.toml
        #[arg(value_name = "REF")]
        reference: Option<String>,
        #[command(flatten)]
        registry: RegistryArgs,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Verify a repository or bundle as nodes do, and every byte of its images
    Verify {
        /// The repository or bundle; by default SIGNER_REPO, or the repository of signer.toml
        #[arg(value_name = "REF")]
        reference: Option<String>,
        #[command(flatten)]
        registry: RegistryArgs,
        #[command(flatten)]
        trust: TrustArgs,
    },
    /// Say what nodes would refuse of a repository or staged change
    Lint(LintArgs),
    /// Show what expires when, releases and channels; of a staged change, who has not signed
    Status(StatusArgs),
    /// Show the log of what was signed and published from here, and verify its chain
    Log {
        #[command(flatten)]
        signing: SigningArgs,
        #[command(subcommand)]
        command: Option<LogCommand>,
    },
    /// Check a trust root before it is shipped: example keys are refused
    PackageRoot {
        /// The trust root
        #[arg(long, value_name = "ROOT")]
        check: PathBuf,
    },
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// The form of a bundle.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum FormArg {
    /// One tar file
    Tar,
    /// A directory
    Directory,
}

impl From<FormArg> for Form {
    fn from(form: FormArg) -> Self {
        match form {
            FormArg::Tar => Form::Tar,
            FormArg::Directory => Form::Directory,
        }
    }
}

/// What can be staged.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once, of the command line")]
pub(super) enum StageCommand {
    #[command(flatten)]
    Change(ChangeCommand),
    /// Change what a channel offers, how fast, and at what times of day; moves no image
    Channel {
        #[command(subcommand)]
        command: ChannelChange,
    },
    /// Take a release back
    Release {
        #[command(subcommand)]
        command: ReleaseChange,
    },
}

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// The staged change; several copies are put together
    #[arg(value_name = "FILE|staged-…", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// The repository that a change was put into by its name
    #[arg(long, value_name = "REF")]
    pub(super) repo: Option<String>,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
    #[command(flatten)]
    pub(super) signing: SigningArgs,
    /// Sign without asking; --json asks nobody either
    #[arg(long)]
    pub(super) yes: bool,
    /// Write the signed change to this file instead of the first FILE
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    #[command(flatten)]
    pub(super) repo: RepoArgs,
    #[command(flatten)]
    pub(super) signing: SigningArgs,
    /// The product
    #[arg(long)]
    pub(super) product: String,
    /// The release; several may be given
    #[arg(long, conflicts_with = "channel")]
    pub(super) version: Vec<Version>,
    /// The release this channel offers
    #[arg(long)]
    pub(super) channel: Option<String>,
    /// FILE.tar, a directory, or - for a tar on standard output
    #[arg(long, short, value_name = "FILE.tar|DIR|-")]
    pub(super) output: PathBuf,
    /// What to write, whatever the name of the output ends in
    #[arg(long, value_name = "FORM")]
    pub(super) form: Option<FormArg>,
    /// Let nodes without a network use it for so long (30d), whatever its timestamp says: signed
    /// with the targets keys, up to what targets allow (`--expires offline=DURATION`)
    #[arg(long, value_name = "DURATION")]
    pub(super) valid_for: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LintArgs {
    /// The repository, or a staged change; by default SIGNER_REPO, or the repository of signer.toml
    #[arg(value_name = "REF|FILE")]
    pub(super) reference: Option<String>,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// signer.toml
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The repository, or a staged change; by default SIGNER_REPO, or the repository of signer.toml
    #[arg(value_name = "REF|FILE|staged-…")]
    pub(super) reference: Option<String>,
    /// The repository that a change was put into by its name
    #[arg(long, value_name = "REF")]
    pub(super) repo: Option<String>,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// Fail with `expired` (exit 11) if a role ends within that many days; one that lasts no longer
    /// than three times that, in the last third of its period
    #[arg(long, value_name = "DAYS")]
    pub(super) expires_within: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Record that a staged change will never be published
    Abandon {
        /// The staged change
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
