//! Registries that refuse what only saves bytes, that let no tag be moved, or that make no repository:
//! a publish goes the plain way, and what an interrupted one left blocks nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod docker;
mod middle;
mod wrapped;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Fixture, NOW, component, noise};
use docker::DockerRegistry;
use formats::reason::Reason;
use formats::reference::Reference;
use middle::{Act, Head, Middle};
use signer::commands::{PublishRequest, verify};
use signer::progress::Show;
use signer::repository::{Access, Backoff, ClientOptions, Registry, open};
use wrapped::{Cut, failing};

/// 1 MiB: enough to be mounted, cut and sent in pieces.
const IMAGE: usize = 1 << 20;

fn connect(address: SocketAddr, namespace: &str) -> Box<dyn Registry> {
    let reference: Reference = format!("docker://{address}/{namespace}").parse().unwrap();
    let pause = Duration::from_millis(1);
    let backoff = Backoff { attempts: 3, first: pause, most: pause, ..Backoff::default() };
    let options = ClientOptions { plain_http: true, backoff, ..ClientOptions::default() };
    open(&reference, Access::Write, &options).unwrap()
}

fn release(
    fixture: &Fixture,
    product: &str,
    version: &str,
    seed: u64,
    size: usize,
) -> PublishRequest {
    let path = fixture.path(&format!("os-{seed}.img"));
    std::fs::write(&path, noise(size, seed)).unwrap();
    let components = vec![component("os", path, &["cu-v1"])];
    let product = product.to_owned();
    PublishRequest { product, components, ..fixture.request(version, "os.img") }
}

fn verified(fixture: &Fixture, registry: &dyn Registry, case: &str) -> String {
    let seen = verify(registry, Some(&fixture.root()), NOW.plus(60), Show::Nothing);
    seen.unwrap_or_else(|error| panic!("{case}: {error}")).state
}

fn refuse(status: &str) -> Act {
    Act::Answer(format!("{status}\r\nContent-Length: 0"))
}

fn uploads(head: &Head) -> bool {
    head.target.contains("/blobs/uploads/")
}

fn large(head: &Head) -> bool {
    head.header("content-length").and_then(|it| it.parse().ok()).unwrap_or(0) > 500_000
}

/// What a door does not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// Blobs of another repository.
    Mounts,
    /// Whether a blob is there.
    Looks,
    /// How much of an upload is there, after a cut.
    Resumes,
    /// Uploads in pieces, after a cut.
    Pieces,
    /// A second upload while there is one.
    Crowds,
}

fn door(to: SocketAddr, refused: Refused, status: &'static str) -> Middle {
    let (cuts, now) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let first = move || cuts.fetch_add(1, Ordering::SeqCst) == 0;
    Middle::before(to, move |head| {
        let method = head.method.as_str();
        match refused {
            Refused::Mounts if head.target.contains("mount=") => refuse(status),
            Refused::Looks if method == "HEAD" && !head.target.contains("/manifests/") => {
                refuse(status)
            }
            Refused::Resumes | Refused::Pieces if uploads(head) && large(head) && first() => {
                Act::Cut(300_000)
            }
            Refused::Resumes if method == "GET" && uploads(head) => refuse(status),
            Refused::Pieces if method == "PATCH" => refuse(status),
            Refused::Crowds if method == "PUT" && uploads(head) => {
                let others = now.fetch_add(1, Ordering::SeqCst);
                if others == 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                now.fetch_sub(1, Ordering::SeqCst);
                if others == 0 { Act::Pass } else { refuse(status) }
            }
            _ => Act::Pass,
        }
    })
}

/// Whatever only saves bytes may be refused, in whatever words: they are sent then.
#[test]
fn a_refused_optimisation_is_done_without() {
    let temp = tempfile::tempdir().unwrap();
    let docker = DockerRegistry::start(&temp, false);
    let statuses = ["400 Odd", "403 No", "404 None", "405 Never", "500 Broken", "501 Unknown"];
    for refused in
        [Refused::Mounts, Refused::Looks, Refused::Resumes, Refused::Pieces, Refused::Crowds]
    {
        for status in statuses {
            // A registry that says 403 or 404 to every second upload cannot be told from one that means
            // it; of an upload as a whole, 403 means no.
            if matches!(refused, Refused::Crowds | Refused::Pieces) && status == "403 No" {
                continue;
            }
            let case = format!("{refused:?} {status}");
            let namespace = format!("{refused:?}{}", &status[..3]).to_lowercase();
            let fixture = Fixture::new();
            let direct = connect(docker.address, &namespace);
            fixture.init_to(direct.as_ref(), NOW).unwrap();
            let middle = door(docker.address, refused, status);
            for product in ["one", "two"] {
                let request = release(&fixture, product, "1.0.0", 1, IMAGE);
                // A run for each, as people have.
                let registry = connect(middle.address, &namespace);
                let done = fixture.publish_to(registry.as_ref(), &request, NOW);
                let done = done.unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(verified(&fixture, direct.as_ref(), &case), done.state, "{case}");
            }
            let asked = |part: &str| middle.seen().iter().any(|it| it.head.target.contains(part));
            assert!(refused != Refused::Mounts || asked("mount="), "nothing was to be mounted");
        }
    }
}

