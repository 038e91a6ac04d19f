//! The command line: arguments to requests, reports to text or JSON, errors to codes.

mod args;
mod change;
mod channel;
mod download;
mod factory;
mod fleet;
mod interrupted;
mod output;
mod place;
mod release;
mod run;
mod signing;

pub use args::Arguments;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::CommandFactory;
use formats::reason::Exit;
use formats::reference::{Reference, ReferenceError};
use formats::tuf::UnixTime;

use self::args::{
    BundleArgs, Command, KeyCommand, LintArgs, LogCommand, RegistryArgs, SignArgs, SigningArgs,
    StageCommand, StatusArgs, TrustArgs,
};
use self::place::Place;
use self::run::Run;
use self::signing::KeysUsed;
use crate::commands::{self, Delivery, ROOT_FILE, Report, Signing, StageReport};
use crate::error::SignerError;
use crate::plan::{Expiry, parse_duration};
use crate::progress::Show;
use crate::repository::{Access, Registry, open};
use crate::shared::is_name;

/// No core dump and no debugger of the same user reads a key out of this process (case 182).
pub fn harden() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // Fails only where the kernel has no such setting.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Makes a write beyond the file-size limit an error that is told, not the end of this program: the
/// kernel sends SIGXFSZ, and a program that handles it gets EFBIG.
pub fn survive_file_limits() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    let _inside = runtime.enter();
    // The handler stays when what listens to it is gone. Without it, the signal ends a write that the
    // limit would have refused anyway.
    let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
}

/// Runs one command and says how it ended.
pub fn run(arguments: Arguments) -> ExitCode {
    let json = arguments.json;
    let show = match (arguments.quiet, json) {
        (true, _) => Show::Nothing,
        (false, true) => Show::Lines,
        (false, false) => Show::Progress,
    };
    interrupted::watch(&arguments.command, json);
    let ended = match arguments.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "signer", &mut script);
            storage::report::print(&script);
            Ok(Exit::Done)
        }
        command => dispatch(command, show, json),
    };
    let exit = ended.unwrap_or_else(|error| {
        output::failure(&error, json);
        error.reason().exit()
    });
    ExitCode::from(output::end(exit).code())
}

/// Prints help or the version, or what is wrong with the command line.
pub fn explain_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::Write::flush(&mut std::io::stdout()));
    let exit = match error.exit_code() {
        0 => {
            storage::report::note(printed);
            output::end(Exit::Done)
        }
        _ => Exit::Usage,
    };
    ExitCode::from(exit.code())
}

fn dispatch(command: Command, show: Show, json: bool) -> Result<Exit, SignerError> {
    let now = now();
    let run = Run { delivery: Delivery::Publish, now, show, json };
    match command {
        Command::Change(command) => change::run(command, run)?,
        Command::Channel { command } => channel::run(command, run)?,
        Command::Release { command } => release::run(command, run)?,
        Command::Stage { share: true, change, .. } => {
            stage(change, Run { delivery: Delivery::Share, ..run })?;
        }
        Command::Stage { out, change, .. } => {
            let out = new_file(out)?;
            stage(change, Run { delivery: Delivery::Stage(&out), ..run })?;
        }
        Command::Sign(arguments) => sign(arguments, run)?,
        Command::Commit { files, repo, signing, expires } => {
            let expiry = Expiry::parse(&expires)?;
            let (mut signing, registry) = run.open(&signing, &repo, Access::Write)?;
            let registry = registry.as_ref();
            let report = commands::commit(registry, &mut signing, &files, &expiry, now)?;
            output::success(&report, json);
        }
        Command::Key { command } => key_command(command, json)?,
        Command::Refresh { repo, signing, expires } => {
            let expiry = Expiry::parse(&expires)?;
            let (mut signing, registry) = run.open(&signing, &repo, Access::Update)?;
            let report = commands::refresh(registry.as_ref(), &mut signing, &expiry, now)?;
            output::success(&report, json);
        }
        Command::Bundle(arguments) => bundle(arguments, run)?,
        Command::Download(arguments) => download::run(arguments, run)?,
        Command::Factory(arguments) => factory::run(arguments, run)?,
        Command::Fleet { command } => fleet::run(command, run)?,
        Command::Inspect { reference, registry, trust } => {
            let place = Place::to_read(reference.as_deref(), &registry, &trust, None)?;
            let registry = place.open(Access::Read)?;
            let root = trust_root(&place.trust())?;
            output::success(&commands::inspect(registry.as_ref(), root.as_deref(), now)?, json);
        }
        Command::Verify { reference, registry, trust } => {
            let place = Place::to_read(reference.as_deref(), &registry, &trust, None)?;
            let registry = place.open(Access::Read)?;
            let root = trust_root(&place.trust())?;
            let report = commands::verify(registry.as_ref(), root.as_deref(), now, show)?;
            output::success(&report, json);
        }
        Command::Lint(arguments) => return lint(arguments, run),
        Command::Status(arguments) => return status(arguments, run),
        Command::Log { signing, command } => log(&signing, command, run)?,
        Command::PackageRoot { check } => {
            output::success(&commands::check_package_root(&check, now)?, json);
        }
        Command::Completions { .. } => {}
    }
    Ok(Exit::Done)
}

