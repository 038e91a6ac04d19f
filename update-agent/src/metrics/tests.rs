//! Pages of invented nodes: what is in them, what is not, and that no value breaks them.

use std::collections::{BTreeMap, BTreeSet};

use formats::boot_record::{
    BootRecord, Failure, History, HistoryEvent, PerSlot, Phase, ReleaseId, Slot, SlotContent,
    Update,
};
use formats::digest::Sha256;
use formats::reason::Reason;
use update_core::boot::{BootFlags, SlotFlags};
use update_core::floor::{Guarantee, Judged};
use update_core::update::{Evidence, Node};

use super::facts::{Facts, RoleFacts};
use super::families::{Family, Kind, SAMPLES_LIMIT, SLOT_STATES, STANDINGS, VALUE_LIMIT, families};
use super::page::Page;
use crate::output::printable;
use crate::reporting::ledger::{LastReport, ReportsTo};
use crate::state::{Counts, LastError, OfferReport, Report};

const README: &str = include_str!("../../../docs/monitoring/README.md");
const ALERTS: &str = include_str!("../../../docs/monitoring/alerts.yaml");
const ALERTS_TEST: &str = include_str!("../../../docs/monitoring/alerts_test.yaml");
const DASHBOARD: &str = include_str!("../../../docs/monitoring/dashboard.json");

fn release(version: &str, security_version: u64) -> ReleaseId {
    let version: formats::version::Version = version.parse().unwrap();
    ReleaseId {
        index: Sha256::of(version.as_str().as_bytes()),
        version: version.into(),
        security_version,
    }
}

fn content(version: &str, security_version: u64) -> SlotContent {
    let release = release(version, security_version);
    SlotContent { release, components: Vec::new(), confirmed: true, order: Vec::new() }
}

fn flags(priority: u8, tries: u8, successful: bool) -> SlotFlags {
    SlotFlags { priority, tries, successful }
}

/// Slot a runs, confirmed, as it came from the factory.
fn new_node() -> Node {
    Node {
        record: BootRecord::default(),
        flags: BootFlags { a: flags(1, 0, true), b: SlotFlags::CLEARED },
        booted: Slot::A,
        boot_id: "first".to_owned(),
        floor: 0,
        evidence: Evidence::default(),
    }
}

fn new_facts() -> Facts {
    Facts {
        product: "demo".to_owned(),
        channel: "stable".to_owned(),
        backend: "gpt-attributes",
        interval: 3600,
        node: Some(new_node()),
        components: vec!["firmware".parse().unwrap(), "os".parse().unwrap()],
        os_version: Some("1.0.0".to_owned()),
        floor: Some(Judged {
            floor: 0,
            guarantee: Guarantee::File,
            older_state: false,
            open: false,
        }),
        ..Facts::default()
    }
}

/// 1.1.0 is on trial in slot b; every metric has a sample.
fn full_facts() -> Facts {
    let trial = Phase::Trial { boot_id: "first".to_owned(), since: 1000, tries: 3, failed: None };
    let failure = |at| Failure {
        release: release("1.0.9", 1),
        at,
        reason: Reason::Unhealthy.into(),
        detail: String::new(),
    };
    let event = |at, event: &str| HistoryEvent {
        at,
        event: event.to_owned(),
        release: None,
        slot: None,
        reason: None,
        detail: String::new(),
    };
    let counts = Counts {
        failures: BTreeMap::from([("unreachable".to_owned(), 7)]),
        received: BTreeMap::from([("docker://registry.example/racklet".to_owned(), 12_345)]),
        reused: 678,
        deltas: 91,
    };
    let role = |role: &str, version| RoleFacts { role: role.to_owned(), version, expires: 2000 };
    Facts {
        example_keys: true,
        withdrawn: true,
        node: Some(Node {
            record: BootRecord {
                slots: PerSlot { a: Some(content("1.0.0", 1)), b: Some(content("1.1.0", 2)) },
                update: Some(Update::new(Slot::B, release("1.1.0", 2), trial)),
                failures: vec![failure(500), failure(700), failure(600)],
                ..BootRecord::default()
            },
            flags: BootFlags { a: flags(1, 0, true), b: flags(2, 2, false) },
            booted: Slot::B,
            boot_id: "second".to_owned(),
            ..new_node()
        }),
        mixed: vec!["firmware".parse().unwrap()],
        report: Report {
            last_success: Some(900),
            last_error: Some(LastError {
                code: Reason::Unreachable.into(),
                message: "no route".to_owned(),
                at: 950,
            }),
            offer: Some(OfferReport {
                version: "1.2.0".to_owned(),
                decision: "deferred".to_owned(),
                why: "held".to_owned(),
                rule: Some("hold".to_owned()),
                wave: None,
                until: None,
            }),
            counts,
            ..Report::default()
        },
        reports: vec![ReportsTo {
            source: "docker://updates.example.org".to_owned(),
            acknowledged: Some(LastReport { at: 900 }),
            failed: None,
        }],
        history: History {
            events: vec![event(100, "staged"), event(300, "staged"), event(200, "activated")],
        },
        metadata: vec![role("root", 1), role("timestamp", 40)],
        checked: Some(960),
        succeeded: Some(940),
        floor: Some(Judged {
            floor: 1,
            guarantee: Guarantee::Lost("cleared".to_owned()),
            older_state: false,
            open: false,
        }),
        ..new_facts()
    }
}

