//! Old states go when new ones are public; nothing that is needed goes with them, and no publication
//! fails for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod middle;
mod wrapped;

use std::collections::BTreeSet;

use common::{Fixture, NOW, copy_tree};
use formats::digest::Digest;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, RepositoryName, media_type};
use formats::reason::Reason;
use formats::tuf::UnixTime;
use middle::{Act, Middle};
use repo_server::{Config, Running};
use signer::commands::{Signing, refresh};
use signer::plan::retention::version_of;
use signer::plan::{Expiry, Finding, Retention};
use signer::published;
use signer::repository::{Access, ClientOptions, Expect, Registry, RegistryError, open};
use signer::retention::{Retired, retire};
use storage::layout::{INDEX_LIMIT, Layout as _, LayoutDir};
use wrapped::{Cut, failing};

/// The fewest that can be kept.
fn few() -> Retention {
    Retention::of(16).unwrap()
}

fn signing(fixture: &Fixture, retention: Retention) -> Signing {
    let mut signing = fixture.signing();
    signing.policy.retention = retention;
    signing
}

/// Renews the timestamp so many times; what was said of it.
fn renew(
    fixture: &Fixture,
    registry: &dyn Registry,
    retention: Retention,
    times: usize,
) -> Vec<Finding> {
    let mut signing = signing(fixture, retention);
    let mut said = Vec::new();
    for _ in 0..times {
        let report = refresh(registry, &mut signing, &Expiry::default(), NOW).unwrap();
        said.extend(report.published.warnings);
    }
    said
}

fn layout(fixture: &Fixture) -> LayoutDir {
    LayoutDir::open(&fixture.path("repo")).unwrap()
}

fn tuf() -> RepositoryName {
    "racklet/tuf".parse().unwrap()
}

/// The versions that have tags.
fn versions(registry: &dyn Registry) -> BTreeSet<u64> {
    let tags = registry.tags(&tuf()).unwrap();
    tags.iter().filter_map(|listed| version_of(listed.tag.as_str())).collect()
}

/// What the rule wants to be there, if it is applied as often as it is worth it.
fn is_bounded(found: &BTreeSet<u64>, newest: u64) {
    let wanted: BTreeSet<u64> = (1..=newest).filter(|it| few().keeps(newest, *it)).collect();
    assert!(found.is_superset(&wanted), "{newest}: {found:?} for {wanted:?}");
    assert!(found.len() < wanted.len() + 32, "{newest}: {found:?} for {wanted:?}");
}

#[test]
fn refreshes_leave_some_states_and_the_releases() {
    let fixture = Fixture::new();
    fixture.publish(&fixture.request("1.0.0", "os.img")).unwrap();
    // Other tags beside the states are nobody's to judge.
    let stays =
        ["racklet/tuf:staged-12", "racklet/tuf:ts-1-mine", "racklet/tuf:sha256-ab", "other:ts-1"];
    let latest = layout(&fixture).resolve("racklet/tuf:latest").unwrap();
    let foreign: Vec<_> = stays.iter().map(|it| ((*it).to_owned(), latest.clone())).collect();
    layout(&fixture).set_refs(&foreign).unwrap();
    let registry = fixture.writable();
    for _ in 0..5 {
        assert_eq!(renew(&fixture, registry.as_ref(), few(), 60), Vec::new());
        fixture.verify().unwrap();
        // Manifest, snapshot and timestamp of each state, and those of the release.
        let (states, blobs) =
            (versions(registry.as_ref()).len(), layout(&fixture).blobs().unwrap());
        assert!(blobs.len() < 3 * states + 30, "{} for {states} states", blobs.len());
    }
    // init, publish, and 5 times 60.
    let newest = 302;
    is_bounded(&versions(registry.as_ref()), newest);
    for name in stays {
        assert!(layout(&fixture).resolve(name).unwrap().is_some(), "{name}");
    }
    // An older state can still be read whole, as a recovery would.
    for version in versions(registry.as_ref()) {
        let tag = format!("ts-{version}").parse().unwrap();
        published::fetch_tag(registry.as_ref(), &tag).unwrap().unwrap();
    }
    fixture.publish(&fixture.request("1.1.0", "os2.img")).unwrap();
    fixture.verify().unwrap();
}

