//! The form that a token is given to: by keyboard, without scripts, with a screen reader.

use std::time::{Duration, Instant};

use racklet_tools::browser::{Browser, Look};
use serde_json::json;

use super::checks;
use super::rack::{Rack, TOKEN};

/// Tab and Enter, as WebDriver names them.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
/// How long a page may take to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// Gives a token to the form that is open, as somebody does who has no mouse.
pub(crate) fn give(browser: &Browser, token: &str) {
    reach(browser, "input#token");
    browser.write(token).unwrap();
    browser.press(ENTER).unwrap();
}

/// Opens the first page and logs in.
pub(crate) fn log_in(browser: &Browser, rack: &Rack) {
    browser.open(&rack.url("/fleet/")).unwrap();
    give(browser, TOKEN);
    until(browser, "location.pathname === '/fleet/'");
}

/// Presses Tab until the focus is there.
fn reach(browser: &Browser, selector: &str) {
    let script = format!("return document.activeElement.matches('{selector}')");
    for _ in 0..100 {
        browser.press(TAB).unwrap();
        if browser.run(&script, json!([])).unwrap() == true {
            return;
        }
    }
    panic!("Tab does not lead to {selector}");
}

/// Waits until that is so of the page.
fn until(browser: &Browser, condition: &str) {
    let end = Instant::now() + PATIENCE;
    let script = format!("return document.readyState === 'complete' && {condition}");
    // While one page follows another, there is none to ask.
    while browser.run(&script, json!([])).ok() != Some(true.into()) {
        assert!(Instant::now() < end, "not {condition}: {:?}", browser.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn logging_in_is_for_everybody() {
    let rack = Rack::start(false);
    let browser = rack.stranger();
    let axe = checks::axe();
    let mut faults = checks::valid(&rack, "/fleet/login");
    for (width, scheme) in [(400, "light"), (400, "dark"), (1400, "light"), (1400, "dark")] {
        browser.look(Look { width, scheme, scripts: true }).unwrap();
        browser.open(&rack.url("/fleet/nodes?state=silent")).unwrap();
        let mut note = |what: &str| {
            let found = [
                checks::fits(&browser),
                checks::accessible(&browser, &axe),
                checks::structured(&browser),
                checks::by_keyboard(&browser),
            ];
            let found = found.into_iter().flatten();
            faults.extend(found.map(|it| format!("{what}, {width} px, {scheme}: {it}")));
        };
        note("the form");
        give(&browser, "not a token of this server");
        until(&browser, "document.querySelector('#wrong') !== null");
        note("the form after a wrong token");
        let error = "const it = document.querySelector('#token');
                     return [it.getAttribute('aria-invalid'), document.getElementById(it.getAttribute('aria-describedby')).innerText, it.value]";
        let error = browser.run(error, json!([])).unwrap();
        assert_eq!(error, json!(["true", "This token is not known here.", ""]));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn somebody_logs_in_and_out_by_keyboard_and_without_scripts() {
    let rack = Rack::start(false);
    let browser = rack.stranger();
    browser.look(Look { width: 1400, scheme: "light", scripts: false }).unwrap();
    browser.open(&rack.url("/fleet/nodes?state=silent")).unwrap();
    give(&browser, TOKEN);
    until(&browser, "location.pathname + location.search === '/fleet/nodes?state=silent'");
    let text = browser.text().unwrap();
    assert!(text.contains("Silent nodes"), "{text}");
    // No script and no other address sees the cookie, and no address holds the token.
    assert_eq!(browser.run("return document.cookie", json!([])).unwrap(), "");
    assert_eq!(checks::alone(&browser, &rack), Vec::<String>::new());
    browser.open(&rack.url("/fleet/")).unwrap();
    until(&browser, "location.pathname === '/fleet/'");
    reach(&browser, ".logout button");
    browser.press(ENTER).unwrap();
    until(&browser, "location.pathname === '/fleet/login'");
    browser.open(&rack.url("/fleet/")).unwrap();
    until(&browser, "location.pathname === '/fleet/login'");
}
