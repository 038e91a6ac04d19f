//! The command line: arguments to requests, reports to text or JSON, errors to codes.

mod args;
mod output;

pub use args::Arguments;

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::CommandFactory;
use formats::reason::Exit;
use formats::reference::Reference;
use formats::tuf::UnixTime;

use self::args::{ChannelCommand, Command, KeyCommand, KeysArgs, RegistryArgs, TrustArgs};
use crate::commands::{self, ROOT_FILE, Report};
use crate::error::SignerError;
use crate::image;
use crate::key::KeyStore;
use crate::plan::Expiry;
use crate::progress::Show;
use crate::repository::{Access, Registry, open};

/// No core dump and no debugger of the same user reads a key out of this process (threats 182).
pub fn harden() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // Fails only where the kernel has no such setting.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Runs one command and says how it ended.
pub fn run(arguments: Arguments) -> ExitCode {
    let json = arguments.json;
    let show = if json || arguments.quiet { Show::Nothing } else { Show::Terminal };
    let ended = match arguments.command {
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "signer", &mut std::io::stdout());
            return ExitCode::from(Exit::Done.code());
        }
        command => dispatch(command, show, json),
    };
    match ended {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            output::failure(&error, json);
            ExitCode::from(error.reason().exit().code())
        }
    }
}

fn dispatch(command: Command, show: Show, json: bool) -> Result<Exit, SignerError> {
    let now = now();
    match command {
        Command::Init { repo, keys, root_threshold, root_keys, passphrase, expires } => {
            let request = commands::InitRequest {
                keys: keys.keys,
                root_threshold,
                root_keys,
                expiry: Expiry::parse(&expires)?,
                passphrase,
            };
            // The trust root comes before the repository: see `commands::init`.
            let registry = opened(&repo.repo, &repo.registry, Access::Write)?;
            output::success(&commands::init(registry.as_ref(), &request, now)?, json);
        }
        Command::Key { command } => key_command(command, json)?,
        Command::Publish { repo, keys, release, channel, level, expires } => {
            let options = image::Options { level, ..image::Options::default() };
            let request = commands::PublishRequest {
                product: release.product,
                version: release.version,
                components: args::components(release.component, &release.hw)?,
                security_version: release.security_version,
                channel,
                options,
                expiry: Expiry::parse(&expires)?,
            };
            let signing = Signing::open(&keys)?;
            let registry = opened(&repo.repo, &repo.registry, Access::Write)?;
            let (store, root) = (&signing.store, &signing.trust_root);
            let report = commands::publish(registry.as_ref(), store, root, &request, now, show)?;
            output::success(&report, json);
        }
        Command::Channel { command: ChannelCommand::Set { repo, keys, set, expires } } => {
            let hold = if set.hold {
                Some(true)
            } else if set.no_hold {
                Some(false)
            } else {
                None
            };
            let request = commands::ChannelRequest {
                product: set.product,
                channel: set.channel,
                release: set.release,
                urgency: set.urgency.map(Into::into),
                hold,
            };
            let expiry = Expiry::parse(&expires)?;
            let signing = Signing::open(&keys)?;
            let registry = opened(&repo.repo, &repo.registry, Access::Write)?;
            let (store, root) = (&signing.store, &signing.trust_root);
            let registry = registry.as_ref();
            let report = commands::set_channel(registry, store, root, &request, &expiry, now)?;
            output::success(&report, json);
        }
        Command::Refresh { repo, keys, expires } => {
            let expiry = Expiry::parse(&expires)?;
            let signing = Signing::open(&keys)?;
            let registry = opened(&repo.repo, &repo.registry, Access::Write)?;
            let (store, root) = (&signing.store, &signing.trust_root);
            let report = commands::refresh(registry.as_ref(), store, root, &expiry, now)?;
            output::success(&report, json);
        }
        Command::Bundle { repo, trust, product, version, channel, output } => {
            let selection = match (version, channel) {
                (Some(version), None) => commands::Selection::Version(version),
                (None, Some(channel)) => commands::Selection::Channel(channel),
                _ => return Err(SignerError::Usage("give --version or --channel".to_owned())),
            };
            let root = trust_root(&trust)?.ok_or_else(|| {
                SignerError::Usage("give --keys DIR or --root FILE to verify against".to_owned())
            })?;
            let registry = opened(&repo.repo, &repo.registry, Access::Read)?;
            let request = commands::BundleRequest { product, selection, output };
            output::success(
                &commands::bundle(registry.as_ref(), &root, &request, now, show)?,
                json,
            );
        }
        Command::Inspect { reference, registry, trust } => {
            let registry = opened(&reference, &registry, Access::Read)?;
            let root = trust_root(&trust)?;
            output::success(&commands::inspect(registry.as_ref(), root.as_deref(), now)?, json);
        }
        Command::Verify { reference, registry, trust } => {
            let registry = opened(&reference, &registry, Access::Read)?;
            let root = trust_root(&trust)?;
            let report = commands::verify(registry.as_ref(), root.as_deref(), now, show)?;
            output::success(&report, json);
        }
        Command::Status { reference, registry, trust, expires_within } => {
            let registry = opened(&reference, &registry, Access::Read)?;
            let root = trust_root(&trust)?;
            let days = expires_within.map(i64::from);
            let (report, late) = commands::status(registry.as_ref(), root.as_deref(), days, now)?;
            match late {
                None => output::success(&report, json),
                Some(error) => {
                    output::report_with_failure(&report, &error, json);
                    return Ok(error.reason().exit());
                }
            }
        }
        Command::PackageRoot { check } => {
            output::success(&commands::check_package_root(&check, now)?, json);
        }
        Command::Completions { .. } => {}
    }
    Ok(Exit::Done)
}