fn samples(facts: &Facts) -> Vec<String> {
    let text = Page::new(facts).text();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn a_new_node_has_what_is_known_of_it_and_nothing_else() {
    let version = env!("CARGO_PKG_VERSION");
    let mut expected = vec![
        format!("build_info{{version=\"{version}\"}} 1"),
        "node_info{product=\"demo\",channel=\"stable\",backend=\"gpt-attributes\"} 1".to_owned(),
    ];
    expected.extend(
        "node_readable 1\n\
         example_keys 0\n\
         component_info{component=\"firmware\",slot=\"a\",version=\"1.0.0\"} 1\n\
         component_info{component=\"os\",slot=\"a\",version=\"1.0.0\"} 1\n\
         slot_info{slot=\"a\",version=\"1.0.0\"} 1\n\
         slot_state{slot=\"a\",state=\"confirmed\"} 1\n\
         slot_state{slot=\"a\",state=\"not_bootable\"} 0\n\
         slot_state{slot=\"a\",state=\"on_trial\"} 0\n\
         slot_state{slot=\"a\",state=\"tries_used_up\"} 0\n\
         slot_state{slot=\"b\",state=\"confirmed\"} 0\n\
         slot_state{slot=\"b\",state=\"not_bootable\"} 1\n\
         slot_state{slot=\"b\",state=\"on_trial\"} 0\n\
         slot_state{slot=\"b\",state=\"tries_used_up\"} 0\n\
         slot_booted{slot=\"a\"} 1\n\
         slot_booted{slot=\"b\"} 0\n\
         slot_next{slot=\"a\"} 1\n\
         slot_next{slot=\"b\"} 0\n\
         slot_tries{slot=\"a\"} 0\n\
         slot_tries{slot=\"b\"} 0\n\
         standing{state=\"awaiting_reboot\"} 0\n\
         standing{state=\"confirm_unfinished\"} 0\n\
         standing{state=\"idle\"} 1\n\
         standing{state=\"interrupted\"} 0\n\
         standing{state=\"leaving\"} 0\n\
         standing{state=\"lost\"} 0\n\
         standing{state=\"on_trial\"} 0\n\
         standing{state=\"revert_unfinished\"} 0\n\
         standing{state=\"staged\"} 0\n\
         poll_interval_seconds 3600\n\
         release_withdrawn 0\n\
         floor_security_version 0\n\
         floor_lost 0"
            .lines()
            .map(str::to_owned),
    );
    let expected: Vec<String> =
        expected.into_iter().map(|line| format!("update_agent_{line}")).collect();
    assert_eq!(samples(&new_facts()), expected);
}

#[test]
fn every_fact_has_its_sample() {
    let found = samples(&full_facts());
    for line in [
        "component_info{component=\"firmware\",slot=\"a\",version=\"1.0.0\"} 1",
        "component_info{component=\"os\",slot=\"b\",version=\"1.1.0\"} 1",
        "slot_state{slot=\"b\",state=\"on_trial\"} 1",
        "slot_tries{slot=\"b\"} 2",
        "slot_security_version{slot=\"b\"} 2",
        "slot_next{slot=\"b\"} 1",
        "standing{state=\"on_trial\"} 1",
        "update_info{slot=\"b\",version=\"1.1.0\"} 1",
        "update_activated_timestamp_seconds 1000",
        "trial_tries_left 2",
        // Three failures of one release are one series: the last one.
        "failed_release_timestamp_seconds{version=\"1.0.9\",reason=\"unhealthy\"} 700",
        "last_event_timestamp_seconds{event=\"staged\"} 300",
        "last_event_timestamp_seconds{event=\"activated\"} 200",
        // This process knows more than the report on disk.
        "last_check_timestamp_seconds 960",
        "last_success_timestamp_seconds 940",
        "last_error_timestamp_seconds{reason=\"unreachable\"} 950",
        "failures_total{reason=\"unreachable\"} 7",
        "received_bytes_total{source=\"docker://registry.example/racklet\"} 12345",
        "reused_bytes_total 678",
        "deltas_bytes_total 91",
        "offer_info{version=\"1.2.0\",decision=\"deferred\",rule=\"hold\"} 1",
        "release_withdrawn 1",
        "metadata_version{role=\"timestamp\"} 40",
        "metadata_expiry_timestamp_seconds{role=\"root\"} 2000",
        "floor_security_version 1",
        "floor_lost 1",
        "example_keys 1",
    ] {
        assert!(found.contains(&format!("update_agent_{line}")), "no {line} in {found:#?}");
    }
    for family in families(&full_facts()) {
        assert!(!family.samples.is_empty(), "{} has no sample", family.name);
    }
}

#[test]
fn what_cannot_be_read_is_absent_and_not_zero() {
    let facts = Facts { node: None, floor: None, os_version: None, ..new_facts() };
    let found = samples(&facts);
    assert!(found.contains(&"update_agent_node_readable 0".to_owned()), "{found:?}");
    for name in ["slot", "standing", "floor", "component", "last_", "trial", "metadata", "offer"] {
        let begin = format!("update_agent_{name}");
        assert!(!found.iter().any(|line| line.starts_with(&begin)), "{name} in {found:#?}");
    }
}

/// `NAME{LABEL="VALUE",…} NUMBER`, by the grammar; the labels unescaped.
fn parsed(line: &str) -> Option<(String, BTreeMap<String, String>, u64)> {
    let (name, rest) = match line.find('{') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => {
            let (name, value) = line.split_once(' ')?;
            return Some((name.to_owned(), BTreeMap::new(), value.parse().ok()?));
        }
    };
    let (mut labels, mut rest) = (BTreeMap::new(), rest);
    loop {
        let (label, after) = rest.split_once("=\"")?;
        let (mut value, mut letters) = (String::new(), after.char_indices());
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    same @ ('\\' | '"') => same,
                    _ => return None,
                }),
                (_, '\n') => return None,
                (_, letter) => value.push(letter),
            }
        };
        assert!(labels.insert(label.to_owned(), value).is_none(), "{label} twice");
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some((name.to_owned(), labels, rest.strip_prefix("} ")?.parse().ok()?)),
        }
    }
}

