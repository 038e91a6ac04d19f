//! What `cargo test` says, as it says it: a line for each test binary that ended, and at once the name of a
//! test that failed.

use std::time::{Duration, Instant};

use racklet_tools::cmd::Finished;
use racklet_tools::pulse::Pulse;
use racklet_tools::show;

use super::runner::Outcome;
use super::summary::Binary;

/// One line of `cargo test` (its own and libtest's), as far as we tell it.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    /// A test binary, or the documentation of a crate, begins.
    Begins(String),
    /// One test passed or was ignored.
    Test,
    /// One test failed or runs for long, or cargo has a complaint.
    Bad(&'a str),
    /// The last line of a binary.
    Result(Counts),
    /// Whatever else.
    Other,
}

/// Tests of one binary, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

fn read(line: &str) -> Line<'_> {
    if let Some(result) = line.strip_prefix("test result: ") {
        let count = |word: &str| {
            let before = result.split(word).next()?.trim_end();
            before.rsplit(' ').next()?.parse().ok()
        };
        return Line::Result(Counts {
            passed: count("passed;").unwrap_or(0),
            failed: count("failed;").unwrap_or(0),
        });
    }
    if line.starts_with("test ") {
        return match [" ... FAILED", " has been running for over 60 seconds"] {
            ends if ends.iter().any(|end| line.ends_with(end)) => Line::Bad(line),
            _ => Line::Test,
        };
    }
    if line.starts_with("error") {
        return Line::Bad(line);
    }
    match line.trim_start().split_once(' ') {
        Some(("Running", what)) if what.ends_with(')') => Line::Begins(binary(what)),
        Some(("Doc-tests", name)) if !name.contains(' ') => {
            Line::Begins(format!("{name} (documentation)"))
        }
        _ => Line::Other,
    }
}

/// `unittests src/lib.rs (target/debug/deps/formats-0123)` → `formats src/lib.rs`;
/// `tests/keys.rs (…)` → `tests/keys.rs`.
fn binary(what: &str) -> String {
    let (source, file) = what.split_once(" (").unwrap_or((what, ""));
    let Some(source) = source.strip_prefix("unittests ") else { return source.to_owned() };
    let name = file.rsplit('/').next().unwrap_or_default();
    let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
    format!("{name} {source}")
}

/// Where a run of `cargo test` is.
pub(super) struct Progress<'a> {
    pulse: &'a Pulse,
    binary: String,
    begun: Instant,
    /// Tests of this binary that ended.
    tests: u64,
    ended: Ended,
}

/// What all of them came to.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) sum: Counts,
    /// `BINARY: TEST` of each test that failed.
    pub(super) failures: Vec<String>,
    pub(super) binaries: Vec<Binary>,
}

/// Several runs as one step, and the binaries that ran.
pub(super) fn together(runs: Vec<(Ended, Finished)>) -> (Outcome, Vec<Binary>) {
    let mut all = Outcome { passed: 0, failed: 0, failures: Vec::new(), output: String::new() };
    let (mut binaries, mut shown) = (Vec::new(), Vec::new());
    for (ended, done) in runs {
        all.passed += ended.sum.passed;
        all.failed += ended.sum.failed;
        all.failures.extend(ended.failures);
        all.output += &failing(&done.stdout);
        binaries.extend(ended.binaries);
        // A crate that does not build, or a test binary that dies, prints no result line.
        if done.code != 0 && ended.sum.failed == 0 {
            let one = Outcome::of_command(&done);
            all.failed += one.failed;
            all.failures.extend(one.failures);
            all.output += &one.output;
        }
        shown.push(done.shown);
    }
    // A name that fits no test is no success.
    if all.failed == 0 && all.passed == 0 {
        all.failed = 1;
        all.failures.push(format!("`{}` ran no test", shown.join("`, `")));
    }
    (all, binaries)
}

impl<'a> Progress<'a> {
    pub(super) fn new(pulse: &'a Pulse) -> Self {
        let ended = Ended::default();
        Self { pulse, binary: String::new(), begun: Instant::now(), tests: 0, ended }
    }

