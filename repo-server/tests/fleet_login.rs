//! A token exchanged for a cookie: who gets one, what it is good for, and when it ends.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::process::Command;

use common::{Fixture, Reply, TOKEN, write_private};
use repo_server::FleetConfig;

const ALL: &str = "0123456789abcdef-all";
const SOME: &str = "0123456789abcdef-some";
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8";
/// What a browser sends with a form of our own page; [`common::exchange`] names the host `test`.
const HERE: &str = "Origin: http://test";

fn server() -> Fixture {
    Fixture::with(|config| {
        config.fleet = Some(FleetConfig::new(config.dir.with_file_name("fleet")));
        let file = config.dir.with_file_name("pull");
        write_private(&file, &format!("{ALL}\ndemo {SOME}\n"));
        config.pull_tokens = Some(file);
    })
}

fn log_in(server: &Fixture, form: &str, headers: &[&str]) -> Reply {
    let kind = "Content-Type: application/x-www-form-urlencoded";
    server.ask("POST", "/fleet/login", &[&[kind, BROWSER], headers].concat(), form.as_bytes())
}

/// The header that a browser sends back.
fn cookie(reply: &Reply) -> String {
    let set = reply.header("set-cookie").unwrap();
    format!("Cookie: other=x; {}", set.split(';').next().unwrap())
}

