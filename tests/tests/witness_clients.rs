//! Clients by other people update from a repository that our signer wrote: `tough` (Bottlerocket)
//! and `tuf` (rust-tuf, Fuchsia), as the programs in `witness-clients`.
//!
//! They are a package of their own, because tough brings aws-lc-sys, which must not be in what we
//! ship. The first run builds them, in `target/witness-clients`.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use formats::digest::Sha256;
use racklet_tests::rig::{Run, World};

/// Their programs.
fn client(name: &str) -> Run {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = here.join("../target/witness-clients");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--locked", "--manifest-path"])
            .arg(here.join("witness-clients/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target.join("debug")
    });
    Run::new(directory.join(name))
}

/// Writes the files of a repository as they stand on a web server, targets under both names that
/// consistent snapshots have: `demo/<hash>.1.0.0` (TUF §6.2), and `<hash>.demo/1.0.0` for tough.
fn publish_as_files(world: &World, directory: &Path) {
    let repository = world.repository();
    let put = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let put_target = |name: &str, bytes: &[u8]| {
        let hash = Sha256::of(bytes).to_hex();
        let (folder, base) = name.rsplit_once('/').unwrap();
        put(&format!("targets/{folder}/{hash}.{base}"), bytes);
        put(&format!("targets/{hash}.{name}"), bytes);
    };
    let state = repository.document(&repository.tagged("tuf:latest"));
    for layer in state["layers"].as_array().unwrap() {
        let name = layer["annotations"]["tuf.io/filename"].as_str().unwrap();
        let bytes = fs::read(repository.blob(layer["digest"].as_str().unwrap())).unwrap();
        match name.strip_prefix("targets/") {
            Some(target) => put_target(target, &bytes),
            None => put(&format!("metadata/{name}"), &bytes),
        }
    }
    for (tag, digest) in repository.tags() {
        if let Some(version) = tag.strip_prefix("racklet/demo:") {
            put_target(&format!("demo/{version}"), &fs::read(repository.blob(&digest)).unwrap());
        }
    }
}

/// A repository as files and a client that keeps what it trusts there.
struct Scene {
    world: World,
    program: &'static str,
}

impl Scene {
    fn new(program: &'static str) -> Self {
        Scene { world: World::with_repository(), program }
    }

    fn publish(&self, version: &str, number: u64) {
        let _release = self.world.publish_stable(version, number);
        publish_as_files(&self.world, &self.world.path("files"));
    }

    fn run(&self, target: &str) -> Run {
        self.run_in("local", target)
    }

    /// The client whose trusted files are in that folder; a new folder is a new client.
    fn run_in(&self, folder: &str, target: &str) -> Run {
        for part in ["metadata", "targets"] {
            fs::create_dir_all(self.world.path(folder).join(part)).unwrap();
        }
        let path = |name: &str| self.world.path(name);
        let client = client(self.program).arg(path("root.json"));
        let client = match self.program {
            "tough-client" => client.arg(path("files/metadata")).arg(path("files/targets")),
            _ => client.arg(path("files")),
        };
        client.arg(path(folder)).arg(target).arg(path("out"))
    }

    /// Updates, and gives the versions it says and the target it wrote.
    fn update(&self, target: &str) -> (String, Vec<u8>) {
        let done = self.run(target).ok();
        (done.text().trim().to_owned(), fs::read(self.world.path("out")).unwrap())
    }
}

fn follows_our_repository(program: &'static str) {
    let scene = Scene::new(program);
    scene.publish("1.0.0", 1);
    let repository = scene.world.repository();
    let release = |version: &str| fs::read(repository.blob(&repository.tagged(version))).unwrap();
    let (versions, bytes) = scene.update("demo/1.0.0");
    assert_eq!(versions, "root 1 timestamp 2 snapshot 2 targets 2");
    assert_eq!(bytes, release("demo:1.0.0"));
    scene.publish("1.1.0", 2);
    let (versions, bytes) = scene.update("demo/1.1.0");
    assert_eq!(versions, "root 1 timestamp 3 snapshot 3 targets 3");
    assert_eq!(bytes, release("demo:1.1.0"));
    let (_, bytes) = scene.update("demo/channels/stable.json");
    let channel: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(channel["release"]["version"], "1.1.0");
    // The witness can say no.
    let done = scene.run("demo/9.9.9").finish();
    assert_ne!(done.code, 0, "{}", done.output());
    let timestamp = scene.world.path("files/metadata/timestamp.json");
    let text = fs::read_to_string(&timestamp).unwrap();
    fs::write(&timestamp, text.replace("\"version\":3", "\"version\":4")).unwrap();
    let done = scene.run("demo/1.1.0").finish();
    assert_ne!(done.code, 0, "{}", done.output());
}

/// Case 188: every published version is followed step by step, and by a client that comes
/// from the first root.
fn follows_every_rotation(program: &'static str) {
    let scene = Scene::new(program);
    scene.publish("1.0.0", 1);
    let steps = scene.world.rotations();
    let update = |folder: &str| scene.run_in(folder, "demo/1.0.0").finish();
    assert_eq!(update("local").code, 0);
    for (i, (name, command)) in steps.iter().enumerate() {
        let _done = scene.world.with_people(command);
        publish_as_files(&scene.world, &scene.world.path("files"));
        for folder in ["local", &format!("fresh-{i}")] {
            let done = update(folder);
            let root = format!("root {} ", i + 2);
            let said = done.code == 0 && done.text().starts_with(&root);
            assert!(said, "{program}, {folder}, after {name:?}:\n{}", done.output());
        }
    }
    println!("{program} followed {} roots", steps.len() + 1);
}

#[test]
fn case_188_tough_follows_every_rotation() {
    follows_every_rotation("tough-client");
}

#[test]
fn case_188_rust_tuf_follows_every_rotation() {
    follows_every_rotation("rust-tuf-client");
}

#[test]
fn tough_follows_our_repository() {
    follows_our_repository("tough-client");
}

#[test]
fn rust_tuf_follows_our_repository() {
    follows_our_repository("rust-tuf-client");
}
