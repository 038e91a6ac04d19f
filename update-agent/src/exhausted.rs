//! What the system may refuse at any moment, and how the process ends then: with an error that has a
//! code. The lock is the kernel's and goes with the process; everything durable is made for a cut at
//! any moment.
//!
//! | refused | by | what happens |
//! |---|---|---|
//! | memory | `RLIMIT_AS`, a full machine | `error[resource_limit]`, exit code 23 ([`Memory`]) |
//! | memory for the signal stack of a thread | the same | the same, where the standard library would panic before the thread's first line, and abort ([`end_where_no_thread_starts`]) |
//! | the C library's own memory for a thread | the same | it ends the process by `SIGABRT` and a line of its own |
//! | bytes of a file | `RLIMIT_FSIZE` | the write fails with EFBIG, as on a full disk ([`survive_file_size`]) |
//! | threads, descriptors | `RLIMIT_NPROC`, `RLIMIT_NOFILE` | errors of the calls |

#![expect(unsafe_code, reason = "an allocator and its setting, a signal handler that does nothing")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use formats::reason::Reason;

use crate::error::AgentError;

/// The system's allocator, which ends the process where Rust would abort it by a signal.
pub struct Memory;

// SAFETY: everything is the system allocator's, but for a null, after which nothing returns.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        granted(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        granted(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: the caller's promises are handed on.
        granted(unsafe { System.realloc(old, layout, len) })
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Lets all threads share one heap. By default glibc gives each its own, which keeps what it freed from the others:
/// buffers of an update are made on one thread and freed on another, and the peak of memory grows by a quarter.
/// To be called before there is a second thread.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt(3) takes two numbers and touches no memory of ours.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

fn granted(bytes: *mut u8) -> *mut u8 {
    if bytes.is_null() {
        no_memory();
    }
    bytes
}

/// Says so and ends the process, without a lock and without memory. Several threads may get here at
/// once: the first one speaks, and the others wait for the end that it makes.
fn no_memory() -> ! {
    static SAID: AtomicBool = AtomicBool::new(false);
    while SAID.swap(true, Ordering::Relaxed) {
        // SAFETY: waits for a signal, and touches nothing.
        let _interrupted = unsafe { libc::pause() };
    }
    let text = b"error[resource_limit]: the system gives no more memory\n";
    let _ = rustix::io::write(rustix::stdio::stderr(), text);
    // SAFETY: ends the process without running anything else of it.
    unsafe { libc::_exit(i32::from(Reason::ResourceLimit.exit().code())) }
}

/// Ends the process by an error where a thread was started and gets no memory for its signal stack. The standard
/// library panics then, before anything that could catch it, and aborts. Other panics are told as before. To be called
/// before there is a second thread.
pub fn end_where_no_thread_starts() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(is_of_a_signal_stack) {
            no_memory();
        }
        usual(panic);
    }));
}

/// Both sentences of `std::sys::pal::unix::stack_overflow`.
fn is_of_a_signal_stack(text: &str) -> bool {
    text.starts_with("failed to allocate an alternative stack")
        || text.starts_with("failed to set up alternative stack guard page")
}

/// Makes a write beyond `RLIMIT_FSIZE` an error instead of the end of the process. A handler, not
/// an ignored signal: programs that are started do not inherit it.
pub fn survive_file_size() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, which is safe at any moment.
    let _before = unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) };
}

/// The error of a thread that the system does not start.
pub(crate) fn no_thread(error: &io::Error) -> AgentError {
    AgentError::new(Reason::ResourceLimit, format!("the system starts no more threads: {error}"))
        .hint("raise TasksMax= of the unit or `ulimit -u`, or wait until other programs have ended")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, exit};
    use std::ptr::null_mut;
    use std::sync::Barrier;
    use std::thread::{Builder, scope};

    use rustix::process::{Resource, Rlimit, setrlimit};

    use super::{Memory, Reason, end_where_no_thread_starts, granted, share_one_heap};

    /// As in the program.
    #[global_allocator]
    static MEMORY: Memory = Memory;

    /// Set in the process that is to run out of memory: this test, once more.
    const RUNS_OUT: &str = "RACKLET_TEST_RUNS_OUT";
    const THREADS: usize = 16;

    #[test]
    fn threads_that_run_out_at_once_give_one_error() {
        if std::env::var_os(RUNS_OUT).is_some() {
            let together = Barrier::new(THREADS);
            scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        together.wait();
                        let _never = granted(null_mut());
                    });
                }
            });
        }
        let mut again = Command::new(std::env::current_exe().expect("this test"));
        let name = "exhausted::tests::threads_that_run_out_at_once_give_one_error";
        let again = again.args(["--exact", name, "--nocapture"]).env(RUNS_OUT, "1");
        for _ in 0..20 {
            let ended = again.output().expect("run it");
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(said, "error[resource_limit]: the system gives no more memory\n");
            assert_eq!(ended.status.code(), Some(i32::from(Reason::ResourceLimit.exit().code())));
        }
    }
    /// How the process with so many bytes for a thread and its signal stack says that the thread was not started, and
    /// that it ran.
    const NOT_STARTED: i32 = 7;
    const RAN: i32 = 8;
    const STACK: usize = 64 << 10;

    /// Leaves this process memory for `more` bytes, and starts a thread.
    fn start_with(more: u64) -> ! {
        share_one_heap();
        end_where_no_thread_starts();
        // What has been running for a while has room on its heap, below something that stays.
        let freed: Vec<Vec<u8>> = (0..32).map(|_| vec![1; 32 << 10]).collect();
        std::mem::forget(vec![1_u8; 64]);
        drop(freed);
        let pages = std::fs::read_to_string("/proc/self/statm").expect("proc(5)");
        let pages = pages.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        let now = pages.expect("a number") * rustix::param::page_size() as u64;
        let limit = Rlimit { current: Some(now + more), maximum: None };
        setrlimit(Resource::As, limit).expect("a lower limit");
        match Builder::new().stack_size(STACK).spawn(|| ()) {
            Err(_) => exit(NOT_STARTED),
            Ok(thread) => exit(if thread.join().is_ok() { RAN } else { 1 }),
        }
    }

    /// At each amount of memory around what a thread needs: it is not started, or it runs, or the process ends by one
    /// error. Only the C library ends it by a signal.
    #[test]
    fn a_thread_without_a_signal_stack_ends_the_process_by_an_error() {
        let name = "exhausted::tests::a_thread_without_a_signal_stack_ends_the_process_by_an_error";
        if let Ok(more) = std::env::var(RUNS_OUT) {
            start_with(more.parse().expect("a number"));
        }
        let page = rustix::param::page_size();
        let mut seen = Vec::new();
        for more in (0..4 * STACK).step_by(page) {
            let mut again = Command::new(std::env::current_exe().expect("this test"));
            let again = again.args(["--exact", name, "--nocapture", "--test-threads", "1"]);
            let ended = again.env(RUNS_OUT, more.to_string()).output().expect("run it");
            match ended.status.code() {
                Some(code) => seen.push(code),
                None => {
                    assert!(ended.stderr.starts_with(b"Fatal glibc error"), "{more}: {ended:?}")
                }
            }
        }
        let refused = i32::from(Reason::ResourceLimit.exit().code());
        assert!(seen.iter().all(|code| [NOT_STARTED, RAN, refused].contains(code)), "{seen:?}");
        assert!(seen.contains(&refused) && seen.contains(&RAN), "{seen:?}");
    }
}
