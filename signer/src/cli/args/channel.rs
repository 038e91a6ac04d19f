//! What changes and shows channels.

use clap::{Args, Subcommand, ValueEnum};
use formats::channel::Urgency;
use formats::tuf::UnixTime;
use formats::version::Version;

use super::repository::{ListArgs, RefArgs, RegistryArgs, RepoArgs, TrustArgs};
use super::signing::{DryRunArgs, EXPIRES, SigningArgs};
use crate::error::SignerError;
use crate::plan::{Rollout, RolloutError, parse_waves, parse_window};

/// Heading of the options of a roll-out.
const ROLL_OUT: &str = "Roll-out";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ChannelCommand {
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
pub(in crate::cli) enum ChannelChange {
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
    pub(in crate::cli) fn is_dry_run(&self) -> bool {
        let (ChannelChange::Set { by, .. }
        | ChannelChange::Hold { by, .. }
        | ChannelChange::Promote { by, .. }) = self;
        by.dry.dry_run
    }
}

/// Where, and who signs.
#[derive(Debug, Args)]
pub(in crate::cli) struct ChannelArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    /// Do not ask, whatever changes
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    #[arg(long, value_name = "ROLE=DURATION", help = EXPIRES)]
    pub(in crate::cli) expires: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) dry: DryRunArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetArgs {
    /// The product
    #[arg(long)]
    pub(in crate::cli) product: String,
    /// The channel
    #[arg(long)]
    pub(in crate::cli) channel: String,
    /// The release it offers
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) release: Option<Version>,
    /// How urgent it is
    #[arg(long)]
    pub(in crate::cli) urgency: Option<UrgencyArg>,
    /// Nobody installs until --no-hold
    #[arg(long, conflicts_with = "no_hold")]
    pub(in crate::cli) hold: bool,
    /// End the hold
    #[arg(long)]
    pub(in crate::cli) no_hold: bool,
}

/// How fast a channel's release reaches the nodes.
#[derive(Debug, Args)]
pub(in crate::cli) struct RolloutArgs {
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
    pub(in crate::cli) fn read(&self, now: UnixTime) -> Result<Rollout, SignerError> {
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

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum UrgencyArg {
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
