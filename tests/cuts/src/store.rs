//! What is cut of a publisher, of a server's store and of a collection of garbage: the very code of
//! `signer publish`, of the handlers of `repo-server` and of its collection, on a folder in memory.
//!
//! After any cut, readers see the old state or the new one: every tag stands for what it stood for or
//! for what it was to stand for, and everything it reaches is there with the bytes its digest says —
//! down to the images, and to what only signed metadata name. A node trusts and installs what
//! `tuf:latest` stands for. What was said to be done is done, and the next run ends where an uncut one
//! would have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use formats::digest::Digest;
use formats::error_chain;
use formats::oci::{
    Descriptor, EMPTY_CONFIG, Index, Manifest, RepositoryName, annotation, media_type,
};
use repo_server::internal::{ManifestDestination, Reference, SessionId, Tagging, UploadKey};
use repo_server::{Quota, Store};
use signer::commands::{Answer, ComponentInput, Delivery, InitRequest, PublishRequest, Signing};
use signer::key::{KeyStore, example};
use signer::plan::{Expiry, Retention, Rollout};
use signer::progress::Show;
use signer::repository::LayoutRepository;
use storage::dir::Policy;
use storage::host::Host as _;
use storage::layout::{Layout as _, LayoutDir};
use storage::sim::machine::{Call, CallKind, Recording, Script, Verdict};
use storage::sim::{Machine, Media};

use crate::case::Case;
use crate::faults::{Ended, Fault};
use crate::node::{Backend, Kit, Node};
use crate::repository::{CHANNEL, HARDWARE, PRODUCT, Snapshot};
use crate::scenario::Recovered;
use crate::sweep::Size;
use crate::variants::{self, Caught};
use racklet_testkit::forge::NOW;

/// Where the layout, or the store, is.
const STORE: &str = "/store";
/// Blobs larger than this are no documents.
const DOCUMENT_LIMIT: u64 = 4 << 20;
const HOUR: Duration = Duration::from_secs(3600);
/// Runs that a recovery may take (L1).
const RUNS: usize = 2;

/// A kind of work that is cut.
pub struct StoreScenario {
    /// Its name in tables.
    pub name: &'static str,
    /// What it runs on.
    pub place: &'static str,
    /// In a sentence.
    pub about: &'static str,
    prepare: fn() -> Result<Prepared, String>,
}

/// All of them.
pub const ALL: &[StoreScenario] = &[
    StoreScenario {
        name: "publish",
        place: "image layout",
        about: "`signer publish` of a second release into a directory",
        prepare: prepare_publish,
    },
    StoreScenario {
        name: "push",
        place: "server's store",
        about: "blobs in pieces, a manifest, an index with tags, a tag that moves, an attachment",
        prepare: prepare_push,
    },
    StoreScenario {
        name: "garbage collection",
        place: "server's store",
        about: "links and blobs that no tag, TUF state or referrer reaches are thrown away",
        prepare: prepare_collection,
    },
];

type Act = Box<dyn Fn(&Machine) -> Result<(), String> + Send + Sync>;

/// Media, and what is done with them.
struct Prepared {
    media: Media,
    /// Unix seconds at which it is done.
    now: u64,
    act: Act,
    /// Whether a server's store is opened over it.
    served: bool,
    /// What has to be gone in the end.
    garbage: Vec<Digest>,
    /// What a node trusts, if it is to install what is there.
    root: Option<Vec<u8>>,
}

/// What readers see: the tags, and what a server shows without them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct View {
    tags: BTreeMap<String, Digest>,
    shown: BTreeSet<(String, Digest)>,
}

/// One of them, ready to be cut.
pub struct StoreRow {
    scenario: &'static StoreScenario,
    prepared: Prepared,
    old: View,
    new: View,
    recording: Recording,
    client: Client,
    variant: Option<&'static StoreVariant>,
}

fn seconds(now: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(now)
}

fn start() -> u64 {
    u64::try_from(NOW.secs()).expect("after 1970")
}

// ---- what readers see --------------------------------------------------------------------------

