//! Uploads in parallel; one after another at a registry that does not accept several at once.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::RwLock;

use super::failure::Failure;
use super::upload::trouble;
use super::upload_plan::Trouble;

/// How many uploads run now, and whether the registry accepts several.
#[derive(Debug, Default)]
pub(super) struct Concurrency {
    /// Read by uploads that run in parallel, written by one that runs alone.
    exclusive: RwLock<()>,
    now: AtomicUsize,
    begun: AtomicUsize,
    /// An upload succeeded alone that had failed in parallel: all run alone from then on.
    alone: AtomicBool,
    /// An upload failed alone, too: parallel uploads are not the cause.
    alone_failed: AtomicBool,
}

impl Concurrency {
    /// Runs one upload in parallel with others and, if that fails, once more alone.
    pub(super) async fn upload<F: Future<Output = Result<(), Failure>>>(
        &self,
        upload: impl Fn() -> F,
        say: impl Fn(&Failure),
    ) -> Result<(), Failure> {
        if self.alone.load(Ordering::Relaxed) {
            let _alone = self.exclusive.write().await;
            return upload().await;
        }
        let (done, others) = {
            let _shared = self.exclusive.read().await;
            let before = self.now.fetch_add(1, Ordering::Relaxed);
            let mine = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            let done = upload().await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            (done, before > 0 || self.begun.load(Ordering::Relaxed) > mine)
        };
        let alone_failed = self.alone_failed.load(Ordering::Relaxed);
        match done {
            Err(failure) if others && !alone_failed && may_be_others(&failure) => {
                say(&failure);
                let _alone = self.exclusive.write().await;
                let done = upload().await;
                let flag = if done.is_ok() { &self.alone } else { &self.alone_failed };
                flag.store(true, Ordering::Relaxed);
                done
            }
            done => done,
        }
    }
}

/// Whether another upload may be why this one failed.
fn may_be_others(failure: &Failure) -> bool {
    matches!(trouble(failure), Trouble::Passing | Trouble::OutOfStep | Trouble::Unknown)
}