/// A file that a staged change is written to; one that exists is never replaced.
fn new_file(out: Option<PathBuf>) -> Result<PathBuf, SignerError> {
    let missing = || SignerError::Usage("give the file to be made: --out FILE, or --share".into());
    let out = out.ok_or_else(missing)?;
    if out.exists() {
        let text = format!("{} exists; it may hold signatures", out.display());
        return Err(SignerError::Exists(text));
    }
    Ok(out)
}

fn sign(arguments: SignArgs, run: Run<'_>) -> Result<(), SignerError> {
    let SignArgs { files, repo, registry, signing, yes, output } = arguments;
    let asks = !yes && !run.json;
    if asks && !output::somebody_is_there() {
        let text = "sign asks for confirmation, and there is no terminal to ask on: sign at a \
                    terminal, or read `signer status FILE` and give --yes";
        return Err(SignerError::Usage(text.to_owned()));
    }
    let place = Place::of(repo.as_deref(), &registry, &signing)?;
    let mut signing = signing::signing(&place.signing, KeysUsed::Given, None)?;
    signing.check_clock(None, None, run.now)?;
    let agrees = |shown: &StageReport| !asks || output::agrees(shown);
    let access = if output.is_none() { Access::Update } else { Access::Read };
    let shared = place.repo.is_some() && files.iter().any(|file| is_name(file));
    let from = (repo.is_some() || shared).then(|| place.open(access)).transpose()?;
    let (from, output) = (from.as_deref(), output.as_ref());
    let report = commands::sign(from, &mut signing, &files, output, run.now, agrees)?;
    output::success(&report, run.json);
    Ok(())
}

fn bundle(arguments: BundleArgs, run: Run<'_>) -> Result<(), SignerError> {
    let BundleArgs { repo, signing, product, version, channel, output, form, valid_for } =
        arguments;
    let selection = match channel {
        None if !version.is_empty() => commands::Selection::Versions(version),
        Some(channel) => commands::Selection::Channel(channel),
        None => return Err(SignerError::Usage("give --version or --channel".to_owned())),
    };
    let valid_for = valid_for.as_deref().map(parse_duration).transpose()?;
    let place = Place::of(repo.repo.as_deref(), &repo.registry, &signing)?;
    let mut signing = bundling(&place, valid_for.is_some())?;
    let registry = place.open(Access::Read)?;
    let form = form.map(Into::into);
    let request = commands::BundleRequest { product, selection, output, form, valid_for };
    let report = commands::bundle(registry.as_ref(), &mut signing, &request, run.now, run.show)?;
    // Standard output is the tar.
    if request.output.as_os_str() == "-" {
        output::success_beside(&report, run.json);
    } else {
        output::success(&report, run.json);
    }
    Ok(())
}

fn lint(arguments: LintArgs, run: Run<'_>) -> Result<Exit, SignerError> {
    let LintArgs { reference, registry, trust, config } = arguments;
    let file = reference.as_deref().and_then(staged_file);
    let named = reference.as_deref().filter(|_| file.is_none());
    let place = Place::to_read(named, &registry, &trust, config.as_deref())?;
    let SigningArgs { config, keys, .. } = &place.signing;
    let at = reference.as_deref().or(place.repo.as_deref());
    let policy = signing::policy(config.as_deref(), keys.as_deref(), at)?;
    let trust_root = trust_root(&place.trust())?;
    let signing = Signing { trust_root, policy, ..Signing::default() };
    let (report, refused) = match file {
        Some(file) => commands::lint_staged(&signing, &[file], run.now)?,
        None => {
            let registry = place.open(Access::Read)?;
            commands::lint(registry.as_ref(), &signing, run.now)?
        }
    };
    Ok(output::success_or(&report, refused.as_ref(), run.json))
}

