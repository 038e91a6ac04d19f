//! What is refused, what is deterministic, and that `verify` sees every changed byte.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Fixture, NOW, component, copy_tree, done, files_below};
use formats::reason::Reason;
use formats::reference::Reference;
use signer::commands::{
    BundleRequest, ChangeOptions, Delivery, PublishRequest, Selection, Signing, bundle, change,
    publish, refresh, status, verify,
};
use signer::error::SignerError;
use signer::key::{KeyStore, SecretKey};
use signer::plan::{Change, ChannelEdit, Expiry};
use signer::progress::Show;
use signer::repository::{Access, ClientOptions, open};

fn bundle_to(fixture: &Fixture, name: &str, version: &str) -> std::path::PathBuf {
    let output = fixture.path(name);
    let request = BundleRequest {
        product: "demo".to_owned(),
        selection: Selection::Versions(vec![version.parse().unwrap()]),
        output: output.clone(),
        form: None,
        valid_for: None,
    };
    let readable = fixture.readable();
    bundle(readable.as_ref(), &mut fixture.signing(), &request, NOW, Show::Nothing).unwrap();
    output
}

fn verify_at(text: &str, root: &[u8]) -> Result<(), SignerError> {
    let reference: Reference = text.parse().unwrap();
    let registry = open(&reference, Access::Read, &ClientOptions::default())?;
    verify(registry.as_ref(), Some(root), NOW, Show::Nothing).map(drop)
}

#[test]
fn case_197_the_same_inputs_give_the_same_bytes() {
    let [one, two] = [Fixture::new(), Fixture::new()];
    assert_eq!(one.root(), two.root());
    let first = one.publish(&one.request("1.0.0", "os.img")).unwrap();
    let mut request = two.request("1.0.0", "os.img");
    request.components.reverse();
    request.options.threads = std::num::NonZeroUsize::new(7).unwrap();
    let second = two.publish(&request).unwrap();
    assert_eq!((first.index, first.state), (second.index, second.state));
    let [a, b] = [&one, &two].map(|fixture| bundle_to(fixture, "bundle.tar", "1.0.0"));
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
}

#[test]
fn what_nodes_would_refuse_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    let mut first = fixture.request("1.1.0", "os.img");
    first.security_version = Some(3);
    fixture.publish(&first).unwrap();
    let before = fixture.verify().unwrap().state;
    type Change = fn(&mut PublishRequest);
    let rows: [(&str, Change, Reason); 12] = [
        ("huge security version", |r| r.security_version = Some(u64::MAX), Reason::Config),
        ("older version", |r| r.version = "1.0.9".parse().unwrap(), Reason::VersionRollback),
        ("other spelling", |r| r.version = "1.01.0".parse().unwrap(), Reason::VersionRollback),
        (
            "same version, other security version",
            |r| {
                r.version = "1.1.0".parse().unwrap();
                r.security_version = Some(4);
            },
            Reason::VersionRollback,
        ),
        ("security version down", |r| r.security_version = Some(2), Reason::SecverFloor),
        ("no hardware", |r| r.components[0].compatible.clear(), Reason::Config),
        ("odd hardware", |r| r.components[0].compatible[0] = "A B".to_owned(), Reason::Config),
        ("odd product", |r| r.product = "../x".to_owned(), Reason::Config),
        ("reserved product", |r| r.product = "tuf".to_owned(), Reason::Config),
        ("reserved version", |r| r.version = "channels".parse().unwrap(), Reason::Config),
        ("odd channel", |r| r.channel = Some("a/b".to_owned()), Reason::Config),
        ("missing image", |r| r.components[0].path = "/nonexistent".into(), Reason::Config),
    ];
    for (name, change, reason) in rows {
        let mut request = fixture.request("1.2.0", "os2.img");
        change(&mut request);
        let error = fixture.publish(&request).expect_err(name);
        assert_eq!(error.reason(), reason, "{name}: {error}");
        assert_eq!(fixture.verify().unwrap().state, before, "{name}");
    }
    let mut twice = fixture.request("1.2.0", "os.img");
    twice.components.push(component("os", fixture.path("os2.img"), &["cu-v1"]));
    let error = fixture.publish(&twice).expect_err("one component twice for one hardware");
    assert_eq!(error.reason(), Reason::Config, "{error}");
    assert_eq!(fixture.verify().unwrap().state, before, "{error}");
}

