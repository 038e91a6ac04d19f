//! The seeds of every target: well-formed inputs, made by the writers of the product. The same every time.
//!
//! They are committed in `corpus/TARGET/`; the bin `seeds` writes them, the test `replay` holds them against this.
//! Beside them lie a few that were written by hand: configurations.

use formats::boot_record::{BootRecord, Floor};
use formats::channel::{Channel, Wave, Window};
use formats::chunks::{Builder, ChunkList, Content, FrameEntry, delta, seekable_table_len};
use formats::digest::Sha256;
use formats::gpt::{Geometry, Guid, NewPartition, Table, TableCopy};
use formats::grub_env::GrubEnv;
use formats::json::Value;
use formats::oci::{Descriptor, EMPTY_CONFIG, Index, Manifest, media_type};
use formats::record::Record;
use formats::release::{
    ComponentManifest, ComponentSummary, IndexedComponent, ReleaseIndex, Summary,
};
use formats::report::{Decided, Report};
use formats::tuf::{DelegatedTo, Delegations, Envelope, Paths, Role, SuccinctRoles, UnixTime};
use formats::uboot_env::{Env, EnvCopy, Layout};
use formats::ustar::{Header, Kind, padding};
use update_core::chooser::Proof;

use racklet_testkit::forge::{Forge, ForgeKey, Node, key_map, role_keys};

/// What deltas of the target `frame` are compressed with.
pub const PREFIX: &[u8] = b"the bytes of an older image, which a delta may repeat";

/// One seed: its target, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// Every seed.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut put = |target: &'static str, name: &str, bytes: &[u8]| {
        seeds.push((target, name.to_owned(), bytes.to_vec()));
    };
    of_metadata(&mut put);
    of_registries(&mut put);
    of_images(&mut put);
    of_boot(&mut put);
    of_tools(&mut put);
    seeds
}