/// Everything that a digest reaches, read and compared with its digest.
struct Walk<'a> {
    layout: &'a LayoutDir,
    seen: BTreeSet<Digest>,
}

impl Walk<'_> {
    fn follow(&mut self, from: &str, digest: &Digest) -> Result<(), String> {
        let mut open = vec![digest.clone()];
        while let Some(digest) = open.pop() {
            if !self.seen.insert(digest.clone()) {
                continue;
            }
            let bytes = self.layout.read_blob(&digest, 1 << 30);
            let bytes =
                bytes.map_err(|error| format!("L1: {from} reaches {}", error_chain(&error)))?;
            if bytes.len() as u64 <= DOCUMENT_LIMIT
                && let Ok(document) = serde_json::from_slice::<serde_json::Value>(&bytes)
            {
                open.extend(named_in(&document));
            }
        }
        Ok(())
    }
}

/// The digests that a manifest, an index or TUF targets name.
fn named_in(document: &serde_json::Value) -> Vec<Digest> {
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    let mut all = [list("layers"), list("manifests")].concat();
    all.extend([document["config"].clone(), document["subject"].clone()]);
    let mut found: Vec<Digest> =
        all.iter().filter_map(|it| it["digest"].as_str()?.parse().ok()).collect();
    if let Some(targets) = document["signed"]["targets"].as_object() {
        let hash = |target: &serde_json::Value| {
            format!("sha256:{}", target["hashes"]["sha256"].as_str()?).parse().ok()
        };
        found.extend(targets.values().filter_map(hash));
    }
    found
}

/// What readers of these media see; an error when something of it is half, lost or wrong.
fn view(machine: &Machine, served: bool) -> Result<View, String> {
    let path = Path::new(STORE);
    let layout = LayoutDir::open_on(machine, path);
    let layout = layout.map_err(|error| format!("S8: open: {}", error_chain(&error)))?;
    let mut found = View::default();
    let mut walk = Walk { layout: &layout, seen: BTreeSet::new() };
    for (name, descriptor) in
        layout.refs().map_err(|error| format!("S8: {}", error_chain(&error)))?
    {
        walk.follow(&name, &descriptor.digest)?;
        found.tags.insert(name, descriptor.digest);
    }
    if !served {
        return Ok(found);
    }
    let store = Store::open_on(machine, path, true, Quota::default());
    let store = store.map_err(|error| format!("S8: open: {}", error_chain(&error)))?;
    for (name, _) in store.repositories() {
        let shown = store.with(&name, |it| {
            it.manifests.keys().chain(&it.blobs).cloned().collect::<Vec<Digest>>()
        });
        for digest in shown.unwrap_or_default() {
            let blob = store.open_blob(&digest).map_err(|error| error_chain(&error))?;
            let blob = blob.ok_or_else(|| format!("L1: {name} shows {digest}, which is gone"))?;
            if !store.verify(&digest, blob.as_ref()).map_err(|error| error_chain(&error))? {
                return Err(format!("S9: {digest} of {name} has other bytes"));
            }
            found.shown.insert((name.to_string(), digest));
        }
    }
    Ok(found)
}

/// A node that installs what is published. What it meets is told by the digest of `tuf:latest`.
struct Client {
    node: Option<(Kit, Media)>,
    good: Mutex<BTreeSet<Digest>>,
}

impl Client {
    fn new(root: Option<&[u8]>) -> Self {
        let node = root.map(|root| {
            let mut kit = Kit::new(Backend::Gpt, 1);
            let media = kit.factory(root, &[vec![0xfa; 20_480]]);
            (kit, media)
        });
        Client { node, good: Mutex::default() }
    }

    fn install(&self, machine: &Machine, found: &View) -> Result<(), String> {
        let Some((kit, media)) = &self.node else { return Ok(()) };
        let Some(latest) = found.tags.get("tuf:latest") else {
            return Err("L1: tuf:latest is gone".to_owned());
        };
        if self.good.lock().unwrap_or_else(PoisonError::into_inner).contains(latest) {
            return Ok(());
        }
        let snapshot = snapshot(machine, latest)?;
        let mut node = Node::on(kit, media, &snapshot, true, 0).out_of_step();
        node.boot().map_err(|error| error.chain())?;
        let installed = node.apply();
        installed.map_err(|error| format!("L1: a node: {}", error.chain()))?;
        self.good.lock().unwrap_or_else(PoisonError::into_inner).insert(latest.clone());
        Ok(())
    }
}

