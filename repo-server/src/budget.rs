//! How many bytes of answers are in memory at once, of all clients together.
//!
//! A piece of a blob is read when there is room for it; the room is free again when the socket has
//! taken the piece. What a client asks for and does not read therefore costs room, and never more
//! than there is:
//!
//! | room | bytes | of |
//! |---|---|---|
//! | common | [`COMMON`] | the first to ask, in pieces of at most [`LARGE`] |
//! | own | [`SMALL`] | each connection, however full the common room is |
//! | documents | [`DOCUMENTS`] | answers that are made in memory as a whole: lists, figures, cached manifests |
//! | received | [`RECEIVED`] | manifests that are being pushed |
//!
//! No client waits for another one: a connection's own room is enough to send a blob from its first
//! byte to its last. Where there is no room for a document, a blob's way is taken or the client is told to come
//! back.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// 32 MiB: 256 pieces, more than a full line ever needs.
pub(crate) const COMMON: usize = 32 << 20;
/// 128 KiB: large enough that reading costs little compared with sending.
pub(crate) const LARGE: usize = 128 << 10;
/// 8 KiB: half an HTTP/2 frame. With 4,096 connections, 32 MiB.
pub(crate) const SMALL: usize = 8 << 10;
/// 16 MiB: 4 of the largest documents, or 8,000 timestamps.
pub(crate) const DOCUMENTS: usize = 16 << 20;
/// 24 MiB: 6 of the largest manifests, or thousands of ordinary ones.
pub(crate) const RECEIVED: usize = 24 << 20;
/// 1 KiB: an answer as small as its own head is not counted.
pub(crate) const UNCOUNTED: usize = 1 << 10;

/// Memory is counted in KiB, so that a permit's number fits where tokio wants it.
const UNIT: usize = 1 << 10;

/// The room that all connections share.
#[derive(Debug)]
pub(crate) struct Budget {
    common: Arc<Semaphore>,
    documents: Arc<Semaphore>,
    received: Arc<Semaphore>,
}

/// The room of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionBudget {
    budget: Arc<Budget>,
    own: Arc<Semaphore>,
}

/// A reservation of so many bytes of memory; dropping it frees them.
#[derive(Debug)]
pub(crate) struct Reservation {
    bytes: usize,
    permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(crate) fn new() -> Arc<Self> {
        let room = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Arc::new(Budget {
            common: room(COMMON),
            documents: room(DOCUMENTS),
            received: room(RECEIVED),
        })
    }

    /// The room of one more connection.
    pub(crate) fn share(self: &Arc<Self>) -> ConnectionBudget {
        ConnectionBudget { budget: Arc::clone(self), own: Arc::new(Semaphore::new(1)) }
    }

    /// Counts a document for as long as any of it is in memory; gives it back when there is no room.
    pub(crate) fn document(&self, bytes: Bytes) -> Result<Bytes, Bytes> {
        if bytes.len() <= UNCOUNTED {
            return Ok(bytes);
        }
        match take(&self.documents, bytes.len()) {
            Some(room) => Ok(room.holding(bytes)),
            None => Err(bytes),
        }
    }

    /// Reserves more bytes for a document that is being received; `None` when there are none left.
    pub(crate) fn receive(&self, bytes: usize) -> Option<Reservation> {
        take(&self.received, bytes)
    }
}

impl ConnectionBudget {
    /// Reserves memory for a piece of at most `left` bytes, if there is some now.
    pub(crate) fn now(&self, left: u64) -> Option<Reservation> {
        let most = usize::try_from(left).unwrap_or(LARGE);
        take(&self.budget.common, most.min(LARGE)).or_else(|| {
            let permit = Arc::clone(&self.own).try_acquire_owned().ok()?;
            Some(Reservation { bytes: SMALL, permit })
        })
    }

    /// Waits for the memory of a small piece, of this connection's own or of the common pool.
    pub(crate) async fn wait(self) -> Option<Reservation> {
        let units = u32::try_from(SMALL / UNIT).unwrap_or(1);
        let permit = tokio::select! {
            own = Arc::clone(&self.own).acquire_owned() => own,
            common = Arc::clone(&self.budget.common).acquire_many_owned(units) => common,
        };
        permit.ok().map(|permit| Reservation { bytes: SMALL, permit })
    }
}

impl Reservation {
    /// How many bytes it is for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that take up the room until the last reference to them is gone.
    pub(crate) fn holding(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }

    /// One room of both.
    pub(crate) fn merge(&mut self, other: Reservation) {
        self.bytes += other.bytes;
        self.permit.merge(other.permit);
    }
}

struct Held {
    bytes: Bytes,
    _room: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn take(of: &Arc<Semaphore>, bytes: usize) -> Option<Reservation> {
    let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
    let permit = Arc::clone(of).try_acquire_many_owned(units).ok()?;
    Some(Reservation { bytes, permit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_a_small_piece_when_the_common_room_is_full() {
        let budget = Budget::new();
        let greedy = budget.share();
        let mut held: Vec<Reservation> = Vec::new();
        while let Some(room) = greedy.now(u64::MAX) {
            held.push(room);
        }
        let bytes: usize = held.iter().map(Reservation::bytes).sum();
        assert_eq!(bytes, COMMON + SMALL);
        let other = budget.share();
        let room = other.now(u64::MAX).expect("its own");
        assert_eq!(room.bytes(), SMALL);
        assert!(other.now(1).is_none(), "one piece of its own, not two");
        drop(room);
        assert!(other.now(1).is_some());
    }

    #[test]
    fn room_is_free_when_the_last_reference_is_gone() {
        let budget = Budget::new();
        let share = budget.share();
        let before = budget.common.available_permits();
        let bytes = share.now(100).unwrap().holding(Bytes::from(vec![7; 100]));
        let half = bytes.slice(50..);
        drop(bytes);
        assert_eq!(budget.common.available_permits(), before - 1);
        drop(half);
        assert_eq!(budget.common.available_permits(), before);
    }

    #[test]
    fn documents_have_room_as_a_sum() {
        let budget = Budget::new();
        let document = Bytes::from(vec![0; 4 << 20]);
        let held: Vec<_> = (0..4).map(|_| budget.document(document.clone()).unwrap()).collect();
        assert!(budget.document(document.clone()).is_err());
        assert!(budget.document(Bytes::from_static(b"small")).is_ok());
        drop(held);
        assert!(budget.document(document).is_ok());
    }
}