fn status(arguments: StatusArgs, run: Run<'_>) -> Result<Exit, SignerError> {
    let StatusArgs { reference, repo, registry, trust, expires_within } = arguments;
    let at = reference.as_deref();
    let file = at.and_then(staged_file);
    let shared = at.map(PathBuf::from).filter(|name| repo.is_some() || is_name(name));
    let is_change = file.is_some() || shared.is_some();
    let named = if is_change { repo.as_deref() } else { at.or(repo.as_deref()) };
    let place = Place::to_read(named, &registry, &trust, None)?;
    let root = trust_root(&place.trust())?;
    if let Some(file) = shared.or(file) {
        let wanted = repo.is_some() || (place.repo.is_some() && is_name(&file));
        let from = wanted.then(|| place.open(Access::Read)).transpose()?;
        let signing = Signing { trust_root: root, ..Signing::default() };
        let report = commands::stage_status(from.as_deref(), &signing, &[file], run.now)?;
        output::success(&report, run.json);
        return Ok(Exit::Done);
    }
    let registry = place.open(Access::Read)?;
    let days = expires_within.map(i64::from);
    let (report, late) = commands::status(registry.as_ref(), root.as_deref(), days, run.now)?;
    Ok(output::success_or(&report, late.as_ref(), run.json))
}

fn log(
    arguments: &SigningArgs,
    command: Option<LogCommand>,
    run: Run<'_>,
) -> Result<(), SignerError> {
    let place = Place::of(None, &RegistryArgs::default(), arguments)?;
    let mut signing = signing::signing(&place.signing, KeysUsed::None, None)?;
    match command {
        None => output::success(&commands::log(&signing)?, run.json),
        Some(LogCommand::Abandon { files }) => {
            output::success(&commands::abandon(&mut signing, &files, run.now)?, run.json);
        }
    }
    Ok(())
}

fn stage(command: StageCommand, run: Run<'_>) -> Result<(), SignerError> {
    match command {
        StageCommand::Change(command) => change::run(command, run),
        StageCommand::Channel { command } => channel::change(command, run),
        StageCommand::Release { command } => release::change(command, run),
    }
}

/// A staged change is a file of JSON; everything else is a repository.
fn staged_file(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    let mut first = [0];
    let mut file = storage::open_input(&path).ok().filter(|_| path.is_file())?;
    std::io::Read::read_exact(&mut file, &mut first).ok()?;
    (first == *b"{").then_some(path)
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

/// Who makes a bundle: with keys where something is signed, otherwise only to look.
fn bundling(place: &Place, signs: bool) -> Result<Signing, SignerError> {
    if signs {
        return signing::signing(&place.signing, KeysUsed::All, Some(place.repo()?));
    }
    let root = trust_root_of(&place.trust())?;
    Ok(Signing { trust_root: Some(root), ..Signing::default() })
}

fn trust_root(trust: &TrustArgs) -> Result<Option<Vec<u8>>, SignerError> {
    match (&trust.root, &trust.keys) {
        (Some(file), _) => Ok(Some(commands::read_trust_root(file)?)),
        (None, Some(keys)) => Ok(Some(commands::read_trust_root(&keys.join(ROOT_FILE))?)),
        (None, None) => Ok(None),
    }
}

/// The trust root of a command that does not go without one.
fn trust_root_of(trust: &TrustArgs) -> Result<Vec<u8>, SignerError> {
    let missing = "give --keys DIR or --root FILE to verify against, or name one of them in \
                   [repository] of signer.toml";
    trust_root(trust)?.ok_or_else(|| SignerError::Usage(missing.to_owned()))
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
        // What is written as a path is one; `https://…` is not.
        Err(ReferenceError::Transport(_))
            if !text.contains("://") && (text.contains('/') || text.ends_with(".tar")) =>
        {
            return Err(SignerError::NoSuchPlace(text.to_owned()));
        }
        // A path would have done.
        Err(error) if access == Access::Read => {
            return Err(SignerError::Usage(error.or_path().to_string()));
        }
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

/// The system clock and nothing else: no flag and no variable gives another time.
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
        output::say(
            "WARNING: this uses EXAMPLE KEYS, which are published. Anybody can sign for nodes that \
             trust them. Never use them outside of a demonstration.",
        );
    }
}