    /// All binaries that ended.
    pub(super) fn end(mut self) -> Ended {
        self.without_result();
        self.ended
    }

    /// A binary that began and said nothing of its end was killed, or died.
    fn without_result(&mut self) {
        let binary = std::mem::take(&mut self.binary);
        if !binary.is_empty() {
            self.ended.sum.failed += 1;
            self.ended.failures.push(format!("{binary}: ended without a result"));
        }
    }

    /// Takes the next line of output.
    pub(super) fn line(&mut self, line: &str) {
        match read(line) {
            Line::Begins(binary) => {
                self.pulse.at(format!("{binary} begins"));
                self.without_result();
                (self.binary, self.begun, self.tests) = (binary, Instant::now(), 0);
            }
            Line::Test => {
                self.tests += 1;
                self.pulse.at(format!("{}, {} tests done", self.binary, self.tests));
            }
            Line::Bad(line) => {
                self.pulse.say(format!("   {line}"));
                if let Some(test) = name_of_failed(line) {
                    self.ended.failures.push(format!("{}: {test}", self.binary));
                }
            }
            Line::Result(counts) => {
                self.ended.sum.passed += counts.passed;
                self.ended.sum.failed += counts.failed;
                // Many binaries have no tests of their own; they are soon over.
                let name = std::mem::take(&mut self.binary);
                if counts != Counts::default() {
                    let took = self.begun.elapsed();
                    self.pulse.say(row(&name, counts, took));
                    self.ended.binaries.push(Binary { name, took });
                }
                self.begun = Instant::now();
            }
            Line::Other if self.ended.binaries.is_empty() && self.binary.is_empty() => {
                self.pulse.at(line.trim())
            }
            Line::Other => {}
        }
    }
}

/// `test a::b ... FAILED` → `a::b`.
fn name_of_failed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

fn row(binary: &str, counts: Counts, took: Duration) -> String {
    let Counts { passed, failed } = counts;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let time = show::time(took);
    format!("   {word:<6} {passed:>4} passed, {failed} failed {time:>12}  {binary}")
}

