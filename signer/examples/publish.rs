//! Makes keys and a repository in a directory, publishes a small image, and verifies the result.
//!
//! `cargo run -p signer --example publish -- DIR` with a directory that does not exist yet.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use formats::tuf::UnixTime;
use signer::commands::{
    Answer, ComponentInput, Delivery, InitRequest, PublishRequest, Report, Signing, init, publish,
    read_trust_root, verify,
};
use signer::error::SignerError;
use signer::key::KeyStore;
use signer::progress::Show;
use signer::repository::{Access, ClientOptions, open};

/// Prints what was done; what is staged waits for others, and nothing here is staged.
fn print<T: Report>(answer: &Answer<T>) {
    match answer {
        Answer::Done(report) => println!("{}", report.text()),
        Answer::Staged(report) => println!("{}", report.text()),
        Answer::Described(report) => println!("{}", report.text()),
    }
}

pub(crate) fn run(directory: &Path, now: UnixTime) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir(directory)?;
    let image = directory.join("os.img");
    std::fs::write(&image, b"an operating system, for a demonstration ".repeat(5_000))?;
    let reference = format!("oci:{}", directory.join("repository").display()).parse()?;
    let registry = open(&reference, Access::Write, &ClientOptions::default())?;

    let keys = directory.join("keys");
    let request = InitRequest { keys: keys.clone(), ..InitRequest::default() };
    print(&init(registry.as_ref(), &mut Signing::default(), &request, Delivery::Publish, now)?);

    let trust_root = read_trust_root(&keys.join("root.json"))?;
    let mut signing = Signing::of(KeyStore::open(&keys)?, trust_root.clone());
    let os = ComponentInput::new("os".parse()?, image, &["example-board"]);
    let mut request = PublishRequest::new("demo", "1.0.0".parse()?, vec![os]);
    request.channel = Some("stable".to_owned());
    let (delivery, show) = (Delivery::Publish, Show::Nothing);
    print(&publish(registry.as_ref(), &mut signing, &request, delivery, now, show)?);

    let verified = verify(registry.as_ref(), Some(&trust_root), now, show)?;
    println!("{}", serde_json::to_string_pretty(&verified)?);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let missing = || SignerError::Usage("usage: publish DIR".to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    run(&directory.ok_or_else(missing)?, UnixTime::from_secs(now.try_into()?))
}