/// Lets no tag be set twice, to whatever, but `latest`.
fn immutable(to: SocketAddr) -> Middle {
    let tags = Mutex::<BTreeSet<String>>::default();
    Middle::before(to, move |head| {
        let tag = head.target.split_once("/manifests/").map_or("latest", |(_, tag)| tag);
        if head.method != "PUT" || tag == "latest" || tag.starts_with("sha256:") {
            return Act::Pass;
        }
        if tags.lock().unwrap().insert(head.target.clone()) {
            return Act::Pass;
        }
        let body =
            r#"{"errors":[{"code":"TAG_INVALID","message":"the tag cannot be overwritten"}]}"#;
        Act::Answer(format!("400 No\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    })
}

/// A publish is cut at every step, and other images are published next under the same version: the
/// tags that are taken keep what they have, and what becomes visible has tags, too.
#[test]
fn a_registry_whose_tags_stand_is_never_blocked() {
    let temp = tempfile::tempdir().unwrap();
    let docker = DockerRegistry::start(&temp, false);
    let middle = immutable(docker.address);
    let mut beside = 0;
    for cut in [Cut::Before, Cut::After] {
        for n in 0.. {
            let case = format!("{cut:?} step {n}");
            let fixture = Fixture::new();
            let namespace = format!("{cut:?}{n}").to_lowercase();
            let registry = connect(middle.address, &namespace);
            fixture.init_to(registry.as_ref(), NOW).unwrap();
            let first = release(&fixture, "demo", "1.1.0", 1, 3000);
            let failing = failing(registry.as_ref(), n, cut);
            let ended = fixture.publish_to(&failing, &first, NOW).is_ok();
            let second = release(&fixture, "demo", "1.1.0", if ended { 1 } else { 2 }, 3000);
            let registry = connect(middle.address, &namespace);
            let done = match fixture.publish_to(registry.as_ref(), &second, NOW.plus(60)) {
                Ok(done) => done,
                // The answer to the last step was all that was lost: 1.1.0 is public.
                Err(error) if error.reason() == Reason::VersionRollback => {
                    assert_eq!(cut, Cut::After, "{case}: {error}");
                    continue;
                }
                Err(error) => panic!("{case}: {error}"),
            };
            let said = serde_json::to_string(&done).unwrap();
            beside += usize::from(said.contains("tagged 1.1.0-sha256-"));
            assert_eq!(verified(&fixture, registry.as_ref(), &case), done.state, "{case}");
            // And on: nothing that was left stands in the way of later ones either.
            let third = release(&fixture, "demo", "1.2.0", 3, 3000);
            fixture.publish_to(registry.as_ref(), &third, NOW.plus(120)).unwrap();
            if ended {
                assert!(n > 8, "only {n} steps were cut");
                break;
            }
        }
    }
    assert!(beside > 1, "no version tag was taken");
}

/// What stands for the same is not pushed again, which such a registry would refuse.
#[test]
fn a_tag_that_stands_for_the_same_is_left() {
    let temp = tempfile::tempdir().unwrap();
    let docker = DockerRegistry::start(&temp, false);
    let middle = immutable(docker.address);
    let fixture = Fixture::new();
    let registry = connect(middle.address, "r");
    fixture.init_to(registry.as_ref(), NOW).unwrap();
    let request = release(&fixture, "demo", "1.0.0", 1, 3000);
    // Cut before the tag of the state: the version's is set.
    let steps = (1..).find(|n| {
        let failing = failing(registry.as_ref(), *n, Cut::After);
        fixture.publish_to(&failing, &request, NOW).is_ok()
    });
    assert!(steps > Some(4));
    let pushed = middle.seen();
    let pushed = pushed
        .iter()
        .filter(|it| it.head.method == "PUT" && it.head.target.ends_with("/demo/manifests/1.0.0"));
    assert_eq!(pushed.count(), 1);
}

/// A registry that makes no repositories says which one is to be made.
#[test]
fn a_repository_that_has_to_be_made_first() {
    let temp = tempfile::tempdir().unwrap();
    let docker = DockerRegistry::start(&temp, false);
    let fixture = Fixture::new();
    fixture.init_to(connect(docker.address, "r").as_ref(), NOW).unwrap();
    let middle =
        Middle::before(docker.address, |head| match uploads(head) && head.method == "POST" {
            true => {
                let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#;
                Act::Answer(format!("404 No\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
            }
            false => Act::Pass,
        });
    let request = release(&fixture, "demo", "1.0.0", 1, 3000);
    let registry = connect(middle.address, "r");
    let error = fixture.publish_to(registry.as_ref(), &request, NOW).unwrap_err();
    assert!(error.to_string().contains("has no repository r/demo"), "{error}");
    assert!(error.hint().contains("create it there"), "{}", error.hint());
}

/// A full disk is named, and what would help.
#[test]
fn a_full_disk_has_a_name() {
    let temp = tempfile::tempdir().unwrap();
    let docker = DockerRegistry::start(&temp, false);
    let fixture = Fixture::new();
    let remote = connect(docker.address, "r");
    fixture.init_to(remote.as_ref(), NOW).unwrap();
    let (tmp, repo) = (std::env::temp_dir(), fixture.path("repo"));
    let local = fixture.writable();
    for (registry, place, option) in [(&remote, &tmp, "set TMPDIR"), (&local, &repo, "")] {
        let full = failing(registry.as_ref(), usize::MAX, Cut::Full);
        let request = release(&fixture, "demo", "1.0.0", 1, 3000);
        let error = fixture.publish_to(&full, &request, NOW).unwrap_err();
        assert_eq!(error.reason(), Reason::StoreIo, "{error}");
        let text = error.to_string();
        assert!(text.contains(&place.display().to_string()) && text.contains(option), "{text}");
    }
}
