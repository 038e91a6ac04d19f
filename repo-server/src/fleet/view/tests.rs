//! What pages say, and what a hostile node cannot make them say.

use formats::boot_record::PerSlot;
use formats::channel::{Channel, Offer, Wave};
use formats::report::{Decided, Failed, Report, SignedReport, SlotReport};
use http::HeaderValue;
use racklet_testkit::forge::ForgeKey;

use super::*;
use crate::fleet::judge::judge;
use crate::fleet::store::{Change, NodeRow};
use crate::fleet::table::Table;

const NOW: u64 = 1_800_000_000;

fn slot(state: &str, version: &str) -> SlotReport {
    SlotReport { state: state.into(), version: Some(version.into()), ..SlotReport::default() }
}

fn report(name: &str) -> Report {
    Report {
        name: Some(name.into()),
        product: "demo".into(),
        channel: "stable".into(),
        sequence: 1,
        at: NOW,
        interval: 3600,
        booted: "a".into(),
        standing: "idle".into(),
        slots: PerSlot { a: slot("confirmed", "1.4.1"), b: slot("empty", "1.4.2") },
        ..Report::default()
    }
}

fn seen(key: u32, report: Report, approved: bool, received: u64) -> (NodeRow, bool) {
    let signed = SignedReport::verify(&ForgeKey::new(key).report(report)).unwrap();
    let known = judge(None, signed.report(), received).1.unwrap();
    let row = NodeRow { node: signed.report().node, known, document: signed.document().to_vec() };
    (row, approved)
}

/// Five nodes: one confirmed, one waits for its wave, one reverted, one is off, one is not approved.
fn rack() -> Overview {
    let changes = nodes().into_iter().flat_map(|(row, approved)| {
        let approved = approved.then_some(Change::Approved(row.node));
        approved.into_iter().chain([Change::Kept(row)])
    });
    Overview::of(&Table::after(changes), &crate::fleet::Approved::default(), NOW)
}

/// One of them, by its number.
fn detail(number: usize) -> Detail {
    let (row, approved) = nodes().into_iter().nth(number - 1).unwrap();
    Detail::of(row, approved, NOW)
}

/// What the database has of them, and whether they are approved.
fn nodes() -> Vec<(NodeRow, bool)> {
    let wave = Decided {
        version: "1.4.2".into(),
        code: "deferred".into(),
        rule: Some("wave".into()),
        sentence: "its wave begins at 50 %".to_owned(),
        ..Decided::default()
    };
    let up_to_date = Decided { code: "up_to_date".into(), rule: None, ..wave.clone() };
    let failed = Failed {
        version: "1.4.2".into(),
        code: "unhealthy".into(),
        sentence: "web: answered 500".to_owned(),
        ..Failed::default()
    };
    let runs_new = PerSlot { a: slot("confirmed", "1.4.1"), b: slot("confirmed", "1.4.2") };
    let updated = Report {
        slots: runs_new,
        booted: "b".into(),
        decision: Some(up_to_date),
        ..report("node-1")
    };
    vec![
        seen(1, updated, true, NOW),
        seen(2, Report { decision: Some(wave.clone()), ..report("node-2") }, true, NOW),
        seen(
            3,
            Report { failure: Some(failed), decision: Some(wave), ..report("node-3") },
            true,
            NOW,
        ),
        seen(4, report("node-4"), true, NOW - 86_400),
        seen(5, report("node-5"), false, NOW),
    ]
}

fn context() -> Context {
    Context {
        published: BTreeSet::from([("demo".to_owned(), "1.4.2".to_owned())]),
        timestamps: vec![("racklet/tuf".to_owned(), 1_800_003_600, true)],
        locks: Vec::new(),
        signed: None,
    }
}

#[test]
fn the_first_page_says_what_nodes_say() {
    let page = Form::Html.overview(&rack(), &context());
    for text in [
        "<h1>1 node needs you</h1>",
        "1.4.2 runs on 1 of 4; 1 waiting; 1 reverted; 1 silent",
        "1 silent",
        "its wave begins at 50 %",
        "web: answered 500",
        "not published here",
        "1 node</a>; they count for nothing",
        "expires in 1 hour",
        "signer channel hold --product demo --channel stable",
    ] {
        assert!(page.contains(text), "{text} is missing:\n{page}");
    }
    assert!(!page.contains("installed"), "installed is no state");
    let json: serde_json::Value =
        serde_json::from_str(&Form::Json.overview(&rack(), &context())).unwrap();
    assert_eq!(json["need_somebody"], 1);
    assert_eq!(json["waiting_for_approval"], 1);
    let channel = &json["channels"][0];
    assert_eq!(channel["release"], "1.4.2");
    assert_eq!(channel["runs"], serde_json::json!({ "1.4.1": 2, "1.4.2": 1 }));
    assert_eq!(channel["releases"]["1.4.2"]["reverted"], 1);
    assert_eq!(channel["releases"]["1.4.1"]["silent"], 1);
}