/// What a node is served of a layout.
fn snapshot(machine: &Machine, latest: &Digest) -> Result<Snapshot, String> {
    let layout =
        LayoutDir::open_on(machine, Path::new(STORE)).map_err(|error| error_chain(&error))?;
    let read =
        |digest: &Digest| layout.read_blob(digest, 1 << 30).map_err(|error| error_chain(&error));
    let manifest = Manifest::parse(&read(latest)?).map_err(|error| error_chain(&error))?;
    let file = |layer: &Descriptor| {
        Some((layer.annotation(annotation::TUF_FILENAME)?.to_owned(), layer.clone()))
    };
    let files = manifest.layers.iter().filter_map(file).collect();
    let mut blobs = BTreeMap::new();
    for digest in layout.blobs().map_err(|error| error_chain(&error))? {
        blobs.insert(digest.clone(), read(&digest)?);
    }
    Ok(Snapshot::of(&latest.to_string(), files, blobs))
}

// ---- publish -----------------------------------------------------------------------------------

/// An image: noise, a run of zeros, and what both releases have in common.
fn image(version: u8) -> Vec<u8> {
    let noise = |seed: u8, len: usize| -> Vec<u8> {
        let block = |nth: usize| Digest::sha256_of(format!("{seed} {nth}").as_bytes());
        let hex = |nth: usize| block(nth).hex().as_bytes().to_vec();
        (0..len / 64).flat_map(hex).collect()
    };
    let mut image = [noise(version, 8192), vec![0; 8192], noise(9, 16_384)].concat();
    // A text would not be taken for an image.
    image[0] = 0;
    image
}

/// Files that the signer reads: images, and keys for `init`.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let desk = Desk { dir };
        for version in [1, 2] {
            fs::write(desk.image(version), image(version)).map_err(|error| error.to_string())?;
        }
        Ok(desk)
    }

    fn image(&self, version: u8) -> PathBuf {
        self.dir.path().join(format!("os-{version}.img"))
    }

    fn request(&self, version: u8) -> PublishRequest {
        PublishRequest {
            product: PRODUCT.to_owned(),
            version: format!("{version}.0.0").parse().expect("a version"),
            components: vec![ComponentInput {
                name: "os".parse().expect("a name"),
                path: self.image(version),
                compatible: vec![HARDWARE.to_owned()],
                verity: false,
                raw: None,
            }],
            security_version: None,
            channel: Some(CHANNEL.to_owned()),
            rollout: Rollout::default(),
            role: None,
            options: signer::image::Options { level: 1, threads: NonZeroUsize::MIN },
            delta_from: Vec::new(),
            attachments: signer::attachment::AttachmentRequest::default(),
            mixed: Vec::new(),
            order: Vec::new(),
            expiry: Expiry::default(),
        }
    }
}

fn keys() -> Result<KeyStore, String> {
    let mut keys = KeyStore::default();
    for role in example::ROLES {
        keys.add(example::key(role)).map_err(|error| error_chain(&error))?;
    }
    Ok(keys)
}

fn repository(machine: &Machine) -> Result<LayoutRepository, String> {
    let reference = format!("oci:{STORE}").parse().map_err(|_| "no reference".to_owned())?;
    LayoutRepository::create_on(machine, reference).map_err(|error| error_chain(&error))
}

fn publish(desk: &Desk, root: &[u8], machine: &Machine, version: u8) -> Result<(), String> {
    let repository = repository(machine)?;
    let mut signing = Signing::of(keys()?, root.to_vec());
    let request = desk.request(version);
    let delivery = Delivery::Publish;
    let done = signer::commands::publish(
        &repository,
        &mut signing,
        &request,
        delivery,
        NOW,
        Show::Nothing,
    );
    match done.map_err(|error| format!("error[{}]: {}", error.reason(), error_chain(&error)))? {
        Answer::Done(_) => Ok(()),
        Answer::Staged(_) | Answer::Described(_) => Err("it was not published".to_owned()),
    }
}

