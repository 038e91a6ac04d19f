//! `download`: arguments to a request.

use super::args::DownloadArgs;
use super::change::Run;
use super::{opened, output, trust_root_of};
use crate::commands::{self, DownloadRequest};
use crate::error::SignerError;
use crate::repository::Access;

pub(super) fn run(arguments: DownloadArgs, run: Run<'_>) -> Result<(), SignerError> {
    let DownloadArgs { repo, trust, product, version, channel, component, hw, output } = arguments;
    let root = trust_root_of(&trust)?;
    let request =
        DownloadRequest { root, product, version, channel, component, hardware: hw, output };
    let registry = opened(&repo.repo, &repo.registry, Access::Read)?;
    let report = commands::download(registry.as_ref(), &request, run.now, run.show)?;
    output::success(&report, run.json);
    Ok(())
}