fn of_metadata(put: &mut dyn FnMut(&'static str, &str, &[u8])) {
    let mut repo = Forge::new();
    repo.repository = Some("racklet".into());
    let ops = repo.delegate(&Role::Targets, "ops", &["ops/*", "ops/?-*.img"]);
    repo.delegate(&Role::Targets, "hashed", &[]);
    repo.last_delegated(&Role::Targets).paths =
        Paths::HashPrefixes(vec!["0".into(), "f0".into()].into());
    repo.add_target(&ops, "ops/tool", b"tool");
    let key = ForgeKey::new(800);
    repo.targets(&ops).delegations = Some(Delegations {
        keys: key_map([&key]),
        to: DelegatedTo::Succinct(SuccinctRoles {
            keys: role_keys(1, std::slice::from_ref(&key)),
            bit_length: 4,
            name_prefix: "bin".into(),
        }),
        unknown: Default::default(),
    });
    repo.publish(&[Role::Root, Role::Targets, ops.clone()]);
    for (role, target) in [
        (Role::Root, "root"),
        (Role::Timestamp, "timestamp"),
        (Role::Snapshot, "snapshot"),
        (Role::Targets, "targets"),
        (ops, "targets"),
    ] {
        let file = repo.file_of(&role);
        let signed = Envelope::parse(&file).expect("our own file").signed().to_bytes();
        put(target, &format!("{}-file", role.name()), &file);
        put(target, &format!("{}-signed", role.name()), &signed);
        put("envelope", role.name(), &file);
        put("canonical_json", role.name(), &file);
        if target == "targets" {
            put("delegated", role.name(), &[b"ops/tool\n", &signed[..]].concat());
        }
    }
    put(
        "canonical_json",
        "texts",
        r#"{"ä":"\"\\\n\u0000\ud83d\ude00","":[-5,true,null,{}]}"#.as_bytes(),
    );

    let key = ForgeKey::new(1);
    let message = Value::from("message");
    let signature = key.sign(&message).bytes().expect("our own signature");
    let object = key.key().value().to_bytes();
    let signed = [&object[..], b"\0", &signature, b"\0", &message.canonical()].concat();
    put("key_and_signature", "ed25519", &signed);
    for (name, keytype, scheme, pem) in
        [("ecdsa", "ecdsa", "ecdsa-sha2-nistp256", ECDSA), ("rsa", "rsa", "rsassa-pss-sha256", RSA)]
    {
        let object = Value::object([
            ("keytype", Value::from(keytype)),
            ("scheme", Value::from(scheme)),
            ("keyval", Value::object([("public", Value::from(pem))])),
            ("x-owner", Value::from("@ada")),
        ]);
        put("key_and_signature", name, &[&object.to_bytes()[..], b"\0\x30\x45\x02\0m"].concat());
    }

    let mut node = Node::of(&repo);
    node.find(&repo, "ops/tool").expect("an honest repository");
    put("trusted_state", "full", &node.stored.to_bytes());
    put("trusted_state", "empty", &update_core::trust::Stored::default().to_bytes());
    for (nth, script) in
        [&[0, 1, 2, 0, 3, 1][..], &[1, 3, 5, 2, 9, 0, 0, 4], &[0, 2, 7, 1, 6, 3, 8], &[1; 24]]
            .into_iter()
            .enumerate()
    {
        put("whole_update", &format!("script-{nth}"), script);
    }
}

fn hash(byte: u8) -> Sha256 {
    Sha256([byte; 32])
}

fn descriptor(media_type: &str, byte: u8) -> Descriptor {
    Descriptor::new(media_type, hash(byte), 4096)
}

fn component_manifest() -> ComponentManifest {
    ComponentManifest {
        config: descriptor(media_type::IMAGE_CONFIG, 1),
        images: vec![descriptor(media_type::IMAGE_BLOB, 2)],
        chunks: descriptor(media_type::CHUNKS, 3),
        deltas: Vec::new(),
    }
}

fn of_registries(put: &mut dyn FnMut(&'static str, &str, &[u8])) {
    let layer =
        descriptor(media_type::TUF_METADATA, 4).annotated("tuf.io/filename", "timestamp.json");
    let artifact = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), vec![layer]);
    put("manifest", "state", &artifact.to_bytes());
    let entry = Descriptor::of(media_type::MANIFEST, &artifact.to_bytes())
        .annotated("org.opencontainers.image.ref.name", "demo/tuf:latest");
    let index = Index::new(None, vec![entry]);
    put("manifest", "index", &index.to_bytes());
    put("layout_index", "state", &index.to_bytes());
    put("archive", "layout", &archive(&artifact, &index));
    let bearer =
        br#"Newer x="1", Bearer realm="https://auth.example/token",service="r",scope="a\"b""#;
    put("challenge", "bearer", bearer);
    put("challenge", "basic", b"Basic realm=registry");
    let auths =
        br#"{"auths":{"https://registry.example/v1/":{"auth":"YTpi"}},"credsStore":"pass"}"#;
    put("auth_file", "docker", auths);
    put("url", "relative", b"https://registry.example/v2/a/blobs/sha256:00\n../uploads/1?_state=x");
    put("url", "absolute", b"http://[::1]:5000/v2/\nhttps://other.example:8443/%41");
    for (name, value) in [("first", "bytes=0-99"), ("suffix", "bytes=-5"), ("open", "bytes=999-")] {
        put("byte_range", name, value.as_bytes());
    }
    let component = IndexedComponent {
        name: "os".parse().expect("a name"),
        compatible: vec!["board-1".to_owned()],
        manifest: descriptor(media_type::MANIFEST, 5),
    };
    put("release_index", "one", &ReleaseIndex { components: vec![component] }.to_bytes());
    put("component_manifest", "plain", &component_manifest().to_bytes("os.img"));
    let summary = Summary {
        version: "1.2.0".parse().expect("a version"),
        security_version: 3,
        components: vec![component_summary()],
        attachments: Vec::new(),
        mixed: Vec::new(),
        order: vec!["os".parse().expect("a name")],
        withdrawn: None,
    };
    put("release_summary", "one", &summary.to_custom());
    put("channel", "empty", &Channel::new("demo", "stable").to_bytes());
    let mut channel = Channel::new("demo", "stable");
    channel.waves = vec![
        Wave { start: 1_800_000_000, percent: 10 },
        Wave { start: 1_800_086_400, percent: 100 },
    ];
    channel.windows = vec![Window { from: 1320, minutes: 240 }];
    put("channel", "waves", &channel.to_bytes());
    let report = Report {
        name: Some("node-7".into()),
        product: "demo".into(),
        channel: "stable".into(),
        booted: "a".into(),
        standing: "idle".into(),
        decision: Some(Decided {
            version: "1.1.0".into(),
            code: "deferred".into(),
            sentence: "its wave begins later".to_owned(),
            ..Decided::default()
        }),
        sequence: 3,
        ..Report::default()
    };
    let key = ForgeKey::new(900);
    put("report", "signed", &key.report(report.clone()));
    put("report", "payload", &report.value().to_bytes());
}

