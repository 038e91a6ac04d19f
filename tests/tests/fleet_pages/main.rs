//! The pages of the fleet in a real browser: for people who see them narrow or wide, in the light or in the dark,
//! by keyboard, with a screen reader, without scripts; beside a node that writes what it likes.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod checks;
mod hostile;
mod login;
mod nodes;
mod pictures;
mod rack;
mod same;

use rack::Rack;
use racklet_testkit::forge::ForgeKey;
use racklet_tools::browser::Look;

/// Every kind of page: a name, and where it is.
fn pages(rack: &Rack) -> Vec<(&'static str, String)> {
    let all = rack.json("/fleet/nodes");
    let node = |state: &str| {
        let nodes = all["nodes"].as_array().unwrap();
        let found =
            nodes.iter().find(|node| node["state"] == state && node["silent_since"].is_null());
        format!("/fleet/nodes/{}", found.expect(state)["node"].as_str().unwrap())
    };
    vec![
        ("the first page", "/fleet/".to_owned()),
        ("all nodes", "/fleet/nodes".to_owned()),
        ("nodes that need somebody", "/fleet/nodes?state=needs-somebody".to_owned()),
        ("silent nodes", "/fleet/nodes?state=silent".to_owned()),
        ("nodes with a reason", "/fleet/nodes?state=waiting&release=1.4.2&reason=wave".to_owned()),
        ("no nodes", "/fleet/nodes?state=staged&reason=nothing".to_owned()),
        ("nodes that wait for approval", "/fleet/nodes?state=waiting-for-approval".to_owned()),
        ("a confirmed node", node("confirmed")),
        ("a reverted node", node("reverted")),
    ]
}

#[test]
fn pages_are_for_everybody() {
    let rack = Rack::start(true);
    let browser = rack.browser();
    let axe = checks::axe();
    let mut faults = Vec::new();
    let mut pages = pages(&rack);
    let hostile = ForgeKey::new(hostile::KEY).node().to_hex();
    pages.push(("the hostile node", format!("/fleet/nodes/{hostile}")));
    for (name, path) in &pages {
        let mut note = |look: &str, found: Vec<String>| {
            faults.extend(found.into_iter().map(|it| format!("{name}, {look}: {it}")));
        };
        note("source", checks::valid(&rack, path));
        for (width, scheme, scripts) in [
            (400, "light", true),
            (400, "dark", false),
            (1400, "light", false),
            (1400, "dark", true),
        ] {
            browser.look(Look { width, scheme, scripts }).unwrap();
            browser.open(&rack.url(path)).unwrap();
            let look = format!("{width} px, {scheme}");
            note(&look, checks::fits(&browser));
            if scripts {
                note(&look, checks::accessible(&browser, &axe));
                note(&look, checks::structured(&browser));
                note(&look, checks::by_keyboard(&browser));
            }
            note(&look, checks::alone(&browser, &rack));
        }
        note("as JSON", same::as_json(&browser, &rack.json(path)));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_hostile_node_adds_nothing_and_runs_nothing() {
    let rack = Rack::start(true);
    let browser = rack.browser();
    let hostile = ForgeKey::new(hostile::KEY).node().to_hex();
    browser.look(Look { width: 1400, scheme: "light", scripts: true }).unwrap();
    for path in ["/fleet/".to_owned(), "/fleet/nodes".to_owned(), format!("/fleet/nodes/{hostile}")]
    {
        browser.open(&rack.url(&path)).unwrap();
        let found = browser.run(
            "return [document.querySelectorAll('script, img, iframe, object, [style], [onerror], b').length,
                     typeof hacked, document.body.innerText.includes('<script>')]",
            serde_json::json!([]),
        ).unwrap();
        assert_eq!(found, serde_json::json!([0, "undefined", true]), "{path}");
        assert_eq!(checks::alone(&browser, &rack), Vec::<String>::new(), "{path}");
    }
}
