//! Memory as a property that is tested: how much a call allocates at its peak, and documents of the
//! shapes that cost most per byte.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: racklet_memory::Counting = racklet_memory::Counting;
//!
//! let (sum, peak) = racklet_memory::peak_of(|| vec![1u8; 1000].iter().map(|n| u64::from(*n)).sum::<u64>());
//! assert_eq!(sum, 1000);
//! assert!((1000..2000).contains(&peak));
//! ```
//!
//! Counted is what is asked of the allocator, on the calling thread alone: tests may run beside each
//! other. What the allocator adds (16 to 32 bytes per allocation) and what it does not give back is not
//! counted; the resident memory of the real program is measured elsewhere.

mod counting;
pub mod shapes;

pub use counting::{Counting, peak_of};