fn prepare_publish() -> Result<Prepared, String> {
    let desk = Desk::new()?;
    let machine = Machine::on(&Media::new().with_folder(STORE), start());
    let folder = desk.dir.path().join("keys");
    let mut signing = Signing { keys: keys()?, ..Signing::default() };
    let request =
        InitRequest { keys: folder.clone(), id: Some("cuts".to_owned()), ..InitRequest::default() };
    signer::commands::example(&folder).map_err(|error| error_chain(&error))?;
    let made = signer::commands::init(
        &repository(&machine)?,
        &mut signing,
        &request,
        Delivery::Publish,
        NOW,
    );
    made.map_err(|error| error_chain(&error))?;
    let root = fs::read(folder.join("root.json")).map_err(|error| error.to_string())?;
    publish(&desk, &root, &machine, 1)?;
    let trusted = root.clone();
    Ok(Prepared {
        media: machine.durable(),
        now: start(),
        act: Box::new(move |machine| publish(&desk, &root, machine, 2)),
        served: false,
        garbage: Vec::new(),
        root: Some(trusted),
    })
}

// ---- push --------------------------------------------------------------------------------------

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a repository name")
}

fn open_store(machine: &Machine) -> Result<Store, String> {
    let store = Store::open_on(machine, Path::new(STORE), false, Quota::default());
    store.map_err(|error| error_chain(&error))
}

/// A client that pushes a blob in two requests, and goes on with what the server has of it.
fn push_blob(store: &Store, to: &str, bytes: &[u8], nth: u8) -> Result<Digest, String> {
    let digest = Digest::sha256_of(bytes);
    let failed = |error: repo_server::StoreError| error_chain(&error);
    let mut why = String::new();
    for attempt in 0..4 {
        let id = SessionId::from_random([nth + 16 * attempt; 16]);
        let key = UploadKey { name: name(to), id, algorithm: digest.algorithm() };
        let mut upload = match store.resume_upload(&key).map_err(failed)? {
            Some(upload) => upload,
            None => store.new_upload(&key).map_err(failed)?,
        };
        let stored = usize::try_from(upload.stored()).unwrap_or(usize::MAX);
        if stored > bytes.len() {
            why = "more is stored than there is".to_owned();
            continue;
        }
        for piece in bytes[stored..].chunks(bytes.len().div_ceil(2).max(1)) {
            upload.write(piece).map_err(failed)?;
        }
        upload.pause().map_err(failed)?;
        match store.commit_blob(&name(to), upload, &digest) {
            Ok(()) => return Ok(digest),
            // The power took some of what was there: the client begins anew.
            Err(error) => why = error_chain(&error),
        }
    }
    Err(why)
}

fn push_manifest(store: &Store, to: &str, tags: &[&str], bytes: &[u8]) -> Result<Digest, String> {
    let digest = Digest::sha256_of(bytes);
    let tag = |tag: &&str| tag.parse().expect("a tag");
    let reference = match tags.first() {
        Some(first) => Reference::Tag(tag(first)),
        None => Reference::Digest(digest.clone()),
    };
    let tags = tags.iter().skip(1).map(tag).collect();
    let to = ManifestDestination { name: name(to), reference, tags, tagging: Tagging::Move };
    let put = store.put_manifest(&to, None, &Bytes::copy_from_slice(bytes));
    put.map_err(|error| error_chain(&error))?;
    Ok(digest)
}

/// A release of one component, as its client pushes it; its index, manifest and image.
fn push_release(
    store: &Store,
    tags: &[&str],
    image: &[u8],
    nth: u8,
) -> Result<[Digest; 3], String> {
    let blob = push_blob(store, PRODUCT, image, nth)?;
    push_blob(store, PRODUCT, EMPTY_CONFIG, nth + 1)?;
    let layers = vec![Descriptor::of("application/vnd.test.image", image)];
    let manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    let manifest = manifest.to_bytes();
    let component = push_manifest(store, PRODUCT, &[], &manifest)?;
    let index = Index::new(None, vec![Descriptor::of(media_type::MANIFEST, &manifest)]);
    Ok([push_manifest(store, PRODUCT, tags, &index.to_bytes())?, component, blob])
}

