//! Publishing fails at every one of its steps, before and after its effect: readers see the old
//! state or the new one, and the next run completes (case 195).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod wrapped;

use std::cell::Cell;

use common::{Fixture, NOW, copy_tree};
use formats::reason::Reason;
use signer::commands::refresh;
use signer::plan::Expiry;
use signer::repository::RegistryError;
use wrapped::{Call, Cut, Interference, Wrapped, failing};

/// The digest of the state readers see, after everything below it was verified.
fn visible(fixture: &Fixture) -> String {
    fixture.verify().expect("readers see a whole state").state
}

#[test]
fn case_195_an_interrupted_publish_is_invisible_and_the_next_one_completes() {
    let fixture = Fixture::new();
    fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
    let pristine = fixture.path("pristine");
    copy_tree(&fixture.path("repo"), &pristine);
    let old = visible(&fixture);
    let (mut steps, mut saw_new) = (0, false);
    for cut in [Cut::Before, Cut::After] {
        for n in 0.. {
            std::fs::remove_dir_all(fixture.path("repo")).unwrap();
            copy_tree(&pristine, &fixture.path("repo"));
            let request = fixture.request("1.1.0", "os2.img");
            let writable = fixture.writable();
            let failing = failing(writable.as_ref(), n, cut);
            let ended = fixture.publish_to(&failing, &request, NOW);
            let seen = visible(&fixture);
            if let Ok(report) = ended {
                assert_eq!(seen, report.state);
                assert!(n > 10, "only {n} steps were cut");
                break;
            }
            steps += 1;
            let last = n + 1;
            saw_new |= seen != old;
            assert!(
                seen == old || cut == Cut::After,
                "cut before step {last}: something became visible"
            );
            // A minute later: the abandoned signatures are not found again by accident.
            let later = NOW.plus(60);
            let again = fixture
                .publish_to(fixture.writable().as_ref(), &request, later)
                .unwrap_or_else(|error| panic!("{cut:?} step {last}: next run: {error}"));
            assert_eq!(visible(&fixture), again.state, "{cut:?} step {last}");
            assert!(again.state != old);
        }
    }
    assert!(saw_new, "the answer of the last step was never lost");
    println!("{steps} cuts");
}

#[test]
fn case_195_an_interrupted_init_goes_on_with_the_same_root() {
    for cut in [Cut::Before, Cut::After] {
        for n in 0.. {
            let fixture = Fixture::new();
            std::fs::remove_dir_all(fixture.path("repo")).unwrap();
            std::fs::remove_file(fixture.keys().join("root.json")).unwrap();
            let writable = fixture.writable();
            let failing = failing(writable.as_ref(), n, cut);
            let ended = fixture.init_to(&failing, NOW);
            let root = fixture.root();
            if ended.is_ok() {
                assert!(n > 3);
                break;
            }
            let again = fixture.init_to(fixture.writable().as_ref(), NOW.plus(60));
            match again {
                Ok(_) => {}
                // Only the answer was lost: it is there.
                Err(error) => assert_eq!((cut, error.reason()), (Cut::After, Reason::Config)),
            }
            assert_eq!(fixture.root(), root, "{cut:?} step {n}: nodes may have the first root");
            visible(&fixture);
        }
    }
}

/// When somebody else publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// While images are built and uploaded.
    Uploading,
    /// Between the last look at what is published and the tag that moves.
    Tagging,
}

/// What they publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    Release,
    Refresh,
}

impl Other {
    fn publishes(self, fixture: &Fixture) {
        let registry = fixture.writable();
        match self {
            Other::Release => {
                let mut other = fixture.request("1.1.0", "os2.img");
                other.channel = None;
                fixture.publish(&other).unwrap();
            }
            Other::Refresh => {
                let (mut signing, expiry) = (fixture.signing(), Expiry::default());
                refresh(registry.as_ref(), &mut signing, &expiry, NOW).unwrap();
            }
        }
    }
}

/// Whatever became public while images went up is built upon; what people signed is signed again only
/// when it still is what it was.
#[test]
fn somebody_else_publishes_meanwhile() {
    /// Lets somebody else publish at that moment.
    struct Racing<'a> {
        fixture: &'a Fixture,
        when: (Meanwhile, Other),
        done: Cell<bool>,
    }
    impl Interference for Racing<'_> {
        fn before(&self, call: Call<'_>) -> Result<(), RegistryError> {
            let moment = match call {
                Call::BeginBlob => Meanwhile::Uploading,
                Call::SetTag(tag) if tag.as_str().starts_with("ts-") => Meanwhile::Tagging,
                _ => return Ok(()),
            };
            if self.when.0 == moment && !self.done.replace(true) {
                self.when.1.publishes(self.fixture);
            }
            Ok(())
        }
    }
    for (moment, other, told_to_run_again) in [
        (Meanwhile::Uploading, Other::Release, false),
        (Meanwhile::Uploading, Other::Refresh, false),
        (Meanwhile::Tagging, Other::Refresh, false),
        (Meanwhile::Tagging, Other::Release, true),
    ] {
        let fixture = Fixture::new();
        let writable = fixture.writable();
        let (when, done) = ((moment, other), Cell::new(false));
        let interference = Racing { fixture: &fixture, when, done };
        let racing = Wrapped { inner: writable.as_ref(), interference };
        let request = fixture.request("1.2.0", "os.img");
        let ended = fixture.publish_to(&racing, &request, NOW);
        let state = match ended {
            Err(error) if told_to_run_again => {
                assert_eq!(error.reason(), Reason::Busy, "{moment:?} {other:?}: {error}");
                fixture.publish(&request).unwrap().state
            }
            ended => {
                assert!(!told_to_run_again, "{moment:?} {other:?}");
                ended.unwrap_or_else(|error| panic!("{moment:?} {other:?}: {error}")).state
            }
        };
        assert_eq!(visible(&fixture), state);
        // Nothing of either is lost.
        let targets = published(&fixture);
        let wanted = match other {
            Other::Release => vec!["demo/1.1.0", "demo/1.2.0"],
            Other::Refresh => vec!["demo/1.2.0"],
        };
        assert_eq!(targets, wanted, "{moment:?} {other:?}");
    }
}

fn published(fixture: &Fixture) -> Vec<String> {
    let readable = fixture.readable();
    let state = signer::published::load(readable.as_ref(), Some(&fixture.root())).unwrap().state;
    state.releases().unwrap().into_iter().map(|release| release.target).collect()
}
