//! The cases of `docs/threat-cases.md` that meet the agent's transport and state: the trust core
//! behind the real HTTP client, the real state directory and the system's clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use formats::digest::{Digest, Sha256};
use formats::json::Value;
use formats::oci::{Descriptor, media_type};
use formats::reason::{Exit, Reason};
use formats::release::{ComponentSummary, IndexedComponent, ReleaseIndex, Summary};
use formats::tuf::{Role, TargetFile, UnixTime};
use racklet_testkit::forge::{Forge, ForgeKey};
use racklet_tests::forge_registry::{Answer, Content, Registry, body_start};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use storage::host::{Host as _, System};
use update_agent::config::Config;
use update_agent::error::AgentError;
use update_agent::http::{Limits, RetryPolicy};
use update_agent::source::{Source, SourceConfig, open};
use update_agent::state::{State, StateGuard};
use update_agent::{release, trust};
use update_core::trust::Clock;

/// Every wait of the client in these tests: far less than its default, and more than an honest server on
/// a busy machine needs for its answer.
const SHORT: Duration = Duration::from_millis(500);
/// Far more than all waits of one refresh from one source together, however busy the machine, and far
/// less than servers that drip would take.
const BUDGET: Duration = Duration::from_secs(60);
/// Between two bytes of a server that drips: well within every idle timer.
const PAUSE: Duration = Duration::from_millis(20);

fn limits() -> Limits {
    Limits {
        connect: SHORT,
        handshake: SHORT,
        first_byte: SHORT,
        idle: SHORT,
        min_rate: 64 << 10,
        rate_window: SHORT,
        patience: BUDGET,
        redirects: 0,
        retry: RetryPolicy {
            attempts: 1,
            base: Duration::from_millis(1),
            cap: Duration::from_millis(1),
            budget: SHORT,
        },
    }
}

/// A repository of today, and a node with a state directory that trusts version 1 of its root.
struct Scene {
    repo: Forge,
    root: Vec<u8>,
    directory: tempfile::TempDir,
    state: State,
    held: StateGuard,
}

impl Scene {
    fn new() -> Self {
        let now = UnixTime::from_secs(System.now() as i64);
        let mut repo = Forge::at(now);
        repo.publish(&[Role::Targets]);
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("state"), Arc::new(System)).unwrap();
        let held = state.hold().unwrap();
        let root = repo.history("1.root.json")[0].clone();
        Scene { repo, root, directory, state, held }
    }

    /// Up to date with version 2 of everything.
    fn settled() -> Self {
        let scene = Scene::new();
        let registry = Registry::honest(scene.content());
        scene.refresh(&[source(&registry)]).unwrap();
        scene
    }

    fn content(&self) -> Content {
        Content::of(&self.repo.served)
    }

    /// The versions of timestamp and targets after an update.
    fn refresh(&self, sources: &[Box<dyn Source>]) -> Result<(u64, u64), AgentError> {
        let (trusted, _) =
            trust::refresh(&self.state, &self.held, &self.root, sources, self.state.now())?;
        let set = trusted.set();
        Ok((set.timestamp().header.version, set.targets().header.version))
    }

    /// Every file of the state directory and its bytes.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let path = self.directory.path().join("state");
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        entries
            .filter(|entry| entry.file_type().unwrap().is_file())
            // Who is asked is noted, whatever comes of it.
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with("asking."))
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }
}

fn source(registry: &Registry) -> Box<dyn Source> {
    source_at(&registry.authority(), true, None)
}

fn source_at(authority: &str, plain_http: bool, ca: Option<&Path>) -> Box<dyn Source> {
    let config = SourceConfig {
        plain_http,
        ca: ca.map(Path::to_path_buf),
        ..SourceConfig::at(&format!("docker://{authority}/ns"))
    };
    open(&config, limits()).unwrap()
}

/// Cuts an honest answer where it begins to drip.
fn drip(answer: Vec<u8>, at: usize) -> Answer {
    let (first, rest) = answer.split_at(at.min(answer.len()));
    Answer::Drip(first.to_vec(), rest.to_vec(), PAUSE)
}

fn code<T>(result: Result<T, AgentError>, what: &str) -> &'static str {
    match result {
        Ok(_) => panic!("{what}: the attack was not noticed"),
        Err(error) => {
            println!("{what}: {}", error.chain());
            assert_eq!(error.reason().exit(), Exit::Transport, "{what}");
            error.reason().code()
        }
    }
}

