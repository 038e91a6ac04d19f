//! libFuzzer around one target, named by the variable `FUZZ_TARGET`. `cargo xtask fuzz` calls it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use racklet_fuzz::{Counting, Target};

#[global_allocator]
static HEAP: Counting = Counting;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    racklet_fuzz::target(&name).expect("FUZZ_TARGET is the name of a target")
});

fuzz_target!(|data: &[u8]| {
    TARGET.check(data);
});