#[test]
fn the_same_content_again_is_nothing_to_do() {
    let fixture = Fixture::new();
    let request = fixture.request("1.0.0", "os.img");
    let first = fixture.publish(&request).unwrap();
    let again = fixture.publish_to(fixture.writable().as_ref(), &request, NOW.plus(3600)).unwrap();
    assert_eq!(first.state, again.state);
    let mut other = request.clone();
    other.channel = Some("beta".to_owned());
    let moved = fixture.publish(&other).unwrap();
    assert!(moved.state != first.state, "a new channel is a change");
}

#[test]
fn channels_change_without_images() {
    let fixture = Fixture::new();
    fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
    let blobs = files_below(&fixture.path("repo").join("blobs")).len();
    let mut request = ChannelEdit {
        product: "demo".to_owned(),
        channel: "stable".to_owned(),
        release: None,
        urgency: None,
        hold: Some(true),
        ..ChannelEdit::default()
    };
    let set = |request: &ChannelEdit| {
        let (writable, mut signing) = (fixture.writable(), fixture.signing());
        let (registry, options) = (writable.as_ref(), ChangeOptions::default());
        let wanted = Change::SetChannel { edit: request.clone(), role: None };
        done(change(registry, &mut signing, &wanted, &options, Delivery::Publish, NOW))
    };
    let held = set(&request).unwrap();
    // Channel document, targets, snapshot, timestamp, manifest.
    assert_eq!(files_below(&fixture.path("repo").join("blobs")).len(), blobs + 5);
    assert_eq!(
        set(&request).unwrap().published.state,
        held.published.state,
        "nothing changes twice"
    );
    request.release = Some("9.9.9".parse().unwrap());
    assert_eq!(set(&request).unwrap_err().reason(), Reason::TargetNotFound);
    fixture.verify().unwrap();
}

#[test]
fn expiry_is_judged_by_verify_and_renewed_by_refresh() {
    let fixture = Fixture::new();
    let late = NOW.plus(3 * 86_400);
    let check = |now| {
        let readable = fixture.readable();
        verify(readable.as_ref(), Some(&fixture.root()), now, Show::Nothing).map(drop)
    };
    assert_eq!(check(late).unwrap_err().reason(), Reason::Expired);
    let root = fixture.root();
    let readable = fixture.readable();
    // Root lasts a year, targets 90 days, the snapshot 7 and the timestamp one.
    for (hours, days, due) in [
        (0, 0, ""),
        (0, 14, ""),
        (15, 14, ""),
        (17, 14, "timestamp"),
        (5 * 24, 14, "snapshot, timestamp"),
        (5 * 24, 1, "timestamp"),
        (75 * 24, 14, "snapshot, timestamp"),
        (77 * 24, 14, "targets, snapshot, timestamp"),
        (352 * 24, 14, "root, targets, snapshot, timestamp"),
    ] {
        let at = NOW.plus(hours * 3600);
        let (_, late) = status(readable.as_ref(), Some(&root), Some(days), at).unwrap();
        assert!(late.iter().all(|late| late.reason() == Reason::Expired));
        let said = late.map(|late| late.to_string()).unwrap_or_default();
        let said = said.split(" expires within").next().unwrap_or_default();
        assert_eq!(said, due, "after {hours} hours, within {days} days");
    }
    // Only the online keys are needed.
    let mut online = KeyStore::default();
    for role in ["snapshot", "timestamp"] {
        online.add(signer::key::example::key(role)).unwrap();
    }
    let mut signing = Signing::of(online, root);
    refresh(fixture.writable().as_ref(), &mut signing, &Expiry::default(), late).unwrap();
    check(late).unwrap();
    // A root that ended cannot be built upon.
    let ended = NOW.plus(400 * 86_400);
    let error = refresh(fixture.writable().as_ref(), &mut signing, &Expiry::default(), ended);
    assert_eq!(error.unwrap_err().reason(), Reason::Expired);
}

#[test]
fn keys_of_somebody_else_sign_nothing() {
    let fixture = Fixture::new();
    let before = fixture.verify().unwrap().state;
    let mut foreign = KeyStore::default();
    foreign.add(SecretKey::from_seed(&[9; 32])).unwrap();
    let mut signing = Signing::of(foreign, fixture.root());
    let (writable, request) = (fixture.writable(), fixture.request("1.0.0", "os.img"));
    let delivery = Delivery::Publish;
    let error = publish(writable.as_ref(), &mut signing, &request, delivery, NOW, Show::Nothing)
        .unwrap_err();
    assert_eq!(error.reason(), Reason::SigThreshold);
    assert_eq!(fixture.verify().unwrap().state, before);
}

