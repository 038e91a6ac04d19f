//! Reason codes and exit codes: the stable words by which scripts and people know an outcome.
//!
//! Every error of every command has exactly one reason code, printed on stderr as
//! `error[<code>]: …` and in JSON as `"code"`, and the exit code that belongs to it. Codes are
//! added, never renamed.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $exit:ident;)*) => {
        /// Why an operation ended, as a stable word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The stable word.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }

            /// The exit code a command ends with.
            pub fn exit(self) -> Exit {
                match self { $(Reason::$name => Exit::$exit,)* }
            }
        }
    };
}

reasons! {
    /// Fewer distinct keys of the role signed than its threshold asks for.
    SigThreshold = "sig_threshold", Trust;
    /// A key is malformed, weak or of a size we refuse.
    KeyInvalid = "key_invalid", Trust;
    /// One key stands under two key ids, or one key id twice.
    KeyDuplicate = "key_duplicate", Trust;
    /// A key id is not the hash of its key.
    KeyidMismatch = "keyid_mismatch", Trust;
    /// Bytes do not have the signed digest.
    HashMismatch = "hash_mismatch", Trust;
    /// Bytes do not have the signed length.
    LengthMismatch = "length_mismatch", Trust;
    /// Metadata is not of the form the specification gives it.
    MetaFormat = "meta_format", Trust;
    /// Metadata of another role or repository was offered.
    MetaType = "meta_type", Trust;
    /// Metadata is larger or more numerous than the limits.
    MetaLimit = "meta_limit", Limit;
    /// A `spec_version` other than 1.x.
    SpecVersion = "spec_version", Trust;
    /// Something older than what is trusted or installed was offered.
    VersionRollback = "version_rollback", Rollback;
    /// The release's security version is below the node's floor.
    SecverFloor = "secver_floor", Rollback;
    /// The TPM that kept the floor is gone, cleared or another one.
    FloorLost = "floor_lost", Rollback;
    /// Metadata has expired: the repository is frozen or was not refreshed.
    Expired = "expired", Freeze;
    /// The clock is behind what is known to have happened.
    ClockUntrusted = "clock_untrusted", Freeze;
    /// No signed target of that name.
    TargetNotFound = "target_not_found", Trust;
    /// More delegations than the limit.
    DelegationLimit = "delegation_limit", Limit;
    /// Nothing came in time.
    Timeout = "timeout", Transport;
    /// Bytes came more slowly than the minimum rate.
    TooSlow = "too_slow", Transport;
    /// TLS could not be established.
    Tls = "tls", Transport;
    /// A redirect that must not be followed.
    RedirectRefused = "redirect_refused", Transport;
    /// The server answered with an error status, or not in HTTP.
    HttpStatus = "http_status", Transport;
    /// The source cannot be read: no connection, no such directory, an I/O error.
    Unreachable = "unreachable", Transport;
    /// Compressed data is damaged or of a form we refuse.
    Decompress = "decompress", Content;
    /// A bundle, manifest or release document is malformed.
    BundleFormat = "bundle_format", Content;
    /// The release has no attachment of a kind that this node's policy requires.
    AttachmentMissing = "attachment_missing", Content;
    /// A file that is no image of a system was to be published: empty, compressed, an archive, a disk.
    ImageRefused = "image_refused", Content;
    /// A name would leave the place it belongs to.
    PathRefused = "path_refused", Content;
    /// The image is for other hardware.
    HwMismatch = "hw_mismatch", Hardware;
    /// A bundle holds no release of this node's product.
    ProductMismatch = "product_mismatch", Hardware;
    /// The slot to be written is, or may be, in use.
    SlotActive = "slot_active", Device;
    /// The image does not fit the slot.
    SlotSize = "slot_size", Device;
    /// The slot's device is missing or failed.
    SlotIo = "slot_io", Device;
    /// What was read back is not what was written.
    Readback = "readback", Device;
    /// No usable partition table, or an ambiguous one.
    GptInvalid = "gpt_invalid", Device;
    /// The booted slot is unknown, or the boot record contradicts the machine.
    BootRecord = "boot_record", Boot;
    /// The booted slot is on trial: confirm or revert it first.
    TrialActive = "trial_active", Boot;
    /// Boot counting is not active, so a trial could not revert.
    CountingInactive = "counting_inactive", Boot;
    /// The release does not allow the mixture of releases that its own update would pass through.
    SetMixed = "set_mixed", Boot;
    /// A component with one bank is not accepted, or nothing could be put back after its erase.
    SingleBank = "single_bank", Boot;
    /// Another agent works on this node, or another server or signer on this repository.
    Busy = "busy", Busy;
    /// There is no trial to end.
    NotPending = "not_pending", Boot;
    /// The health checks did not pass: of a trial, or on the running system before an update.
    Unhealthy = "unhealthy", Boot;
    /// An operator gave the slot up.
    Operator = "operator", Boot;
    /// This release failed on this node before; a newer one or `--retry` is needed.
    FailedBefore = "failed_before", Boot;
    /// The maintainers withdrew this release.
    Withdrawn = "withdrawn", Boot;
    /// The release or its roll-out is held, or not yet this node's turn.
    Deferred = "deferred", Nothing;
    /// A hook of the node's operator does not let it be installed now.
    HookRefused = "hook_refused", Boot;
    /// The server of the restart lock does not let it restart now.
    RestartLocked = "restart_locked", Nothing;
    /// Somebody was asked and said no.
    Declined = "declined", Nothing;
    /// Nothing newer is offered.
    UpToDate = "up_to_date", Nothing;
    /// The agent's or server's own durable state is damaged.
    StoreCorrupt = "store_corrupt", Config;
    /// The agent's durable state was written by a newer version in a form that this one cannot read.
    StoreNewer = "store_newer", Config;
    /// The state could not be written: disk full, read-only or failing.
    StoreIo = "store_io", Config;
    /// The report could not be written to standard output; what was done is done.
    ReportLost = "report_lost", Config;
    /// The system gives no more memory or threads.
    ResourceLimit = "resource_limit", Config;
    /// A file that must be private is writable or readable by others.
    InsecurePerms = "insecure_perms", Config;
    /// The configuration is wrong or incomplete.
    Config = "config", Config;
    /// An example key stands where only real keys may.
    ExampleKey = "example_key", Config;
    /// Ctrl-C or SIGTERM ended the command before its work was done.
    Interrupted = "interrupted", Interrupted;
    /// A command line that makes no sense.
    Usage = "usage", Usage;
}

