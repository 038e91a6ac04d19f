//! The metrics of a node, judged by those who read them: promtool, a parser of OpenMetrics in Python,
//! node_exporter and Prometheus. And the alerting rules of `docs/monitoring`, by promtool.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Node, RepoServer, Run, Running, World, tool, venv};
use racklet_tools::setup;

/// A program of a Debian package that is unpacked, not installed.
#[track_caller]
fn unpacked(package: &str, program: &str) -> Run {
    let found = setup::unpacked(package, &format!("usr/bin/{program}"));
    Run::new(found.unwrap_or_else(|| panic!("{program} is missing: run `cargo xtask setup`")))
}

/// A node with a textfile and a listener on a free port.
fn node(world: &World, source: &str) -> Node {
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(world, "node", &v1, source);
    let text = fs::read_to_string(node.config()).expect("read the configuration");
    fs::create_dir(node.path("textfiles")).expect("make a folder");
    let metrics = "[metrics]\ntextfile = \"textfiles/agent.prom\"\nlisten = \"127.0.0.1:0\"\n";
    fs::write(node.config(), format!("{text}\n{metrics}")).expect("write the configuration");
    node
}

fn textfile(node: &Node) -> String {
    fs::read_to_string(node.path("textfiles/agent.prom")).expect("read the textfile")
}

#[track_caller]
fn has(page: &str, sample: &str) {
    let line = format!("update_agent_{sample}");
    assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
}

/// promtool's verdict on a page, which is silence.
#[track_caller]
fn promtool_accepts(world: &World, page: &str) {
    let file = world.path("page.prom");
    fs::write(&file, page).expect("write the page");
    let promtool = unpacked("prometheus", "promtool").args(["check", "metrics"]);
    let shell =
        Run::new("sh").args(["-c", "file=$1; shift; exec \"$@\" <\"$file\"", "sh"]).arg(&file);
    let said = promtool.under(shell).ok().output();
    assert_eq!(said, "", "promtool has something to say of\n{page}");
}

/// Families and samples, as Python's parser of OpenMetrics reads them.
#[track_caller]
fn parsed_by_python(world: &World, page: &str) -> String {
    let file = world.path("page.openmetrics");
    fs::write(&file, page).expect("write the page");
    let carrier = setup::carrier("prometheus-client", "0.26.0");
    let carrier = carrier.expect("prometheus-client in Python: run `cargo xtask setup`");
    let script = "import sys; sys.path.insert(0, sys.argv[1])\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        for family in parse(open(sys.argv[2], encoding='utf-8').read()):\n\
        \x20   for sample in family.samples: print(family.type, family.unit, sample.name)\n";
    venv().args(["-c", script]).arg(carrier).arg(file).ok().text()
}

/// Both formats of the page of a node as it stands now.
#[track_caller]
fn is_judged_well(world: &World, node: &Node) {
    promtool_accepts(world, &node.agent_in_words(&["metrics"]).ok().text());
    let openmetrics = node.agent_in_words(&["metrics", "--openmetrics"]).ok().text();
    let families = parsed_by_python(world, &openmetrics);
    assert!(families.contains("info  update_agent_build_info\n"), "{families}");
    assert!(families.contains("gauge seconds update_agent_poll_interval_seconds\n"), "{families}");
}

#[test]
fn the_page_of_every_stage_is_accepted_by_others() {
    let (world, server) = RepoServer::with_repository();
    let node = node(&world, &server.reference());
    let page = node.agent_in_words(&["metrics"]).ok().text();
    assert!(!page.contains("last_success"), "it never checked:\n{page}");
    assert!(!node.path("textfiles/agent.prom").exists(), "`metrics` changes nothing");
    has(&page, "standing{state=\"idle\"} 1");
    has(&page, "component_info{component=\"os\",slot=\"a\",version=\"1.0.0\"} 1");
    is_judged_well(&world, &node);

    world.publish_stable("1.1.0", 2);
    let applied = node.apply(&[]);
    let page = textfile(&node);
    has(&page, "standing{state=\"awaiting_reboot\"} 1");
    has(&page, "offer_info{version=\"1.1.0\",decision=\"install\"} 1");
    assert!(
        page.contains("update_agent_metadata_expiry_timestamp_seconds{role=\"root\"} "),
        "{page}"
    );
    let received =
        format!("update_agent_received_bytes_total{{source=\"{}\"}} ", server.reference());
    let received = page.lines().find_map(|line| line.strip_prefix(&received));
    let received: u64 = received.expect(&page).parse().expect("a number");
    // Documents of the release come on top of its images.
    let fetched = applied["fetched"].as_u64().expect("the bytes of the images");
    assert!(fetched > 0 && received > fetched, "{received} bytes, {fetched} of images");
    is_judged_well(&world, &node);

    assert_eq!(node.boot(), "b");
    let page = node.agent_in_words(&["metrics"]).ok().text();
    has(&page, "standing{state=\"on_trial\"} 1");
    has(&page, "slot_state{slot=\"b\",state=\"on_trial\"} 1");
    has(&page, "trial_tries_left 2");
    is_judged_well(&world, &node);

    let _confirmed = node.run_once().exits(Exit::Done);
    let page = textfile(&node);
    has(&page, "standing{state=\"idle\"} 1");
    has(&page, "component_info{component=\"os\",slot=\"b\",version=\"1.1.0\"} 1");
    is_judged_well(&world, &node);

    // A failure is counted, and outlives the command that meets it.
    drop(server);
    for times in 1..3 {
        node.agent(&["check"]).finish().refused(Reason::Unreachable);
        has(&textfile(&node), &format!("failures_total{{reason=\"unreachable\"}} {times}"));
    }
    assert!(
        textfile(&node)
            .contains("update_agent_last_error_timestamp_seconds{reason=\"unreachable\"} ")
    );
    is_judged_well(&world, &node);
}

