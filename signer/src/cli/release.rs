//! `release`: which releases there are, taking one back, and moving old ones.

use super::args::{ArchiveArgs, ListArgs, ReleaseChange, ReleaseCommand, WithdrawArgs};
use super::place::Place;
use super::run::Run;
use super::{output, trust_root_of};
use crate::commands::{self, ChangeOptions, Delivery};
use crate::error::SignerError;
use crate::plan::{Change, Expiry};
use crate::repository::Access;

/// Runs `release`.
pub(super) fn run(command: ReleaseCommand, run: Run<'_>) -> Result<(), SignerError> {
    match command {
        ReleaseCommand::Change(command) => change(command, run),
        ReleaseCommand::List(ListArgs { reference, registry, trust, product }) => {
            let place = Place::to_read(reference.get(), &registry, &trust, None)?;
            let root = trust_root_of(&place.trust())?;
            let registry = place.open(Access::Read)?;
            let product = product.as_deref();
            let report = commands::releases(registry.as_ref(), &root, product, run.now)?;
            output::success(&report, run.json);
            Ok(())
        }
    }
}

/// Runs a command that changes a release, at once or staged.
pub(super) fn change(command: ReleaseChange, run: Run<'_>) -> Result<(), SignerError> {
    match command {
        ReleaseChange::Withdraw(arguments) => withdraw(arguments, run),
        ReleaseChange::Archive(arguments) => archive(arguments, run),
    }
}

fn archive(arguments: ArchiveArgs, run: Run<'_>) -> Result<(), SignerError> {
    let ArchiveArgs { repo, signing, keep, expires, dry } = arguments;
    let run = run.dry(&dry);
    let options = ChangeOptions { expiry: Expiry::parse(&expires)?, base: None };
    let (mut signing, registry) = run.open(&signing, &repo, Access::Update)?;
    let (change, registry) = (Change::Archive { keep }, registry.as_ref());
    let delivery = run.delivery;
    run.finish(commands::change(registry, &mut signing, &change, &options, delivery, run.now)?);
    Ok(())
}

fn withdraw(arguments: WithdrawArgs, run: Run<'_>) -> Result<(), SignerError> {
    let WithdrawArgs { by, product, version, because } = arguments;
    let run = run.dry(&by.dry);
    let asks = run.delivery == Delivery::Publish && !by.yes && !run.json;
    let question = format!("withdraw {product}/{version} for good?");
    let expiry = Expiry::parse(&by.expires)?;
    let (mut signing, registry) = run.open(&by.signing, &by.repo, Access::Update)?;
    if asks && output::somebody_is_there() && !output::answers_yes(&question) {
        return Err(SignerError::Declined);
    }
    let change = Change::Withdraw { product, version, because };
    let options = ChangeOptions { expiry, base: None };
    let (registry, delivery) = (registry.as_ref(), run.delivery);
    run.finish(commands::change(registry, &mut signing, &change, &options, delivery, run.now)?);
    Ok(())
}
