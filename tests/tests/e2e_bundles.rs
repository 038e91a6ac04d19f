//! Bundles, end to end with the programs as they are shipped: what they mean, how they are made, what
//! is said of files that are none, and how long they are good.

use std::fs;
use std::path::{Path, PathBuf};

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{
    Credentials, Done, Node, PRODUCT, Release, RepoServer, Run, World, program, tool,
};

/// A repository with 1.0.0 to 1.2.0, the last one offered by `stable`, and a node without a network
/// that runs 1.0.0.
struct Offline {
    world: World,
    node: Node,
    v2: Release,
}

impl Offline {
    #[track_caller]
    fn new() -> Self {
        let world = World::with_repository();
        let v1 = world.publish_stable("1.0.0", 1);
        let v2 = world.publish_stable("1.1.0", 2);
        let _v3 = world.publish_stable("1.2.0", 3);
        let node = Node::from_factory(&world, "node", &v1, "");
        Offline { world, node, v2 }
    }

    /// `signer bundle` of the product, to a path in the world's folder.
    #[track_caller]
    fn bundle(&self, versions: &[&str], output: &str, more: &[&str]) -> Done {
        let versions = versions.iter().flat_map(|version| ["--version", *version]);
        self.world
            .signer(&["bundle", "--product", PRODUCT])
            .args(versions)
            .args(more)
            .arg("-o")
            .arg(self.world.path(output))
            .finish()
    }

    fn shown(&self, name: &str) -> String {
        self.world.path(name).display().to_string()
    }

    #[track_caller]
    fn plan(&self, args: &[&str]) -> Done {
        self.node.agent(&["plan"]).args(args).finish()
    }
}

#[track_caller]
fn says(done: &Done, reason: Reason, words: &str) {
    done.refused(reason);
    assert!(done.output().contains(words), "{words:?} is not in:\n{}", done.output());
}

#[test]
fn a_bundle_with_one_release_is_that_release() {
    let it = Offline::new();
    let hold = ["channel", "set", "--product", PRODUCT, "--channel", "stable", "--hold"];
    let _held = it.world.signer(&hold).ok();
    let _made = it.bundle(&["1.1.0"], "usb.tar", &[]).exits(Exit::Done);
    // The channel offers 1.2.0 and is held: neither matters to who carries 1.1.0 here.
    let report = it.node.update(&[&it.shown("usb.tar")], "b");
    assert_eq!(report["version"], "1.1.0", "{report}");
    it.node.expect_slot("b", &it.v2);

    let _older = it.bundle(&["1.0.0"], "older.tar", &[]).exits(Exit::Done);
    let done = it.plan(&[&it.shown("older.tar")]);
    says(&done, Reason::VersionRollback, "1.0.0 is older than 1.1.0, which runs");
}

#[test]
fn of_several_releases_the_channel_chooses_or_the_newest_is_meant() {
    let it = Offline::new();
    let _all = it.bundle(&["1.1.0", "1.2.0"], "all.tar", &[]).exits(Exit::Done);
    let offer = |version: &str| {
        let stable = ["channel", "set", "--product", PRODUCT, "--channel", "stable", "--release"];
        it.world.signer(&[&stable[..], &[version]].concat()).ok()
    };
    let all = it.shown("all.tar");
    let version = |done: Done| done.exits(Exit::Done).json()["version"].clone();
    assert_eq!(version(it.plan(&[&all])), "1.2.0", "offered and newest");
    assert_eq!(version(it.plan(&[&all, "--version", "1.1.0"])), "1.1.0", "named");
    let _set = offer("1.1.0");
    let _all = it.bundle(&["1.1.0", "1.2.0"], "all", &[]).exits(Exit::Done);
    assert_eq!(version(it.plan(&[&it.shown("all")])), "1.1.0", "offered, though not the newest");
    let _set = offer("1.0.0");
    let _all = it.bundle(&["1.1.0", "1.2.0"], "all", &[]).exits(Exit::Done);
    assert_eq!(version(it.plan(&[&it.shown("all")])), "1.2.0", "the newest");

    let done = it.plan(&[&it.shown("all"), "--version", "1.3.0"]);
    says(&done, Reason::TargetNotFound, "demo/1.3.0 is not on this bundle, which holds demo/1.1.0");
}