fn prepare_push() -> Result<Prepared, String> {
    let machine = Machine::on(&Media::new().with_folder(STORE), start());
    let store = open_store(&machine)?;
    push_release(&store, &["1.0.0", "latest"], &image(1), 1)?;
    drop(store);
    Ok(Prepared {
        media: machine.durable(),
        now: start() + 60,
        act: Box::new(|machine| {
            let store = open_store(machine)?;
            let pushed = push_release(&store, &["2.0.0", "latest"], &image(2), 4)?;
            // Shown by its link alone.
            attach(&store, &pushed[1], b"sbom of 2.0", 7).map(drop)
        }),
        served: true,
        garbage: Vec::new(),
        root: None,
    })
}

// ---- garbage collection ------------------------------------------------------------------------

fn attach(store: &Store, subject: &Digest, text: &[u8], nth: u8) -> Result<Digest, String> {
    push_blob(store, PRODUCT, text, nth)?;
    let layers = vec![Descriptor::of("application/vnd.test.sbom", text)];
    let mut manifest = Manifest::artifact("application/vnd.test", Descriptor::empty(), layers);
    manifest.subject = Some(Descriptor::new(media_type::MANIFEST, subject.clone(), 1));
    push_manifest(store, PRODUCT, &[], &manifest.to_bytes())
}

/// A TUF state that names a target by its hash, as far as a collection looks at one.
fn tuf_state(store: &Store, tags: &[&str], target: &Digest, nth: u8) -> Result<(), String> {
    let targets = serde_json::json!({
        "demo/x": { "length": 1, "hashes": { "sha256": target.hex() } }
    });
    let text = serde_json::json!({ "signatures": [], "signed": { "targets": targets } });
    let text = text.to_string().into_bytes();
    push_blob(store, "tuf", &text, nth)?;
    push_blob(store, "tuf", EMPTY_CONFIG, nth + 1)?;
    let layer = Descriptor::of(media_type::TUF_METADATA, &text)
        .annotated(annotation::TUF_FILENAME, "1.targets.json");
    let manifest = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), vec![layer]);
    push_manifest(store, "tuf", tags, &manifest.to_bytes()).map(drop)
}

fn prepare_collection() -> Result<Prepared, String> {
    let machine = Machine::on(&Media::new().with_folder(STORE), start());
    let store = open_store(&machine)?;
    let tagged = push_release(&store, &["1.0.0"], b"image 1.0", 1)?;
    let by_tuf_alone = push_release(&store, &[], b"image 0.9", 4)?;
    let forgotten = push_release(&store, &[], b"image 0.7", 7)?;
    attach(&store, &tagged[1], b"sbom of 1.0", 10)?;
    let sbom = attach(&store, &forgotten[1], b"sbom of 0.7", 11)?;
    tuf_state(&store, &["ts-2", "latest"], &by_tuf_alone[0], 12)?;
    let lonely = push_blob(&store, PRODUCT, b"nobody finished with a manifest", 14)?;
    drop(store);
    let now = start() + 2 * HOUR.as_secs();
    let mut garbage = forgotten.to_vec();
    garbage.extend([sbom, Digest::sha256_of(b"sbom of 0.7"), lonely]);
    Ok(Prepared {
        media: machine.durable(),
        now,
        act: Box::new(move |machine| {
            let store = open_store(machine)?;
            let done = store.collect(HOUR, seconds(now), Retention::default());
            done.map(drop).map_err(|error| error_chain(&error))
        }),
        served: true,
        garbage,
        root: None,
    })
}

// ---- rows --------------------------------------------------------------------------------------

impl StoreRow {
    /// Prepares a scenario and runs it uncut.
    pub fn new(scenario: &'static StoreScenario) -> Result<Self, String> {
        Self::of(scenario, None)
    }

