//! The arguments.

mod change;
mod download;
mod factory;
mod release;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use formats::channel::Urgency;
use formats::release::{ComponentName, Mixture};
use formats::tuf::UnixTime;
use formats::version::Version;

use crate::commands::{ComponentInput, Form};
use crate::error::SignerError;
use crate::image::RawReason;
use crate::key::TokenKeyKind;
use crate::plan::{Rollout, RolloutError, parse_duration, parse_waves, parse_window};
use crate::policy::chunk_size;
use crate::progress;
use crate::repository::{ClientOptions, Patience};

pub(super) use self::change::{
    ChangeCommand, DelegateArgs, InitArgs, PruneArgs, PublishArgs, RenewArgs, RevokeArgs,
    RotateArgs,
};
pub(super) use self::download::DownloadArgs;
pub(super) use self::factory::FactoryArgs;
pub(super) use self::release::{ArchiveArgs, ReleaseChange, ReleaseCommand, WithdrawArgs};

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

/// Headings of options that many commands share.
const REGISTRY: &str = "How the registry is reached";
const KEYS: &str = "Keys and trust";
const ROLL_OUT: &str = "Roll-out";

const PASSPHRASE: &str = "Protect new offline keys with a passphrase, from SIGNER_PASSPHRASE_FILE \
                          or the terminal; done anyway when that variable is set";

const EXPIRES: &str = "How long signatures of a role last from now on (7d, 12h, 1y); at first root \
                       1y, targets 90d, snapshot 7d, timestamp 1d; offline=DURATION|none in targets \
                       bounds `bundle --valid-for`, at first 90d";

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key: NAME.key (secret, 0600) and NAME.pub
    New {
        /// Path of the key, without a suffix
        #[arg(long, value_name = "DIR/NAME")]
        out: PathBuf,
        #[arg(long, help = PASSPHRASE)]
        passphrase: bool,
    },
    /// Import a key of another tool: PKCS#8 or public key in PEM, or a TUF key object
    Import {
        /// The file
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Path of the key, without a suffix
        #[arg(long, value_name = "DIR/NAME")]
        out: PathBuf,
        /// PKCS#11 URI of the private key, when a public key is imported
        #[arg(long, value_name = "URI")]
        uri: Option<String>,
        #[arg(long, help = PASSPHRASE)]
        passphrase: bool,
    },
    /// Use a key in a PKCS#11 token, such as a smart card or an HSM
    Pkcs11 {
        /// pkcs11:token=T;object=O?module-path=LIB&pin-source=FILE
        uri: String,
        /// Path of the key, without a suffix: NAME.uri and NAME.pub
        #[arg(long, value_name = "DIR/NAME")]
        out: PathBuf,
        /// Make the key in the token first
        #[arg(long, value_name = "KIND", num_args = 0..=1, default_missing_value = "ed25519")]
        generate: Option<TokenKeyArg>,
    },
    /// Change the passphrase of a key file, from SIGNER_NEW_PASSPHRASE_FILE or the terminal
    Passphrase {
        /// The key file
        #[arg(value_name = "NAME.key")]
        file: PathBuf,
        /// Remove the passphrase
        #[arg(long)]
        remove: bool,
    },
    /// List the keys of a directory and what they sign for
    List {
        #[command(flatten)]
        keys: KeysArgs,
    },
    /// Write the published example keys; for demonstrations only
    Example {
        /// Where
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ChannelCommand {
    #[command(flatten)]
    Change(ChannelChange),
    /// One channel: its release, and how far its waves are
    Show {
        #[command(flatten)]
        reference: RefArgs,
        #[command(flatten)]
        registry: RegistryArgs,
        #[command(flatten)]
        trust: TrustArgs,
        /// The product
        #[arg(long)]
        product: String,
        /// The channel
        #[arg(long)]
        channel: String,
    },
    /// All channels, one line each
    List(ListArgs),
}

/// What changes a channel.
#[derive(Debug, Subcommand)]
pub(super) enum ChannelChange {
    /// Set what a channel offers and how
    Set {
        #[command(flatten)]
        by: ChannelArgs,
        #[command(flatten)]
        set: SetArgs,
        #[command(flatten)]
        rollout: RolloutArgs,
        /// Who signs for it from now on
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
    },
    /// Stop a roll-out: nobody installs from the channel until --off
    Hold {
        #[command(flatten)]
        by: ChannelArgs,
        /// The product
        #[arg(long)]
        product: String,
        /// The channel
        #[arg(long)]
        channel: String,
        /// End the hold; it did not stop the clock of the waves
        #[arg(long)]
        off: bool,
    },
    /// Let a channel offer the release that another one offers
    Promote {
        #[command(flatten)]
        by: ChannelArgs,
        /// The product
        #[arg(long)]
        product: String,
        /// The channel that offers the release
        #[arg(long, value_name = "CHANNEL")]
        from: String,
        /// The channel that is to offer it, too
        #[arg(long, value_name = "CHANNEL")]
        to: String,
        /// How urgent it is
        #[arg(long)]
        urgency: Option<UrgencyArg>,
        #[command(flatten)]
        rollout: RolloutArgs,
        /// Who signs for it from now on
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
    },
}

impl ChannelChange {
    /// Whether nothing is to be changed.
    pub(super) fn is_dry_run(&self) -> bool {
        let (ChannelChange::Set { by, .. }
        | ChannelChange::Hold { by, .. }
        | ChannelChange::Promote { by, .. }) = self;
        by.dry.dry_run
    }
}

/// Where, and who signs.
#[derive(Debug, Args)]
pub(super) struct ChannelArgs {
    #[command(flatten)]
    pub(super) repo: RepoArgs,
    #[command(flatten)]
    pub(super) signing: SigningArgs,
    /// Do not ask, whatever changes
    #[arg(long)]
    pub(super) yes: bool,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(super) expires: Vec<String>,
    #[command(flatten)]
    pub(super) dry: DryRunArgs,
}

/// What is listed: all in a repository, or what is of one product.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) reference: RefArgs,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
    #[command(flatten)]
    pub(super) trust: TrustArgs,
    /// Only those of this product
    #[arg(long)]
    pub(super) product: Option<String>,
}

