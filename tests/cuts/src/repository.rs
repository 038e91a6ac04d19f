//! Releases and their metadata, signed by the forge and served from memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use formats::channel::{Channel, Offer};
use formats::chunks::{Builder, Content, FrameEntry, seekable_table};
use formats::digest::{Digest, Sha256};
use formats::json::Value;
use formats::oci::{Descriptor, media_type};
use formats::release::{
    ComponentManifest, ComponentName, ComponentSummary, ImageConfig, IndexedComponent,
    ReleaseIndex, Summary, channel_target_name, target_name,
};
use formats::tuf::{Role, TargetFile};
use update_agent::source::{FetchError, Sink, Source, TufState};

use racklet_testkit::forge::{Forge, ForgeKey, key_map, role_keys};

/// The product of all nodes here.
pub const PRODUCT: &str = "demo";
/// Their channel.
pub const CHANNEL: &str = "stable";
/// Their hardware.
pub const HARDWARE: &str = "racklet-cu-v1";
/// Bytes of one chunk.
const CHUNK: usize = 4096;

/// A release, its images in plain.
#[derive(Debug)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// Its security version.
    pub security_version: u64,
    /// SHA-256 of its index.
    pub index: Sha256,
    /// The image of each component.
    pub images: Vec<(ComponentName, Vec<u8>)>,
}

/// What a repository serves at one time. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Snapshot {
    state: String,
    files: Arc<BTreeMap<String, Descriptor>>,
    blobs: Arc<BTreeMap<Digest, Vec<u8>>>,
}

/// A repository that grows from release to release.
pub struct Repository {
    forge: Forge,
    components: usize,
    blobs: BTreeMap<Digest, Vec<u8>>,
    states: u64,
    /// All releases, oldest first.
    pub releases: Vec<Release>,
}

/// An image: noise, a run of zeros, and what all releases have in common.
fn image(component: &str, version: &str, chunks: usize) -> Vec<u8> {
    let noise = |seed: &str, chunk: usize| -> Vec<u8> {
        let block = |n: usize| Sha256::of(format!("{seed} {component} {chunk} {n}").as_bytes()).0;
        (0..CHUNK / 32).flat_map(block).collect()
    };
    let chunk = |chunk: usize| match chunk % 4 {
        1 => noise("common", chunk),
        3 if chunk % 8 == 3 => vec![0; CHUNK],
        _ => noise(version, chunk),
    };
    (0..chunks).flat_map(chunk).collect()
}

impl Repository {
    /// A repository without releases, whose releases will have one component (`os`) or two.
    pub fn new(components: usize) -> Self {
        Self::with_keys(components, 1)
    }

    /// Somebody else's, of the same product.
    pub fn of_others(components: usize) -> Self {
        Self::with_keys(components, 51)
    }

    fn with_keys(components: usize, first: u32) -> Self {
        let mut forge = Forge::new();
        forge.targets(&Role::Targets).targets.clear();
        // One signature for each role: a sweep verifies them a million times.
        for (role, seed) in [(Role::Root, first), (Role::Targets, first + 10)] {
            let key = ForgeKey::new(seed);
            forge.root.keys.extend(key_map([&key]));
            forge.root.set_role(&role, role_keys(1, std::slice::from_ref(&key)));
            forge.signers.insert(role, vec![key]);
        }
        forge.issue(&Role::Root);
        Repository { forge, components, blobs: BTreeMap::new(), states: 0, releases: Vec::new() }
    }

    /// The trust root that nodes are given.
    pub fn root(&self) -> Vec<u8> {
        self.forge.history("1.root.json").last().expect("it was issued").clone()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.blobs.insert(Digest::sha256_of(bytes), bytes.to_vec());
    }

    /// Publishes the next release and offers it on the channel.
    pub fn publish(&mut self, version: &str, security_version: u64) -> Snapshot {
        let names = [("os", 14), ("firmware", 4)];
        let images: Vec<(ComponentName, Vec<u8>)> = names[..self.components]
            .iter()
            .map(|(name, chunks)| {
                (name.parse().expect("a component name"), image(name, version, *chunks))
            })
            .collect();
        let parsed: formats::version::Version = version.parse().expect("a version");
        let mut indexed = Vec::new();
        let mut summaries = Vec::new();
        for (name, raw) in &images {
            let manifest = self.put_image(name, &parsed, security_version, raw);
            let compatible = vec![HARDWARE.to_owned()];
            summaries.push(ComponentSummary {
                name: name.clone(),
                compatible: compatible.clone(),
                manifest: Digest::sha256_of(&manifest),
                raw_size: raw.len() as u64,
                verity: None,
                raw: None,
            });
            indexed.push(IndexedComponent {
                name: name.clone(),
                compatible,
                manifest: Descriptor::of(media_type::MANIFEST, &manifest),
            });
        }
        let index = ReleaseIndex { components: indexed }.to_bytes();
        self.put(&index);
        let summary = Summary {
            version: parsed.clone(),
            security_version,
            components: summaries,
            attachments: Vec::new(),
            mixed: Vec::new(),
            order: Vec::new(),
            withdrawn: None,
        };
        let custom = Value::parse(&summary.to_custom()).expect("a summary is JSON");
        let mut channel = Channel::new(PRODUCT, CHANNEL);
        let sha256 = Sha256::of(&index);
        channel.release = Some(Offer { version: parsed.clone(), sha256 });
        let channel = channel.to_bytes();
        let targets = &mut self.forge.targets(&Role::Targets).targets;
        targets.insert(target_name(PRODUCT, &parsed), TargetFile::of(&index, Some(custom)));
        let channel_name = channel_target_name(PRODUCT, CHANNEL);
        targets.insert(channel_name.clone(), TargetFile::of(&channel, None));
        self.forge.publish(&[Role::Targets]);
        self.forge.served.insert(format!("targets/{channel_name}"), channel);
        self.releases.push(Release {
            version: version.to_owned(),
            security_version,
            index: sha256,
            images,
        });
        self.snapshot()
    }