    fn of(
        scenario: &'static StoreScenario,
        variant: Option<&'static StoreVariant>,
    ) -> Result<Self, String> {
        let prepared = (scenario.prepare)()?;
        let client = Client::new(prepared.root.as_deref());
        let before = Machine::on(&prepared.media, prepared.now);
        let old = view(&before, prepared.served)?;
        client.install(&before, &old)?;
        // Goals are those of the good program.
        let good = Machine::on(&prepared.media, prepared.now);
        (prepared.act)(&good)?;
        let new = view(&good, prepared.served)?;
        client.install(&good, &new)?;
        let mut row =
            StoreRow { scenario, recording: good.recording(), prepared, old, new, client, variant };
        row.ended(&good)?;
        if let Some(variant) = variant {
            let machine = Machine::on(&row.prepared.media, row.prepared.now);
            row.perform(&machine, Some(variant))?;
            row.recording = machine.recording();
            row.ended(&machine)?;
        }
        Ok(row)
    }

    fn perform(
        &self,
        machine: &Machine,
        variant: Option<&'static StoreVariant>,
    ) -> Result<(), String> {
        match variant.map(|variant| &variant.fault) {
            None => (self.prepared.act)(machine),
            Some(StoreFault::Omits(omits)) => {
                machine.follow(Omission(*omits));
                let done = (self.prepared.act)(machine);
                machine.unscripted();
                done
            }
            Some(StoreFault::IndexInPlace) => self.write_index_in_place(machine),
        }
    }

    /// A faulty program: everything as it should be, and the tags written over the old ones.
    fn write_index_in_place(&self, machine: &Machine) -> Result<(), String> {
        let good = Machine::on(&machine.media(), self.prepared.now);
        (self.prepared.act)(&good)?;
        let from =
            LayoutDir::open_on(&good, Path::new(STORE)).map_err(|error| error_chain(&error))?;
        let to =
            LayoutDir::create_on(machine, Path::new(STORE)).map_err(|error| error_chain(&error))?;
        for digest in from.blobs().map_err(|error| error_chain(&error))? {
            to.copy_blob(&from, &digest).map_err(|error| error_chain(&error))?;
        }
        let index = from.index().map_err(|error| error_chain(&error))?.to_bytes();
        let root = machine
            .open_dir(Path::new(STORE), Policy::Public)
            .map_err(|error| error_chain(&error))?;
        let file = root.open_file_to_write("index.json").map_err(|error| error_chain(&error))?;
        let file = file.ok_or("no index.json")?;
        file.write_all_at(&index, 0).and_then(|()| file.sync()).map_err(|error| error.to_string())
    }

    /// What must be so of any state that is left.
    fn check(&self, machine: &Machine, done: bool) -> Result<View, String> {
        let found = view(machine, self.prepared.served)?;
        for (tag, digest) in &found.tags {
            if self.old.tags.get(tag) != Some(digest) && self.new.tags.get(tag) != Some(digest) {
                return Err(format!("L1: {tag} stands for {digest}, which it never did"));
            }
        }
        if let Some(lost) = self.old.tags.keys().find(|tag| !found.tags.contains_key(*tag)) {
            return Err(format!("L1: the tag {lost} is gone"));
        }
        let kept = self.old.shown.intersection(&self.new.shown);
        if let Some((name, lost)) = kept.into_iter().find(|it| !found.shown.contains(it)) {
            return Err(format!("L1: {name} does not show {lost} any more"));
        }
        let newest = self.new.tags.get("tuf:latest").filter(|_| self.old.tags != self.new.tags);
        if newest.is_some() && found.tags.get("tuf:latest") == newest && found.tags != self.new.tags
        {
            return Err("L1: the new state is visible, and a tag of it is not".to_owned());
        }
        if done && found != self.new {
            return Err(format!("S9: it was done, and is not: {}", self.difference(&found)));
        }
        self.client.install(machine, &found)?;
        Ok(found)
    }

