//! How a component is made to start from a place: a command, or the register of an eMMC.
//!
//! ```toml
//! switch = ["bmc-bank", "a"]
//! switch = "emmc-boot"
//! ```

use std::fmt;
use std::process::{Command, Stdio};

use formats::reason::Reason;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::AgentError;
use crate::health::program::not_started;

/// What the configuration calls the register of an eMMC.
const EMMC_BOOT: &str = "emmc-boot";

/// How a component is switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch {
    /// By a program and its arguments; empty: it is not, the boot flags are enough.
    Command(Vec<String>),
    /// By the register of the eMMC whose boot partition the place is.
    EmmcBoot,
}

impl Switch {
    /// Whether there is one.
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Switch::Command(argv) if argv.is_empty())
    }
}

impl Default for Switch {
    fn default() -> Self {
        Switch::Command(Vec::new())
    }
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Switch::Command(argv) => argv.serialize(serializer),
            Switch::EmmcBoot => serializer.serialize_str(EMMC_BOOT),
        }
    }
}

/// By hand, so that a misspelt word is named.
impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a program with its arguments, or {EMMC_BOOT:?}")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Switch, E> {
                match word {
                    EMMC_BOOT => Ok(Switch::EmmcBoot),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, argv: A) -> Result<Switch, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(argv)).map(Switch::Command)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Runs a switch to its end.
pub(super) fn run(argv: &[String]) -> Result<(), AgentError> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let shown = argv.join(" ");
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| not_started(argv, &error))
        .map_err(|why| {
            AgentError::new(Reason::BootRecord, format!("the switch `{shown}`: {why}"))
        })?;
    if status.success() {
        return Ok(());
    }
    let text = format!("the switch `{shown}` ended with {status}");
    Err(AgentError::new(Reason::BootRecord, text)
        .hint("the other bank stays the one that starts; mend the command, then try again"))
}
