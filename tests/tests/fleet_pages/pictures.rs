//! The pictures of the documents: `RACKLET_PICTURES=1 cargo test -p racklet-tests --test fleet_pages pictures`.

use std::fs;
use std::path::Path;

use racklet_tools::browser::Look;
use serde_json::json;

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
    let browser = rack.browser();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    fs::create_dir_all(&folder).unwrap();
    for (name, path, width, scheme) in PICTURES {
        browser.look(Look { width: *width, scheme, scripts: true }).unwrap();
        browser.open(&rack.url(path)).unwrap();
        // What people look for; the whole page would be too large.
        let script =
            "return document.querySelector('.releases').getBoundingClientRect().bottom + 12";
        let height = browser.run(script, json!([])).unwrap().as_f64();
        let bytes = browser.picture(height).unwrap();
        assert!(bytes.len() < LARGEST, "{name} has {} bytes", bytes.len());
        fs::write(folder.join(name), bytes).unwrap();
    }
}
