//! The pictures of the documents: `RACKLET_PICTURES=1 cargo test -p racklet-tests --test fleet_pages pictures`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::browser::{Browser, Look};
use super::rack::Rack;

/// A larger file has no place in a repository that everybody clones.
const LARGEST: usize = 150_000;

/// Name, page, width, colours.
const PICTURES: &[(&str, &str, u32, &str)] = &[
    ("fleet-light.png", "/fleet/", 1400, "light"),
    ("fleet-dark.png", "/fleet/", 1400, "dark"),
    ("fleet-narrow.png", "/fleet/", 400, "light"),
];

#[test]
fn pictures_of_the_documents() {
    if std::env::var_os("RACKLET_PICTURES").is_none() {
        return;
    }
    let rack = Rack::start(false);
    let browser = Browser::start(&rack.world);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    fs::create_dir_all(&folder).unwrap();
    for (name, path, width, scheme) in PICTURES {
        browser.look(Look { width: *width, scheme, scripts: true });
        browser.open(&rack.url(path));
        // What people look for; the whole page would be too large.
        let script =
            "return document.querySelector('.releases').getBoundingClientRect().bottom + 12";
        let height = browser.run(script, json!([])).as_f64().unwrap().ceil();
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let wanted = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = browser.devtools("Page.captureScreenshot", wanted);
        let bytes = base64(&taken["data"]);
        assert!(bytes.len() < LARGEST, "{name} has {} bytes", bytes.len());
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The bytes of a text in base64.
fn base64(text: &Value) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits =
        text.as_str().unwrap().bytes().filter_map(|it| DIGITS.iter().position(|d| *d == it));
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_usize, 0_u32);
    for digit in digits {
        bits = (bits << 6 | digit) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}