#[test]
fn no_value_breaks_the_page() {
    let long = "x".repeat(10_000);
    let other = format!("{long}y");
    for hostile in [
        "\"} 1\nupdate_agent_floor_lost 0\n# EOF\n",
        "\\",
        "\\n\\\"",
        "\r\n\t\0\u{1b}[31m\u{2028}",
        "",
        "# TYPE update_agent_node_readable counter",
        "ü{}, =\"",
        &long,
    ] {
        let mut facts = full_facts();
        facts.product = hostile.to_owned();
        facts.os_version = Some(hostile.to_owned());
        let offer = facts.report.offer.as_mut().unwrap();
        offer.version = hostile.to_owned();
        offer.decision = hostile.to_owned();
        for event in &mut facts.history.events {
            event.event = hostile.to_owned();
        }
        let received = [(hostile.to_owned(), 1), (other.clone(), 2)];
        facts.report.counts.received = BTreeMap::from(received);
        let page = Page::new(&facts);
        assert_eq!(page.openmetrics().matches("\n# EOF\n").count(), 1);
        assert!(page.openmetrics().ends_with("\n# EOF\n"));
        let mut series = BTreeSet::new();
        for line in
            page.text().split('\n').filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (name, labels, value) = parsed(line).unwrap_or_else(|| panic!("{line:?}"));
            assert!(labels.values().all(|value| value.chars().count() <= VALUE_LIMIT), "{line}");
            assert_ne!((name.as_str(), value), ("update_agent_floor_lost", 0), "it was forged");
            if name == "update_agent_node_info" && hostile != long {
                assert_eq!(labels["product"], printable(hostile));
            }
            assert!(series.insert((name, labels)), "one series twice: {line}");
        }
        let types = page.text().lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(types, families(&facts).len());
    }
}