#[test]
fn a_bundle_for_others_says_what_it_holds_and_what_this_node_takes() {
    let it = Offline::new();
    let image = it.v2.os.path.display().to_string();
    let publish = |product: &str, hardware: &str, version: &str| {
        let component = format!("os={image},hw={hardware}");
        let release = ["--product", product, "--version", version];
        let _done = it.world.signer(&["publish", "--component", &component]).args(release).ok();
        let output = it.shown(&format!("{product}.tar"));
        let _done = it.world.signer(&["bundle", "-o", &output]).args(release).ok();
    };
    publish("other", "racklet-cu-v1", "9.0.0");
    let done = it.plan(&[&it.shown("other.tar")]);
    says(
        &done,
        Reason::ProductMismatch,
        "this bundle holds other/9.0.0 (for racklet-cu-v1); this node takes product demo for racklet-cu-v1",
    );
    assert_eq!(done.code, 24);
    assert!(!done.output().contains("copy it again"), "{}", done.output());
    publish(PRODUCT, "racklet-cu-v9", "1.3.0");
    let done = it.plan(&[&it.shown("demo.tar")]);
    says(
        &done,
        Reason::HwMismatch,
        "this bundle holds demo/1.3.0 (for racklet-cu-v9); this node takes product demo for racklet-cu-v1",
    );
}

#[test]
fn a_whole_repository_goes_by_its_channel() {
    let it = Offline::new();
    let hold = ["channel", "set", "--product", PRODUCT, "--channel", "stable", "--hold"];
    let _held = it.world.signer(&hold).ok();
    it.plan(&[&it.world.repository().reference()]).refused(Reason::Deferred);
}

#[test]
fn what_is_no_bundle_is_called_by_its_name() {
    let it = Offline::new();
    let _made = it.bundle(&["1.1.0"], "usb.tar", &[]).exits(Exit::Done);
    let bytes = fs::read(it.world.path("usb.tar")).expect("read the bundle");
    let write = |name: &str, bytes: &[u8]| {
        fs::write(it.world.path(name), bytes).expect("write a file");
    };
    write("cut.tar", &bytes[..bytes.len() / 2]);
    write("empty.tar", b"");
    write("disk.img", &[&[7; 510][..], b"\x55\xaa", &[7; 4096]].concat());
    fs::create_dir(it.world.path("stick")).expect("make a folder");
    write("stick/b.tar", &bytes);
    write("stick/a.tar", &bytes);
    let _packed = Run::new("gzip").args(["-k", "--"]).arg(it.world.path("usb.tar")).ok();
    let _pipe = Run::new("mkfifo").arg(it.world.path("pipe")).ok();
    for (name, reason, words) in [
        ("cut.tar", Reason::BundleFormat, "copy it again"),
        ("empty.tar", Reason::BundleFormat, "is empty; copy it again"),
        ("usb.tar.gz", Reason::BundleFormat, "is compressed; unpack it first: gunzip "),
        ("disk.img", Reason::BundleFormat, "is no bundle; it looks like a disk image"),
        ("stick", Reason::BundleFormat, "is no bundle, but holds a.tar, b.tar: name one of them"),
        ("pipe", Reason::PathRefused, "is not a file, and a bundle must be one"),
        ("nosuch.tar", Reason::Unreachable, "nosuch.tar does not exist"),
    ] {
        says(&it.plan(&[&it.shown(name)]), reason, words);
        let verify = program("signer").args(["--json", "verify"]).arg(it.world.path(name));
        says(&verify.finish(), reason, words);
    }
}

#[test]
fn the_spelling_of_the_output_says_the_form_and_nothing_else_is_lost() {
    let it = Offline::new();
    let of = |output: &str, more: &[&str]| it.bundle(&["1.1.0"], output, more);
    for name in ["usb.tar.gz", "usb.TAR", "usb.oci", "usb.zip"] {
        says(&of(name, &[]), Reason::Usage, "-o ");
        assert!(!it.world.path(name).exists(), "{name}");
    }
    let _forced = of("usb.TAR", &["--form", "tar"]).exits(Exit::Done);
    assert!(it.world.path("usb.TAR").is_file());
    let _made = of("usb.tar", &[]).exits(Exit::Done);
    let _again = of("usb.tar", &[]).exits(Exit::Done);
    fs::write(it.world.path("letter.tar"), "Dear Erin").expect("write a file");
    says(&of("letter.tar", &[]), Reason::Config, "exists and is no bundle");
    assert_eq!(fs::read(it.world.path("letter.tar")).ok().as_deref(), Some(&b"Dear Erin"[..]));
    says(&of("repository", &[]), Reason::Config, "exists and is a repository");
    says(&of("keys", &[]), Reason::Config, "exists and holds other files");

    // To a pipe goes what a file would hold, and the report beside it.
    let script = r#""$0" "$@" -o - >"$OUT" 2>"$OUT.report""#;
    let words = ["bundle", "--product", PRODUCT, "--version", "1.1.0"];
    let out = it.world.path("piped.tar");
    let run = it.world.signer(&words).under(Run::new("sh").args(["-c", script]));
    let _done = run.env("OUT", &out).ok();
    let read = |path: &Path| fs::read(path).expect("read a bundle");
    assert!(read(&out) == read(&it.world.path("usb.tar")), "the same bytes");
    let report = fs::read_to_string(out.with_extension("tar.report")).expect("read the report");
    assert!(report.contains("oci-archive"), "{report}");
}