/// The same with a channel that offers 1.4.2 in three waves, the second of which is open.
fn signed(edit: impl FnOnce(&mut Channel)) -> Context {
    let mut channel = Channel::new("demo", "stable");
    let (version, sha256) = ("1.4.2".parse().unwrap(), Sha256::of(b"index"));
    channel.release = Some(Offer { version, sha256 });
    channel.waves = [(NOW - 7200, 10), (NOW - 60, 50), (NOW + 3600, 100)]
        .map(|(start, percent)| Wave { start, percent })
        .to_vec();
    edit(&mut channel);
    let expires = NOW as i64 + 5 * 86_400;
    Context { signed: Some(Arc::new(Signed::example(channel, expires))), ..context() }
}

#[test]
fn a_roll_out_is_shown_with_its_bounds_and_who_has_to_sign() {
    let page = Form::Html.overview(&rack(), &signed(|_| ()));
    for text in [
        "1 silent; wave 2 of 3 is open</p>",
        "1 of 4 nodes are confirmed; the waves that follow say how many may be",
        "<strong>10 %</strong> of the nodes since",
        "<strong>100 %</strong> of the nodes from",
        "expires in 5 days",
        "people, 2 of 2 keys: <code>3f9a0c1b</code> <code>77d01e6a</code>",
        "<code>signer stage renew root</code>",
    ] {
        assert!(page.contains(text), "{text} is missing:\n{page}");
    }
    // Who needs somebody comes first, and why.
    let (first, channel) = (page.find("web: answered 500"), page.find("demo on stable"));
    assert!(first.is_some() && first < channel, "{page}");
    let json = |context: &Context| -> serde_json::Value {
        serde_json::from_str(&Form::Json.overview(&rack(), context)).unwrap()
    };
    let all = json(&signed(|_| ()));
    let rollout = &all["channels"][0]["rollout"];
    assert_eq!(rollout["waves"][1], serde_json::json!({ "start": NOW - 60, "percent": 50 }));
    assert_eq!(rollout["confirmed"], serde_json::json!([[NOW, 1]]));
    assert_eq!(rollout["reverted"], serde_json::json!([[NOW, 1]]));
    let root = serde_json::json!(
        { "role": "root", "expires": NOW + 5 * 86_400, "due": true, "threshold": 2, "keys": 2 }
    );
    assert_eq!(all["signatures"], serde_json::json!([root]));

    // A page and its JSON agree on what is due: a timestamp, once its alarm is raised.
    for alarm in [false, true] {
        let mut context = signed(|_| ());
        let mut state = Signed::example(Channel::new("demo", "stable"), NOW as i64 + 7200);
        state.roles[0].role = "timestamp".to_owned();
        context.signed = Some(Arc::new(state));
        context.timestamps = vec![("demo/tuf".to_owned(), NOW as i64 + 7200, alarm)];
        let page = Form::Html.overview(&rack(), &context);
        assert_eq!(page.contains("<td class=\"bad\">expires in 2 hours"), alarm, "{page}");
        assert_eq!(json(&context)["signatures"][0]["due"], alarm);
    }

    let held = Form::Html.overview(&rack(), &signed(|channel| channel.hold = true));
    assert!(held.contains("; held by its maintainers</p>"), "{held}");
    // A channel that offers something else says nothing about this release.
    let other = json(&signed(|channel| channel.release = None));
    assert!(other["channels"][0]["rollout"].is_null(), "{other}");
    let nothing = Form::Html.overview(&rack(), &signed(|channel| channel.waves.clear()));
    assert!(!nothing.contains("<figure"), "{nothing}");
}