fn component_summary() -> ComponentSummary {
    ComponentSummary {
        name: "os".parse().expect("a name"),
        compatible: vec!["board-1".to_owned()],
        raw_size: 4096,
        manifest: hash(5).into(),
        verity: None,
        raw: None,
    }
}

fn archive(manifest: &Manifest, index: &Index) -> Vec<u8> {
    let digest = Sha256::of(&manifest.to_bytes()).to_string();
    let blob = format!("blobs/sha256/{digest}");
    let files: [(&str, &[u8]); 4] = [
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index.to_bytes()),
        (&blob, &manifest.to_bytes()),
        (
            "blobs/sha256/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            EMPTY_CONFIG,
        ),
    ];
    let mut tar = Vec::new();
    for (name, bytes) in files {
        let header = Header { name: name.to_owned(), kind: Kind::File, size: bytes.len() as u64 };
        tar.extend(header.to_block().expect("a short name"));
        tar.extend(bytes);
        tar.resize(tar.len() + padding(bytes.len() as u64) as usize, 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// The chunk list that deltas are checked against: two chunks of data around one of zeros.
pub fn chunk_list() -> Vec<u8> {
    list().as_bytes().to_vec()
}

fn list() -> ChunkList {
    let mut list = Builder::default();
    list.chunk(4096, Content::Data(hash(1)));
    list.chunk(8192, Content::Zero);
    list.chunk(4096, Content::Data(hash(2)));
    list.encoding(
        hash(9),
        200 + seekable_table_len(1),
        &[FrameEntry { len: 200, chunks: 3, sha256: hash(3) }],
    );
    list.finish().expect("a list")
}

fn of_images(put: &mut dyn FnMut(&'static str, &str, &[u8])) {
    put("chunk_list", "three", &chunk_list());
    let frame = delta::DeltaFrameEntry {
        len: 100,
        sha256: hash(4),
        content: vec![delta::Run { first: 0, count: 1 }],
        prefix: vec![delta::Run { first: 2, count: 1 }],
    };
    if let Ok(list) = delta::build(&list(), &list(), hash(5), &[frame]) {
        put("delta_list", "one", list.as_bytes());
    }
    let content = b"content of a frame, content of a frame";
    let frame = zstd::bulk::compress(content, 3).expect("a frame");
    put("frame", "plain", &[&[0x80, content.len() as u8], &frame[..]].concat());
    put("frame", "cut", &[&[0x80, content.len() as u8], &frame[..frame.len() / 2]].concat());
}

fn of_boot(put: &mut dyn FnMut(&'static str, &str, &[u8])) {
    let proof = Proof {
        known_time: UnixTime::from_secs(1_800_000_000),
        version: "1.2.0".parse().expect("a version"),
        files: [("timestamp.json".to_owned(), b"{}".to_vec())].into(),
    };
    put("chooser_proof", "one", &proof.to_bytes());
    let geometry = Geometry::new(8 << 20, 512).expect("a disk");
    let slot = |label, byte| NewPartition {
        label,
        type_guid: Guid([7; 16]),
        guid: Guid([byte; 16]),
        at: None,
        len: 1 << 20,
        attributes: 0,
    };
    let table =
        Table::create(geometry, Guid([9; 16]), &[slot("a", 1), slot("b", 2)]).expect("a table");
    for (name, which, copy) in
        [("primary", 0, TableCopy::Primary), ("backup", 1, TableCopy::Backup)]
    {
        let image = table.image(copy);
        put("partition_table", name, &[&[which], &image.header[..], &image.array[..]].concat());
    }
    let mut env = Env::default();
    env.set("boot_order", "A B").expect("it fits");
    for (name, layout) in [("single", Layout::Single), ("redundant", Layout::Redundant)] {
        let copy = EnvCopy { env: env.clone(), flag: 1 };
        put("uboot_environment", name, &copy.encode(512, layout).expect("it fits"));
    }
    let mut block = GrubEnv::new(1024).expect("a block");
    block.set("ORDER", "A B").expect("it fits");
    put("grub_environment", "block", &block.encode().expect("it fits"));
    put(
        "autoboot",
        "trial",
        b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n[none]\n\
          BOOT_ORDER=B A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=3\nracklet_asked=1a2b3c4d\n",
    );
    put("fat", "fat12", &fat12());
    put(
        "loader_entry",
        "counted",
        b"slot-a+2-1.conf\ntitle A\nlinux /a/linux\ninitrd /a/initrd\noptions quiet\n",
    );
    put("device_tree", "board", b"raspberrypi,4-model-b\0brcm,bcm2711\0");
    let payloads =
        [("boot", BootRecord::default().to_bytes()), ("floor", Floor::default().to_bytes())];
    for (name, payload) in payloads {
        put(
            "record",
            name,
            &Record { sequence: 7, revision: 0, payload }.to_bytes().expect("a record"),
        );
    }
    let session = [0, 0, 1, 0, 0];
    put("tpm", "done", &[&[0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0], &session[..]].concat());
    let counter = [0, 8, 0, 0, 0, 0, 0, 0, 0, 7];
    let head = [0x80, 2, 0, 0, 0, 29, 0, 0, 0, 0, 0, 0, 0, 10];
    put("tpm", "counter", &[&head[..], &counter, &session].concat());
    put("tpm", "refused", &[0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x8b]);
}

fn of_tools(put: &mut dyn FnMut(&'static str, &str, &[u8])) {
    for (name, request) in [
        ("tag", "GET\n/v2/demo/tuf/manifests/latest"),
        (
            "upload",
            "PUT\n/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000?digest=sha256:00",
        ),
        ("mount", "POST\n/v2/a/blobs/uploads/?mount=sha256:00&from=b"),
        ("metadata", "GET\n/metadata/timestamp.json"),
    ] {
        put("route", name, request.as_bytes());
    }
    for (name, text) in [
        ("docker", "docker://registry.example:5000/demo"),
        ("oci", "oci:./repository:demo"),
        ("https", "https://a.example/x"),
    ] {
        put("reference", name, text.as_bytes());
    }
    for (name, text) in
        [("numbers", "1.9.0\n1.10.0"), ("prerelease", "1.0.0-rc1\n1.0.0"), ("tilde", "2~a\n2^b")]
    {
        put("version", name, text.as_bytes());
    }
    put("key_document", "example", include_bytes!("../../keys-example/targets.key"));
    for (name, text) in [
        ("file", "keys/root.key"),
        (
            "token",
            "pkcs11:token=racklet;object=root%20key?module-path=/usr/lib/softhsm/libsofthsm2.so",
        ),
        ("command", "cmd:/usr/bin/sign?key=root"),
    ] {
        put("key_location", name, text.as_bytes());
    }
    put("staged_change", "empty", &staged());
}

fn staged() -> Vec<u8> {
    let staged = signer::stage::Staged {
        what: "a new timestamp key".to_owned(),
        repository: "oci:repository".to_owned(),
        state: None,
        recovery: false,
        base: Default::default(),
        proposal: Default::default(),
        release: None,
        signatures: Default::default(),
    };
    staged.to_bytes()
}

// Public keys made for these seeds with Python's `cryptography`; the private halves were not kept.
const ECDSA: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmNo4B0bCvl9KjRddhjUK20BfIq0q\n\
    c5X9LtmFLTZ66VQiK/vYOAWBz+UVyFqWN5SvOomIgeGBGp+BDW2NLGGg1A==\n\
    -----END PUBLIC KEY-----\n";
const RSA: &str = "\
    -----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzMlaZpiI+VqEM4QRSAv/\n\
    7D0n8H7OF4kqAsNhIq0ECwdLhET18p3kNDc3zy89XB+QA6KTMjrwToYBjri87lQZ\n\
    C4HJUp9rqgLc+GGcFMdc4KSQOHfFx8an2OtIPeIwH9I3LUyZKa67ndD5MPBW5fSv\n\
    fUcypKGr7IAj7VcnPvpc9JbOKMvfziK9gJEkifd0RxvI9EVXep5Srf9XlsEerPf0\n\
    5mmAX7+KJUJCSzc3bwxJKMS3tHyWUUu4WtIqShvDdkHmFRwm0ZtJqgIq3yQc+KzE\n\
    F7VojldAPDhHtYsmT8LwhJCw0kDszvO5i8RxSW23QfdBwelYOSx2xlqqLGuUv6Ub\n\
    LQIDAQAB\n\
    -----END PUBLIC KEY-----\n";

/// The boot sector of a FAT12 of 1 MiB, and a root directory with one file.
fn fat12() -> Vec<u8> {
    let mut bytes = vec![0; 512 + 64];
    let fields: [(usize, &[u8]); 6] = [
        (11, &[0, 2, 4, 1, 0, 2, 0, 2, 0, 8, 0xf8, 2, 0]),
        (510, &[0x55, 0xaa]),
        (512, b"AUTOBOOTTXT\x20"),
        (512 + 26, &[2, 0]),
        (512 + 28, &[0, 1, 0, 0]),
        (544, &[0]),
    ];
    for (at, what) in fields {
        bytes[at..at + what.len()].copy_from_slice(what);
    }
    bytes
}