    fn difference(&self, found: &View) -> String {
        let tags = self.new.tags.iter().filter(|(tag, to)| found.tags.get(*tag) != Some(to));
        let mut all: Vec<String> = tags.map(|(tag, _)| format!("tag {tag}")).collect();
        let lost = self.new.shown.difference(&found.shown);
        all.extend(lost.map(|(name, digest)| format!("{name} lacks {digest}")));
        let more = found.shown.difference(&self.new.shown);
        all.extend(more.map(|(name, digest)| format!("{name} still shows {digest}")));
        all.into_iter().take(3).collect::<Vec<_>>().join(", ")
    }

    /// Whether everything is where an uncut run ends.
    fn ended(&self, machine: &Machine) -> Result<(), String> {
        let found = self.check(machine, true)?;
        debug_assert_eq!(found, self.new);
        let layout =
            LayoutDir::open_on(machine, Path::new(STORE)).map_err(|error| error_chain(&error))?;
        for digest in &self.prepared.garbage {
            if layout.has_blob(digest).map_err(|error| error_chain(&error))? {
                return Err(format!("L1: the garbage {digest} is still there"));
            }
        }
        let root = machine
            .open_dir(Path::new(STORE), Policy::Public)
            .map_err(|error| error_chain(&error))?;
        let left = match root.subdirectory(".tmp").map_err(|error| error_chain(&error))? {
            Some(temporary) => temporary.names().map_err(|error| error_chain(&error))?,
            None => Vec::new(),
        };
        let names = root.names().map_err(|error| error_chain(&error))?;
        let stale = names.into_iter().filter(|name| name.starts_with(".tmp-"));
        match left.into_iter().chain(stale).next() {
            Some(name) => Err(format!("S8: {name} is left over")),
            None => Ok(()),
        }
    }

    fn finish(
        &self,
        machine: &Machine,
        again: &dyn Fn(&Machine) -> Result<(), String>,
    ) -> Result<Option<String>, String> {
        let mut first = None;
        let mut found = String::new();
        for _ in 0..RUNS {
            let done = again(machine);
            found = match (done, self.ended(machine)) {
                (Ok(()), Ok(())) => return Ok(first),
                (Ok(()), Err(why)) | (Err(why), _) => why,
            };
            self.check(machine, false)?;
            first.get_or_insert_with(|| found.clone());
        }
        Err(format!("L1: after {RUNS} runs: {found}"))
    }
}

impl Case for StoreRow {
    fn scenario(&self) -> &str {
        self.scenario.name
    }

    fn place(&self) -> &str {
        self.scenario.place
    }

    fn about(&self) -> &str {
        self.scenario.about
    }

    fn is_small(&self) -> bool {
        true
    }

    fn asks_more_when_done(&self) -> bool {
        true
    }

    fn base(&self) -> &Media {
        &self.prepared.media
    }

    fn recording(&self) -> &Recording {
        &self.recording
    }

    fn judge(&self, media: &Media, _in_step: bool, done: bool) -> Result<Recovered, String> {
        let machine = Machine::on(media, self.prepared.now);
        self.check(&machine, done)?;
        let again = |machine: &Machine| self.perform(machine, self.variant);
        let first = self.finish(&machine, &again)?;
        Ok(Recovered { recording: machine.recording(), first })
    }

    fn calls(&self) -> Result<Vec<CallKind>, String> {
        let machine = Machine::on(&self.prepared.media, self.prepared.now);
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&kinds);
        machine.follow(move |call: &Call<'_>| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(call.kind);
            Verdict::Do
        });
        (self.prepared.act)(&machine)?;
        machine.unscripted();
        let kinds = kinds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(kinds)
    }

    fn with_fault(&self, fault: Fault, nth: usize, for_good: bool) -> Result<Ended, String> {
        let machine = Machine::on(&self.prepared.media, self.prepared.now);
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        machine.follow(move |call: &Call<'_>| {
            let hit = if for_good { call.nth >= nth } else { call.nth == nth };
            if !hit || !fault.fits(call.kind) {
                return Verdict::Do;
            }
            counted.fetch_add(1, Ordering::Relaxed);
            fault.verdict()
        });
        let done = (self.prepared.act)(&machine);
        machine.unscripted();
        if fault == Fault::Killed {
            // Another one goes on where it was; then the power fails.
            (self.prepared.act)(&machine)?;
            let after = Machine::on(&machine.durable(), self.prepared.now);
            self.check(&after, true)?;
            return Ok(Ended::Refused);
        }
        let lied = fault.lies() && hits.load(Ordering::Relaxed) > 0;
        let after = Machine::on(&machine.durable(), self.prepared.now);
        let checked = self.check(&after, done.is_ok());
        match checked.and_then(|_| self.finish(&after, &|machine| (self.prepared.act)(machine))) {
            Ok(_) if done.is_ok() => Ok(Ended::Unharmed),
            Ok(_) => Ok(Ended::Refused),
            // Whatever was lost or changed: wrong bytes are found out, and never served.
            Err(_) if lied => Ok(Ended::Lied),
            Err(why) => Err(why),
        }
    }
}

