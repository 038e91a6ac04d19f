//! Repositories with very many releases, for measurements: no image is built, and each state is made
//! as `signer` makes it, by the plan.
//!
//! | `cargo run -p signer --example many_releases --` | does |
//! |---|---|
//! | `list DIR N` | a repository in DIR/repository whose targets list releases 1.1 to 1.N of `bench`, with keys in DIR/keys |
//! | `make DIR N` | the same with a history, as N publishes leave it: every state that is kept, every tag, and the documents and the image of each release |
//! | `make DIR N flat` | the same without a history: the newest 256 states, of which each lists all releases |
//! | `kept N [KEEP]` | publishes N releases, one after the other, into a repository with a history, and says what the states that are kept have in bytes, what a node reads after a publish, and how long a publish takes |
//!
//! The images of releases of `list` do not exist: everything but `verify` and `bundle` works. Those of
//! `make` are all the same 16 KiB.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use formats::chunks::{Builder, Content, FrameEntry, seekable_table};
use formats::digest::{Digest, Sha256};
use formats::json::Value;
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, annotation, media_type};
use formats::release::{
    ComponentManifest, ComponentSummary, ImageConfig, IndexedComponent, ReleaseIndex, Summary,
    target_name,
};
use formats::tuf::{KeyId, Metadata as _, Role, TargetFile, UnixTime};
use signer::commands::{Delivery, InitRequest, Signing, init, read_trust_root};
use signer::journal::{Event, JOURNAL_FILE, Journal};
use signer::key::KeyStore;
use signer::plan::{
    Change, Expiry, NewRelease, Payload, Proposal, Retention, Rollout, UnsignedSnapshot, assemble,
    decide, retention::DEFAULT_STATES,
};
use signer::published;
use signer::repository::{Access, ClientOptions, Registry, open};
use signer::signing::{finish, sign_payloads};
use signer::state::{DOCUMENT_PREFIX, State};
use storage::layout::LayoutDir;

type Failed = Box<dyn std::error::Error>;

const PRODUCT: &str = "bench";
const HARDWARE: &str = "bench";

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
    let manifest = Digest::Sha256(Sha256::of(&index));
    release_of(n, manifest, index)
}