#[test]
fn a_page_is_made_of_what_can_be_read() {
    let world = World::with_repository();
    let node = node(&world, &world.repository().reference());
    fs::rename(node.path("disk.img"), node.path("away.img")).expect("move the disk away");
    let page = node.agent_in_words(&["metrics"]).ok().text();
    has(&page, "node_readable 0");
    assert!(!page.contains("update_agent_standing"), "{page}");
    promtool_accepts(&world, &page);
}

/// No trouble with metrics changes how a command ends.
#[test]
fn metrics_that_cannot_be_written_fail_nothing() {
    let world = World::with_repository();
    let node = node(&world, &world.repository().reference());
    world.publish_stable("1.1.0", 2);
    fs::remove_dir(node.path("textfiles")).expect("remove the folder");
    let done = node.agent(&["apply"]).ok();
    assert_eq!(done.json()["slot"], "b");
    let told = done.stderr.matches("textfiles/agent.prom is not written").count();
    assert_eq!(told, 1, "{}", done.stderr);
    assert!(done.stderr.contains("make its directory"), "{}", done.stderr);
}

#[test]
fn only_this_machine_is_listened_to() {
    let world = World::with_repository();
    let node = node(&world, &world.repository().reference());
    node.reconfigure("127.0.0.1:0", "0.0.0.0:9532");
    let done = node.agent(&["status"]).finish();
    done.refused(Reason::Config);
    assert!(done.output().contains("can be reached from other machines"), "{}", done.output());
}

/// The daemon, and the address of its metrics.
fn daemon(node: &Node) -> (Running, String) {
    let mut daemon = node.agent_in_words(&["run"]).start();
    let place = daemon.await_line(|line| Some(line.split_once("metrics are at ")?.1.to_owned()));
    (daemon, place)
}

fn exchanged(mut stream: impl std::io::Read + std::io::Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("send the request");
    let mut answer = String::new();
    // The server may close while we still send.
    drop(stream.read_to_string(&mut answer));
    answer
}

fn asked(place: &str, request: &str) -> String {
    let stream = TcpStream::connect(place).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set a limit");
    exchanged(stream, request)
}

#[test]
fn the_listener_is_bounded() {
    let world = World::with_repository();
    let node = node(&world, &world.repository().reference());
    let (_daemon, place) = daemon(&node);
    let get = |path: &str, more: &str| {
        asked(&place, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n"))
    };
    let text = get("/metrics", "");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    assert!(text.contains("update_agent_node_readable 1\n"), "{text}");
    let open = get("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(open.contains("content-type: application/openmetrics-text"), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(get("/", "").starts_with("HTTP/1.1 404 "));
    let post = asked(
        &place,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    let long = get("/metrics", &format!("X-Long: {}\r\n", "x".repeat(64 << 10)));
    assert!(!long.contains("200 OK"), "a head without end");
    assert!(!asked(&place, "nonsense\r\n\r\n").contains("200 OK"));

    // Clients that begin a request, or say nothing, hold all places for five seconds, and no longer.
    let began = Instant::now();
    let mut slow: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(&place).expect("connect")).collect();
    for one in slow.iter_mut().skip(1) {
        one.write_all(b"GET /metrics HTT").expect("begin a request");
    }
    assert!(get("/metrics", "").contains("200 OK"));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    drop(slow);
}

#[test]
fn a_socket_serves_the_same_and_outlives_a_killed_daemon() {
    let world = World::with_repository();
    let node = node(&world, &world.repository().reference());
    // Names in the temporary folder may be longer than a socket's path.
    let short = tempfile::tempdir_in("/tmp").expect("make a folder");
    let socket = short.path().join("s");
    node.reconfigure("\"127.0.0.1:0\"", &format!("\"unix:{}\"", socket.display()));
    for _ in 0..2 {
        let (daemon, place) = daemon(&node);
        assert_eq!(place, format!("unix:{}", socket.display()));
        let found = fs::symlink_metadata(&socket).expect("the socket is there");
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o660);
        let stream = UnixStream::connect(&socket).expect("connect");
        let answer =
            exchanged(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(answer.contains("update_agent_node_readable 1\n"), "{answer}");
        daemon.kill();
    }
}

/// Asks Prometheus until it has an answer.
#[track_caller]
fn query(prometheus: &str, query: &str) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let url = format!("http://{prometheus}/api/v1/query");
        let curl = tool("curl", "curl").args(["-sS", "-G", "--data-urlencode"]);
        let said = curl.arg(format!("query={query}")).arg(url).finish().text();
        if said.contains("\"metric\"") {
            return said;
        }
        assert!(Instant::now() < until, "{query}: {said}");
        sleep(Duration::from_millis(200));
    }
}