#[test]
fn case_189_nothing_is_signed_over_metadata_of_others() {
    let [ours, theirs] = [Fixture::new(), Fixture::new()];
    // Another repository, made with other keys, in the place of ours.
    let request =
        signer::commands::InitRequest { keys: theirs.path("other-keys"), ..Default::default() };
    std::fs::remove_dir_all(theirs.path("repo")).unwrap();
    let (writable, mut signing) = (theirs.writable(), Signing::default());
    let delivery = Delivery::Publish;
    signer::commands::init(writable.as_ref(), &mut signing, &request, delivery, NOW).unwrap();
    std::fs::remove_dir_all(ours.path("repo")).unwrap();
    copy_tree(&theirs.path("repo"), &ours.path("repo"));
    let index = std::fs::read(ours.path("repo/index.json")).unwrap();
    let error = ours.publish(&ours.request("1.0.0", "os.img")).unwrap_err();
    assert_eq!(error.reason(), Reason::SigThreshold, "{error}");
    assert_eq!(std::fs::read(ours.path("repo/index.json")).unwrap(), index);
}

#[test]
fn verify_sees_every_changed_missing_or_shortened_blob() {
    let fixture = Fixture::new();
    fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
    let pristine = bundle_to(&fixture, "bundle", "1.0.0");
    let broken = fixture.path("broken");
    let root = fixture.root();
    let at = format!("oci:{}", broken.display());
    let mut cases = 0;
    for blob in files_below(&pristine.join("blobs")) {
        let name = blob.strip_prefix(&pristine).unwrap();
        let bytes = std::fs::read(&blob).unwrap();
        for change in ["first byte", "middle byte", "last byte", "shortened", "longer", "gone"] {
            let mut changed = bytes.clone();
            match change {
                "first byte" => changed[0] ^= 1,
                "middle byte" => changed[bytes.len() / 2] ^= 0x10,
                "last byte" => *changed.last_mut().unwrap() ^= 0x80,
                "shortened" => drop(changed.pop()),
                _ => changed.push(0),
            }
            let _ = std::fs::remove_dir_all(&broken);
            copy_tree(&pristine, &broken);
            let path = broken.join(name);
            if change == "gone" {
                std::fs::remove_file(&path).unwrap();
            } else {
                std::fs::write(&path, changed).unwrap();
            }
            // The empty config says nothing and nobody reads it.
            let unread = bytes == b"{}";
            let found = verify_at(&at, &root);
            assert_eq!(found.is_ok(), unread, "{change} of {}: {found:?}", name.display());
            cases += 1;
        }
    }
    assert!(cases > 80, "{cases}");
    verify_at(&format!("oci:{}", pristine.display()), &root).unwrap();
}

#[test]
fn a_bundle_holds_one_release_and_the_trust_of_all() {
    let fixture = Fixture::new();
    fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
    fixture.publish(&fixture.request("1.1.0", "os2.img")).unwrap();
    let root = fixture.root();
    let tar = bundle_to(&fixture, "b.tar", "1.1.0");
    let directory = bundle_to(&fixture, "b", "1.1.0");
    for at in [format!("oci-archive:{}", tar.display()), format!("oci:{}", directory.display())] {
        let registry = open(&at.parse().unwrap(), Access::Read, &ClientOptions::default()).unwrap();
        let report = verify(registry.as_ref(), Some(&root), NOW, Show::Nothing).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["absent"], serde_json::json!(["demo/1.0.0"]), "{at}");
        assert_eq!(json["releases"], 1, "{at}");
    }
    // A repository that lost a release is not a bundle.
    let gone = fixture.verify().unwrap();
    let readable = fixture.readable();
    let inspected =
        serde_json::to_value(signer::commands::inspect(readable.as_ref(), None, NOW).unwrap());
    let inspected = inspected.unwrap();
    let index = inspected["releases"][0]["index"].as_str().unwrap().to_owned();
    let hex = index.strip_prefix("sha256:").unwrap();
    std::fs::remove_file(fixture.path("repo/blobs/sha256").join(hex)).unwrap();
    let error = fixture.verify().expect_err("a release is missing");
    assert_eq!(error.reason(), Reason::BundleFormat, "{error} after {}", gone.state);
}

/// Publishes `version` there, with that security version, and gives what it has.
fn released(
    fixture: &Fixture,
    version: &str,
    channel: Option<&str>,
    security_version: Option<u64>,
) -> Result<u64, Reason> {
    let mut request = fixture.request(version, "os.img");
    request.channel = channel.map(str::to_owned);
    request.security_version = security_version;
    let done = fixture.publish(&request).map_err(|error| error.reason())?;
    Ok(serde_json::to_value(&done).unwrap()["security_version"].as_u64().unwrap())
}

