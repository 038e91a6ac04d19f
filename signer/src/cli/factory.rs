//! `factory`: arguments to a request.

use super::args::FactoryArgs;
use super::place::Place;
use super::run::Run;
use super::{output, trust_root_of};
use crate::commands::{self, FactoryRequest};
use crate::error::SignerError;
use crate::repository::Access;

pub(super) fn run(arguments: FactoryArgs, run: Run<'_>) -> Result<(), SignerError> {
    let FactoryArgs { repo, trust, version, config, board, data, seed, output, .. } = arguments;
    let place = Place::to_read(repo.repo.as_deref(), &repo.registry, &trust, None)?;
    let root = trust_root_of(&place.trust())?;
    let epoch = commands::source_date_epoch()?;
    let request = FactoryRequest { root, version, config, board, data, seed, epoch, output };
    let registry = place.open(Access::Read)?;
    let report = commands::factory(registry.as_ref(), &request, run.now, run.show)?;
    output::success(&report, run.json);
    Ok(())
}
