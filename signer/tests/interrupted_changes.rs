//! Every kind of change fails at every step of the registry, before and after its effect: readers
//! see the old state or the new one, never a mix, and the same command run again completes
//! (case 195).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod wrapped;

use std::path::PathBuf;

use common::{Fixture, NOW, copy_tree, done};
use formats::tuf::{Role, UnixTime};
use signer::commands::{
    ChangeOptions, Delivery, PublishRequest, Signing, change, commit, publish, refresh, sign,
    verify,
};
use signer::error::SignerError;
use signer::journal::Journal;
use signer::key::{self, KeyStore, SecretKey};
use signer::plan::{Change, ChannelEdit, Delegation, Expiry, RoleKeySet, Rotation};
use signer::progress::Show;
use signer::repository::Registry;
use wrapped::{Cut, failing};

/// A repository with one release, and a signer with a log and a trust root that goes forward.
struct Scene {
    fixture: Fixture,
}

const FOLDERS: [&str; 2] = ["repo", "keys"];

impl Scene {
    fn new() -> Self {
        let fixture = Fixture::new();
        fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
        key::create(&fixture.keys(), "other", &SecretKey::from_seed(&[9; 32])).unwrap();
        let scene = Scene { fixture };
        scene.copy("", "pristine-");
        scene
    }

    fn copy(&self, from: &str, to: &str) {
        for folder in FOLDERS {
            let to = self.fixture.path(&format!("{to}{folder}"));
            let _ = std::fs::remove_dir_all(&to);
            copy_tree(&self.fixture.path(&format!("{from}{folder}")), &to);
        }
    }

    fn signing(&self) -> Signing {
        let path = self.fixture.keys().join("root.json");
        let journal = Journal::open(&self.fixture.keys().join("signer.log")).unwrap();
        Signing {
            keys: KeyStore::open(&self.fixture.keys()).unwrap(),
            trust_root: Some(std::fs::read(&path).unwrap()),
            trust_root_file: Some(path),
            journal: Some(journal),
            ..Signing::default()
        }
    }

    /// The digest of the state readers see, after every byte below it was verified.
    fn visible(&self, root: &[u8], now: UnixTime) -> String {
        let readable = self.fixture.readable();
        verify(readable.as_ref(), Some(root), now, Show::Nothing)
            .expect("readers see a whole state")
            .state
    }
}

/// One change; gives the state it made.
type Step<'a> = &'a dyn Fn(&Scene, &dyn Registry, UnixTime) -> Result<String, SignerError>;

fn edited(
    scene: &Scene,
    to: &dyn Registry,
    what: Change,
    now: UnixTime,
) -> Result<String, SignerError> {
    let (mut signing, options) = (scene.signing(), ChangeOptions::default());
    done(change(to, &mut signing, &what, &options, Delivery::Publish, now))
        .map(|done| done.published.state)
}

fn other_key(scene: &Scene) -> formats::tuf::Key {
    key::read_public(&scene.fixture.keys().join("other.pub")).unwrap()
}

fn staged(scene: &Scene) -> PathBuf {
    scene.fixture.path("change.json")
}

/// A release that was staged and signed; `commit` is what is cut.
fn stage_and_sign(scene: &Scene) {
    let request = PublishRequest { channel: None, ..scene.fixture.request("1.1.0", "os2.img") };
    let (mut signing, path) = (scene.signing(), staged(scene));
    let (to, delivery) = (scene.fixture.writable(), Delivery::Stage(&path));
    publish(to.as_ref(), &mut signing, &request, delivery, NOW, Show::Nothing).unwrap();
    sign(None, &mut signing, std::slice::from_ref(&path), None, NOW, |_| true).unwrap();
    scene.copy("", "pristine-");
}

