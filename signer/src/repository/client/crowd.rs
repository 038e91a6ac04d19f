//! Uploads side by side; one after another at a registry that does not take several at once.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::RwLock;

use super::course::Trouble;
use super::failure::Failure;
use super::upload::trouble;

/// Who uploads now.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Read by those who go side by side, written by who goes alone.
    room: RwLock<()>,
    now: AtomicUsize,
    begun: AtomicUsize,
    /// Going alone helped: everybody does from then on.
    alone: AtomicBool,
    /// Going alone did not help either.
    hopeless: AtomicBool,
}

impl Crowd {
    /// Does one upload: beside others; when that fails, once more without them.
    pub(super) async fn upload<F: Future<Output = Result<(), Failure>>>(
        &self,
        upload: impl Fn() -> F,
        say: impl Fn(&Failure),
    ) -> Result<(), Failure> {
        if self.alone.load(Ordering::Relaxed) {
            let _alone = self.room.write().await;
            return upload().await;
        }
        let (done, others) = {
            let _among = self.room.read().await;
            let before = self.now.fetch_add(1, Ordering::Relaxed);
            let mine = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            let done = upload().await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            (done, before > 0 || self.begun.load(Ordering::Relaxed) > mine)
        };
        let hopeless = self.hopeless.load(Ordering::Relaxed);
        match done {
            Err(failure) if others && !hopeless && may_be_others(&failure) => {
                say(&failure);
                let _alone = self.room.write().await;
                let done = upload().await;
                let flag = if done.is_ok() { &self.alone } else { &self.hopeless };
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
