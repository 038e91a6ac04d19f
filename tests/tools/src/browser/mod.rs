//! Debian's Chromium, driven over WebDriver: JSON over HTTP, of which a test needs ten commands. A client crate
//! would bring an asynchronous runtime and a hundred crates for them.
//!
//! <https://www.w3.org/TR/webdriver2/>; `goog/cdp/execute` and `se/log` are ChromeDriver's.

pub mod http;
mod picture;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::cmd::{Cmd, which};

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

/// Programs and the packages that they come in.
const CALLED: [(&str, &str); 3] =
    [("chromium", "chromium"), ("chromedriver", "chromium-driver"), ("certutil", "libnss3-tools")];

/// How long the driver may take to start, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Pixels.
    pub width: u32,
    /// `light` or `dark`.
    pub scheme: &'static str,
    /// Whether scripts run.
    pub scripts: bool,
}

/// A browser with a profile of its own; it ends when it is dropped.
#[derive(Debug)]
pub struct Browser {
    address: String,
    session: String,
    _driver: Driver,
}

/// ChromeDriver; killed when dropped.
#[derive(Debug)]
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Whether everything is there that a browser is started with. Ask before work that would be in vain.
pub fn is_there() -> Result<()> {
    for (program, package) in CALLED {
        if which(program).is_none() {
            bail!("{program} is missing: install the package {package} (`cargo xtask setup` does)");
        }
    }
    Ok(())
}

impl Browser {
    /// Starts it with an empty profile in that folder, which is made.
    pub fn start(home: &Path) -> Result<Self> {
        is_there()?;
        fs::create_dir_all(home)?;
        let home = fs::canonicalize(home)?;
        // What the user has is not asked: neither certificates nor settings.
        let driver = Cmd::new("chromedriver").arg("--port=0").env("HOME", &home);
        let (driver, address) = Driver::start(driver)?;
        let profile = format!("--user-data-dir={}", home.join("profile").display());
        let options: Vec<&str> = OPTIONS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": options },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let made = command(&address, "POST", "/session", &wanted)?;
        let session = made["sessionId"].as_str().context("a session")?.to_owned();
        Ok(Browser { address, session, _driver: driver })
    }

    /// The same; certificates of this CA are believed, beside those that every browser believes.
    ///
    /// Chromium takes the CA from an NSS database in its home, and verifies chain, names and times as it does for any
    /// site. `acceptInsecureCerts` would believe every certificate, and `--ignore-certificate-errors-spki-list` checks
    /// nothing once a listed key is in the chain that the server sent.
    pub fn believing(home: &Path, ca: &Path) -> Result<Self> {
        is_there()?;
        let database = home.join(".pki/nssdb");
        fs::create_dir_all(&database)?;
        let place = format!("sql:{}", database.display());
        let certutil = |command: &[&str]| Cmd::new("certutil").args(["-d", &place]).args(command);
        certutil(&["-N", "--empty-password"]).run()?;
        certutil(&["-A", "-n", "the server's CA", "-t", "C,,", "-i"]).arg(ca).run()?;
        Self::start(home)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        command(&self.address, "POST", &format!("/session/{}/{path}", self.session), body)
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, name: &str, parameters: Value) -> Result<Value> {
        self.post("goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// Sets width, colours and whether scripts run, for the pages that are opened from now on.
    pub fn look(&self, look: Look) -> Result<()> {
        let metrics =
            json!({ "width": look.width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = json!([{ "name": "prefers-color-scheme", "value": look.scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": scheme }))?;
        let scripts = json!({ "value": !look.scripts });
        self.devtools("Emulation.setScriptExecutionDisabled", scripts).map(drop)
    }

    /// Opens an address and waits until everything of it is loaded.
    pub fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({ "url": url })).map(drop)
    }

    /// The value of a function's body. `arguments` are what it takes.
    pub fn run(&self, script: &str, arguments: Value) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// The text of the page as a person sees it, with single spaces.
    pub fn text(&self) -> Result<String> {
        let text = self.run("return document.body.innerText", json!([]))?;
        Ok(plain(text.as_str().context("a text")?))
    }

    /// Presses one key.
    pub fn press(&self, key: char) -> Result<()> {
        let press = |kind: &str| json!({ "type": kind, "value": key.to_string() });
        let keys = json!({ "type": "key", "id": "keyboard", "actions": [press("keyDown"), press("keyUp")] });
        self.post("actions", &json!({ "actions": [keys] })).map(drop)
    }

    /// Types a text.
    pub fn write(&self, text: &str) -> Result<()> {
        text.chars().try_for_each(|key| self.press(key))
    }

    /// What the console said since the last question: refusals of the content security policy, too.
    pub fn said(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", &json!({ "type": "browser" }))?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        Ok(entries.iter().map(|entry| entry["message"].to_string()).collect())
    }

    /// The addresses that pages asked for since the last question; Chromium's own page of new tabs apart.
    pub fn requests(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", &json!({ "type": "performance" }))?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        let url = |entry: &Value| {
            let entry: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &entry["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            let of_chromium = message["params"]["documentURL"].as_str()?.starts_with("chrome://");
            let url = message["params"]["request"]["url"].as_str()?;
            (is_request && !of_chromium).then(|| url.to_owned())
        };
        Ok(entries.iter().filter_map(url).collect())
    }

    /// The upper part of the page, down to that height, as PNG; all of it without one.
    pub fn picture(&self, height: Option<f64>) -> Result<Vec<u8>> {
        let size = "const it = document.documentElement; return [it.clientWidth, it.scrollHeight]";
        let size = self.run(size, json!([]))?;
        let height = height.map_or(size[1].clone(), |height| json!(height.ceil()));
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": height, "scale": 1 });
        let wanted = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.devtools("Page.captureScreenshot", wanted)?;
        Ok(picture::from_base64(taken["data"].as_str().context("a picture")?))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Otherwise the browser would outlive its driver.
        let path = format!("DELETE /session/{} HTTP/1.1", self.session);
        let _ended = http::ask(&self.address, &path, b"");
    }
}

impl Driver {
    /// Starts it on a port that it chooses; where it is asked.
    fn start(command: Cmd) -> Result<(Self, String)> {
        let mut command = command.into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = Driver(command.spawn().context("start chromedriver")?);
        let stdout = driver.0.stdout.take().context("it has a standard output")?;
        let (tell, told) = mpsc::channel();
        // Reads on until it ends, so that a full pipe never stops it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    drop(tell.send(port.trim_end_matches('.').to_owned()));
                }
            }
        });
        let port = told.recv_timeout(PATIENCE).context("chromedriver does not say its port")?;
        Ok((driver, format!("127.0.0.1:{port}")))
    }
}

/// Without what a layout does to spaces.
pub fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One command; its value.
fn command(address: &str, method: &str, path: &str, body: &Value) -> Result<Value> {
    let head = format!("{method} {path} HTTP/1.1\r\nContent-Type: application/json");
    let reply = http::ask(address, &head, body.to_string().as_bytes())?;
    let mut value: Value = serde_json::from_slice(&reply.body).context("JSON of chromedriver")?;
    if let Some(error) = value["value"]["error"].as_str() {
        bail!("{method} {path}: {error}: {}", value["value"]["message"]);
    }
    Ok(value["value"].take())
}