#[test]
fn lists_and_nodes_lead_to_each_other() {
    let all = rack();
    let names = |filter: &Filter| {
        let json: serde_json::Value =
            serde_json::from_str(&Form::Json.nodes(&all, filter)).unwrap();
        let rows = json["nodes"].as_array().unwrap().clone();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let state = |word: &str| Filter { state: Some(word.to_owned()), ..Filter::default() };
    assert_eq!(names(&Filter::default()), ["node-1", "node-2", "node-3", "node-4"]);
    assert_eq!(names(&state("silent")), ["node-4"]);
    assert_eq!(names(&state("reverted")), ["node-3"]);
    assert_eq!(names(&state("needs-somebody")), ["node-3"]);
    assert_eq!(names(&state("waiting-for-approval")), ["node-5"]);
    assert_eq!(names(&state("nonsense")), Vec::<String>::new());
    let release = Filter { release: Some("1.4.2".to_owned()), ..Filter::default() };
    assert_eq!(names(&release), ["node-1", "node-2", "node-3"]);
    let reason = Filter { reason: Some("unhealthy".to_owned()), ..Filter::default() };
    assert_eq!(names(&reason), ["node-3"]);

    let reverted = all.nodes.iter().find(|seen| &*seen.brief.name == "node-3").unwrap();
    let list = Form::Html.nodes(&all, &Filter::default());
    assert!(list.contains(&format!("href=\"/fleet/nodes/{}\"", reverted.brief.node.to_hex())));
    let page = Form::Html.node(&detail(3), &[], &[], NOW);
    for text in
        ["signer channel hold --product demo --channel stable", "web: answered 500", "a (runs)"]
    {
        assert!(page.contains(text), "{text} is missing:\n{page}");
    }
    let waiting = Form::Html.node(&detail(5), &[], &[], NOW);
    assert!(waiting.contains("repo-server fleet approve --fleet DIR"));
}

/// Markup, control characters, text that runs from right to left, and a kilometre of it.
const HOSTILE: &str = "<script>alert(1)</script>\u{1b}[2J\u{202e}\"'&\u{0}";

#[test]
fn a_hostile_node_puts_neither_markup_nor_control_characters_nor_a_kilometre_on_a_page() {
    let long = HOSTILE.repeat(12);
    let word = || HOSTILE.into();
    let hostile = Report {
        name: Some(word()),
        product: word(),
        channel: word(),
        hardware: vec![word()],
        agent: word(),
        boot: word(),
        booted: word(),
        standing: word(),
        slots: PerSlot { a: slot(HOSTILE, HOSTILE), b: slot(HOSTILE, HOSTILE) },
        decision: Some(Decided {
            version: word(),
            code: word(),
            rule: Some(word()),
            sentence: long.clone(),
            until: Some(u64::MAX),
        }),
        failure: Some(Failed {
            version: word(),
            code: word(),
            sentence: long,
            ..Failed::default()
        }),
        at: u64::MAX,
        ..report("x")
    };
    // Not by our own writer, which cleans words: a node sends what it wants.
    let mut value = hostile.value();
    let formats::json::Value::Object(members) = &mut value else { panic!("an object") };
    for name in ["product", "channel", "standing", "name"] {
        members.insert(name.to_owned(), formats::json::Value::from(HOSTILE));
    }
    members.insert("<b>later</b>".to_owned(), formats::json::Value::from(HOSTILE));
    let document = ForgeKey::new(7).report_of(value);
    let signed = SignedReport::verify(&document).unwrap();
    let known = judge(None, signed.report(), NOW).1.unwrap();
    let row = NodeRow { node: signed.report().node, known, document };
    let detail = Detail::of(row.clone(), true, NOW);
    let changes = [Change::Approved(row.node), Change::Kept(row)];
    let all = Overview::of(&Table::after(changes), &crate::fleet::Approved::default(), NOW);
    let transition = Transition {
        at: NOW,
        release: HOSTILE.to_owned(),
        state: HOSTILE.to_owned(),
        code: HOSTILE.to_owned(),
    };
    let pages = [
        Form::Html.overview(&all, &context()),
        Form::Html.nodes(&all, &Filter::default()),
        Form::Html.node(&detail, std::slice::from_ref(&transition), &[], NOW),
        Form::Json.overview(&all, &context()),
        Form::Json.nodes(&all, &Filter::default()),
        Form::Json.node(&detail, &[transition], &[], NOW),
    ];
    for page in pages {
        let html = page.starts_with("<!DOCTYPE");
        assert!(!html || !page.contains("<script") && !page.contains("<b>"), "{page}");
        let control = page.chars().find(|char| char.is_control() || *char == '\u{202e}');
        assert_eq!(control, None, "{page}");
        // JSON escapes what it has to; none of it comes from a text of the node.
        assert!(!page.contains("\\u00") && !page.contains("\\n"), "{page}");
        assert!(page.len() < 20_000, "{} bytes", page.len());
        // No shell of a maintainer runs what a node is called.
        assert!(
            !page.contains("hold --product &lt;") && !page.contains("hold --product <"),
            "{page}"
        );
    }
}

#[test]
fn what_a_later_version_says_is_shown_as_such() {
    let mut value = report("node-1").value();
    let formats::json::Value::Object(members) = &mut value else { panic!("an object") };
    members.insert("quorum".to_owned(), formats::json::Value::from("3 of 5"));
    members.insert("standing".to_owned(), formats::json::Value::from("levitating"));
    let document = ForgeKey::new(7).report_of(value);
    let signed = SignedReport::verify(&document).unwrap();
    let known = judge(None, signed.report(), NOW).1.unwrap();
    let row = NodeRow { node: signed.report().node, known, document };
    let page = Form::Html.node(&Detail::of(row, true, NOW), &[], &[], NOW);
    assert!(page.contains("levitating") && page.contains("<code>quorum</code>"), "{page}");
}

#[test]
fn a_page_is_json_for_programs_and_html_for_everybody_else() {
    let form = |accept: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        Form::of(&headers, false)
    };
    assert_eq!(Form::of(&HeaderMap::new(), false), Form::Html);
    assert_eq!(Form::of(&HeaderMap::new(), true), Form::HtmlInSession);
    assert_eq!(form("application/json"), Form::Json);
    assert_eq!(form("Application/JSON;q=0.9, */*"), Form::Json);
    assert_eq!(form("text/html,application/json"), Form::Html);
    assert_eq!(form("*/*"), Form::Html);
}