#[test]
fn the_number_of_samples_is_bounded() {
    let mut facts = full_facts();
    facts.report.counts.failures = (0..5000).map(|n| (format!("reason-{n}"), n)).collect();
    let one = facts.history.events[0].clone();
    facts.history.events =
        (0..5000).map(|n| HistoryEvent { event: format!("event {n}"), ..one.clone() }).collect();
    for family in families(&facts) {
        assert!(family.samples.len() <= SAMPLES_LIMIT, "{}", family.name);
    }
    assert!(Page::new(&facts).text().len() < 64 << 10);
}

#[test]
fn each_word_of_a_state_is_a_sample_once() {
    let count = |facts: &Facts, begin: &str| {
        samples(facts).iter().filter(|line| line.starts_with(begin)).count()
    };
    for facts in [new_facts(), full_facts()] {
        // A word that is in neither list would be one sample more.
        assert_eq!(count(&facts, "update_agent_standing{"), STANDINGS.len());
        assert_eq!(count(&facts, "update_agent_slot_state{"), 2 * SLOT_STATES.len());
        for begin in ["update_agent_standing{", "update_agent_slot_state{slot=\"a\""] {
            let found = samples(&facts);
            let is_so = found.iter().filter(|line| line.starts_with(begin) && line.ends_with(" 1"));
            assert_eq!(is_so.count(), 1);
        }
    }
}

/// A metric as pages and queries name it, and its type in OpenMetrics.
fn name_and_type(family: &Family) -> (String, &'static str) {
    let name = family.name;
    match family.kind {
        Kind::Info => (format!("update_agent_{name}_info"), "info"),
        Kind::Gauge => (format!("update_agent_{name}"), "gauge"),
        Kind::Time => (format!("update_agent_{name}_timestamp_seconds"), "gauge"),
        Kind::Seconds => (format!("update_agent_{name}_seconds"), "gauge"),
        Kind::Count => (format!("update_agent_{name}_total"), "counter"),
        Kind::Bytes => (format!("update_agent_{name}_bytes_total"), "counter"),
    }
}

#[test]
fn the_documented_metrics_are_those_of_the_page() {
    let expected: Vec<String> = families(&full_facts())
        .iter()
        .map(|family| {
            let (name, kind) = name_and_type(family);
            let mut labels: Vec<&str> = Vec::new();
            for (label, _) in family.samples.keys().flatten() {
                if !labels.contains(label) {
                    labels.push(label);
                }
            }
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{name}` | {kind} | {} |", labels.join(", ")).replace("|  |", "| |")
        })
        .collect();
    let documented: Vec<String> = README
        .lines()
        .filter(|line| line.starts_with("| `update_agent_"))
        .map(|line| line.rsplit_once(" | ").map_or(line, |(begin, _)| begin).to_owned() + " |")
        .collect();
    assert_eq!(documented, expected);
    // The page has those very names.
    let text = Page::new(&full_facts()).text();
    for family in families(&full_facts()) {
        let (name, _) = name_and_type(&family);
        assert!(
            text.contains(&format!("\n{name}{{")) || text.contains(&format!("\n{name} ")),
            "{name}"
        );
    }
}

/// Words that begin as our metrics do.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("update_agent_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let known: BTreeSet<String> =
        families(&full_facts()).iter().map(|family| name_and_type(family).0).collect();
    for (file, text) in
        [("alerts.yaml", ALERTS), ("alerts_test.yaml", ALERTS_TEST), ("dashboard.json", DASHBOARD)]
    {
        let unknown: Vec<String> = named(text).difference(&known).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "in {file}");
        assert!(named(text).len() > 5, "{file} names no metrics");
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        assert!(panel["gridPos"]["w"].as_u64().unwrap() <= 24, "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(!target["expr"].as_str().unwrap().is_empty(), "{title}");
        }
    }
}

/// Every alert is fired and not fired by the tests of the rules.
#[test]
fn every_alert_has_its_test() {
    let alerts: Vec<&str> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 8, "{alerts:?}");
    for alert in alerts {
        let asked = ALERTS_TEST.matches(&format!("alertname: {alert}\n")).count();
        assert!(asked >= 2, "{alert} is asked {asked} times");
        let row = format!("| `{alert}` |");
        assert!(README.contains(&row), "{alert} is not in the README");
    }
}
