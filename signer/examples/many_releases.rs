//! Repositories with very many releases, for measurements: no image is built, and each state is made
//! as `signer` makes it, by the plan.
//!
//! | `cargo run -p signer --example many_releases --` | does |
//! |---|---|
//! | `list DIR N` | a repository in DIR/repository whose targets list releases 1.1 to 1.N of `demo`, with keys in DIR/keys |
//! | `kept N [KEEP]` | publishes N releases, one after the other, into a repository with a history, and says what the states that are kept have in bytes, what a node reads after a publish, and how long a publish takes |
//!
//! The images of these releases do not exist: everything but `verify` and `bundle` works.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use formats::digest::{Digest, Sha256};
use formats::json::Value;
use formats::oci::{Descriptor, Manifest, annotation, media_type};
use formats::release::{ComponentSummary, Summary, target_name};
use formats::tuf::{Metadata as _, Role, TargetFile, UnixTime};
use signer::commands::{Delivery, InitRequest, Signing, init, read_trust_root};
use signer::key::KeyStore;
use signer::plan::{
    Change, Expiry, NewRelease, Payload, Proposal, Retention, Rollout, UnsignedSnapshot, assemble,
    decide,
};
use signer::published;
use signer::repository::{Access, ClientOptions, Registry, open};
use signer::signing::{finish, sign_payloads};
use signer::state::State;

type Failed = Box<dyn std::error::Error>;

const PRODUCT: &str = "demo";

/// A directory with keys and an empty repository.
struct Place {
    registry: Box<dyn Registry>,
    keys: KeyStore,
    trust_root: Vec<u8>,
    now: UnixTime,
}

impl Place {
    fn new(directory: &Path) -> Result<Self, Failed> {
        let reference = format!("oci:{}", directory.join("repository").display()).parse()?;
        let registry = open(&reference, Access::Write, &ClientOptions::default())?;
        let keys = directory.join("keys");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let now = UnixTime::from_secs(now.try_into()?);
        let request = InitRequest { keys: keys.clone(), ..InitRequest::default() };
        init(registry.as_ref(), &mut Signing::default(), &request, Delivery::Publish, now)?;
        let trust_root = read_trust_root(&keys.join("root.json"))?;
        Ok(Place { registry, keys: KeyStore::open(&keys)?, trust_root, now })
    }

    /// The state after a change, signed.
    fn sign(&self, before: &State, proposal: &Proposal) -> Result<State, Failed> {
        let mut signatures = BTreeMap::new();
        sign_payloads(Some(before), proposal, &self.keys, &mut signatures)?;
        let offline = assemble(Some(before), proposal, &signatures)?;
        let expiry = Expiry::default();
        let next = UnsignedSnapshot::new(Some(before), offline, proposal, &expiry, None, self.now);
        Ok(finish(next, &self.keys)?)
    }
}

/// A release as a target says it: one image for one board.
fn release(n: u64) -> Result<NewRelease, Failed> {
    let index = format!("release {n}").into_bytes();
    let component = ComponentSummary {
        name: "os".parse()?,
        compatible: vec!["racklet-cu-v1".to_owned()],
        manifest: Digest::Sha256(Sha256::of(&index)),
        raw_size: 16 << 10,
        verity: None,
        raw: None,
    };
    let summary = Summary {
        version: format!("1.{n}").parse()?,
        security_version: 1,
        components: vec![component],
        attachments: Vec::new(),
        mixed: Vec::new(),
        order: Vec::new(),
        withdrawn: None,
    };
    Ok(NewRelease { product: PRODUCT.to_owned(), summary, index })
}