#[test]
fn case_195_every_change_is_cut_at_every_step() {
    let channel = ChannelEdit {
        product: "demo".to_owned(),
        channel: "stable".to_owned(),
        hold: Some(true),
        ..ChannelEdit::default()
    };
    let rotation = |role: Role| {
        move |scene: &Scene, to: &dyn Registry, now: UnixTime| {
            let (add, remove, threshold) = (vec![other_key(scene)], Vec::new(), None);
            let rotation = Rotation { role: role.clone(), add, remove, threshold };
            edited(scene, to, Change::Rotate(vec![rotation]), now)
        }
    };
    let (root, targets) = (rotation(Role::Root), rotation(Role::Targets));
    let rows: [(&str, Step<'_>); 7] = [
        ("refresh", &|scene, to, now| {
            let mut signing = scene.signing();
            refresh(to, &mut signing, &Expiry::default(), now).map(|done| done.published.state)
        }),
        ("channel", &|scene, to, now| {
            let (edit, role) = (channel.clone(), None);
            edited(scene, to, Change::SetChannel { edit, role }, now)
        }),
        ("delegate", &|scene, to, now| {
            let role = Role::Delegated("beta".to_owned());
            let keys = RoleKeySet { role, keys: vec![other_key(scene)], threshold: 1 };
            let (by, paths) = (Role::Targets, vec!["beta/*".to_owned()]);
            let delegation = Delegation { by, keys, paths, terminating: false };
            edited(scene, to, Change::Delegate(delegation), now)
        }),
        ("rotate root", &root),
        ("rotate targets", &targets),
        ("renew", &|scene, to, now| {
            edited(scene, to, Change::Renew(vec![Role::Root, Role::Targets]), now)
        }),
        ("commit", &|scene, to, now| {
            let mut signing = scene.signing();
            commit(to, &mut signing, &[staged(scene)], &Expiry::default(), now)
                .map(|done| done.published.state)
        }),
    ];
    let mut total = 0;
    for (name, change) in rows {
        let scene = Scene::new();
        if name == "commit" {
            stage_and_sign(&scene);
        }
        let first_root = scene.fixture.root();
        let old = scene.visible(&first_root, NOW);
        for cut in [Cut::Before, Cut::After] {
            for n in 0.. {
                scene.copy("pristine-", "");
                let writable = scene.fixture.writable();
                let failing = failing(writable.as_ref(), n, cut);
                let ended = change(&scene, &failing, NOW);
                let seen = scene.visible(&first_root, NOW);
                if let Ok(state) = ended {
                    assert_eq!(seen, state, "{name}");
                    assert!(n > 3, "{name}: only {n} steps were cut");
                    break;
                }
                total += 1;
                assert!(seen == old || cut == Cut::After, "{name}: step {n} made it visible");
                // A minute later, by somebody who looks at the log first.
                let later = NOW.plus(60);
                let again = change(&scene, scene.fixture.writable().as_ref(), later);
                let again = match again {
                    Ok(state) => state,
                    // The answer to the last step was lost: it was done, and says so.
                    Err(SignerError::Plan(signer::plan::PlanError::RoleExists(_)))
                        if seen != old && name == "delegate" =>
                    {
                        seen
                    }
                    Err(SignerError::Plan(signer::plan::PlanError::KeyTwice { .. }))
                        if seen != old && name.starts_with("rotate") =>
                    {
                        seen
                    }
                    Err(error) => panic!("{name}, {cut:?} step {n}: next run: {error}"),
                };
                assert_eq!(scene.visible(&first_root, later), again, "{name}, {cut:?} step {n}");
                assert!(again != old, "{name}");
            }
        }
    }
    println!("{total} cuts of 7 changes");
}

/// What was signed and lay about for too long is refused before it is public, and so is a release
/// whose images somebody removed meanwhile.
#[test]
fn a_staged_change_is_looked_at_again_when_it_is_committed() {
    use formats::reason::Reason;
    let scene = Scene::new();
    stage_and_sign(&scene);
    let to = scene.fixture.writable();
    let committed = |now| {
        let mut signing = scene.signing();
        commit(to.as_ref(), &mut signing, &[staged(&scene)], &Expiry::default(), now)
            .map(|done| done.published.state)
            .map_err(|error| error.reason())
    };
    let before = scene.visible(&scene.fixture.root(), NOW);
    let late = NOW.plus(91 * 86_400);
    assert_eq!(committed(late), Err(Reason::Expired));
    let blobs = scene.fixture.path("repo/blobs/sha256");
    let largest = std::fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    // The largest blob of the repository is the newer, larger image.
    let away = scene.fixture.path("away");
    std::fs::rename(&largest, &away).unwrap();
    assert_eq!(committed(NOW), Err(Reason::BundleFormat));
    std::fs::rename(&away, &largest).unwrap();
    assert_eq!(scene.visible(&scene.fixture.root(), NOW), before, "nothing became public");
    assert!(committed(NOW).unwrap() != before);
}
