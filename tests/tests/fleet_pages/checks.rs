//! What a page has to be, for every reader: each check gives the sentences of what is wrong.

use std::fs;

use racklet_tests::rig::tool;
use racklet_tools::browser::Browser;
use racklet_tools::setup;
use serde_json::{Value, json};

use super::rack::Rack;

/// Rules of axe-core whose findings are of these impacts, and what Chromium lays out.
const SERIOUS: [&str; 2] = ["serious", "critical"];

/// Tab, as WebDriver names it.
const TAB: char = '\u{e004}';

/// axe-core, as setup unpacked it.
pub(crate) fn axe() -> String {
    let (name, version) = setup::AXE;
    let dir = setup::carrier(name, version).expect("axe-core: run `cargo xtask setup`");
    fs::read_to_string(dir.join("axe_playwright_python/axe.min.js")).expect("read axe-core")
}

/// Nothing is wider than the window, and no text is cut off or hidden under another one.
pub(crate) fn fits(browser: &Browser) -> Vec<String> {
    strings(&browser.run(
        "const wide = document.documentElement.scrollWidth, room = window.innerWidth;
         if (wide <= room) return [];
         const out = [...document.querySelectorAll('body *')].filter(it => it.getBoundingClientRect().right > room + 1);
         const scrolls = it => it && (getComputedStyle(it).overflowX !== 'visible' || scrolls(it.parentElement));
         return [`${wide} px in a window of ${room}: ` + out.filter(it => !scrolls(it)).slice(0, 5)
             .map(it => `${it.tagName}.${it.getAttribute('class')}`).join(' ')];",
        json!([]),
    ).unwrap())
}

/// Serious and critical findings of axe-core: contrast, names, tables, landmarks.
pub(crate) fn accessible(browser: &Browser, axe: &str) -> Vec<String> {
    let script = format!(
        "{axe};
         return axe.run(document, {{ preload: false }}).then(found => found.violations.map(it =>
             [it.impact, `${{it.id}}: ${{it.help}}: ` + it.nodes.slice(0, 3).map(node => node.html.slice(0, 120)
                 + ' ' + (node.any[0] ? node.any[0].message : '')).join(' | ')]));"
    );
    let found = browser.run(&script, json!([])).unwrap();
    let found = found.as_array().cloned().unwrap_or_default();
    let serious = |it: &Value| SERIOUS.iter().any(|impact| it[0] == *impact);
    found.iter().filter(|it| serious(it)).map(|it| format!("axe: {}", it[1])).collect()
}

/// Headings go down one level at a time from a single `h1`, and each table says what its columns are.
pub(crate) fn structured(browser: &Browser) -> Vec<String> {
    strings(&browser.run(
        "const faults = [], levels = [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(it => +it.tagName[1]);
         if (levels.filter(it => it === 1).length !== 1 || levels[0] !== 1) faults.push(`headings: ${levels}`);
         levels.forEach((it, at) => { if (at && it > levels[at - 1] + 1) faults.push(`headings: ${levels}`); });
         for (const table of document.querySelectorAll('table')) {
             const columns = table.querySelectorAll('thead th[scope=col]').length;
             const rows = [...table.querySelectorAll('tbody tr')];
             if (!columns || rows.some(row => row.children.length !== columns)) faults.push('table without heads');
             if (!table.getAttribute('aria-label') && !table.getAttribute('aria-labelledby') && !table.caption)
                 faults.push(`table without a name: ${table.className}`);
             if (!rows.every(row => row.querySelector('th[scope=row]'))) faults.push(`rows without a head: ${table.className}`);
         }
         return faults;",
        json!([]),
    ).unwrap())
}

/// Tab reaches every link, from the top down, and shows where it is.
pub(crate) fn by_keyboard(browser: &Browser) -> Vec<String> {
    let focusable = "[...document.querySelectorAll('a[href], button, input:not([type=hidden], [hidden]), [tabindex=\"0\"]')]";
    let links = browser
        .run(&format!("return {focusable}.length"), json!([]))
        .unwrap()
        .as_u64()
        .unwrap_or(0);
    let mut faults = Vec::new();
    let mut before: i64 = -1;
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)", json!([])).unwrap();
    for number in 0..links {
        browser.press(TAB).unwrap();
        let at = browser.run(
            &format!(
                "const it = document.activeElement, style = getComputedStyle(it), box = it.getBoundingClientRect();
                 return [{focusable}.indexOf(it), parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== 'none',
                     box.width > 0 && box.left >= 0 && box.top >= 0 && box.bottom <= window.innerHeight + 1, it.textContent.slice(0, 40)]"
            ),
            json!([]),
        ).unwrap();
        let place = at[0].as_i64().unwrap_or(-1);
        if place != before + 1 {
            faults.push(format!("Tab {number} leads to {at}, not to what follows"));
            break;
        }
        if at[1] != true || at[2] != true {
            faults.push(format!("where Tab {number} leads is not seen: {at}"));
        }
        before = place;
    }
    faults
}

/// Everything came from this server, and its policy refused nothing.
pub(crate) fn alone(browser: &Browser, rack: &Rack) -> Vec<String> {
    let own = |url: &&String| !url.contains(&rack.address) && !url.starts_with("data:");
    let elsewhere = browser.requests().unwrap();
    let mut faults: Vec<String> =
        elsewhere.iter().filter(own).map(|url| format!("asks for {url}")).collect();
    // Every browser asks for an icon.
    let said = browser.said().unwrap().into_iter().filter(|line| !line.contains("/favicon.ico"));
    faults.extend(said.map(|line| format!("console: {line}")));
    faults
}

/// What tidy has to say of the document; as HTML 5 has it, with the two elements of SVG that it does not know.
pub(crate) fn valid(rack: &Rack, path: &str) -> Vec<String> {
    let file = rack.world.path("page.html");
    fs::write(&file, rack.page(path, "text/html")).expect("write a page");
    let options = ["-quiet", "-errors", "-utf8", "--drop-empty-elements", "no"];
    let tidy =
        tool("tidy", "tidy").args(options).args(["--new-inline-tags", "rect,path,line,text,g"]);
    let said = tidy.arg(&file).finish().stderr;
    let known = |line: &&str| !KNOWN_TO_BE_RIGHT.iter().any(|part| line.contains(part));
    said.lines().filter(known).map(|line| format!("tidy: {line}")).collect()
}

/// tidy of 2017 does not know what the standard has since, or counts on elements that it was told of.
const KNOWN_TO_BE_RIGHT: [&str; 2] =
    ["is not approved by W3C", "proprietary attribute \"aria-current\""];

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().cloned().unwrap_or_default();
    values.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}
