//! `prune`: releases that nobody needs are listed no more, their content goes when no state lists it
//! that people may go back to, and nothing else goes with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::{Fixture, NOW, done, noise};
use formats::reason::Reason;
use signer::commands::{
    Answer, ChangeOptions, Delivery, PruneReport, PruneRequest, Signing, change, commit, prune,
    publish, refresh,
};
use signer::error::SignerError;
use signer::plan::{Change, Expiry, Retention, Unlisting};
use signer::progress::Show;
use signer::published;
use signer::repository::{Access, ClientOptions, Registry, open};
use storage::layout::{Layout as _, LayoutDir};

fn request(keep: usize) -> PruneRequest {
    PruneRequest {
        unlisting: Unlisting { product: None, keep },
        states: Retention::of(16),
        grace: Duration::ZERO,
        expiry: Expiry::default(),
    }
}

fn prune_to(fixture: &Fixture, keep: usize, delivery: Delivery<'_>) -> Answer<PruneReport> {
    let registry = fixture.writable();
    let mut signing = fixture.signing();
    prune(registry.as_ref(), &mut signing, &request(keep), delivery, NOW, Show::Nothing).unwrap()
}

fn pruned(fixture: &Fixture, keep: usize) -> serde_json::Value {
    let report = done(Ok(prune_to(fixture, keep, Delivery::Publish))).unwrap();
    serde_json::to_value(&report).unwrap()
}

/// Releases of small images, each another one.
fn releases(fixture: &Fixture, versions: &[&str]) {
    for (seed, version) in versions.iter().enumerate() {
        std::fs::write(fixture.path("own.img"), noise(20_000, 100 + seed as u64)).unwrap();
        fixture.publish(&fixture.request(version, "own.img")).unwrap();
    }
}

fn layout(fixture: &Fixture) -> LayoutDir {
    LayoutDir::open(&fixture.path("repo")).unwrap()
}

fn listed(fixture: &Fixture) -> Vec<String> {
    let state = published::load(fixture.readable().as_ref(), Some(&fixture.root())).unwrap().state;
    state.releases().unwrap().into_iter().map(|release| release.target).collect()
}

/// The tags of the product.
fn tags(fixture: &Fixture) -> Vec<String> {
    let names = layout(fixture).refs().unwrap().into_iter().map(|(name, _)| name);
    names.filter_map(|name| name.strip_prefix("racklet/demo:").map(str::to_owned)).collect()
}

fn renew(fixture: &Fixture, registry: &dyn Registry, times: usize) {
    let policy =
        signer::policy::Policy { retention: Retention::of(16).unwrap(), ..Default::default() };
    let mut signing = Signing { policy, ..fixture.signing() };
    for _ in 0..times {
        refresh(registry, &mut signing, &Expiry::default(), NOW).unwrap();
    }
}

#[test]
fn old_releases_go_in_two_steps() {
    let fixture = Fixture::new();
    releases(&fixture, &["1.0.0", "1.1.0", "1.2.0", "1.3.0"]);
    let all = tags(&fixture);
    let blobs = layout(&fixture).blobs().unwrap().len();

    let Answer::Described(dry) = prune_to(&fixture, 2, Delivery::DryRun) else { panic!() };
    let dry = serde_json::to_value(&dry).unwrap();
    assert_eq!(dry["what"], "unlist 2 releases");
    assert_eq!(listed(&fixture).len(), 4);

    // At first they are listed no more: the states before still list them.
    let report = pruned(&fixture, 2);
    assert_eq!(report["unlisted"], serde_json::json!(["demo/1.0.0", "demo/1.1.0"]));
    assert_eq!(report["removed"], serde_json::json!({"tags": 0, "blobs": 0, "bytes": 0}));
    assert_eq!(listed(&fixture), ["demo/1.2.0", "demo/1.3.0"]);
    assert_eq!(tags(&fixture), all);
    fixture.verify().unwrap();

    // Then nothing remains that leads to them.
    renew(&fixture, fixture.writable().as_ref(), 17);
    let report = pruned(&fixture, 2);
    assert_eq!(report["changed"], false);
    assert!(report["removed"]["tags"].as_u64().unwrap() >= 2, "{report}");
    assert!(report["removed"]["bytes"].as_u64().unwrap() > 40_000, "{report}");
    let left = tags(&fixture);
    assert!(left.iter().all(|tag| !tag.starts_with("1.0") && !tag.starts_with("1.1")), "{left:?}");
    assert!(left.contains(&"1.2.0".to_owned()) && left.contains(&"1.3.0".to_owned()), "{left:?}");
    fixture.verify().unwrap();
    let now = layout(&fixture).blobs().unwrap().len();
    assert!(now < blobs + 2 * 18, "{now} of {blobs}");
    // Nothing more to do, and a new release like an old one is a release.
    let report = pruned(&fixture, 2);
    assert_eq!(report["removed"], serde_json::json!({"tags": 0, "blobs": 0, "bytes": 0}));
    releases(&fixture, &["1.4.0"]);
    fixture.verify().unwrap();
}