/// A repository to look at.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct RefArgs {
    /// The repository; by default SIGNER_REPO, or that of signer.toml
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// The repository, as for commands that change it
    #[arg(long, value_name = "REF")]
    repo: Option<String>,
}

impl RefArgs {
    pub(super) fn get(&self) -> Option<&str> {
        self.reference.as_deref().or(self.repo.as_deref())
    }
}

/// How fast a channel's release reaches the nodes.
#[derive(Debug, Args)]
pub(super) struct RolloutArgs {
    /// From TIME on, so many of all nodes may install; TIME is now, +DURATION (+90m, +4h, +1h30m,
    /// +1d), or like 2026-12-01T08:00:00Z; repeatable, rising. Without it waves stay, and start again
    /// when the release is another one
    #[arg(long, help_heading = ROLL_OUT, value_name = "PERCENT%@TIME")]
    wave: Vec<String>,
    /// No waves: all nodes at once
    #[arg(long, help_heading = ROLL_OUT, conflicts_with = "wave")]
    clear_waves: bool,
    /// Nodes install at these times of day only, in UTC (22:00+4h); repeatable. Without it windows stay
    #[arg(long, help_heading = ROLL_OUT, value_name = "HH:MM+DURATION")]
    window: Vec<String>,
    /// No windows: at any time of day
    #[arg(long, help_heading = ROLL_OUT, conflicts_with = "window")]
    clear_windows: bool,
}