#[test]
fn a_medium_that_takes_no_large_files_is_named() {
    let it = Offline::new();
    // FAT32 ends at 4 GiB with the error that this limit ends with.
    let limited = Run::new("sh").args(["-c", r#"trap '' XFSZ; ulimit -f 64; exec "$0" "$@""#]);
    let output = it.shown("usb.tar");
    let words = ["bundle", "--product", PRODUCT, "--version", "1.1.0", "-o", &output];
    let run = it.world.signer(&words).under(limited);
    says(
        &run.finish(),
        Reason::StoreIo,
        "FAT32 ends at 4 GiB; use exFAT, ext4 or the directory form",
    );
    assert!(!it.world.path("usb.tar").exists());
}

fn on_day(run: Run, day: &str) -> Done {
    run.under(tool("faketime", "faketime").args(["-f", day])).finish()
}

#[test]
fn an_offline_bundle_is_good_for_as_long_as_it_says() {
    let it = Offline::new();
    let _plain = it.bundle(&["1.1.0"], "plain.tar", &[]).exits(Exit::Done);
    let made = it.bundle(&["1.1.0"], "usb.tar", &["--valid-for", "30d"]).exits(Exit::Done).json();
    assert_eq!(made["offline"]["role"], "targets", "{made}");
    let until = made["offline"]["expires"].as_str().expect("an end").to_owned();
    let verified = program("signer").args(["--json", "verify", "--root"]);
    let verified = verified.arg(it.world.path("root.json")).arg(it.world.path("usb.tar"));
    assert_eq!(on_day(verified, "+20d").exits(Exit::Done).json()["offline_until"], until.as_str());
    let apply = |name: &str| it.node.agent(&["apply"]).arg(it.world.path(name));

    let _planned = it.node.agent(&["plan"]).arg(it.world.path("usb.tar")).ok();
    let status = it.node.agent_in_words(&["status"]).finish();
    assert!(status.text().contains("; the bundle until "), "{}", status.text());
    on_day(apply("plain.tar"), "+2d").refused(Reason::Expired);
    says(&on_day(apply("usb.tar"), "+31d"), Reason::Expired, &format!("ended at {until}"));
    let report = on_day(apply("usb.tar"), "+20d").exits(Exit::Done).json();
    assert_eq!((&report["version"], &report["activated"]), (&"1.1.0".into(), &true.into()));
    it.node.expect_slot("b", &it.v2);
    let status = it.node.agent_in_words(&["status"]).finish();
    assert!(status.text().contains("by the offline statement of a bundle"), "{}", status.text());
    assert!(it.node.status()["metadata"]["offline"].is_i64());
    let _answer = on_day(it.node.agent(&["explain"]), "+21d");

    // Made out of the log that nobody can change unseen, and only of what the rule allows.
    let log = fs::read_to_string(it.world.path("keys/signer.log")).expect("read the log");
    assert!(log.contains(r#""event":"offline""#), "{log}");
    let shorter = it.bundle(&["1.1.0"], "short.tar", &["--valid-for", "1h"]);
    says(&shorter, Reason::Usage, "without --valid-for the bundle is good until");
    let longer = it.bundle(&["1.1.0"], "long.tar", &["--valid-for", "91d"]);
    says(&longer, Reason::Expired, "--valid-for must be from 1 second to the 90 days");
    assert!(!it.world.path("long.tar").exists());
}

#[test]
fn who_may_make_offline_bundles_is_signed_in_targets() {
    let it = Offline::new();
    let renew = ["renew", "targets", "--expires"];
    let renew = |expires: &str| it.world.signer(&[&renew[..], &[expires]].concat());
    let _none = renew("offline=none").ok();
    let done = it.bundle(&["1.1.0"], "usb.tar", &["--valid-for", "1d"]);
    says(&done, Reason::Config, "signer renew targets --expires offline=90d");
    let _allowed = renew("offline=100d").args(["--expires", "targets=50d"]).ok();
    let done = it.bundle(&["1.1.0"], "usb.tar", &["--valid-for", "60d"]);
    says(&done, Reason::Expired, "before the bundle would");
    // Without the targets key nobody can make one.
    let keys: PathBuf = it.world.path("keys/targets.key");
    fs::remove_file(&keys).expect("take the key away");
    let done = it.bundle(&["1.1.0"], "usb.tar", &["--valid-for", "2d"]);
    done.refused(Reason::SigThreshold);
    assert!(!it.world.path("usb.tar").exists());
}

/// The one who could serve old metadata for ever is a server: there the timestamp alone counts.
#[test]
fn a_registry_cannot_offer_an_offline_statement() {
    let it = Offline::new();
    let _made = it.bundle(&["1.1.0"], "usb/", &["--valid-for", "30d"]).exits(Exit::Done);
    let server = RepoServer::serving(&it.world, &it.world.path("usb"));
    let registry = format!("docker://{}", server.authority);
    let node = Node::from_factory(&it.world, "online", &it.world.release("1.0.0", 1), &registry);
    // The statement is there for whoever asks for it.
    let url = format!("https://{}/v2/tuf/manifests/offline", server.authority);
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let curl = tool("curl", "curl").args(["--silent", "--fail", "--noproxy", "*", "-H", accept]);
    let manifest = curl.arg("--cacert").arg(Credentials::of(&it.world).ca).arg(url).ok().json();
    assert_eq!(manifest["artifactType"], "application/vnd.racklet.offline.v1+json", "{manifest}");

    let plan = || node.agent(&["plan", "--version", "1.1.0"]);
    on_day(plan(), "+20d").refused(Reason::Expired);
    // The same bytes from a directory are good, by the statement, and prove nothing for a registry.
    let _planned = on_day(plan().arg(it.world.path("usb")), "+20d").exits(Exit::Done);
    on_day(plan(), "+20d").refused(Reason::Expired);
    // On the day they were made there is nothing wrong with them in a registry.
    let _planned = plan().ok();
}

/// A key that may sign bundles and nothing else, as docs/bundles.md gives it.
/// FAT32, which sticks are sold with, has no files of 4 GiB; here the system's own limit refuses as it does.
#[test]
fn a_bundle_too_large_for_its_medium_is_refused_with_what_helps() {
    let it = Offline::new();
    let limited = Run::new("sh").args(["-c", "ulimit -f 64 && exec \"$0\" \"$@\""]);
    let bundle = it.world.signer(&["bundle", "--product", PRODUCT, "--version", "1.1.0"]);
    let done = bundle.arg("-o").arg(it.world.path("large.tar")).under(limited).finish();
    assert!(done.output().contains("FAT32 ends at 4 GiB"), "{}", done.output());
    assert!(done.code > 0, "a code, not a signal: {}", done.code);
    assert!(!it.world.path("large.tar").exists(), "a part of a bundle is left");
}

#[test]
fn a_delegated_role_signs_bundles_and_no_release() {
    let it = Offline::new();
    let bundles = it.world.person("bundles");
    let delegate = ["delegate", "--role", "bundles", "--path", "bundles/*", "--role-keys"];
    let _done = it.world.with_people(&[&delegate[..], &[&bundles]].concat());
    let policy = "[offline]\nlongest = \"30d\"\nrole = \"bundles\"\n";
    fs::write(it.world.path("keys/signer.toml"), policy).expect("write the policy");
    let _done = it.world.with_people(&["renew", "targets"]);

    // The targets keys are no longer enough.
    let done = it.bundle(&["1.1.0"], "usb.tar", &["--valid-for", "20d"]);
    done.refused(Reason::SigThreshold);
    assert!(!it.world.path("usb.tar").exists());
    // The bundles key is, alone.
    let field = it.world.path("field");
    fs::create_dir(&field).expect("make a folder");
    fs::copy(it.world.path("root.json"), field.join("root.json")).expect("copy the trust root");
    let key = PathBuf::from(&bundles).with_extension("key");
    let in_the_field = |command: &[&str]| {
        let signer = program("signer").args(["--json"]).args(command).arg("--keys").arg(&field);
        signer.arg("--key").arg(&key).args(["--repo", &it.world.repository().reference()])
    };
    let output = it.shown("usb.tar");
    let bundle = ["bundle", "--product", PRODUCT, "--version", "1.1.0", "-o", &output];
    let made = in_the_field(&[&bundle[..], &["--valid-for", "20d"]].concat()).ok().json();
    assert_eq!(made["offline"]["role"], "delegated role \"bundles\"", "{made}");
    let log = fs::read_to_string(field.join("signer.log")).expect("read the log");
    assert!(log.contains(r#""event":"offline""#), "{log}");
    let longer = in_the_field(&[&bundle[..], &["--valid-for", "31d"]].concat()).finish();
    longer.refused(Reason::Expired);

    let apply = it.node.agent(&["apply"]).arg(&output);
    let report = on_day(apply, "+19d").exits(Exit::Done).json();
    assert_eq!(report["version"], "1.1.0", "{report}");
    it.node.expect_slot("b", &it.v2);

    // It signs nothing that a node would install from elsewhere.
    let next = format!("os={},hw=racklet-cu-v1", it.v2.os.path.display());
    let publish = ["publish", "--product", PRODUCT, "--version", "1.3.0", "--component", &next];
    let done = in_the_field(&[&publish[..], &["--role", "bundles"]].concat()).finish();
    assert_ne!(done.code, 0, "{}", done.output());
    assert!(!it.world.repository().tags().keys().any(|tag| tag.ends_with("demo:1.3.0")));
}