fn release_of(n: u64, manifest: Digest, index: Vec<u8>) -> Result<NewRelease, Failed> {
    let component = ComponentSummary {
        name: "os".parse()?,
        compatible: vec![HARDWARE.to_owned()],
        manifest,
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

/// The files of a state, and the manifest that lists them.
fn manifest_of(state: &State) -> (Vec<Descriptor>, Vec<u8>) {
    let layer = |(name, bytes): (String, &[u8])| {
        let is_document = name.starts_with(DOCUMENT_PREFIX);
        let kind = if is_document { media_type::CHANNEL } else { media_type::TUF_METADATA };
        Descriptor::of(kind, bytes)
            .annotated(annotation::TUF_FILENAME, &name)
            .annotated(annotation::TITLE, &name)
    };
    let layers: Vec<Descriptor> = state.files().into_iter().map(layer).collect();
    let manifest =
        Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers.clone()).to_bytes();
    (layers, manifest)
}

/// What a state stores: the digest and the length of each file, its manifest included.
fn stored(state: &State) -> (BTreeMap<Digest, u64>, u64) {
    let (layers, manifest) = manifest_of(state);
    let mut files: BTreeMap<_, _> =
        layers.into_iter().map(|layer| (layer.digest, layer.size)).collect();
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

/// The files of a repository that nobody reads yet: they are written without waiting for the medium.
struct Store {
    blobs: PathBuf,
    tags: Vec<(String, Option<Descriptor>)>,
    /// The files of all states, each with its length.
    states: BTreeMap<Digest, u64>,
}

impl Store {
    fn put(&self, bytes: &[u8]) -> Result<Digest, Failed> {
        let digest = Digest::sha256_of(bytes);
        std::fs::write(self.blobs.join(digest.hex()), bytes)?;
        Ok(digest)
    }

    fn put_as(&self, kind: &str, bytes: &[u8]) -> Result<Descriptor, Failed> {
        self.put(bytes)?;
        Ok(Descriptor::of(kind, bytes))
    }

    /// A release with the documents of its one image.
    fn release(&mut self, n: u64) -> Result<NewRelease, Failed> {
        let (image, frame) = (vec![7; 16 << 10], b"a frame that nobody fetches");
        let blob = [frame.as_slice(), &seekable_table(&[(frame.len() as u32, 16 << 10)])].concat();
        let blob = self.put_as(media_type::IMAGE_BLOB, &blob)?;
        let blob_sha256 = blob.digest.as_sha256().ok_or("another digest")?;
        let mut list = Builder::default();
        list.chunk(16 << 10, Content::Data(Sha256::of(&image)));
        let (len, sha256) = (frame.len() as u32, Sha256::of(frame));
        list.encoding(blob_sha256, blob.size, &[FrameEntry { len, chunks: 1, sha256 }]);
        let chunks = self.put_as(media_type::CHUNKS, list.finish()?.as_bytes())?;
        let config = ImageConfig {
            component: "os".parse()?,
            version: format!("1.{n}").parse()?,
            security_version: 1,
            compatible: vec![HARDWARE.to_owned()],
            raw_size: 16 << 10,
            raw_sha256: Sha256::of(&image),
            chunking: "one".to_owned(),
        };
        let config = self.put_as(media_type::IMAGE_CONFIG, &config.to_bytes())?;
        let manifest = ComponentManifest { config, images: vec![blob], chunks, deltas: Vec::new() };
        let manifest = self.put_as(media_type::MANIFEST, &manifest.to_bytes("os"))?;
        let digest = manifest.digest.clone();
        let component = IndexedComponent {
            name: "os".parse()?,
            compatible: vec![HARDWARE.to_owned()],
            manifest,
        };
        let index = ReleaseIndex { components: vec![component] }.to_bytes();
        let listed = self.put_as(media_type::INDEX, &index)?;
        self.tags.push((format!("{PRODUCT}:1.{n}"), Some(listed)));
        release_of(n, digest, index)
    }

    /// A state, with its tag.
    fn state(&mut self, state: &State, latest: bool) -> Result<(), Failed> {
        for (_, bytes) in state.files() {
            self.put(bytes)?;
        }
        let (_, manifest) = manifest_of(state);
        let listed = self.put_as(media_type::MANIFEST, &manifest)?;
        self.put(EMPTY_CONFIG)?;
        self.states.extend(stored(state).0);
        let version = state.timestamp.data.header.version;
        if latest {
            self.tags.push(("tuf:latest".to_owned(), Some(listed.clone())));
        }
        self.tags.push((format!("tuf:ts-{version}"), Some(listed)));
        Ok(())
    }
}

/// What a publish writes into the log.
fn log_of(place: &Place, state: &State) -> Vec<Event> {
    let (identity, keyid) = (&state.identity, KeyId(Sha256::of(b"key")));
    let repository = place.registry.reference().to_string();
    let State { targets, snapshot, timestamp, .. } = state;
    let signed = [
        ((&Role::Targets, targets.data.header.version, &targets.payload), "publish"),
        ((&Role::Snapshot, snapshot.data.header.version, &snapshot.payload), "commit"),
        ((&Role::Timestamp, timestamp.data.header.version, &timestamp.payload), "commit"),
    ];
    let signed = signed.map(|(payload, by)| {
        Event::signed(identity, payload, &keyid, by, "publish a release", place.now)
    });
    let manifest = Digest::sha256_of(&manifest_of(state).1).to_string();
    let published = Event::published(&repository, &manifest, state, false, place.now);
    signed.into_iter().chain([published]).collect()
}

fn make(directory: &Path, count: u64, flat: bool) -> Result<(), Failed> {
    let place = Place::new(directory)?;
    let repository = directory.join("repository");
    let mut store =
        Store { blobs: repository.join("blobs/sha256"), tags: Vec::new(), states: BTreeMap::new() };
    let mut state = published::load(place.registry.as_ref(), Some(&place.trust_root))?.state;
    let rule = Retention::default();
    let at_once = if flat { count.saturating_sub(DEFAULT_STATES) } else { 0 };
    let mut targets = state.targets.data.clone();
    for n in 1..=at_once {
        let NewRelease { summary, index, .. } = store.release(n)?;
        let custom = Value::parse(&summary.to_custom())?;
        let name = target_name(PRODUCT, &summary.version);
        targets.targets.insert(name, TargetFile::of(&index, Some(custom)));
    }
    let mut first = Change::Archive { keep: None };
    if at_once > 0 {
        targets.header.version += 1;
        let payload = Payload { role: Role::Targets, signed: targets.to_value() };
        let proposal = Proposal { payloads: vec![payload], channels: BTreeMap::new() };
        state = place.sign(&state, &proposal)?;
    }
    let newest = state.timestamp.data.header.version + count - at_once + u64::from(!flat);
    let mut journal = Journal::open(&directory.join("keys").join(JOURNAL_FILE))?;
    let mut lines = Vec::new();
    for n in at_once + u64::from(flat)..=count {
        let change = match n {
            0 => std::mem::replace(&mut first, Change::Archive { keep: None }),
            _ => Change::Publish {
                release: store.release(n)?,
                channel: Some("stable".to_owned()),
                rollout: Rollout::default(),
                role: None,
            },
        };
        let proposal = decide(&state, &change, &Expiry::default(), place.now)?;
        state = place.sign(&state, &proposal.ok_or("there was nothing to change")?)?;
        let version = state.timestamp.data.header.version;
        if rule.keeps(newest, version) {
            store.state(&state, version == newest)?;
        }
        lines.extend(log_of(&place, &state));
        if lines.len() > 500 || n == count {
            journal.record(&std::mem::take(&mut lines))?;
        }
    }
    LayoutDir::open(&repository)?.set_refs(&store.tags)?;
    let (tags, bytes) = (store.tags.len(), store.states.values().sum::<u64>());
    println!("{}: {count} releases, {tags} tags, states of {bytes} bytes", directory.display());
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
        ["make", directory, count, flat @ ..] if flat.is_empty() || flat == ["flat"] => {
            let directory = PathBuf::from(directory);
            std::fs::create_dir(&directory)?;
            make(&directory, count.parse()?, !flat.is_empty())
        }
        ["kept", count] => kept(count.parse()?, signer::plan::DEFAULT_KEEP),
        ["kept", count, keep] => kept(count.parse()?, keep.parse()?),
        _ => Err("usage: many_releases list DIR N | make DIR N [flat] | kept N [KEEP]".into()),
    }
}