impl RolloutArgs {
    pub(super) fn read(&self, now: UnixTime) -> Result<Rollout, SignerError> {
        let usage = |error: RolloutError| SignerError::Usage(error.to_string());
        let waves = parse_waves(&self.wave, now).map_err(usage)?;
        let windows = self.window.iter().map(|text| parse_window(text));
        let windows: Vec<_> = windows.collect::<Result<_, _>>().map_err(usage)?;
        Ok(Rollout {
            waves: (self.clear_waves || !waves.is_empty()).then_some(waves),
            windows: (self.clear_windows || !windows.is_empty()).then_some(windows),
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct RepoArgs {
    /// The repository; by default SIGNER_REPO, or that of signer.toml
    #[arg(long, value_name = "REF")]
    pub(super) repo: Option<String>,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
}

#[derive(Debug, Clone, Default, Args)]
pub(super) struct RegistryArgs {
    /// Trust only these certificates (PEM) instead of the system's
    #[arg(long, help_heading = REGISTRY, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// File with a bearer token. By default the credentials of `docker login` and `podman login` are
    /// used
    #[arg(long, help_heading = REGISTRY, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Client certificate (PEM), for a registry that requires one
    #[arg(long, help_heading = REGISTRY, value_name = "FILE", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM)
    #[arg(long, help_heading = REGISTRY, value_name = "FILE", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,
    /// Host of the registry's token server that may see the credentials, if it is another one
    #[arg(long, help_heading = REGISTRY, value_name = "HOST")]
    pub(super) token_host: Option<String>,
    /// HTTP without TLS, on this machine only
    #[arg(long, help_heading = REGISTRY)]
    pub(super) plain_http: bool,
    /// Send blobs in pieces of this size (64KiB to 1GiB), for a proxy that refuses or cuts off large
    /// requests. By default blobs are sent whole, and in smaller pieces when that is refused
    #[arg(long, help_heading = REGISTRY, value_name = "SIZE", value_parser = size)]
    pub(super) chunk_size: Option<u64>,
    /// Give up a transfer that makes no progress for this long (2m by default), however long it takes
    /// in all
    #[arg(long, help_heading = REGISTRY, value_name = "DURATION", value_parser = stall_limit)]
    pub(super) stall_limit: Option<Duration>,
}

impl RegistryArgs {
    pub(super) fn options(&self) -> ClientOptions {
        let usual = Patience::default();
        let patience = Patience { stall: self.stall_limit.unwrap_or(usual.stall), ..usual };
        ClientOptions {
            ca: self.ca.clone(),
            token_file: self.token_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
            token_host: self.token_host.clone(),
            plain_http: self.plain_http,
            patience,
            chunk_size: self.chunk_size,
            tell: Some(progress::say),
            ..ClientOptions::default()
        }
    }
}

/// Bytes of a piece, as `8MiB`; `8M` says the same.
fn size(text: &str) -> Result<u64, String> {
    let spelled = match text.strip_suffix(['K', 'M', 'G']) {
        Some(_) => format!("{text}iB"),
        None => text.to_owned(),
    };
    chunk_size(&spelled).map_err(|_| "give a size from 64KiB to 1GiB, like 8MiB".to_owned())
}

fn stall_limit(text: &str) -> Result<Duration, String> {
    match parse_duration(text).map_err(|error| error.to_string())? {
        0 => Err("give at least a second".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    /// Directory with the keys and root.json
    #[arg(long, value_name = "DIR")]
    pub(super) keys: PathBuf,
}

/// Who signs, and what they trust.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SigningArgs {
    /// Directory with keys, root.json, signer.toml and signer.log
    #[arg(long, help_heading = KEYS, value_name = "DIR")]
    pub(super) keys: Option<PathBuf>,
    /// A further key; `sign` then uses only the keys given with this option
    #[arg(long, help_heading = KEYS, value_name = "FILE|pkcs11:…|cmd:…")]
    pub(super) key: Vec<String>,
    /// Trust root, instead of root.json with the keys
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(super) root: Option<PathBuf>,
    /// signer.toml, instead of SIGNER_CONFIG, the one with the keys or in the repository's directory
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// signer.log, instead of the one with the keys
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DryRunArgs {
    /// Say what would be signed and uploaded and who must sign, and do none of it. Needs no key; images
    /// are built to be measured
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// After an online key was stolen.
#[derive(Debug, Args)]
pub(super) struct RecoveryArgs {
    /// Continue from this state instead of the published one, which whoever stole the key may have
    /// made
    #[arg(long, value_name = "ts-N")]
    pub(super) base: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub(super) struct TrustArgs {
    /// Trust root to verify against
    #[arg(long, help_heading = KEYS, value_name = "FILE")]
    pub(super) root: Option<PathBuf>,
    /// Directory with root.json to verify against
    #[arg(long, help_heading = KEYS, value_name = "DIR", conflicts_with = "root")]
    pub(super) keys: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// The product
    #[arg(long)]
    pub(super) product: String,
    /// The version; docs/versions.md has the order
    #[arg(long)]
    pub(super) version: Version,
    /// A component's image and the hardware ids it is for
    #[arg(long, value_name = "NAME=FILE[,hw=ID…]", required = true)]
    pub(super) component: Vec<String>,
    /// Hardware id of every component that names none
    #[arg(long, value_name = "ID")]
    pub(super) hw: Vec<String>,
    /// Append a dm-verity tree to the image of this component and sign its root hash
    #[arg(long, value_name = "NAME")]
    pub(super) verity: Vec<ComponentName>,
    /// Publish the image of this component whatever kind of file it is, and sign why; repeatable.
    /// Without, compressed files, archives, virtual and whole disks and HTML are refused
    #[arg(long, value_name = "NAME=REASON")]
    pub(super) raw: Vec<String>,
    /// Releases that this component, which starts by itself, may run beside while a set over several
    /// devices is under way; repeatable
    #[arg(long, value_name = "NAME=VERSION[,VERSION…]")]
    pub(super) mixed: Vec<String>,
    /// In which order components that start by themselves are switched when a set is activated; the
    /// reverse order when it is abandoned. Those not named come last, and after them the boot flags
    #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',')]
    pub(super) order: Vec<ComponentName>,
    /// Raise it when older releases must never run again; else that of what the channel offers
    #[arg(long, value_name = "N")]
    pub(super) security_version: Option<u64>,
    /// An SBOM (SPDX or CycloneDX) to attach and to sign for; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) sbom: Vec<PathBuf>,
    /// A provenance (in-toto statement or DSSE envelope, JSON) to attach and to sign for; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) provenance: Vec<PathBuf>,
    /// Make SBOMs from the package databases in ext4 and squashfs images (dpkg's)
    #[arg(long)]
    pub(super) sbom_from_image: bool,
    /// Make an SBOM from this copy of /var/lib/dpkg/status
    #[arg(long, value_name = "FILE")]
    pub(super) dpkg_status: Option<PathBuf>,
    /// Also make a delta from this release, for nodes whose slot holds exactly that; repeatable
    #[arg(long, value_name = "VERSION")]
    pub(super) delta_from: Vec<Version>,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The product
    #[arg(long)]
    pub(super) product: String,
    /// The channel
    #[arg(long)]
    pub(super) channel: String,
    /// The release it offers
    #[arg(long, value_name = "VERSION")]
    pub(super) release: Option<Version>,
    /// How urgent it is
    #[arg(long)]
    pub(super) urgency: Option<UrgencyArg>,
    /// Nobody installs until --no-hold
    #[arg(long, conflicts_with = "no_hold")]
    pub(super) hold: bool,
    /// End the hold
    #[arg(long)]
    pub(super) no_hold: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TokenKeyArg {
    /// ed25519
    Ed25519,
    /// ECDSA over P-256, for tokens that have nothing else
    P256,
}

impl From<TokenKeyArg> for TokenKeyKind {
    fn from(kind: TokenKeyArg) -> Self {
        match kind {
            TokenKeyArg::Ed25519 => TokenKeyKind::Ed25519,
            TokenKeyArg::P256 => TokenKeyKind::P256,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum UrgencyArg {
    /// Waves and maintenance windows apply
    Normal,
    /// Maintenance windows do not apply
    Security,
}

impl From<UrgencyArg> for Urgency {
    fn from(urgency: UrgencyArg) -> Self {
        match urgency {
            UrgencyArg::Normal => Urgency::Normal,
            UrgencyArg::Security => Urgency::Security,
        }
    }
}

/// Mixtures as they are written on the command line.
pub(super) fn mixtures(arguments: &[String]) -> Result<Vec<Mixture>, SignerError> {
    let mixture = |argument: &String| {
        let wrong = |why: String| SignerError::Usage(format!("--mixed {argument:?}: {why}"));
        let (name, versions) = argument
            .split_once('=')
            .ok_or_else(|| wrong("is not NAME=VERSION[,VERSION…]".to_owned()))?;
        let component = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let with = versions
            .split(',')
            .map(|version| version.parse().map_err(|error| wrong(format!("{error}"))))
            .collect::<Result<_, _>>()?;
        Ok(Mixture { component, with })
    };
    arguments.iter().map(mixture).collect()
}

/// Reads `NAME=FILE[,hw=ID…]`; a component without ids gets `all`.
pub(super) fn components(
    arguments: Vec<String>,
    all: &[String],
    trees: &[ComponentName],
    raw: &[String],
) -> Result<Vec<ComponentInput>, SignerError> {
    let raw = raw_reasons(raw)?;
    let mut components = Vec::new();
    for argument in arguments {
        let wrong = |why: String| SignerError::Usage(format!("--component {argument:?}: {why}"));
        let (name, rest) = argument
            .split_once('=')
            .filter(|(name, _)| !name.ends_with(",hw"))
            .ok_or_else(|| wrong(format!("name the component, say os={argument}")))?;
        let name = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let mut parts = rest.split(",hw=");
        let path = PathBuf::from(parts.next().unwrap_or_default());
        if path.as_os_str() == "-" {
            let why = "images are not read from standard input: write it to a file first";
            return Err(wrong(why.to_owned()));
        }
        let mut compatible: Vec<String> = parts.map(str::to_owned).collect();
        if compatible.is_empty() {
            compatible = all.to_vec();
        }
        let verity = trees.contains(&name);
        let raw = raw.iter().find(|(of, _)| *of == name).map(|(_, reason)| reason.clone());
        components.push(ComponentInput { name, path, compatible, verity, raw });
    }
    if let Some(none) = trees.iter().find(|tree| components.iter().all(|one| one.name != **tree)) {
        return Err(SignerError::Usage(format!("--verity {none}: there is no such --component")));
    }
    let absent = |of: &ComponentName| components.iter().all(|one| one.name != *of);
    if let Some((none, _)) = raw.iter().find(|(of, _)| absent(of)) {
        return Err(SignerError::Usage(format!("--raw {none}: there is no such --component")));
    }
    Ok(components)
}

/// Reads each `NAME=REASON`; one of a name.
fn raw_reasons(arguments: &[String]) -> Result<Vec<(ComponentName, RawReason)>, SignerError> {
    let mut reasons: Vec<(ComponentName, RawReason)> = Vec::new();
    for argument in arguments {
        let wrong = |why: String| SignerError::Usage(format!("--raw {argument:?}: {why}"));
        let (name, reason) = argument
            .split_once('=')
            .ok_or_else(|| wrong("is not NAME=REASON: say why it is right as it is".to_owned()))?;
        let name: ComponentName = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let reason = reason.parse().map_err(|error| wrong(format!("{error}")))?;
        if reasons.iter().any(|(of, _)| *of == name) {
            return Err(wrong(format!("{name} has a reason already")));
        }
        reasons.push((name, reason));
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("64KiB", 65_536), ("8M", 8 << 20), ("1GiB", 1 << 30), ("70000", 70_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "M", "8MB", "8m", "8 M", "KK", "1KM", "0", "63K", "2G", "-1M", "+1M"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn components_are_read() {
        let read = |text: &str| components(vec![text.to_owned()], &["all".to_owned()], &[], &[]);
        let own = &read("os=/a,b/x.img,hw=cu-v1,hw=cu-v2").unwrap()[0];
        assert_eq!(own.path, PathBuf::from("/a,b/x.img"));
        assert_eq!(own.compatible, ["cu-v1", "cu-v2"]);
        assert_eq!(read("os=x").unwrap()[0].compatible, ["all"]);
        for wrong in ["", "os", "OS=x", "=x", "os=-", "os=-,hw=cu-v1"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        for nameless in ["os.img,hw=cu-v1", "./os.img", "/srv/os.img,hw=cu-v1,hw=cu-v2"] {
            let error = read(nameless).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.ends_with(&format!("name the component, say os={nameless}")), "{error}");
        }
    }

    #[test]
    fn a_reason_belongs_to_a_component() {
        let read = |raw: &[&str]| {
            let raw: Vec<String> = raw.iter().map(|text| (*text).to_owned()).collect();
            let two = vec!["os=x,hw=a".to_owned(), "kernel=y,hw=a".to_owned()];
            components(two, &[], &[], &raw)
        };
        let read_back = read(&["kernel=booti unpacks it = fine"]).unwrap();
        assert_eq!(read_back[0].raw, None);
        let reason = read_back[1].raw.as_ref().map(RawReason::to_string);
        assert_eq!(reason.as_deref(), Some("booti unpacks it = fine"));
        for wrong in [&["kernel"][..], &["kernel="], &["web=why"], &["os=a", "os=b"], &["os=a\nb"]]
        {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
