//! `download`: arguments to a request.

use super::args::DownloadArgs;
use super::place::Place;
use super::run::Run;
use super::{output, trust_root_of};
use crate::commands::{self, DownloadRequest};
use crate::error::SignerError;
use crate::repository::Access;

pub(super) fn run(arguments: DownloadArgs, run: Run<'_>) -> Result<(), SignerError> {
    let DownloadArgs { repo, trust, product, version, channel, component, hw, output } = arguments;
    let place = Place::to_read(repo.repo.as_deref(), &repo.registry, &trust, None)?;
    let root = trust_root_of(&place.trust())?;
    let request =
        DownloadRequest { root, product, version, channel, component, hardware: hw, output };
    let registry = place.open(Access::Read)?;
    let report = commands::download(registry.as_ref(), &request, run.now, run.show)?;
    output::success(&report, run.json);
    Ok(())
}