/// A state of one small file, as far as tags and blobs go.
fn small_state(registry: &dyn Registry, version: u64) {
    let layer = Descriptor::of(media_type::TUF_METADATA, &version.to_be_bytes());
    let config = Descriptor::empty();
    registry.put_blob(&tuf(), &config, EMPTY_CONFIG).unwrap();
    registry.put_blob(&tuf(), &layer, &version.to_be_bytes()).unwrap();
    let bytes = Manifest::artifact(media_type::TUF_STATE, config, vec![layer]).to_bytes();
    let manifest = Descriptor::of(media_type::MANIFEST, &bytes);
    registry.put_manifest(&tuf(), &manifest, &bytes).unwrap();
    for tag in [format!("ts-{version}"), "latest".to_owned()] {
        let (tag, anything) = (tag.parse().unwrap(), Expect::Anything);
        registry.set_tag(&tuf(), &tag, &manifest, &bytes, anything).unwrap();
    }
}

/// Some thousands of states: tags, bytes of `index.json` and blobs stay as they are.
#[test]
fn thousands_of_states_take_no_more_room_than_some_hundreds() {
    let memory = std::path::Path::new("/dev/shm");
    let temp = match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let reference = format!("oci:{}:racklet", temp.path().join("repo").display());
    let access = (Access::Write, ClientOptions::default());
    let registry = open(&reference.parse().unwrap(), access.0, &access.1).unwrap();
    let mut rows = Vec::new();
    for version in 1..=3_000 {
        small_state(registry.as_ref(), version);
        let (_, said) = retire(registry.as_ref(), few(), version, NOW);
        assert_eq!(said, None, "{version}");
        if version % 1_000 == 0 {
            is_bounded(&versions(registry.as_ref()), version);
            let layout = LayoutDir::open(&temp.path().join("repo")).unwrap();
            let index = std::fs::metadata(temp.path().join("repo/index.json")).unwrap().len();
            rows.push((layout.refs().unwrap().len(), index, layout.blobs().unwrap().len()));
        }
    }
    let (tags, index, blobs) = *rows.last().unwrap();
    println!("tags, bytes of index.json, blobs after each 1,000: {rows:?}");
    // 16, and 15 for each of the bands; at most 31 more that wait for the next removal.
    assert!(tags < 16 + 3 * 16 + 32 && index < 32 << 10 && blobs < 2 * tags + 3, "{rows:?}");
}

/// What a repository looks like that nobody has ever removed anything from.
fn neglected(fixture: &Fixture) {
    renew(fixture, fixture.writable().as_ref(), Retention::EVERYTHING, 60);
    assert_eq!(versions(fixture.readable().as_ref()).len(), 61);
}

#[test]
fn a_repository_without_room_for_another_state_comes_to_life_again() {
    let fixture = Fixture::new();
    neglected(&fixture);
    let first = layout(&fixture).resolve("racklet/tuf:ts-1").unwrap().unwrap();
    let one = |n: usize| (format!("racklet/tuf:ts-1-sha256-{n:012x}"), Some(first.clone()));
    let index = || std::fs::metadata(fixture.path("repo/index.json")).unwrap().len();
    let before = index();
    layout(&fixture).set_refs(&[one(0)]).unwrap();
    let each = index() - before;
    let many = usize::try_from((INDEX_LIMIT - index()) / each).unwrap();
    layout(&fixture).set_refs(&(1..=many).map(one).collect::<Vec<_>>()).unwrap();
    let full = layout(&fixture).refs().unwrap().len();
    let registry = fixture.writable();
    let mut signing = signing(&fixture, Retention::EVERYTHING);
    let error = refresh(registry.as_ref(), &mut signing, &Expiry::default(), NOW).unwrap_err();
    assert_eq!(error.reason(), Reason::MetaLimit, "{error}");

    assert_eq!(renew(&fixture, registry.as_ref(), few(), 1), Vec::new());
    // Once to have room, and once because there is more.
    assert_eq!(layout(&fixture).refs().unwrap().len(), full + 1 - 2_000);
    fixture.verify().unwrap();
}