/// Of libtest's output, the binaries in which a test failed, without the tests that passed: the names of
/// the failed ones come last, where a reader of the end of a log finds them.
pub(super) fn failing(output: &str) -> String {
    let binaries =
        output.split("\nrunning ").filter(|binary| binary.contains("\ntest result: FAILED"));
    let kept = |line: &&str| {
        let passed = line.starts_with("test ") && line.ends_with(" ... ok");
        !passed && !matches!(read(line), Line::Begins(_))
    };
    let lines: Vec<&str> = binaries.clone().flat_map(str::lines).filter(kept).collect();
    let names = binaries.flat_map(str::lines).filter(|line| line.ends_with(" ... FAILED"));
    [lines, names.collect()].concat().iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const OUTPUT: &str = "   Compiling formats v0.1.0\n\
        \u{20}    Running unittests src/lib.rs (target/debug/deps/formats-9b1)\n\
        \nrunning 2 tests\ntest fine ... ok\ntest slow ... ignored\n\
        \ntest result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out\n\
        \u{20}    Running tests/keys.rs (target/debug/deps/keys-77)\n\
        \nrunning 2 tests\ntest good ... ok\ntest bad ... FAILED\n\nfailures:\nbecause\n\
        a test that prints 7 passed; 7 failed; is not a result\n\
        test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n\
        error: test failed, to rerun pass `-p signer --test keys`\n\
        \u{20}  Doc-tests formats\n\
        \nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored\n\
        \u{20}    Running tests/dies.rs (target/debug/deps/dies-3)\n\
        \nrunning 2 tests\ntest good ... ok\n\
        \u{20}    Running tests/empty.rs (target/debug/deps/empty-3)\n\
        \nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored\n";

    #[test]
    fn lines_of_cargo_and_libtest_are_told_apart() {
        let begins = |name: &str| Line::Begins(name.to_owned());
        for (line, wanted) in [
            ("     Running unittests src/main.rs (/x/deps/a_b-c-9b1)", begins("a_b-c src/main.rs")),
            ("     Running tests/keys.rs (target/debug/deps/keys-77)", begins("tests/keys.rs")),
            ("   Doc-tests formats", begins("formats (documentation)")),
            ("test a::b ... ok", Line::Test),
            ("test a::b ... FAILED", Line::Bad("test a::b ... FAILED")),
            (
                "test a::b has been running for over 60 seconds",
                Line::Bad("test a::b has been running for over 60 seconds"),
            ),
            ("error[E0308]: mismatched types", Line::Bad("error[E0308]: mismatched types")),
            (
                "test result: FAILED. 3 passed; 2 failed; 0 ignored",
                Line::Result(Counts { passed: 3, failed: 2 }),
            ),
            ("running 3 tests", Line::Other),
            ("Running out of words", Line::Other),
            ("", Line::Other),
        ] {
            assert_eq!(read(line), wanted, "{line}");
        }
    }

    #[test]
    fn each_binary_is_told_when_it_ends_and_a_failure_at_once() {
        let (tell, told) = mpsc::channel();
        let pulse = Pulse::new(Duration::from_secs(3600), move |line| {
            // Its time is masked.
            drop(tell.send(line.split_whitespace().collect::<Vec<_>>().join(" ")));
        });
        let mut progress = Progress::new(&pulse);
        OUTPUT.lines().for_each(|line| progress.line(line));
        let Ended { sum, failures, binaries } = progress.end();
        assert_eq!(sum, Counts { passed: 15, failed: 3 });
        assert_eq!(failures, ["tests/keys.rs: bad", "tests/dies.rs: ended without a result"]);
        let names: Vec<&str> = binaries.iter().map(|binary| binary.name.as_str()).collect();
        assert_eq!(names, ["formats src/lib.rs", "tests/keys.rs"]);
        drop(pulse);
        let lines: Vec<String> = told.iter().collect();
        let [first, bad, second, error] = &lines[..] else { panic!("{lines:?}") };
        assert!(first.starts_with("ok 12 passed, 0 failed 0."), "{first}");
        assert!(first.ends_with(" s formats src/lib.rs"), "{first}");
        assert_eq!(bad, "test bad ... FAILED");
        assert!(second.starts_with("FAILED 3 passed, 2 failed 0."), "{second}");
        assert!(second.ends_with(" s tests/keys.rs"), "{second}");
        assert_eq!(error, "error: test failed, to rerun pass `-p signer --test keys`");
    }

    /// The worst that may happen to a step: nothing ran, and it counts as passed.
    #[test]
    fn tests_that_did_not_run_have_not_passed() {
        let done = |code| Finished {
            shown: "cargo test".to_owned(),
            code,
            stdout: "error: it does not build\n".to_owned(),
            stderr: String::new(),
            took: Duration::ZERO,
        };
        let ended = |passed, failed| Ended { sum: Counts { passed, failed }, ..Ended::default() };
        // (tests that passed and failed, exit code, what the step counts)
        let rows = [
            ((3, 0), 0, (3, 0)),
            ((2, 1), 101, (2, 1)),
            ((0, 0), 0, (0, 1)),
            ((0, 0), 101, (0, 1)),
            ((3, 0), 101, (3, 1)),
        ];
        for ((passed, failed), code, counted) in rows {
            let (outcome, _) = together(vec![(ended(passed, failed), done(code))]);
            assert_eq!((outcome.passed, outcome.failed), counted, "{passed} {failed} {code}");
        }
    }

    #[test]
    fn of_failing_binaries_only_the_failures_are_shown() {
        let shown = failing(OUTPUT);
        assert!(shown.contains("because") && shown.ends_with("test bad ... FAILED\n"), "{shown}");
        assert!(!shown.contains("good") && !shown.contains("fine"), "{shown}");
        assert!(!shown.contains("Doc-tests"), "{shown}");
    }
}
