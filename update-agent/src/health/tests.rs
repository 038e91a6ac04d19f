use std::io::{Read, Write};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::thread;

use super::*;
use crate::source::SourceConfig;

#[path = "../../tests/source_server/refusing.rs"]
mod refusing;
use refusing::Refusing;

fn parse(text: &str) -> Result<HealthConfig, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

fn check(name: &str, script: &str) -> Check {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    Check { name: name.to_owned(), probe: Probe::Command(argv), timeout: Duration::from_secs(60) }
}

fn config(passes: u32, checks: Vec<Check>) -> HealthConfig {
    HealthConfig { passes, checks, ..HealthConfig::default() }
}

/// Waits for nothing, so that the rounds follow each other at once.
fn at_once(_: RoundSoFar<'_>, _: Duration) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn every_kind_of_check_is_read() {
    let health = parse(
        r#"
        deadline = "2m"
        interval = "1s"
        passes = 2
        [[check]]
        name = "web"
        http = "http://127.0.0.1:8080/healthz"
        timeout = "3s"
        [[check]]
        name = "ssh"
        tcp = "[::1]:22"
        [[check]]
        name = "own"
        command = ["/usr/libexec/check", "--all"]
        [[check]]
        name = "unit"
        unit = "serial-getty@ttyS0.service"
        "#,
    )
    .unwrap();
    health.usable().unwrap();
    assert_eq!(health.deadline, Duration::from_secs(120));
    assert_eq!(health.checks[0].timeout, Duration::from_secs(3));
    assert_eq!(health.checks[1].probe, Probe::Tcp { host: "::1".to_owned(), port: 22 });
    assert_eq!(health.checks[1].timeout, Duration::from_secs(10));
}

#[test]
fn mistakes_are_named() {
    // (the check's lines, what the message says)
    for (lines, says) in [
        ("name = 'x'", "exactly one of"),
        ("name = 'x'\ntcp = 'a:1'\nunit = 'b'", "exactly one of"),
        ("name = ''\ntcp = 'a:1'", "name is empty"),
        ("name = 'x'\ntcp = 'a'", "HOST:PORT"),
        ("name = 'x'\ntcp = ':1'", "HOST:PORT"),
        ("name = 'x'\ntcp = 'a:0'", "HOST:PORT"),
        ("name = 'x'\nhttp = 'ftp://h/'", "http"),
        ("name = 'x'\nhttp = 'http://u:p@h/'", "refused"),
        ("name = 'x'\ncommand = []", "no program"),
        ("name = 'x'\ncommand = 'true'", "expected a sequence"),
        ("name = 'x'\nunit = '--help'", "systemd unit"),
        ("name = 'x'\nunit = 'a b'", "systemd unit"),
        ("name = 'x'\nrepository = false", "stands alone"),
        ("name = 'x'\nrepository = true\nunit = 'a'", "exactly one"),
        ("name = 'x'\nfree_space = '/var'", "needs `mib`"),
        ("name = 'x'\nfree_space = '/var'\nmib = 0", "needs `mib`"),
        ("name = 'x'\nunit = 'a'\nmib = 1", "free_space"),
        ("name = 'x'\nunit = 'a'\nca = '/ca.pem'", "http check"),
        ("name = 'x'\nunit = 'a'\ntimeout = '0s'", "never passes"),
        ("name = 'x'\nunit = 'a'\ntimeout = 10", "expected a string"),
        ("name = 'x'\nunit = 'a'\ntimeuot = '1s'", "unknown field"),
    ] {
        let message = parse(&format!("[[check]]\n{lines}")).unwrap_err();
        assert!(message.contains(says), "{lines}: {message}");
    }
}

#[test]
fn what_proves_nothing_or_never_passes_is_refused() {
    let usable = |text: &str| parse(text).unwrap().usable();
    assert_eq!(usable(""), Err(HealthError::NoChecks));
    assert_eq!(HealthError::NoChecks.reason(), Reason::Config);
    assert_eq!(usable("accept_no_checks = true"), Ok(()));
    let one = "\n[[check]]\nname = 'x'\ntcp = 'a:1'\n";
    assert_eq!(usable(&format!("{one}{one}")), Err(HealthError::Duplicate("x".to_owned())));
    let tight = usable(&format!("deadline = '10s'\ninterval = '5s'{one}"));
    assert!(matches!(tight, Err(HealthError::Impossible { .. })), "{tight:?}");
    assert!(run(&HealthConfig::default(), here(), &mut at_once).is_err());
    let accepted = HealthConfig { accept_no_checks: true, ..HealthConfig::default() };
    assert!(run(&accepted, here(), &mut at_once).unwrap().passed);
}

fn here() -> Surroundings<'static> {
    Surroundings::default()
}

/// `repo` in a folder: a repository with a TUF state.
fn repository() -> tempfile::TempDir {
    use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, media_type};
    let dir = tempfile::tempdir().unwrap();
    let layout = storage::layout::LayoutDir::create(&dir.path().join("repo")).unwrap();
    let state = Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), vec![]).to_bytes();
    layout.put_blob(EMPTY_CONFIG).unwrap();
    layout.put_blob(&state).unwrap();
    let state = Descriptor::of(media_type::MANIFEST, &state);
    layout.set_refs(&[("tuf:latest".to_owned(), Some(state))]).unwrap();
    dir
}

