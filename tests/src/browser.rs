//! A real browser: Debian's chromium, driven over the WebDriver protocol
//! (<https://www.w3.org/TR/webdriver2/>) through its chromedriver.
//!
//! Invariants: it has a profile of its own and speaks to 127.0.0.1 only; it ends with its test. Nothing
//! here waits for a fixed time.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{comes_true, http, skipped};

/// The name under which the protocol has elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Tests with a browser take turns: two of them would share two cores.
static TURN: Mutex<()> = Mutex::new(());

/// A browser with one window.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Open, so that it may say more.
    _said: BufReader<ChildStdout>,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one, if there is one on this machine; says loudly if not.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &[])
    }

    /// The same, with further flags of Chromium's, without their dashes.
    pub fn start_with(test: &str, further: &[&str]) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let has_browser = Command::new("chromium")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let start = || {
            Command::new("chromedriver")
                .arg("--port=0")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
        };
        let Ok(mut driver) = has_browser.and_then(|_| start()) else {
            skipped(test, "no chromium and chromedriver: tests/run installs them where it is root");
            return None;
        };
        let mut said = BufReader::new(driver.stdout.take().expect("it is piped"));
        let address = ([127, 0, 0, 1], port(&mut said)).into();
        let profile = tempfile::tempdir().expect("a directory can be made");
        let mut flags: Vec<String> = [
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "disable-dev-shm-usage",
            "window-size=1280,760",
        ]
        .map(|flag| format!("--{flag}"))
        .to_vec();
        flags.push(format!("--user-data-dir={}", profile.path().display()));
        flags.extend(further.iter().map(|flag| format!("--{flag}")));
        let mut browser = Self {
            driver,
            address,
            session: String::new(),
            _said: said,
            _profile: profile,
            _turn: turn,
        };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": flags },
        } } });
        let started = browser.command("POST", "/session", &wanted);
        let id = started["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("/session/{id}");
        Some(browser)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        let kind = [("Content-Type", "application/json")];
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let answer = http::request(self.address, method, &path, &kind, body.as_bytes());
        assert_eq!(answer.status, 200, "{method} {path} {body:.200}: {}", answer.text());
        answer.json()["value"].take()
    }

    /// A further tab, which has the same cookies; [`Browser::turn_to`] goes there.
    pub fn tab(&self) -> String {
        let made = self.command("POST", "/window/new", &json!({ "type": "tab" }));
        made["handle"].as_str().expect("a tab has a handle").to_owned()
    }

    /// The tab that has the keys.
    pub fn here(&self) -> String {
        self.command("GET", "/window", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// Gives another tab the keys.
    pub fn turn_to(&self, tab: &str) {
        self.command("POST", "/window", &json!({ "handle": tab }));
    }

    /// Goes to a page of a node.
    pub fn open(&self, api: SocketAddr, path: &str) {
        self.open_url(&format!("http://{api}{path}"));
    }

    /// Goes to any page.
    pub fn open_url(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Runs the body of a function in the page.
    pub fn script(&self, body: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// The value of an expression, as text.
    pub fn text(&self, expression: &str) -> String {
        let value = self.script(&format!("return String({expression})"));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true in the page.
    pub fn wait(&self, expression: &str) {
        // What it asks about may not be there yet.
        let body = format!("try {{ return Boolean({expression}) }} catch {{ return false }}");
        let is_true = comes_true(|| self.script(&body) == Value::Bool(true));
        assert!(is_true, "gave up waiting until {expression}; the page says: {}", self.page());
    }

    /// All that can be read of it, for the words of a failure.
    fn page(&self) -> String {
        self.script("return document.body.innerText.slice(0, 1500)").to_string()
    }

    /// Clicks in the middle of an element as a pointer does.
    pub fn click(&self, selector: &str) {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "/element", &wanted);
        let id = found[ELEMENT].as_str().expect("an element has an id");
        self.command("POST", &format!("/element/{id}/click"), &json!({}));
    }

    /// Presses keys one after the other; those of `held` are down meanwhile.
    pub fn keys(&self, held: &str, keys: &str) {
        let press = |key: char| [("keyDown", key), ("keyUp", key)];
        let down = held.chars().map(|key| ("keyDown", key));
        let up = held.chars().map(|key| ("keyUp", key));
        let all = down.chain(keys.chars().flat_map(press)).chain(up);
        let actions: Vec<Value> =
            all.map(|(kind, key)| json!({ "type": kind, "value": key.to_string() })).collect();
        let source = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("POST", "/actions", &json!({ "actions": [source] }));
    }

    /// Presses a pointer at one place of the window, and lets it go at another.
    pub fn drag(&self, from: (i64, i64), to: (i64, i64)) {
        let go = |(x, y), duration| json!({ "type": "pointerMove", "x": x, "y": y, "duration": duration });
        let actions = json!([
            go(from, 0),
            { "type": "pointerDown", "button": 0 },
            go(to, 50),
            { "type": "pointerUp", "button": 0 },
        ]);
        let source = json!({ "type": "pointer", "id": "mouse", "actions": actions });
        self.command("POST", "/actions", &json!({ "actions": [source] }));
    }

    /// A command of Chromium's own protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("POST", "/goog/cdp/execute", &body)
    }

    /// Makes the window's inside so large, pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What went wrong since it was asked last, in the console's words.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let all = log.as_array().into_iter().flatten();
        let bad = all.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the window shows, as PNG in base64.
    pub fn screenshot(&self) -> String {
        self.command("GET", "/screenshot", &Value::Null).as_str().unwrap_or_default().to_owned()
    }
}

/// Where a driver listens, as it says itself.
fn port(said: &mut impl BufRead) -> u16 {
    loop {
        let mut line = String::new();
        let got = said.read_line(&mut line).expect("chromedriver speaks text");
        assert!(got > 0, "chromedriver ended without telling its port");
        let port = line.split_once("successfully on port ");
        if let Some(port) =
            port.and_then(|(_, port)| port.trim_end().trim_end_matches('.').parse().ok())
        {
            return port;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; without it the driver would leave it running.
        let _ = http::try_request(self.address, "DELETE", &self.session, &[], b"");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