#[test]
fn what_waits_for_signatures_stays() {
    let fixture = Fixture::new();
    releases(&fixture, &["1.0.0"]);
    let registry = fixture.writable();
    let waiting = fixture.request("2.0.0", "os2.img");
    let (mut signing, share) = (fixture.signing(), Delivery::Share);
    let staged =
        publish(registry.as_ref(), &mut signing, &waiting, share, NOW, Show::Nothing).unwrap();
    let Answer::Staged(staged) = staged else { panic!("{staged:?}") };
    let name = serde_json::to_value(&staged).unwrap()["file"].as_str().unwrap().to_owned();

    std::fs::write(fixture.path("own.img"), noise(20_000, 7)).unwrap();
    // An upload that nobody knows of goes, after its time.
    layout(&fixture).put_blob(b"left behind by a publish that was cut off").unwrap();
    let report = pruned(&fixture, 1);
    assert_eq!(report["removed"]["blobs"], 1, "{report}");

    let files = [std::path::PathBuf::from(name)];
    let (mut signing, registry) = (fixture.signing(), registry.as_ref());
    signer::commands::sign(Some(registry), &mut signing, &files, None, NOW, |_| true).unwrap();
    commit(registry, &mut signing, &files, &Expiry::default(), NOW).unwrap();
    assert_eq!(listed(&fixture), ["demo/1.0.0", "demo/2.0.0"]);
    fixture.verify().unwrap();
}

#[test]
fn what_is_offered_cannot_be_unlisted_and_bases_of_deltas_stay() {
    let fixture = Fixture::new();
    let mut image = noise(400_000, 9);
    std::fs::write(fixture.path("own.img"), &image).unwrap();
    fixture.publish(&fixture.request("1.0.0", "own.img")).unwrap();
    image[200_000..200_040].fill(0);
    std::fs::write(fixture.path("own.img"), &image).unwrap();
    let mut next = fixture.request("1.1.0", "own.img");
    next.delta_from = vec!["1.0.0".parse().unwrap()];
    let report = serde_json::to_value(fixture.publish(&next).unwrap()).unwrap();
    assert!(report["components"].to_string().contains("deltas"), "{report}");
    assert_eq!(pruned(&fixture, 1)["unlisted"], serde_json::json!([]));
    assert_eq!(listed(&fixture).len(), 2);

    let unlist = |target: &str| -> Result<(), SignerError> {
        let change_to = Change::Unlist(vec![target.to_owned()]);
        let (registry, mut signing) = (fixture.writable(), fixture.signing());
        let options = ChangeOptions::default();
        change(registry.as_ref(), &mut signing, &change_to, &options, Delivery::Publish, NOW)
            .map(drop)
    };
    let error = unlist("demo/1.1.0").unwrap_err();
    assert_eq!(error.reason(), Reason::Config, "{error}");
    assert!(error.to_string().contains("offered by channel stable"), "{error}");
    let error = unlist("demo/7").unwrap_err();
    assert_eq!(error.reason(), Reason::TargetNotFound, "{error}");
    unlist("demo/1.0.0").unwrap();
    assert_eq!(listed(&fixture), ["demo/1.1.0"]);
    fixture.verify().unwrap();
}

/// At a server, tags go over HTTP; it collects what they led to by itself.
#[test]
fn a_server_that_lets_tags_be_deleted_is_pruned_too() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let fixture = Fixture::new();
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(fixture.path("tokens"));
    std::io::Write::write_all(&mut file.unwrap(), b"a-token-that-is-long-enough").unwrap();
    let mut config = repo_server::Config::new(fixture.path("served"));
    config.push_tokens = Some(fixture.path("tokens"));
    config.allow_delete = true;
    let server = repo_server::start(config).unwrap();
    let token_file = Some(fixture.path("tokens"));
    let options = ClientOptions { token_file, plain_http: true, ..ClientOptions::default() };
    let reference = format!("docker://{}/racklet", server.local_addr()).parse().unwrap();
    let registry = open(&reference, Access::Write, &options).unwrap();
    let registry = registry.as_ref();
    fixture.init_to(registry, NOW).unwrap();
    for (seed, version) in ["1.0.0", "1.1.0", "1.2.0"].into_iter().enumerate() {
        std::fs::write(fixture.path("own.img"), noise(20_000, 50 + seed as u64)).unwrap();
        fixture.publish_to(registry, &fixture.request(version, "own.img"), NOW).unwrap();
    }
    let prune = || {
        let (mut signing, delivery) = (fixture.signing(), Delivery::Publish);
        let done_now = prune(registry, &mut signing, &request(1), delivery, NOW, Show::Nothing);
        serde_json::to_value(done(done_now).unwrap()).unwrap()
    };
    let report = prune();
    assert_eq!(report["unlisted"], serde_json::json!(["demo/1.0.0", "demo/1.1.0"]), "{report}");
    renew(&fixture, registry, 17);
    let report = prune();
    assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
    let tags = registry.tags(&"racklet/demo".parse().unwrap()).unwrap();
    let tags: Vec<&str> = tags.iter().map(|listed| listed.tag.as_str()).collect();
    assert_eq!(tags, ["1.2.0"]);
    signer::commands::verify(registry, Some(&fixture.root()), NOW, Show::Nothing).unwrap();
    server.stop();
}