#[test]
fn numbers_and_links() {
    for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(count(number), text);
    }
    let filter = Filter { release: Some("1.4.2+b/&\"".to_owned()), ..Filter::default() };
    assert_eq!(filter.link(200), "/fleet/nodes?release=1.4.2%2Bb%2F%26%22&from=200");
}

#[test]
fn who_holds_a_restart_lock_is_shown_by_name_where_it_reports() {
    use crate::fleet::lock::{ClientId, Group, Holder};
    let all = rack();
    let known = &all.nodes[0];
    let holder = |id: &str| Holder {
        client: ClientId::parse(id).unwrap(),
        since: NOW - 60,
        until: NOW + 3540,
    };
    let (workers, other) = (Group::parse("workers").unwrap(), Group::parse("other").unwrap());
    let locks = vec![
        GroupLocks {
            group: workers,
            budget: Some(2),
            holders: vec![holder(&known.brief.node.to_hex()), holder("<b>foreign</b>")],
        },
        GroupLocks { group: other, budget: None, holders: vec![holder("x")] },
    ];
    let context = Context { locks, ..context() };
    let page = Form::Html.overview(&all, &context);
    for text in [
        "<h2>Restart locks</h2>",
        "2 of 2",
        &format!("<a href=\"/fleet/nodes/{}\">node-1</a>", known.brief.node),
        "<code>&lt;b&gt;foreign&lt;/b&gt;</code>",
        "not configured any more",
        "repo-server fleet release --fleet DIR ID",
    ] {
        assert!(page.contains(text), "{text} is missing:\n{page}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&Form::Json.overview(&all, &context)).unwrap();
    let first = &json["restart_locks"][0];
    assert_eq!((&first["group"], &first["budget"]), (&"workers".into(), &2.into()));
    assert_eq!(first["holders"][0]["name"], "node-1");
    assert_eq!(
        (&first["holders"][1]["id"], &first["holders"][1]["name"]),
        (&"<b>foreign</b>".into(), &serde_json::Value::Null)
    );
    assert_eq!(json["restart_locks"][1]["budget"], serde_json::Value::Null);
    let node = Form::Html.node(&detail(1), &[], &context.locks, NOW);
    assert!(node.contains("of group workers, since"), "{node}");
    let node: serde_json::Value =
        serde_json::from_str(&Form::Json.node(&detail(1), &[], &context.locks, NOW)).unwrap();
    assert_eq!(node["restart_locks"][0]["until"], NOW + 3540);
    let without = Form::Html.overview(&all, &super::tests::context());
    assert!(!without.contains("Restart locks"), "a server without groups");
}
