//! Locks that go on after a panic.
//!
//! A panic while a lock is held poisons it. Everything behind a lock of this crate is whole between
//! any two statements (a map, a counter, a pointer that is replaced), so the next holder goes on with
//! it: one request that panicked must not fail all later ones.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// [`Mutex::lock`], poisoned or not.
pub(crate) trait LockMutex<T> {
    /// Waits for the lock.
    fn locked(&self) -> MutexGuard<'_, T>;
}

impl<T> LockMutex<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`RwLock::read`] and [`RwLock::write`], poisoned or not.
pub(crate) trait LockRw<T> {
    /// Waits until nobody writes.
    fn read_locked(&self) -> RwLockReadGuard<'_, T>;
    /// Waits until nobody reads or writes.
    fn write_locked(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T> LockRw<T> for RwLock<T> {
    fn read_locked(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_locked(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