/// Where a program of Prometheus listens, by its log.
fn listening(running: &mut Running) -> String {
    running.await_line(|line| {
        let (_, after) = line.split_once("msg=\"Listening on\" address=")?;
        Some(after.split(' ').next().unwrap_or(after).to_owned())
    })
}

/// Both ways at once: the daemon's listener, and its file through node_exporter.
#[test]
fn prometheus_scrapes_the_listener_and_the_textfile() {
    let world = World::with_repository();
    let node = node(&world, &world.repository().reference());
    let (_daemon, agent) = daemon(&node);
    let mut exporter = unpacked("prometheus-node-exporter", "prometheus-node-exporter")
        .args(["--web.listen-address=127.0.0.1:0", "--collector.disable-defaults"])
        .arg("--collector.textfile")
        .arg(format!("--collector.textfile.directory={}", node.path("textfiles").display()))
        .start();
    let exported = listening(&mut exporter);
    let config = world.path("prometheus.yml");
    let job = |name: &str, place: &str| {
        format!("  - {{job_name: {name}, static_configs: [{{targets: [\"{place}\"]}}]}}\n")
    };
    let text = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n{}{}rule_files: [\"{}\"]\n",
        job("listener", &agent),
        job("textfile", &exported),
        documents().join("alerts.yaml").display()
    );
    fs::write(&config, text).expect("write the configuration");
    let mut prometheus = unpacked("prometheus", "prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", world.path("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .start();
    let place = listening(&mut prometheus);
    for job in ["listener", "textfile"] {
        let said = query(&place, &format!("update_agent_node_info{{job=\"{job}\"}}"));
        assert!(said.contains("\"backend\":\"gpt-attributes\""), "{said}");
        let said =
            query(&place, &format!("update_agent_last_success_timestamp_seconds{{job=\"{job}\"}}"));
        assert!(said.contains("\"value\""), "{said}");
        let said = query(&place, &format!("up{{job=\"{job}\"}} == 1"));
        assert!(said.contains("\"1\""), "{said}");
    }
    let said = query(&place, "node_textfile_scrape_error == 0");
    assert!(said.contains("\"metric\""), "{said}");
}

fn documents() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    folder.canonicalize().expect("docs/monitoring is there")
}

#[test]
fn the_alerting_rules_fire_when_they_should() {
    let check = unpacked("prometheus", "promtool").args(["check", "rules"]);
    let said = check.arg(documents().join("alerts.yaml")).ok().output();
    assert!(said.contains("SUCCESS"), "{said}");
    let test = unpacked("prometheus", "promtool").args(["test", "rules"]);
    let said = test.arg(documents().join("alerts_test.yaml")).ok().output();
    assert!(said.contains("SUCCESS"), "{said}");
}

/// The metrics of `repo-server` that rules, dashboard and README name are those that it has.
#[test]
fn the_servers_metrics_that_documents_name_exist() {
    // Its page has a metric only once there is something to say.
    let source = documents().join("../../repo-server/src/metrics.rs");
    let source = fs::read_to_string(source).expect("read where the server registers its metrics");
    let mut named = 0;
    for file in ["alerts.yaml", "alerts_test.yaml", "dashboard.json", "README.md"] {
        let text = fs::read_to_string(documents().join(file)).expect("read a document");
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for name in words.filter_map(|word| word.strip_prefix("repo_server_")) {
            let name = name.strip_suffix("_total").unwrap_or(name);
            let plain = source.contains(&format!("to.register(\"{name}\","));
            let with_unit =
                [("_seconds", "Seconds"), ("_bytes", "Bytes")].iter().any(|(ending, unit)| {
                    name.strip_suffix(ending).is_some_and(|name| {
                        let call = format!("to.register_with_unit(\"{name}\", text, Unit::{unit}");
                        source.contains(&call)
                    })
                });
            assert!(plain || with_unit, "{file}: the server has no repo_server_{name}");
            named += 1;
        }
    }
    assert!(named > 8, "{named}");
}