/// What drips within a body is `too_slow`; what has no rate, because it is all or nothing, ends
/// by its own timer as `timeout`. Either way no byte in time buys the server more time.
#[test]
fn case_05_slow_retrieval_ends_within_its_budget() {
    let mut scene = Scene::settled();
    scene.repo.publish(&[Role::Targets]);
    type How = fn(&str, Vec<u8>) -> Answer;
    let rows: [(&str, &str, How); 4] = [
        ("manifest", "too_slow", |path, answer| match path.ends_with("/latest") {
            true => {
                let body = body_start(&answer);
                drip(answer, body)
            }
            false => Answer::Send(answer),
        }),
        ("metadata", "too_slow", |path, answer| match path.contains("/blobs/") {
            true => {
                let body = body_start(&answer);
                drip(answer, body)
            }
            false => Answer::Send(answer),
        }),
        ("head", "timeout", |_, answer| drip(answer, 9)),
        ("nothing", "timeout", |_, _| Answer::Stall),
    ];
    let before = scene.files();
    for (what, expected, how) in rows {
        let registry = Registry::start(scene.content(), how);
        let begun = Instant::now();
        assert_eq!(code(scene.refresh(&[source(&registry)]), what), expected);
        assert!(begun.elapsed() < BUDGET, "{what} took {:?}", begun.elapsed());
        assert_eq!(scene.files(), before, "{what}");
    }
    // A whole byte at a time, for a target of an hour.
    let image = vec![7; 180_000];
    let mut content = scene.content();
    content.put(&image);
    let registry = Registry::start(content, |_, answer| drip(answer, 100));
    let blob = Descriptor::of(media_type::IMAGE_BLOB, &image);
    let begun = Instant::now();
    let error = source(&registry).blob("demo", &blob, 1 << 20).unwrap_err();
    assert_eq!(error.reason(), Reason::TooSlow, "{error}");
    assert!(begun.elapsed() < BUDGET);
}

/// A server that answers a TLS client byte by byte.
#[test]
fn case_05_slow_tls_handshake() {
    let scene = Scene::settled();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // A handshake record of 16 KiB, as far as its head says.
            let record = [&[22, 3, 3, 0x40, 0][..], &[0; 1000]].concat();
            for byte in record.chunks(1) {
                thread::sleep(PAUSE);
                if stream.write_all(byte).is_err() {
                    break;
                }
            }
        }
    });
    let before = scene.files();
    let begun = Instant::now();
    let result = scene.refresh(&[source_at(&authority, false, None)]);
    assert_eq!(code(result, "TLS handshake"), "timeout");
    assert!(begun.elapsed() < BUDGET, "{:?}", begun.elapsed());
    assert_eq!(scene.files(), before);
}

/// The first mirror is bad in every way there is; the second one is honest.
#[test]
fn case_10_a_bad_mirror_costs_its_own_budget() {
    type How = fn(&str, Vec<u8>) -> Answer;
    let bad: [(&str, &str, How); 7] = [
        ("not found", "http_status", |_, _| Answer::of("404 Not Found", b"")),
        ("failing", "http_status", |_, _| Answer::of("500 Internal Server Error", b"")),
        ("garbage", "bundle_format", |_, _| Answer::of("200 OK", b"<html>welcome</html>")),
        ("not HTTP", "http_status", |_, _| Answer::Send(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())),
        ("silent", "timeout", |_, _| Answer::Stall),
        ("dripping", "too_slow", |_, answer| {
            let body = body_start(&answer);
            drip(answer, body)
        }),
        ("metadata changed", "hash_mismatch", |path, mut answer| {
            if path.contains("/blobs/")
                && let Some(last) = answer.last_mut()
            {
                *last = b' ';
            }
            Answer::Send(answer)
        }),
    ];
    for (what, expected, how) in bad {
        let mut scene = Scene::settled();
        scene.repo.publish(&[Role::Targets]);
        let (first, second) =
            (Registry::start(scene.content(), how), Registry::honest(scene.content()));
        let begun = Instant::now();
        // Alone, it fails for its own reason …
        let error = scene.refresh(&[source(&first)]).unwrap_err();
        println!("{what}: {}", error.chain());
        assert_eq!(error.reason().code(), expected, "{what}");
        assert!(begun.elapsed() < BUDGET, "{what} took {:?}", begun.elapsed());
        assert_eq!(second.seen(), Vec::<String>::new());
        // … and before an honest one it costs time and nothing else.
        let begun = Instant::now();
        assert_eq!(scene.refresh(&[source(&first), source(&second)]).unwrap(), (3, 3), "{what}");
        assert!(begun.elapsed() < BUDGET, "{what} took {:?}", begun.elapsed());
    }
}