#[test]
fn a_release_is_compared_with_what_its_channel_offered() {
    let fixture = Fixture::new();
    let (stable, beta) = (Some("stable"), Some("beta"));
    let older = Err(Reason::VersionRollback);
    for (version, channel, given, expected) in [
        ("1.0.4", stable, None, Ok(1)),
        ("1.1.0-rc1", beta, Some(3), Ok(3)),
        ("a hotfix beside it: 1.0.5", stable, None, Ok(1)),
        ("1.1.0~rc1", beta, None, older),
        ("1.1.0-beta.2", beta, None, older),
        ("1.1.0-rc2", beta, Some(2), Err(Reason::SecverFloor)),
        ("1.1.0-rc2", beta, None, Ok(3)),
        // A pre-release leads to its release, on either channel.
        ("1.1.0", stable, None, Ok(1)),
        ("1.0.9", stable, None, older),
        // Without a channel nobody is offered anything; unsaid, it has the highest there is.
        ("0.9.0", None, None, Ok(3)),
        ("0.8.0", None, Some(1), Ok(1)),
        ("0.9", None, None, Ok(3)),
        ("0.09", None, None, older),
    ] {
        let spelt = version.rsplit(' ').next().unwrap();
        assert_eq!(released(&fixture, spelt, channel, given), expected, "{version}");
    }
    fixture.verify().unwrap();
}

#[test]
fn a_channel_that_went_back_remembers_the_newest_offer() {
    let fixture = Fixture::new();
    let stable = Some("stable");
    for (version, security_version) in [("1.0.0", 1), ("1.1.0", 1), ("1.2.0", 2)] {
        released(&fixture, version, stable, Some(security_version)).unwrap();
    }
    let set = |channel: &str, release: &str| {
        let edit = ChannelEdit {
            product: "demo".to_owned(),
            channel: channel.to_owned(),
            release: Some(release.parse().unwrap()),
            ..ChannelEdit::default()
        };
        let wanted = Change::SetChannel { edit, role: None };
        let (writable, mut signing) = (fixture.writable(), fixture.signing());
        let options = ChangeOptions::default();
        let (registry, delivery) = (writable.as_ref(), Delivery::Publish);
        let done = done(change(registry, &mut signing, &wanted, &options, delivery, NOW));
        let text = |report| serde_json::to_value(report).unwrap()["warnings"].to_string();
        done.map(text).map_err(|error| error.reason())
    };
    // Nodes that confirmed 1.2.0 hold its security version.
    assert_eq!(set("stable", "1.1.0"), Err(Reason::SecverFloor));
    assert!(!set("beta", "1.1.0").unwrap().contains("would offer"));
    let warnings = set("beta", "1.0.0").unwrap();
    assert!(
        warnings.contains("demo/channels/beta.json would offer 1.0.0 after 1.1.0"),
        "{warnings}"
    );
    // Nodes of this channel may run 1.1.0.
    assert_eq!(released(&fixture, "1.0.5", Some("beta"), None), Err(Reason::VersionRollback));
    assert_eq!(released(&fixture, "1.1.5", Some("beta"), None), Ok(1));
}

#[test]
fn a_tilde_stands_in_the_target_and_an_underscore_in_the_tag() {
    let fixture = Fixture::new();
    released(&fixture, "1.1.0~rc1", Some("stable"), None).unwrap();
    let repository = "racklet/demo".parse().unwrap();
    let tagged = fixture.readable().tagged(&repository, &"1.1.0_rc1".parse().unwrap()).unwrap();
    assert!(tagged.is_some());
    let bundle = bundle_to(&fixture, "bundle.tar", "1.1.0~rc1");
    verify_at(&format!("oci-archive:{}", bundle.display()), &fixture.root()).unwrap();
}

#[test]
fn what_only_looks_like_a_pre_release_is_said() {
    let fixture = Fixture::new();
    for (version, said) in [("1.1.0-hotfix1", true), ("1.1.1-rc1", false), ("1.1.1-1", false)] {
        let done = fixture.publish(&fixture.request(version, "os.img")).unwrap();
        let warnings = serde_json::to_value(&done).unwrap()["warnings"].to_string();
        let wanted = "a pre-release of 1.1.0 is written 1.1.0~hotfix1";
        assert_eq!(warnings.contains(wanted), said, "{version}: {warnings}");
    }
}