/// Every step of a removal fails, before and after its effect: the state is public, what could not be
/// done is said, and the next run does it.
#[test]
fn a_removal_that_fails_is_a_warning() {
    let fixture = Fixture::new();
    neglected(&fixture);
    let pristine = fixture.path("pristine");
    copy_tree(&fixture.path("repo"), &pristine);
    for cut in [Cut::Before, Cut::After] {
        let mut warned = 0;
        for n in 0.. {
            std::fs::remove_dir_all(fixture.path("repo")).unwrap();
            copy_tree(&pristine, &fixture.path("repo"));
            let writable = fixture.writable();
            let failing = failing(writable.as_ref(), n, cut);
            let mut signing = signing(&fixture, few());
            let ended = refresh(&failing, &mut signing, &Expiry::default(), NOW);
            let seen = fixture.verify().unwrap().state;
            let Ok(report) = ended else { continue };
            assert_eq!(seen, report.published.state);
            let warnings = report.published.warnings;
            assert_eq!(renew(&fixture, writable.as_ref(), few(), 32), Vec::new());
            fixture.verify().unwrap();
            is_bounded(&versions(writable.as_ref()), 61 + 1 + 32);
            if warnings.is_empty() {
                break;
            }
            assert!(warnings[0].text.contains("old states were not removed"), "{warnings:?}");
            assert_eq!(warnings[0].reason, Reason::Unreachable);
            warned += 1;
        }
        assert_eq!(warned, 2, "{cut:?}: removing tags, and removing blobs");
    }
}

#[test]
fn what_was_written_within_the_hour_stays() {
    let fixture = Fixture::new();
    neglected(&fixture);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = UnixTime::from_secs(since.as_secs().try_into().unwrap());
    let registry = fixture.writable();
    let before = layout(&fixture).blobs().unwrap().len();
    let (retired, said) = retire(registry.as_ref(), few(), 61, now);
    assert_eq!((retired.blobs, said), (0, None));
    assert!(retired.tags >= 32, "{retired:?}");
    assert_eq!(layout(&fixture).blobs().unwrap().len(), before);
    // Fewer than are worth a run.
    assert_eq!(retire(registry.as_ref(), few(), 62, now), (Retired::default(), None));
}

/// In a directory that a server serves, blobs are its business: it has links and uploads of its own.
#[test]
fn a_servers_directory_keeps_its_blobs() {
    let fixture = Fixture::new();
    neglected(&fixture);
    std::fs::create_dir(fixture.path("repo/repositories")).unwrap();
    let before = layout(&fixture).blobs().unwrap();
    let (retired, said) = retire(fixture.writable().as_ref(), few(), 61, NOW);
    assert!(retired.tags >= 32 && retired.blobs == 0 && said.is_none(), "{retired:?} {said:?}");
    assert_eq!(layout(&fixture).blobs().unwrap(), before);
}

/// Whoever sets a tag is told that a part of it went meanwhile.
#[test]
fn an_incomplete_state_becomes_visible_nowhere() {
    let fixture = Fixture::new();
    let registry = fixture.writable();
    let layer = Descriptor::of(media_type::TUF_METADATA, b"gone");
    let bytes = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), vec![layer.clone()]);
    let bytes = bytes.to_bytes();
    let manifest = Descriptor::of(media_type::MANIFEST, &bytes);
    registry.put_manifest(&tuf(), &manifest, &bytes).unwrap();
    let tag = "latest".parse().unwrap();
    let before = registry.tagged(&tuf(), &tag).unwrap();
    let set = registry.set_tag(&tuf(), &tag, &manifest, &bytes, Expect::Anything);
    assert!(
        matches!(&set, Err(RegistryError::Missing { digest, .. }) if *digest == layer.digest),
        "{set:?}"
    );
    assert_eq!(registry.tagged(&tuf(), &tag).unwrap(), before);
}

