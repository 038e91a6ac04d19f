//! A repository in a directory, its keys, and images that are the same everywhere.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use formats::reference::Reference;
use formats::tuf::UnixTime;
use signer::commands::{
    Answer, ComponentInput, Delivery, InitReport, InitRequest, PublishReport, PublishRequest,
    Signing, VerifyReport, init, publish, verify,
};
use signer::error::SignerError;
use signer::image;
use signer::key::{self, KeyStore};
use signer::plan::{Expiry, Rollout};
use signer::progress::Show;
use signer::repository::{Access, ClientOptions, Registry, open};

/// 2027-01-01T00:00:00Z. No test reads a clock.
pub const NOW: UnixTime = UnixTime::from_secs(1_798_761_600);

pub struct Fixture {
    pub temp: tempfile::TempDir,
}

impl Fixture {
    /// Keys of fixed seeds, and an empty repository.
    pub fn new() -> Self {
        let fixture = Fixture { temp: tempfile::tempdir().unwrap() };
        for role in key::example::ROLES {
            key::create(&fixture.keys(), role, &key::example::key(role)).unwrap();
        }
        std::fs::write(fixture.path("os.img"), noise(300_000, 1)).unwrap();
        std::fs::write(fixture.path("os2.img"), noise(310_000, 2)).unwrap();
        std::fs::write(fixture.path("fw.bin"), [noise(5000, 3), vec![0; 100_000]].concat())
            .unwrap();
        fixture.init_to(fixture.writable().as_ref(), NOW).unwrap();
        fixture
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn keys(&self) -> PathBuf {
        self.path("keys")
    }

    pub fn store(&self) -> KeyStore {
        KeyStore::open(&self.keys()).unwrap()
    }

    pub fn signing(&self) -> Signing {
        Signing::of(self.store(), self.root())
    }

    pub fn init_to(
        &self,
        registry: &dyn Registry,
        now: UnixTime,
    ) -> Result<InitReport, SignerError> {
        let request = InitRequest { keys: self.keys(), ..InitRequest::default() };
        let mut signing = Signing { keys: self.store(), ..Signing::default() };
        done(init(registry, &mut signing, &request, Delivery::Publish, now))
    }

    pub fn root(&self) -> Vec<u8> {
        std::fs::read(self.keys().join("root.json")).unwrap()
    }

    pub fn reference(&self) -> Reference {
        format!("oci:{}:racklet", self.path("repo").display()).parse().unwrap()
    }

    pub fn writable(&self) -> Box<dyn Registry> {
        open(&self.reference(), Access::Write, &ClientOptions::default()).unwrap()
    }

    pub fn readable(&self) -> Box<dyn Registry> {
        open(&self.reference(), Access::Read, &ClientOptions::default()).unwrap()
    }

    /// An OS and a firmware for one board.
    pub fn request(&self, version: &str, os: &str) -> PublishRequest {
        PublishRequest {
            product: "demo".to_owned(),
            version: version.parse().unwrap(),
            components: vec![
                component("os", self.path(os), &["cu-v1"]),
                component("firmware", self.path("fw.bin"), &["cu-v1"]),
            ],
            security_version: None,
            channel: Some("stable".to_owned()),
            rollout: Rollout::default(),
            role: None,
            delta_from: Vec::new(),
            options: image::Options {
                threads: NonZeroUsize::new(2).unwrap(),
                ..image::Options::default()
            },
            attachments: signer::attachment::AttachmentRequest::default(),
            mixed: Vec::new(),
            order: Vec::new(),
            expiry: Expiry::default(),
        }
    }

    pub fn publish(&self, request: &PublishRequest) -> Result<PublishReport, SignerError> {
        self.publish_to(self.writable().as_ref(), request, NOW)
    }

    pub fn publish_to(
        &self,
        registry: &dyn Registry,
        request: &PublishRequest,
        now: UnixTime,
    ) -> Result<PublishReport, SignerError> {
        let (mut signing, delivery) = (self.signing(), Delivery::Publish);
        done(publish(registry, &mut signing, request, delivery, now, Show::Nothing))
    }

    pub fn verify(&self) -> Result<VerifyReport, SignerError> {
        verify(self.readable().as_ref(), Some(&self.root()), NOW, Show::Nothing)
    }
}

/// What a change that was not staged ended with.
pub fn done<T: std::fmt::Debug>(answer: Result<Answer<T>, SignerError>) -> Result<T, SignerError> {
    answer.map(|answer| match answer {
        Answer::Done(report) => report,
        Answer::Staged(report) => panic!("it was staged: {report:?}"),
        Answer::Described(report) => panic!("it was a dry run: {report:?}"),
    })
}

pub fn component(name: &str, path: PathBuf, compatible: &[&str]) -> ComponentInput {
    ComponentInput {
        name: name.parse().unwrap(),
        path,
        compatible: compatible.iter().map(|id| (*id).to_owned()).collect(),
        verity: false,
        raw: None,
    }
}

/// Bytes that do not compress and are the same on every machine.
pub fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    out.truncate(len);
    out
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below a directory.
pub fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    files
}
