//! How every command that changes something runs: where its change goes, and how it opens and ends.

use formats::tuf::UnixTime;

use super::args::{DryRunArgs, RepoArgs, SigningArgs};
use super::output;
use super::place::Place;
use super::signing::{self, KeysUsed};
use crate::commands::{Answer, Delivery, Report, Signing};
use crate::error::SignerError;
use crate::progress::Show;
use crate::repository::{Access, Registry};

/// How a command runs, whatever it changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) delivery: Delivery<'a>,
    pub(super) now: UnixTime,
    pub(super) show: Show,
    pub(super) json: bool,
}

impl Run<'_> {
    /// The same, changing nothing if that is asked for.
    pub(super) fn dry(self, arguments: &DryRunArgs) -> Self {
        let delivery = if arguments.dry_run { Delivery::DryRun } else { self.delivery };
        Run { delivery, ..self }
    }

    /// The signer and the repository. Who stages needs no key, only something to trust.
    pub(super) fn open(
        self,
        arguments: &SigningArgs,
        repo: &RepoArgs,
        access: Access,
    ) -> Result<(Signing, Box<dyn Registry>), SignerError> {
        let publishes = self.delivery == Delivery::Publish;
        let keys = if publishes { KeysUsed::All } else { KeysUsed::None };
        let place = Place::of(repo.repo.as_deref(), &repo.registry, arguments)?;
        let signing = signing::signing(&place.signing, keys, Some(place.repo()?))?;
        // A wrong clock is a reason of its own, before TLS fails for it or a directory is made.
        signing.check_clock(None, None, self.now)?;
        let access = if self.delivery == Delivery::DryRun { Access::Read } else { access };
        Ok((signing, place.open(access)?))
    }

    pub(super) fn finish<T: Report>(self, answer: Answer<T>) {
        match answer {
            Answer::Done(report) => output::success(&report, self.json),
            Answer::Staged(report) => output::success(&report, self.json),
            Answer::Described(report) => output::success(report.as_ref(), self.json),
        }
    }
}
