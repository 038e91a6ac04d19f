//! The counting allocator: the one place of this crate with unsafe code.
#![expect(
    unsafe_code,
    reason = "an allocator is an unsafe trait; every call is handed to `System`"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted per thread. Put it into a `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting;

thread_local! {
    /// Bytes held now and at most. Constant, without a destructor: so an allocator may use it.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// Runs `work` and says how many bytes more than before it held at its peak, what it returns
/// included. 0 always without [`Counting`] as the global allocator.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let out = work();
    let (_, peak) = HELD.with(Cell::get);
    (out, usize::try_from(peak - before).unwrap_or(0))
}

fn count(change: isize) {
    // A thread that ends has no counter any more.
    let _ = HELD.try_with(|held| {
        let (now, peak) = held.get();
        let now = now.wrapping_add(change);
        held.set((now, peak.max(now)));
    });
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: every call is passed to `System` with the arguments it came with; counting neither
// allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promises are those `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: `pointer` came from `System` by one of these functions, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may be held together while it is copied.
        count(signed(size));
        // SAFETY: as in `dealloc`; the caller promises that `size` is none that overflows.
        let new = unsafe { System.realloc(pointer, layout, size) };
        count(-signed(layout.size()));
        new
    }
}