impl Reason {
    /// The reason of that code.
    pub fn from_code(code: &str) -> Option<Self> {
        Reason::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.code())
    }
}

impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let code = String::deserialize(d)?;
        Reason::from_code(&code)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown reason {code:?}")))
    }
}

/// A reason as a durable record has it: a newer agent may have written one that this version does not
/// know. It is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordedReason {
    /// One of [`Reason::ALL`].
    Known(Reason),
    /// The code of another version.
    Unknown(String),
}

impl RecordedReason {
    /// The stable word.
    pub fn code(&self) -> &str {
        match self {
            RecordedReason::Known(reason) => reason.code(),
            RecordedReason::Unknown(code) => code,
        }
    }
}

impl From<Reason> for RecordedReason {
    fn from(reason: Reason) -> Self {
        RecordedReason::Known(reason)
    }
}

impl PartialEq<Reason> for RecordedReason {
    fn eq(&self, other: &Reason) -> bool {
        matches!(self, RecordedReason::Known(reason) if reason == other)
    }
}

/// For people: the code, and whether this version knows it.
impl fmt::Display for RecordedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordedReason::Known(reason) => reason.fmt(f),
            RecordedReason::Unknown(code) => write!(f, "{code} (not known to this version)"),
        }
    }
}

impl serde::Serialize for RecordedReason {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.code())
    }
}

impl<'de> serde::Deserialize<'de> for RecordedReason {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let code = String::deserialize(d)?;
        Ok(Reason::from_code(&code).map_or(RecordedReason::Unknown(code), RecordedReason::Known))
    }
}

/// Exit codes of every command. Anything else or a hang is a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It happened and is durable.
    Done = 0,
    /// There was nothing to do.
    Nothing = 1,
    /// The command line was wrong.
    Usage = 2,
    /// Trust: signatures, digests, metadata.
    Trust = 10,
    /// Freeze or clock.
    Freeze = 11,
    /// Rollback.
    Rollback = 12,
    /// A limit was exceeded.
    Limit = 13,
    /// Transport.
    Transport = 14,
    /// Content: bundles, compression, documents.
    Content = 15,
    /// Device.
    Device = 20,
    /// Another agent is at work.
    Busy = 21,
    /// Boot state.
    Boot = 22,
    /// Configuration, permissions or durable state.
    Config = 23,
    /// Wrong hardware, or a bundle of another product.
    Hardware = 24,
    /// The process died by a signal: what a shell shows of Ctrl-C. Of SIGTERM it shows 143.
    Interrupted = 130,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_found_again() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert!(!Reason::ALL[..i].iter().any(|other| other.code() == reason.code()));
        }
        assert_eq!(Reason::from_code("sig_treshold"), None);
    }
}
