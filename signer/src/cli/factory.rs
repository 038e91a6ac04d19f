//! `factory`: arguments to a request.

use super::args::FactoryArgs;
use super::change::Run;
use super::{opened, output, trust_root_of};
use crate::commands::{self, FactoryRequest};
use crate::error::SignerError;
use crate::repository::Access;

pub(super) fn run(arguments: FactoryArgs, run: Run<'_>) -> Result<(), SignerError> {
    let FactoryArgs { repo, trust, version, config, board, data, seed, output, .. } = arguments;
    let root = trust_root_of(&trust)?;
    let epoch = commands::source_date_epoch()?;
    let request = FactoryRequest { root, version, config, board, data, seed, epoch, output };
    let registry = opened(&repo.repo, &repo.registry, Access::Read)?;
    let report = commands::factory(registry.as_ref(), &request, run.now, run.show)?;
    output::success(&report, run.json);
    Ok(())
}
