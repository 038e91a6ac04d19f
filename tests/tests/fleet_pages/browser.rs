//! Debian's Chromium, driven over WebDriver: JSON over HTTP, of which a test needs ten commands. A client crate
//! would bring an asynchronous runtime and a hundred crates for them.
//!
//! <https://www.w3.org/TR/webdriver2/>; `goog/cdp/execute` and `se/log` are ChromeDriver's.

use racklet_tests::rig::{Run, Running, World, tool};
use serde_json::{Value, json};

use super::http;

/// As root without a sandbox: what it reads is our own server. Nothing is asked of anybody else.
const OPTIONS: [&str; 8] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
];

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) scheme: &'static str,
    pub(crate) scripts: bool,
}

/// A browser with an empty profile; it ends when it is dropped.
pub(crate) struct Browser {
    address: String,
    session: String,
    _driver: Running,
}

impl Browser {
    pub(crate) fn start(world: &World) -> Self {
        // It tells its port on standard output.
        let to_stderr = Run::new("sh").args(["-c", "exec \"$@\" >&2", "sh"]);
        let driver = tool("chromedriver", "chromium-driver").arg("--port=0").under(to_stderr);
        let mut driver = driver.start();
        let port = driver.await_line(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let address = format!("127.0.0.1:{port}");
        let profile = format!("--user-data-dir={}", world.path("profile").display());
        let options: Vec<&str> = OPTIONS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": options },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let made = command(&address, "POST", "/session", &wanted);
        let session = made["sessionId"].as_str().expect("a session").to_owned();
        Browser { address, session, _driver: driver }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        command(&self.address, "POST", &format!("/session/{}/{path}", self.session), body)
    }

    /// A command of the DevTools protocol.
    pub(crate) fn devtools(&self, name: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// Sets width, colours and whether scripts run, for the pages that are opened from now on.
    pub(crate) fn look(&self, look: Look) {
        let metrics =
            json!({ "width": look.width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = json!([{ "name": "prefers-color-scheme", "value": look.scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": scheme }));
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": !look.scripts }));
    }

    /// Opens an address and waits until everything of it is loaded.
    pub(crate) fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// The value of a function's body. `arguments` are what it takes.
    pub(crate) fn run(&self, script: &str, arguments: Value) -> Value {
        self.post("execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Presses one key.
    pub(crate) fn press(&self, key: char) {
        let press = |kind: &str| json!({ "type": kind, "value": key.to_string() });
        let keys = json!({ "type": "key", "id": "keyboard", "actions": [press("keyDown"), press("keyUp")] });
        self.post("actions", &json!({ "actions": [keys] }));
    }

    /// What the console said since the last question: refusals of the content security policy, too.
    pub(crate) fn said(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// The addresses that pages asked for since the last question; Chromium's own page of new tabs apart.
    pub(crate) fn requests(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({ "type": "performance" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let url = |entry: &Value| {
            let entry: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &entry["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            let of_chromium = message["params"]["documentURL"].as_str()?.starts_with("chrome://");
            let url = message["params"]["request"]["url"].as_str()?;
            (is_request && !of_chromium).then(|| url.to_owned())
        };
        entries.iter().filter_map(url).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Otherwise the browser would outlive its driver.
        let path = format!("DELETE /session/{} HTTP/1.1", self.session);
        drop(std::panic::catch_unwind(|| http::ask(&self.address, &path, b"")));
    }
}

/// One command; its value.
#[track_caller]
fn command(address: &str, method: &str, path: &str, body: &Value) -> Value {
    let head = format!("{method} {path} HTTP/1.1\r\nContent-Type: application/json");
    let reply = http::ask(address, &head, body.to_string().as_bytes());
    let mut value: Value = serde_json::from_slice(&reply.body).expect("JSON");
    let error = value["value"]["error"].as_str();
    assert!(error.is_none(), "{method} {path}: {}", value["value"]["message"]);
    value["value"].take()
}