fn key_command(command: KeyCommand, json: bool) -> Result<(), SignerError> {
    let protect = |passphrase| {
        if passphrase { commands::Protect::Passphrase } else { commands::Protect::IfConfigured }
    };
    match command {
        KeyCommand::New { out, passphrase } => {
            output::success(&commands::new(&out, protect(passphrase))?, json);
        }
        KeyCommand::Import { from, out, uri, passphrase } => {
            let protect = protect(passphrase);
            output::success(&commands::import_key(&from, &out, uri.as_deref(), protect)?, json);
        }
        KeyCommand::Pkcs11 { uri, out, generate } => {
            output::success(&commands::pkcs11(&uri, &out, generate.map(Into::into))?, json);
        }
        KeyCommand::Passphrase { file, remove } => {
            output::success(&commands::passphrase(&file, remove)?, json);
        }
        KeyCommand::List { keys } => output::success(&commands::list(&keys.keys)?, json),
        KeyCommand::Example { out } => output::success(&commands::example(&out)?, json),
    }
    Ok(())
}

/// Keys, and the trust root beside them.
struct Signing {
    store: KeyStore,
    trust_root: Vec<u8>,
}

impl Signing {
    fn open(keys: &KeysArgs) -> Result<Self, SignerError> {
        let trust_root = commands::read_trust_root(&keys.keys.join(ROOT_FILE))?;
        Ok(Signing { store: KeyStore::open(&keys.keys)?, trust_root })
    }
}

fn trust_root(trust: &TrustArgs) -> Result<Option<Vec<u8>>, SignerError> {
    match (&trust.root, &trust.keys) {
        (Some(file), _) => Ok(Some(commands::read_trust_root(file)?)),
        (None, Some(keys)) => Ok(Some(commands::read_trust_root(&keys.join(ROOT_FILE))?)),
        (None, None) => Ok(None),
    }
}

fn opened(
    text: &str,
    registry: &RegistryArgs,
    access: Access,
) -> Result<Box<dyn Registry>, SignerError> {
    let reference = match text.parse::<Reference>() {
        Ok(reference) => reference,
        // For reading, a path says enough.
        Err(_) if access == Access::Read && Path::new(text).exists() => bare(Path::new(text)),
        Err(error) => return Err(SignerError::Usage(error.to_string())),
    };
    Ok(open(&reference, access, &registry.options())?)
}

/// A directory or a tar, by what is there.
fn bare(path: &Path) -> Reference {
    let (path, namespace) = (path.to_owned(), Default::default());
    if path.is_dir() {
        Reference::Layout { path, namespace }
    } else {
        Reference::Archive { path, namespace }
    }
}

/// The system clock and nothing else (threats §1.6.6).
fn now() -> UnixTime {
    let seconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
    };
    UnixTime::from_secs(seconds)
}

/// Says loudly that everybody has the keys.
fn warn_of_example_keys(report: &impl Report) {
    if report.example_keys() {
        eprintln!(
            "WARNING: this uses EXAMPLE KEYS, which are published. Anybody can sign for nodes that \
             trust them. Never use them outside of a demonstration."
        );
    }
}
