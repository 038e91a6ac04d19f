//! Images above 2 GiB: every byte is covered by what is signed (case 196, CVE-2026-34155).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use common::{Fixture, NOW, component};
use formats::digest::Algorithm;
use formats::oci::Manifest;
use signer::commands::PublishRequest;
use signer::state::State;

/// One more than fits a signed number of 32 bits.
const LEN: u64 = (1 << 31) + 1;

/// Zeros, of which a file system keeps none, and a last byte that is not: publishing reads all of
/// it, and what is signed names the hash of all of it.
#[test]
fn case_196_the_byte_after_two_gibibytes_is_signed_for() {
    let fixture = Fixture::new();
    let path = fixture.path("large.img");
    let mut file = std::fs::File::create(&path).unwrap();
    file.seek(SeekFrom::Start(LEN - 1)).unwrap();
    file.write_all(b"!").unwrap();
    let components = vec![component("os", path.clone(), &["cu-v1"])];
    let request = PublishRequest { components, ..fixture.request("1.0.0", "os.img") };
    fixture.publish_to(fixture.writable().as_ref(), &request, NOW).unwrap();

    let readable = fixture.readable();
    let registry = readable.as_ref();
    let files = signer::published::fetch(registry).unwrap().unwrap().files;
    let state = State::verify(&files, Some(&fixture.root())).unwrap();
    let signed = state.releases().unwrap()[0].summary.components[0].clone();
    assert_eq!(signed.raw_size, LEN);
    let product = signer::published::product_repository(registry, "demo").unwrap();
    let manifest =
        Manifest::parse(&registry.manifest(&product, &signed.manifest).unwrap()).unwrap();
    let config = registry.blob(&product, &manifest.config, "config", 1 << 20).unwrap();

    let mut hasher = Algorithm::Sha256.hasher();
    let mut file = std::fs::File::open(path).unwrap();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => break,
            n => hasher.update(&piece[..n]),
        }
    }
    let whole = hasher.finish().hex();
    let config = String::from_utf8(config).unwrap();
    assert!(config.contains(&whole), "{config} does not name {whole}");
}
