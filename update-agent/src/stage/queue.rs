//! Fetched frames on their way to the workers, bounded in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue whose bytes in flight are bounded: from before an item is received until its worker is
/// done with it.
pub(super) struct Queue<T> {
    limit: usize,
    state: Mutex<State<T>>,
    /// Something came, or nothing more will.
    came: Condvar,
    /// Bytes left, or nothing more is taken.
    left: Condvar,
}

struct State<T> {
    items: VecDeque<(usize, T)>,
    in_flight: usize,
    closed: bool,
}

/// Bytes reserved; given back when dropped.
pub(super) struct Reservation<'a, T> {
    queue: &'a Queue<T>,
    bytes: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { items: VecDeque::new(), in_flight: 0, closed: false };
        Queue { limit, state: Mutex::new(state), came: Condvar::new(), left: Condvar::new() }
    }

    /// Waits for room. An item above the limit is let in alone. `None` once closed.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Reservation<'_, T>> {
        let mut state = self.state();
        while !state.closed && state.in_flight > 0 && state.in_flight + bytes > self.limit {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.in_flight += bytes;
        Some(Reservation { queue: self, bytes })
    }

    /// Waits for an item; `None` once the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<(T, Reservation<'_, T>)> {
        let mut state = self.state();
        loop {
            if let Some((bytes, item)) = state.items.pop_front() {
                return Some((item, Reservation { queue: self, bytes }));
            }
            if state.closed {
                return None;
            }
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the workers are done with everything that was pushed.
    pub(super) fn drain(&self) {
        let mut state = self.state();
        while state.in_flight > 0 {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more will come; what is there is still handed out.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.came.notify_all();
        self.left.notify_all();
    }

    /// Throws away what is there, so that nobody waits for a worker that is gone.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        let bytes: usize = state.items.drain(..).map(|(bytes, _)| bytes).sum();
        state.in_flight -= bytes;
        drop(state);
        self.close();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reservation<'_, T> {
    /// Puts an item into the room reserved for it.
    pub(super) fn push(self, item: T) {
        self.queue.state().items.push_back((self.bytes, item));
        self.queue.came.notify_one();
        // The bytes now belong to the item, until its worker drops the room that comes with it.
        std::mem::forget(self);
    }
}

impl<T> Drop for Reservation<'_, T> {
    fn drop(&mut self) {
        self.queue.state().in_flight -= self.bytes;
        self.queue.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn bytes_in_flight_stay_bounded_and_nothing_is_lost() {
        let queue = Queue::new(100);
        let (held, most, sum) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some((item, _room)) = queue.pop() {
                        sum.fetch_add(item, Ordering::SeqCst);
                        held.fetch_sub(item, Ordering::SeqCst);
                    }
                });
            }
            for item in (1..=60).cycle().take(3000) {
                let room = queue.reserve(item).unwrap();
                most.fetch_max(held.fetch_add(item, Ordering::SeqCst) + item, Ordering::SeqCst);
                room.push(item);
            }
            queue.drain();
            assert_eq!(held.load(Ordering::SeqCst), 0);
            queue.close();
        });
        assert_eq!(sum.into_inner(), 50 * (1..=60).sum::<usize>());
        assert!(most.into_inner() <= 100);
    }

    #[test]
    fn an_oversized_item_goes_alone() {
        let queue = Queue::new(10);
        queue.reserve(1000).unwrap().push("large");
        thread::scope(|scope| {
            let second = scope.spawn(|| queue.reserve(1).map(|room| room.push("small")));
            let (item, room) = queue.pop().unwrap();
            assert_eq!(item, "large");
            assert!(queue.state().items.is_empty(), "the small one waits");
            drop(room);
            second.join().unwrap().unwrap();
        });
        assert_eq!(queue.pop().unwrap().0, "small");
    }

    #[test]
    fn an_abandoned_queue_is_drained() {
        let queue = Queue::new(10);
        queue.reserve(4).unwrap().push("lost");
        queue.abandon();
        queue.drain();
        assert!(queue.reserve(1).is_none() && queue.pop().is_none());
    }

    #[test]
    fn closing_ends_every_wait() {
        let queue = Queue::new(10);
        let held = queue.reserve(10).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.reserve(10).is_none());
            let popping = scope.spawn(|| queue.pop().is_none());
            queue.close();
            assert!(waiting.join().unwrap() && popping.join().unwrap());
        });
        held.push(1);
        assert_eq!(queue.pop().unwrap().0, 1, "what is in it is still handed out");
        assert!(queue.pop().is_none());
    }
}