#[test]
fn a_browser_is_led_to_a_form_and_a_script_is_told_what_is_missing() {
    let server = server();
    let reply = server.ask("GET", "/fleet/nodes?state=silent", &[BROWSER], &[]).expect(303);
    let form = "/fleet/login?next=%2Ffleet%2Fnodes%3Fstate%3Dsilent";
    assert_eq!(reply.header("location"), Some(form));
    let page = server.ask("GET", form, &[BROWSER], &[]).expect(200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self'") && !policy.contains("unsafe"), "{policy}");
    let text = String::from_utf8(page.body).unwrap();
    assert!(text.contains("name=\"next\" value=\"/fleet/nodes?state=silent\""), "{text}");
    server.get("/fleet/style.css").expect(200);
    // A script, and a browser with a credential that is wrong.
    for headers in [
        &["Accept: application/json"][..],
        &["Accept: */*"],
        &[],
        &["Accept: text/html", "Authorization: Bearer 0123456789abcdef-none"],
    ] {
        let reply = server.ask("GET", "/fleet/", headers, &[]).expect_error(401, "UNAUTHORIZED");
        assert!(reply.header("www-authenticate").unwrap().starts_with("Basic"), "{headers:?}");
    }
    // What is no page keeps its answer, also for a browser.
    server.ask("GET", "/v2/", &[BROWSER], &[]).expect(401);
    server.ask("PUT", "/fleet/v1/reports/00", &[BROWSER], &[]).expect(404);
    let bearer = format!("Authorization: Bearer {ALL}");
    let json = ["Accept: application/json", &bearer];
    server.ask("GET", "/fleet/", &json, &[]).expect(200).json();
}

#[test]
fn a_token_is_exchanged_for_a_cookie_until_somebody_logs_out() {
    let server = server();
    let form = format!("next=%2Ffleet%2Fnodes&token={ALL}");
    let reply = log_in(&server, &form, &[HERE]).expect(303);
    assert_eq!(reply.header("location"), Some("/fleet/nodes"));
    let set = reply.header("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/fleet/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{set}");
    assert!(!set.contains(ALL), "{set}");
    let other = log_in(&server, &form, &[HERE]).expect(303);
    assert_ne!(other.header("set-cookie"), Some(set), "each has its own");
    let cookie = cookie(&reply);
    let page = server.ask("GET", "/fleet/", &[BROWSER, &cookie], &[]).expect(200);
    assert_eq!(page.header("vary"), Some("accept, authorization, cookie"));
    let text = String::from_utf8(page.body).unwrap();
    assert!(text.contains("action=\"/fleet/logout\""), "{text}");
    let json = server.ask("GET", "/fleet/", &["Accept: application/json", &cookie], &[]);
    json.expect(200).json();
    // It is for the pages alone.
    server.ask("GET", "/v2/", &[&cookie], &[]).expect(401);
    server.ask("GET", "/metrics", &[&cookie], &[]).expect(401);
    let form = server.ask("GET", "/fleet/login", &[BROWSER, &cookie], &[]).expect(303);
    assert_eq!(form.header("location"), Some("/fleet/"), "who is logged in needs no form");

    server.ask("POST", "/fleet/logout", &[BROWSER, &cookie], &[]).expect(403);
    let out = server.ask("POST", "/fleet/logout", &[BROWSER, &cookie, HERE], &[]).expect(303);
    assert!(out.header("set-cookie").unwrap().starts_with("racklet_fleet=; "), "{out:?}");
    server.ask("GET", "/fleet/", &[BROWSER, &cookie], &[]).expect(303);
    server.ask("GET", "/fleet/", &["Accept: application/json", &cookie], &[]).expect(401);
    let cookie = self::cookie(&other);
    server.ask("GET", "/fleet/", &[BROWSER, &cookie], &[]).expect(200);
}

#[test]
fn nothing_else_is_taken() {
    let server = server();
    let good = format!("token={ALL}");
    for (form, says) in [
        ("token=0123456789abcdef-none", "not known"),
        ("token=", "Give a token"),
        ("", "Give a token"),
        ("next=%2Ffleet%2F&token=<b>", "not known"),
        (&*format!("token={SOME}"), "for some repositories"),
    ] {
        let reply = log_in(&server, form, &[HERE]).expect(403);
        assert_eq!(reply.header("set-cookie"), None, "{form}");
        assert_eq!(reply.header("www-authenticate"), None, "no dialog of the browser");
        let text = String::from_utf8(reply.body).unwrap();
        assert!(text.contains(says) && text.contains("role=\"alert\""), "{form}: {text}");
        assert!(!text.contains("<b>") && !text.contains(SOME), "{text}");
    }
    // Of another site, or of nobody says where.
    for headers in [
        &["Origin: http://evil.example"][..],
        &["Origin: null"],
        &["Sec-Fetch-Site: cross-site", HERE],
        &["Sec-Fetch-Site: same-site", HERE],
        &[],
    ] {
        let reply = log_in(&server, &good, headers).expect_error(403, "DENIED");
        assert_eq!(reply.header("set-cookie"), None, "{headers:?}");
    }
    log_in(&server, &good, &["Sec-Fetch-Site: same-origin"]).expect(303);
    let elsewhere = format!("{good}&next=https%3A%2F%2Fevil.example%2Ffleet%2F");
    let reply = log_in(&server, &elsewhere, &[HERE]).expect(303);
    assert_eq!(reply.header("location"), Some("/fleet/"));
    log_in(&server, &"x".repeat(9000), &[HERE]).expect(413);
    let made_up = "Cookie: racklet_fleet=00112233445566778899aabbccddeeff";
    server.ask("GET", "/fleet/", &[BROWSER, made_up], &[]).expect(303);
    server.ask("PUT", "/fleet/login", &[], &[]).expect(405);
    server.get("/fleet/logout").expect(405);
}

#[test]
fn an_open_server_and_one_without_a_fleet_have_no_form() {
    let open = Fixture::with(|config| {
        config.fleet = Some(FleetConfig::new(config.dir.with_file_name("fleet")));
    });
    open.ask("GET", "/fleet/", &[BROWSER], &[]).expect(200);
    assert_eq!(open.get("/fleet/login").expect(303).header("location"), Some("/fleet/"));
    let reply = log_in(&open, &format!("token={TOKEN}"), &[HERE]).expect(303);
    assert_eq!(reply.header("set-cookie"), None);
    let none = Fixture::new();
    none.get("/fleet/login").expect(404);
    log_in(&none, "token=x", &[HERE]).expect(404);
}

#[test]
fn wrong_tokens_count_towards_the_rate_of_their_sender() {
    let server = Fixture::with(|config| {
        config.fleet = Some(FleetConfig::new(config.dir.with_file_name("fleet")));
        let file = config.dir.with_file_name("pull");
        write_private(&file, ALL);
        config.pull_tokens = Some(file);
        (config.limits.client_rate, config.limits.client_burst) = (1, 3);
    });
    let statuses: Vec<u16> =
        (0..20).map(|_| log_in(&server, "token=0123456789abcdef-none", &[HERE]).status).collect();
    assert!(statuses.starts_with(&[403, 403]), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
}

/// What a journal would keep.
#[test]
fn no_error_repeats_the_password_of_a_database() {
    let temp = tempfile::tempdir().unwrap();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        let done = command.args(args).envs(variables.iter().copied()).output().unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(text).unwrap())
    };
    for address in [
        "postgresql://fleet:hidden@db.example/fleet",
        "postgresql://fleet:hid/hidden@db.example/fleet",
        "postgresql:///fleet?host=/run/postgresql&password=hidden",
        "postgre://fleet:hidden@db.example/fleet",
    ] {
        let (code, text) = run(&["fleet", "list", "--fleet", address], &[]);
        assert!(!text.contains("hidden"), "{address}: {text}");
        assert_ne!(code, Some(0), "{address}");
        let (_, text) = run(&["fleet", "list"], &[("REPO_SERVER_FLEET", address)]);
        assert!(!text.contains("hidden"), "{address}: {text}");
        let (_, text) = run(&["fleet", "list", address], &[]);
        assert!(!text.contains("hidden"), "{address}: {text}");
    }
    let file = temp.path().join("password");
    std::fs::write(&file, "hidden\n").unwrap();
    let name = file.to_str().unwrap();
    let place = ["--fleet", "postgresql://fleet@127.0.0.1:1/fleet", "--fleet-password-file", name];
    let (_, text) = run(&[&["fleet", "list"], &place[..]].concat(), &[]);
    assert!(text.contains("error[insecure_perms]") && text.contains("chmod 640"), "{text}");
    assert!(!text.contains("free space"), "{text}");
}
