//! Verifies a release in an OCI image layout, without a network: its metadata by the TUF workflow,
//! from a trust root; its index by the signed target; everything below that by its digest.
#![expect(clippy::disallowed_methods, reason = "the files and the clock are the caller's part")]

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{error::Error, fs};

use formats::digest::Digest;
use formats::oci::{Manifest, NamedManifest, annotation};
use formats::release::{ReleaseIndex, target_name};
use formats::tuf::{BUILD_TIME, UnixTime};
use update_core::trust::{Clock, Limits, Refresh, Reply, Step, Stored, Workflow};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, root, product, version] = args.as_slice() else {
        return Err("usage: verify_offline DIR root.json PRODUCT VERSION".into());
    };
    let dir = Path::new(dir);
    let named = NamedManifest::parse_layout(&fs::read(dir.join("index.json"))?)?;
    let state = named.iter().find(|it| it.name.ends_with("tuf:latest")).ok_or("no TUF state")?;
    let state = Manifest::parse(&blob(dir, &state.digest)?)?;
    let system = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let clock = Clock { system: UnixTime::from_secs(system.try_into()?), build: BUILD_TIME };
    let refresh = Refresh::begin(Stored::default(), &fs::read(root)?, clock, Limits::default())?;
    let mut trusted = drive(refresh, dir, &state)?;
    let name = target_name(product, &version.parse()?);
    let target = drive(trusted.find_target(&name)?, dir, &state)?;
    let digest = target.file().hashes.as_sha256().ok_or("the target has no SHA-256")?;
    let index = blob(dir, &digest.into())?;
    target.file().check(&name, &index)?;
    for component in ReleaseIndex::parse(&index)?.components {
        let manifest = Manifest::parse(&blob(dir, &component.manifest.digest)?)?;
        for part in [manifest.config].iter().chain(&manifest.layers) {
            blob(dir, &part.digest)?;
        }
        println!("{name}: {} verified, signed by {}", component.name, target.role());
    }
    Ok(())
}

/// Runs a workflow on the files of a TUF state. Nothing is kept for the next time.
fn drive<W: Workflow>(mut it: W, dir: &Path, state: &Manifest) -> Result<W::Output> {
    loop {
        let wanted = match it.next()? {
            Step::Fetch(wanted) => wanted,
            Step::Persist(_) => continue,
            Step::Done(output) => return Ok(output),
        };
        let name = Some(wanted.file_name.as_str());
        let file = state.layers.iter().find(|it| it.annotation(annotation::TUF_FILENAME) == name);
        it.respond(match file {
            None => Reply::NotFound,
            Some(file) if file.size > wanted.max_len => Reply::TooLong,
            Some(file) => Reply::Bytes(blob(dir, &file.digest)?),
        });
    }
}

/// A blob of the layout, compared with its digest.
fn blob(dir: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let bytes = fs::read(dir.join("blobs").join(digest.algorithm().name()).join(digest.hex()))?;
    if digest.matches(&bytes) { Ok(bytes) } else { Err(format!("{digest} is damaged").into()) }
}