// ---- faulty programs ---------------------------------------------------------------------------

/// A faulty publisher or server.
pub struct StoreVariant {
    /// What it does wrong.
    pub name: &'static str,
    /// The scenario in which it is caught.
    pub scenario: &'static str,
    fault: StoreFault,
}

enum StoreFault {
    /// Calls that are left out.
    Omits(fn(&Call<'_>) -> bool),
    /// Tags are written over the old ones.
    IndexInPlace,
}

/// All of them.
pub const VARIANTS: &[StoreVariant] = &[
    StoreVariant {
        name: "blob gets its digest before it is flushed",
        scenario: "publish",
        fault: StoreFault::Omits(|call| {
            call.kind == CallKind::Sync && call.place.starts_with("/store/.tmp/")
        }),
    },
    StoreVariant {
        name: "tag moved before the names of its blobs are durable",
        scenario: "publish",
        fault: StoreFault::Omits(|call| {
            call.kind == CallKind::Sync && call.place == "/store/blobs/sha256"
        }),
    },
    StoreVariant {
        name: "index.json written in place",
        scenario: "publish",
        fault: StoreFault::IndexInPlace,
    },
    StoreVariant {
        name: "index.json renamed before its content is flushed",
        scenario: "push",
        fault: StoreFault::Omits(|call| {
            call.kind == CallKind::Sync && call.place.starts_with("/store/.tmp-")
        }),
    },
    StoreVariant {
        name: "tag said to be moved before the rename is durable",
        scenario: "push",
        fault: StoreFault::Omits(|call| call.kind == CallKind::Sync && call.place == "/store"),
    },
    StoreVariant {
        name: "upload becomes a blob before it is flushed",
        scenario: "push",
        fault: StoreFault::Omits(|call| {
            call.kind == CallKind::Sync && call.place.contains("/_uploads/sha256/")
        }),
    },
    StoreVariant {
        name: "link of an attachment without a flush of its folder",
        scenario: "push",
        fault: StoreFault::Omits(|call| {
            call.kind == CallKind::Sync && call.place.ends_with("/_manifests/sha256")
        }),
    },
    StoreVariant {
        name: "garbage thrown away while links to it are durable",
        scenario: "garbage collection",
        fault: StoreFault::Omits(|call| {
            let links = ["/_blobs/sha256", "/_manifests/sha256"];
            call.kind == CallKind::Sync && links.iter().any(|link| call.place.ends_with(link))
        }),
    },
];

struct Omission(fn(&Call<'_>) -> bool);

impl Script for Omission {
    fn verdict(&mut self, call: &Call<'_>) -> Verdict {
        if (self.0)(call) { Verdict::Skip } else { Verdict::Do }
    }
}

impl StoreVariant {
    /// Sweeps the faulty program; what caught it, if anything did.
    pub fn catch(&'static self, size: Size, threads: usize) -> Result<Option<Caught>, String> {
        let scenario = ALL.iter().find(|known| known.name == self.scenario);
        let scenario = scenario.ok_or_else(|| format!("no scenario {:?}", self.scenario))?;
        match StoreRow::of(scenario, Some(self)) {
            Ok(row) => Ok(variants::caught(&row, size, threads)),
            // Caught without any cut.
            Err(why) => Ok(Some(Caught { state: "the uncut run".to_owned(), why, of: 0 })),
        }
    }
}