#[test]
fn a_tag_that_moved_meanwhile_stays() {
    let fixture = Fixture::new();
    let registry = fixture.writable();
    let mut tags = registry.tags(&tuf()).unwrap();
    tags.retain(|listed| listed.tag.as_str() == "ts-1");
    tags[0].manifest = Some(Digest::sha256_of(b"another"));
    assert_eq!(registry.remove_tags(&tuf(), &tags).unwrap().removed, 0);
    tags[0].manifest = None;
    assert_eq!(registry.remove_tags(&tuf(), &tags).unwrap().removed, 1);
    assert_eq!(registry.remove_tags(&tuf(), &tags).unwrap().removed, 0);
}

/// Our own server with such a token, and with the right to delete or without it.
fn serve(fixture: &Fixture, tokens: &str, allow_delete: bool) -> (Running, Box<dyn Registry>) {
    let file = |name: &str, text: &str| {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(fixture.path(name));
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    };
    file("tokens", tokens);
    file("token", tokens.rsplit(' ').next().unwrap());
    let mut config = Config::new(fixture.path("served"));
    config.push_tokens = Some(fixture.path("tokens"));
    config.allow_delete = allow_delete;
    let server = repo_server::start(config).unwrap();
    let token_file = Some(fixture.path("token"));
    let options = ClientOptions { token_file, plain_http: true, ..ClientOptions::default() };
    let reference = format!("docker://{}/racklet", server.local_addr()).parse().unwrap();
    let registry = open(&reference, Access::Write, &options).unwrap();
    fixture.init_to(registry.as_ref(), NOW).unwrap();
    (server, registry)
}

#[test]
fn a_server_that_removes_tags_keeps_as_few() {
    let fixture = Fixture::new();
    let (server, registry) = serve(&fixture, "a-token-that-is-long-enough", true);
    assert_eq!(renew(&fixture, registry.as_ref(), few(), 100), Vec::new());
    is_bounded(&versions(registry.as_ref()), 101);
    // A tag is removed by its name, and what it stands for stays until the server collects it.
    let tags = registry.tags(&tuf()).unwrap();
    let mut wrong = tags[0].clone();
    wrong.manifest = Some(Digest::sha256_of(b"another"));
    assert_eq!(registry.remove_tags(&tuf(), &[wrong]).unwrap().removed, 0);
    assert_eq!(registry.tags(&tuf()).unwrap(), tags);
    assert!(registry.tags(&"racklet/none".parse().unwrap()).unwrap().is_empty());
    server.stop();
}

/// Registries that remove no tags say so in several ways (distribution-spec §"Deleting Tags").
#[test]
fn a_registry_that_removes_none_is_a_warning_that_says_what_to_do() {
    let fixture = Fixture::new();
    let (server, registry) = serve(&fixture, "a-token-that-is-long-enough", false);
    assert_eq!(renew(&fixture, registry.as_ref(), Retention::EVERYTHING, 60), Vec::new());
    let mut states = 61;
    for status in ["405", "400 Bad Request", "403 Forbidden", "404 Not Found"] {
        let own = status != "405";
        let middle = Middle::before(server.local_addr(), move |head| match head.method.as_str() {
            "DELETE" if own => Act::Answer(format!("{status}\r\nContent-Length: 0")),
            _ => Act::Pass,
        });
        let token_file = Some(fixture.path("token"));
        let options = ClientOptions { token_file, plain_http: true, ..ClientOptions::default() };
        let reference = format!("docker://{}/racklet", middle.address).parse().unwrap();
        let registry = open(&reference, Access::Write, &options).unwrap();
        let warnings = renew(&fixture, registry.as_ref(), few(), 1);
        states += 1;
        assert_eq!(warnings.len(), 1, "{status}: {warnings:?}");
        let text = &warnings[0].text;
        assert!(text.contains(&status[..3]) && text.contains("--allow-delete"), "{text}");
        assert_eq!(warnings[0].reason, Reason::HttpStatus);
        assert_eq!(versions(registry.as_ref()).len(), states);
        let deletes = middle.seen().iter().filter(|it| it.head.method == "DELETE").count();
        assert_eq!(deletes, 1, "{status}: it is not asked again and again");
    }
    server.stop();
}
