//! Why a disk could not be made.

use std::io;
use std::path::PathBuf;

use formats::autoboot::AutobootError;
use formats::fat::FatError;
use formats::gpt::GptError;
use formats::reason::Reason;
use formats::release::ComponentName;
use formats::uboot_env::UbootEnvError;
use storage::block::DeviceError;
use update_agent::error::AgentError;
use update_core::chooser::ProofError;

use super::layout::LayoutError;

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// The board profile is not of its form.
    #[error("board {path}: {why}")]
    Board {
        /// The file.
        path: PathBuf,
        /// What the parser said, with the line.
        why: String,
    },
    /// The configuration of the node is refused, or its state could not be written.
    #[error("{}", .0.chain())]
    Node(Box<AgentError>),
    /// The disk cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No partition table can be made of the plan.
    #[error("partition table")]
    Table(#[from] GptError),
    /// A program that makes or reads file systems is missing.
    #[error("{program} is not installed: run `apt install {package}`")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Such a program failed.
    #[error("{program}: {said}")]
    Tool {
        /// The program.
        program: &'static str,
        /// Its last words.
        said: String,
    },
    /// The image has no such file, or another one.
    #[error("{what} of the release's image of {component}: {path} {why}")]
    Image {
        /// What is looked for.
        what: &'static str,
        /// In which image.
        component: String,
        /// Its path on the node.
        path: PathBuf,
        /// In what it is not right.
        why: &'static str,
    },
    /// A program is no longer what the disk was laid out for.
    #[error("{0} changed while the disk was made")]
    Changed(PathBuf),
    /// The image that a Raspberry Pi starts.
    #[error("the image of {component} is nothing that a Raspberry Pi starts")]
    NoFat {
        /// Of which component.
        component: ComponentName,
        /// Why not.
        #[source]
        source: FatError,
    },
    /// The variables do not make an environment of U-Boot.
    #[error("U-Boot's environment")]
    Env(#[from] UbootEnvError),
    /// No `autoboot.txt` can be made of the plan.
    #[error("autoboot.txt")]
    Autoboot(#[from] AutobootError),
    /// A file that a data partition does not hold.
    #[error("{path} is {kind}; only files, directories and symbolic links are copied")]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The data partition would have a state of another node.
    #[error("the directory for the data partition has {0} already")]
    State(PathBuf),
    /// The release index is named by another digest than sha256.
    #[error("the release index is not named by sha256")]
    Digest,
    /// The output is a place that must not be replaced.
    #[error("{0} exists; a disk that was made is never replaced")]
    Exists(PathBuf),
    /// `SOURCE_DATE_EPOCH` is no number of seconds.
    #[error("SOURCE_DATE_EPOCH={0:?} is not a number of seconds since 1970")]
    Epoch(String),
    /// The chooser would not start the release.
    #[error("the chooser would refuse this release")]
    Proof(#[source] ProofError),
    /// Writing behind an image.
    #[error("the slot on the disk")]
    Device(#[from] DeviceError),
    /// Reading a file, or writing the disk.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl FactoryError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            FactoryError::Node(error) => error.reason(),
            FactoryError::Layout(error) => error.reason(),
            FactoryError::Proof(error) => error.reason(),
            FactoryError::Tool { .. } | FactoryError::Device(_) => Reason::StoreIo,
            FactoryError::Digest => Reason::BundleFormat,
            FactoryError::Epoch(_) => Reason::Usage,
            FactoryError::File { action, .. } if *action != "read" => Reason::StoreIo,
            _ => Reason::Config,
        }
    }

    /// What to do next; empty when the error says it all.
    pub fn hint(&self) -> String {
        match self {
            FactoryError::Node(error) => error.advice().unwrap_or_default().to_owned(),
            FactoryError::Board { .. } => "docs/first-disk.md describes the file".to_owned(),
            FactoryError::Image { .. } => {
                "publish a release whose image has it, or set board.config, trust.root or \
                 boot.env_config to a place on the data partition, where it is then written"
                    .to_owned()
            }
            FactoryError::Layout(LayoutError::TooLarge { .. }) => {
                "make [slots] of the board larger, or the image smaller".to_owned()
            }
            FactoryError::Env(UbootEnvError::Full { .. }) => {
                "make env.size larger, as U-Boot was built, or env.initial shorter".to_owned()
            }
            FactoryError::Proof(error) => error.hint().unwrap_or_default().to_owned(),
            FactoryError::NoFat { .. } => {
                "publish a FAT with firmware, kernel and config.txt: docs/raspberry-pi.md"
                    .to_owned()
            }
            FactoryError::State(_) => {
                "remove it there: each node begins with a state of its own".to_owned()
            }
            FactoryError::Exists(_) => "choose another name, or remove it first".to_owned(),
            _ => String::new(),
        }
    }

    pub(crate) fn file(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| FactoryError::File { action, path: path.clone(), source }
    }
}

impl From<AgentError> for FactoryError {
    fn from(error: AgentError) -> Self {
        FactoryError::Node(Box::new(error))
    }
}
