//! What makes, imports and lists keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::key::TokenKeyKind;

pub(super) const PASSPHRASE: &str = "Protect new offline keys with a passphrase, from SIGNER_PASSPHRASE_FILE \
                          or the terminal; done anyway when that variable is set";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
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

#[derive(Debug, Args)]
pub(in crate::cli) struct KeysArgs {
    /// Directory with the keys and root.json
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) keys: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum TokenKeyArg {
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