/// Mirrors that lie in well-formed metadata: frozen, older, foreign.
#[test]
fn case_10_a_lying_mirror_is_passed_over() {
    let mut scene = Scene::settled();
    let old = scene.repo.freeze();
    scene.repo.publish(&[Role::Targets]);
    let registry = Registry::honest(scene.content());
    scene.refresh(&[source(&registry)]).unwrap();
    scene.repo.publish(&[Role::Targets]);
    let mut foreign = Forge::at(UnixTime::from_secs(System.now() as i64));
    foreign.signers.insert(Role::Timestamp, vec![ForgeKey::new(666)]);
    foreign.publish(&[Role::Timestamp]);
    for (what, files, expected) in [
        ("older", old, Reason::VersionRollback),
        ("foreign", foreign.freeze(), Reason::SigThreshold),
    ] {
        let (liar, honest) =
            (Registry::honest(Content::of(&files)), Registry::honest(scene.content()));
        let before = scene.state.trust().unwrap();
        let error = scene.refresh(&[source(&liar)]).unwrap_err();
        assert_eq!(error.reason(), expected, "{what}");
        assert_eq!(scene.state.trust().unwrap(), before, "{what}");
        assert_eq!(scene.refresh(&[source(&liar), source(&honest)]).unwrap(), (4, 4), "{what}");
    }
}

/// A symbolic link where a copy of the trusted state was: not followed, neither read nor written
/// through, and said; without it the next run goes on.
#[test]
fn case_62_a_link_planted_in_the_state() {
    for copy in ["trust.0", "trust.1"] {
        let mut scene = Scene::settled();
        scene.repo.publish(&[Role::Targets]);
        let registry = Registry::honest(scene.content());
        let victim = scene.directory.path().join("victim");
        fs::write(&victim, b"not yours").unwrap();
        let place = scene.directory.path().join("state").join(copy);
        let original = fs::read(&place).unwrap();
        fs::remove_file(&place).unwrap();
        symlink(&victim, &place).unwrap();
        let before = scene.files();
        let error = scene.refresh(&[source(&registry)]).unwrap_err();
        assert_eq!(error.reason(), Reason::StoreIo, "{copy}: {}", error.chain());
        assert_eq!(error.reason().exit(), Exit::Config);
        assert!(registry.seen().is_empty(), "nothing is asked with a state that is unknown");
        assert_eq!(scene.files(), before);
        assert_eq!(fs::read(&victim).unwrap(), b"not yours");
        fs::remove_file(&place).unwrap();
        fs::write(&place, original).unwrap();
        std::os::unix::fs::chown(&place, None, None).unwrap();
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(scene.refresh(&[source(&registry)]).unwrap(), (3, 3));
        assert_eq!(fs::read(&victim).unwrap(), b"not yours");
    }
}

/// Names of the configuration that would leave their place in a repository or file system.
#[test]
fn case_63_names_of_the_configuration_are_no_paths() {
    let example = include_str!("../../update-agent/update-agent.example.toml");
    for bad in ["../x", "/etc/x", "a/../b", "a/b", "..", "", "a\\\\b", "%2e%2e", "A B"] {
        for (from, key) in [("product = \"demo\"", "product"), ("#channel = \"stable\"", "channel")]
        {
            assert!(example.contains(from), "the example has no {from}");
            let text = example.replacen(from, &format!("{key} = \"{bad}\""), 1);
            let error = Config::parse(&text, Path::new("/")).unwrap_err();
            assert_eq!(error.reason(), Reason::Config, "{key} = {bad:?}: {}", error.chain());
        }
    }
    // The namespace of a source: wrong on a command line, `config` where it is configured.
    for bad in ["../x", "a/../b", "a//b", "%2e%2e", "A", "x?y", "x#y"] {
        let error = match open(&SourceConfig::at(&format!("docker://host/{bad}")), limits()) {
            Ok(source) => panic!("{bad:?} opened as {}", source.describe()),
            Err(error) => error,
        };
        assert_eq!(error.reason(), Reason::Usage, "{bad:?}: {error}");
        assert_eq!(AgentError::from(error).or_config().reason(), Reason::Config, "{bad:?}");
    }
}