#[test]
fn free_space_and_the_repository_are_checked() {
    let health = |check: &str| {
        let text = format!("passes = 1\ndeadline = '5s'\n[[check]]\nname = 'x'\n{check}\n");
        parse(&text).unwrap()
    };
    let repository = repository();
    let sources = [
        SourceConfig::at("oci-archive:/no-such-file-here.tar"),
        SourceConfig::at(&format!("oci:{}", repository.path().join("repo").display())),
        // A port of this machine where nobody listens.
        SourceConfig { plain_http: true, ..SourceConfig::at("docker://127.0.0.1:1/ns") },
    ];
    let nothing = [SourceConfig::at("oci:/")];
    let rows: [(&str, &str, &[SourceConfig], bool); 7] = [
        ("there is room", "free_space = '/'\nmib = 1", &[], true),
        ("not that much", "free_space = '/'\nmib = 1000000000", &[], false),
        ("no such place", "free_space = '/no-such-place'\nmib = 1", &[], false),
        ("no source", "repository = true", &[], false),
        ("a folder that is no repository", "repository = true", &nothing, false),
        ("the second source is there", "repository = true", &sources[..2], true),
        (
            "neither file nor registry",
            "repository = true",
            &[sources[0].clone(), sources[2].clone()],
            false,
        ),
    ];
    for (name, check, sources, passes) in rows {
        let around = Surroundings { sources, ..here() };
        let report = run(
            &HealthConfig {
                deadline: Duration::from_secs(1),
                interval: Duration::from_secs(1),
                ..health(check)
            },
            around,
            &mut at_once,
        );
        let report = report.unwrap();
        assert_eq!(report.passed, passes, "{name}: {report:?}");
    }
}

#[test]
fn the_deadline_goes_on_where_an_agent_of_the_same_boot_began_it() {
    let failing =
        HealthConfig { deadline: Duration::from_secs(60), ..config(1, vec![check("a", "false")]) };
    let around = Surroundings { already: Duration::from_secs(61), ..here() };
    let report = run(&failing, around, &mut |_, _| panic!("no round fits any more")).unwrap();
    assert_eq!((report.passed, report.rounds), (false, 1));
}

#[test]
fn a_healthy_trial_passes_after_its_rounds() {
    let report =
        run(&config(3, vec![check("a", "true"), check("b", "true")]), here(), &mut at_once);
    assert_eq!(report.unwrap(), HealthReport { passed: true, rounds: 3, failures: vec![] });
}

#[test]
fn a_service_that_comes_up_late_still_passes() {
    let dir = tempfile::tempdir().unwrap();
    let up = dir.path().join("up");
    let checks = vec![check("late", &format!("test -e {} || (echo not yet; false)", up.display()))];
    let mut seen = Vec::new();
    let report = run(&config(2, checks), here(), &mut |so_far, _| {
        seen.push(so_far.failures.first().map(|failure| failure.why.clone()));
        if so_far.round == 2 {
            std::fs::write(&up, "").unwrap();
        }
        ControlFlow::Continue(())
    });
    assert_eq!(report.unwrap(), HealthReport { passed: true, rounds: 4, failures: vec![] });
    assert_eq!(seen[0].as_deref(), Some("exit status 1: not yet"));
}

#[test]
fn a_trial_that_hangs_fails_by_its_deadline() {
    let health = HealthConfig {
        deadline: Duration::from_millis(300),
        interval: Duration::from_millis(1),
        ..config(1, vec![check("fine", "true"), check("hung", "exec sleep 1000")])
    };
    let report = run(&health, here(), &mut at_once).unwrap();
    assert!(!report.passed);
    assert_eq!(report.rounds, 1);
    let hung = report.failures.iter().find(|failure| failure.check == "hung");
    assert!(hung.is_some_and(|failure| failure.why.contains("still running after")), "{report:?}");
}

#[test]
fn an_interrupted_probation_decides_nothing() {
    let stopped =
        run(&config(2, vec![check("a", "true")]), here(), &mut |_, _| ControlFlow::Break(()));
    assert_eq!(stopped, Err(HealthError::Interrupted));
}

/// Answers one HTTP request with a status line.
fn serve_once(status: &'static str) -> (u16, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            head.push(byte[0]);
        }
        write!(stream, "HTTP/1.1 {status}\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8(head).unwrap()
    });
    (port, server)
}

#[test]
fn http_passes_with_2xx_only() {
    for (status, passes) in
        [("200 OK", true), ("204 No Content", true), ("302 Found", false), ("503 No", false)]
    {
        let (port, server) = serve_once(status);
        let url = Url::parse(&format!("http://127.0.0.1:{port}/healthz")).unwrap();
        let result = probe::run(&Probe::Http { url, ca: None }, &[], Duration::from_secs(60));
        assert_eq!(result.is_ok(), passes, "{status}: {result:?}");
        assert!(server.join().unwrap().starts_with("GET /healthz HTTP/1.1\r\n"));
        if let Err(why) = result {
            assert!(why.to_string().contains(&status[..3]), "{why}");
        }
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_not_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
    let limit = Duration::from_millis(200);
    let why = probe::run(&Probe::Http { url, ca: None }, &[], limit).unwrap_err().to_string();
    assert!(why.contains("within 200ms"), "{why}");
    let host = "127.0.0.1".to_owned();
    let tcp = Probe::Tcp { host, port };
    probe::run(&tcp, &[], Duration::from_secs(60)).unwrap();
}

#[test]
fn a_port_where_nobody_listens_is_not_healthy() {
    let refusing = Refusing::new();
    let tcp = Probe::Tcp { host: "127.0.0.1".to_owned(), port: refusing.address.port() };
    let why = probe::run(&tcp, &[], Duration::from_secs(60)).unwrap_err().to_string();
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn a_unit_that_systemd_does_not_know_is_not_active() {
    // Fails where there is no systemd as well, with another reason.
    let unit = Probe::Unit("racklet-no-such.service".to_owned());
    let why = probe::run(&unit, &[], Duration::from_secs(60)).unwrap_err().to_string();
    assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}");
}