    fn put_image(
        &mut self,
        name: &ComponentName,
        version: &formats::version::Version,
        security_version: u64,
        raw: &[u8],
    ) -> Vec<u8> {
        let mut builder = Builder::default();
        let (mut blob, mut frames, mut table) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in raw.chunks(CHUNK) {
            let zero = chunk.iter().all(|byte| *byte == 0);
            let content = if zero { Content::Zero } else { Content::Data(Sha256::of(chunk)) };
            builder.chunk(u32::try_from(chunk.len()).expect("4 KiB"), content);
            let frame = zstd::bulk::compress(chunk, 1).expect("memory to memory");
            let len = u32::try_from(frame.len()).expect("about 4 KiB");
            frames.push(FrameEntry { len, chunks: 1, sha256: Sha256::of(&frame) });
            table.push((len, u32::try_from(chunk.len()).expect("4 KiB")));
            blob.extend(frame);
        }
        blob.extend(seekable_table(&table));
        builder.encoding(Sha256::of(&blob), blob.len() as u64, &frames);
        let list = builder.finish().expect("a list of whole chunks");
        let config = ImageConfig {
            component: name.clone(),
            version: version.clone(),
            security_version,
            compatible: vec![HARDWARE.to_owned()],
            raw_size: raw.len() as u64,
            raw_sha256: Sha256::of(raw),
            chunking: "4 KiB".to_owned(),
        };
        let manifest = ComponentManifest {
            config: Descriptor::of(media_type::IMAGE_CONFIG, &config.to_bytes()),
            images: vec![Descriptor::of(media_type::IMAGE_BLOB, &blob)],
            chunks: Descriptor::of(media_type::CHUNKS, list.as_bytes()),
            deltas: Vec::new(),
        };
        let manifest = manifest.to_bytes(name.as_str());
        for bytes in [&config.to_bytes(), &blob, list.as_bytes(), &manifest] {
            self.put(bytes);
        }
        manifest
    }

    /// New root, timestamp and targets keys, and a new version of everything.
    pub fn rotate(&mut self) -> Snapshot {
        self.forge.rekey(&Role::Root, 1, &[ForgeKey::new(4)]);
        self.forge.rekey(&Role::Targets, 1, &[ForgeKey::new(13)]);
        self.forge.rekey(&Role::Timestamp, 1, &[ForgeKey::new(33)]);
        self.forge.publish(&[Role::Root, Role::Targets]);
        self.forge.publish(&[Role::Root]);
        self.snapshot()
    }

    /// What is served now.
    pub fn snapshot(&mut self) -> Snapshot {
        self.states += 1;
        let served = self.forge.freeze();
        let mut files = BTreeMap::new();
        for (name, bytes) in &served {
            self.put(bytes);
            files.insert(name.clone(), Descriptor::of(media_type::TUF_METADATA, bytes));
        }
        Snapshot {
            state: format!("state {}", self.states),
            files: Arc::new(files),
            blobs: Arc::new(self.blobs.clone()),
        }
    }
}

impl Snapshot {
    /// What a repository serves: the files of its TUF state, and all blobs.
    pub fn of(
        state: &str,
        files: BTreeMap<String, Descriptor>,
        blobs: BTreeMap<Digest, Vec<u8>>,
    ) -> Self {
        Snapshot { state: state.to_owned(), files: Arc::new(files), blobs: Arc::new(blobs) }
    }

    fn get(&self, what: &str, digest: &Digest) -> Result<&Vec<u8>, FetchError> {
        self.blobs.get(digest).ok_or_else(|| FetchError::Form {
            what: what.to_owned(),
            why: format!("{digest} is not there"),
        })
    }
}

impl Source for Snapshot {
    fn describe(&self) -> String {
        "memory:demo".to_owned()
    }

    fn tuf_state(&self, known: Option<&str>) -> Result<TufState, FetchError> {
        if known == Some(self.state.as_str()) {
            return Ok(TufState::Unchanged);
        }
        let files = BTreeMap::clone(&self.files);
        Ok(TufState::Changed { etag: Some(self.state.clone()), files })
    }

    fn tuf_file(&self, file: &Descriptor, _: u64) -> Result<Vec<u8>, FetchError> {
        self.get("metadata", &file.digest).cloned()
    }

    fn manifest(&self, _: &str, digest: &Digest, _: u64) -> Result<Vec<u8>, FetchError> {
        self.get("manifest", digest).cloned()
    }

    fn blob(&self, _: &str, blob: &Descriptor, _: u64) -> Result<Vec<u8>, FetchError> {
        self.get("blob", &blob.digest).cloned()
    }

    fn ranges(
        &self,
        _: &str,
        blob: &Descriptor,
        ranges: &[Range<u64>],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        let bytes = self.get("blob", &blob.digest)?;
        for range in ranges {
            let place = |at: u64| usize::try_from(at).expect("in memory");
            let piece = &bytes[place(range.start)..place(range.end)];
            if sink(range.start, piece).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn bytes_fetched(&self) -> u64 {
        0
    }
}