/// A release whose signed target names more than its signer was given: members nobody knows
/// are data, components beyond the index are a contradiction, and neither is ever asked for.
#[test]
fn case_06_extraneous_dependencies() {
    let mut scene = Scene::settled();
    let extra = b"the second target".to_vec();
    let index = ReleaseIndex {
        components: vec![IndexedComponent {
            name: "os".parse().unwrap(),
            compatible: vec!["hw".into()],
            manifest: Descriptor::of(media_type::MANIFEST, b"the manifest"),
        }],
    };
    let component = |name: &str, manifest: &[u8]| ComponentSummary {
        name: name.parse().unwrap(),
        compatible: vec!["hw".into()],
        manifest: Digest::sha256_of(manifest),
        raw_size: 512,
        verity: None,
        raw: None,
    };
    let mut summary = Summary {
        version: "1.1.0".parse().unwrap(),
        security_version: 0,
        components: vec![component("os", b"the manifest")],
        attachments: Vec::new(),
        mixed: Vec::new(),
        order: Vec::new(),
        withdrawn: None,
    };
    let role = scene.repo.delegate(&Role::Targets, "releases", &["demo/*"]);
    let publish = |repo: &mut Forge, summary: &Summary| {
        let Ok(Value::Object(mut custom)) = Value::parse(&summary.to_custom()) else { panic!() };
        // As other tools write dependencies.
        let needs = vec![Value::from("other/9.9.9"), Value::from("../other/1.0.0")];
        custom.insert("dependencies".into(), needs.into());
        let file = TargetFile::of(&index.to_bytes(), Some(Value::Object(custom)));
        repo.targets(&role).targets.insert("demo/1.1.0".into(), file);
        // The role signs for what it was not given, too.
        repo.add_target(&role, "other/9.9.9", &extra);
        repo.publish(&[Role::Targets, role.clone()]);
    };
    publish(&mut scene.repo, &summary);
    let mut content = scene.content();
    content.put(&index.to_bytes());
    content.put(&extra);
    let registry = Registry::honest(content);
    let sources = [source(&registry)];
    let version = "1.1.0".parse().unwrap();
    let find = |scene: &Scene| {
        let (mut trusted, _) =
            trust::refresh(&scene.state, &scene.held, &scene.root, &sources, scene.state.now())
                .unwrap();
        let other = trusted.release(&scene.held, "other", &"9.9.9".parse().unwrap()).unwrap_err();
        assert_eq!(other.reason(), Reason::TargetNotFound, "{}", other.chain());
        trusted.release(&scene.held, "demo", &version).unwrap()
    };
    let signed = find(&scene);
    assert_eq!(signed.index, Sha256::of(&index.to_bytes()));
    let second = Digest::sha256_of(&extra).to_string();
    assert!(!registry.seen().iter().any(|path| path.contains(&second) || path.contains("other")));
    // More components than the index has: the whole release is refused, nothing of it fetched.
    summary.components.push(component("second", &extra));
    publish(&mut scene.repo, &summary);
    let mut content = scene.content();
    content.put(&index.to_bytes());
    content.put(&extra);
    let registry = Registry::honest(content);
    let sources = [source(&registry)];
    let (mut trusted, source) =
        trust::refresh(&scene.state, &scene.held, &scene.root, &sources, scene.state.now())
            .unwrap();
    let signed = trusted.release(&scene.held, "demo", &version).unwrap();
    let components = &signed.summary.components;
    let error =
        release::resolve("demo", &signed, components, &[], &[source], &scene.state).unwrap_err();
    assert_eq!(error.reason(), Reason::BundleFormat, "{}", error.chain());
    assert!(!registry.seen().iter().any(|path| path.contains(&second)));
}

/// A certificate that is valid from the year 3000 on, as every certificate is for a node in 1970.
///
/// TLS carries bytes and decides nothing: its failure is one of transport, another source serves
/// as well, and the clock is judged by signed metadata before any connection is made. The way
/// out for a node without a clock is a source without TLS (a bundle, or `plain_http` on the
/// loopback): what it says is verified all the same.
#[test]
fn case_87_a_certificate_that_is_not_valid_yet() {
    let mut scene = Scene::settled();
    scene.repo.publish(&[Role::Targets]);
    let (tls, ca) = certificate(3000, scene.directory.path());
    let unborn = Registry::with_tls(tls, scene.content());
    let before = scene.files();
    let unborn_source = || source_at(&unborn.authority(), false, Some(&ca));
    assert_eq!(code(scene.refresh(&[unborn_source()]), "not valid yet"), "tls");
    assert_eq!(scene.files(), before);
    assert!(unborn.seen().is_empty(), "no request, so no token, was sent");
    let plain = Registry::honest(scene.content());
    assert_eq!(scene.refresh(&[unborn_source(), source(&plain)]).unwrap(), (3, 3));
    // The control: with a good certificate the very same source serves.
    let (tls, ca) = certificate(2000, scene.directory.path());
    scene.repo.publish(&[Role::Targets]);
    let good = Registry::with_tls(tls, scene.content());
    let source = source_at(&good.authority(), false, Some(&ca));
    assert_eq!(scene.refresh(&[source]).unwrap(), (4, 4));
    // In 1970 itself nobody is asked at all.
    let stored = scene.state.trust().unwrap();
    let clock = Clock { system: UnixTime::EPOCH, build: formats::tuf::BUILD_TIME };
    let error = update_core::trust::start_time(clock, stored.known_time).unwrap_err();
    assert_eq!(error.reason(), Reason::ClockUntrusted);
}

/// A server with a certificate for the loopback, valid from that year on, and the file of the CA
/// that signed it.
fn certificate(
    from_year: i32,
    directory: &Path,
) -> (Arc<rustls::ServerConfig>, std::path::PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let file = directory.join("ca.pem");
    fs::write(&file, ca.pem()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![certificate.der().clone()],
        rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    )
    .unwrap();
    (Arc::new(config), file)
}