fn list(directory: &Path, count: u64) -> Result<(), Failed> {
    let place = Place::new(directory)?;
    let before = published::load(place.registry.as_ref(), Some(&place.trust_root))?;
    let mut targets = before.state.targets.data.clone();
    for n in 1..=count {
        let NewRelease { summary, index, .. } = release(n)?;
        let custom = Value::parse(&summary.to_custom())?;
        let name = target_name(PRODUCT, &summary.version);
        targets.targets.insert(name, TargetFile::of(&index, Some(custom)));
    }
    targets.header.version += 1;
    let payload = Payload { role: Role::Targets, signed: targets.to_value() };
    let proposal = Proposal { payloads: vec![payload], channels: BTreeMap::new() };
    let state = place.sign(&before.state, &proposal)?;
    published::publish(place.registry.as_ref(), Some(&before.manifest), &state, None)?;
    println!("{}: {count} releases", directory.display());
    Ok(())
}

/// What a state stores: the digest and the length of each file, its manifest included.
fn stored(state: &State) -> (BTreeMap<Digest, u64>, u64) {
    let mut files = BTreeMap::new();
    let mut layers = Vec::new();
    for (name, bytes) in state.files() {
        let layer = Descriptor::of(media_type::TUF_METADATA, bytes)
            .annotated(annotation::TUF_FILENAME, &name)
            .annotated(annotation::TITLE, &name);
        files.insert(layer.digest.clone(), layer.size);
        layers.push(layer);
    }
    let manifest = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers);
    let manifest = manifest.to_bytes();
    let len = manifest.len() as u64;
    files.insert(Digest::sha256_of(&manifest), len);
    (files, len)
}

fn kept(count: u64, keep: u32) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let place = Place::new(directory.path())?;
    let mut state = published::load(place.registry.as_ref(), Some(&place.trust_root))?.state;
    let mut states = BTreeMap::from([(state.timestamp.data.header.version, stored(&state).0)]);
    let (mut longest, mut most, mut all_roles) = (0, 0, 0);
    let begun = Instant::now();
    let archive = Change::Archive { keep: Some(keep) };
    let releases = (1..=count).map(|n| {
        let (channel, rollout) = (Some("stable".to_owned()), Rollout::default());
        release(n).map(|release| Change::Publish { release, channel, rollout, role: None })
    });
    for change in std::iter::once(Ok(archive)).chain(releases) {
        let change = change?;
        let begun = Instant::now();
        let proposal = decide(&state, &change, &Expiry::default(), place.now)?;
        state = place.sign(&state, &proposal.ok_or("there was nothing to change")?)?;
        longest = longest.max(begun.elapsed().as_millis());
        let (files, manifest) = stored(&state);
        let read = [&state.timestamp.bytes, &state.snapshot.bytes, &state.targets.bytes];
        let channels = state.channels.values().map(|it| it.bytes.len());
        let read = read.iter().map(|it| it.len()).chain(channels).sum::<usize>() as u64;
        if states.len() as u64 * 10 > count * 9 {
            most = most.max(read + manifest);
        }
        all_roles = all_roles.max(state.delegated.len());
        states.insert(state.timestamp.data.header.version, files);
    }
    let newest = state.timestamp.data.header.version;
    let there: BTreeSet<u64> = states.keys().copied().collect();
    let old = Retention::default().removable(newest, &there);
    old.iter().for_each(|version| drop(states.remove(version)));
    let blobs: BTreeMap<&Digest, &u64> = states.values().flatten().collect();
    let bytes: u64 = blobs.into_values().sum();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} releases, {} states kept: {:.1} MiB", states.len(), bytes as f64 / 1048576.0);
    println!("a node reads at most {:.1} KiB after one of the last tenth", most as f64 / 1024.0);
    println!("{all_roles} delegated roles at most");
    println!(
        "a publish, planned and signed: {:.1} ms, longest {longest} ms",
        seconds * 1e3 / count as f64
    );
    Ok(())
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["list", directory, count] => {
            let directory = PathBuf::from(directory);
            std::fs::create_dir(&directory)?;
            list(&directory, count.parse()?)
        }
        ["kept", count] => kept(count.parse()?, signer::plan::DEFAULT_KEEP),
        ["kept", count, keep] => kept(count.parse()?, keep.parse()?),
        _ => Err("usage: many_releases list DIR N | kept N [KEEP]".into()),
    }
}
