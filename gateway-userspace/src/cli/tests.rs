//! What the commands print, against files in `testdata`; `SLUICE_GOLDEN=rewrite` writes them anew.
//!
//! The manifests are the example `wildcard-canary`, which is the redirect, the wildcard
//! certificate and the header canary that Sluice was begun for, and a directory full of mistakes.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::*;
use crate::view::explain::Question;

const NOW: i64 = 1_800_000_000;

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A copy of the example with a certificate, and what is served from it.
fn canary() -> (tempfile::TempDir, Offline) {
    let dir = tempfile::tempdir().expect("tempdir");
    for file in ["gateway.yaml", "routes.yaml", "services.yaml"] {
        let from = source("../deploy/examples/wildcard-canary").join(file);
        std::fs::copy(&from, dir.path().join(file)).expect("copied");
    }
    std::fs::write(
        dir.path().join("secret.yaml"),
        secret("istio-system", "wildcard-tls", "*.k8s.lan"),
    )
    .expect("written");
    let offline = load(dir.path()).expect("loads");
    (dir, offline)
}

fn secret(namespace: &str, name: &str, host: &str) -> String {
    secret_of(namespace, name, &params(&[host]))
}

/// Of a certificate for these names that is valid at [`now`] and for more than two weeks after it.
pub(super) fn params(hosts: &[&str]) -> rcgen::CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(hosts).expect("names");
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 2, 1);
    params
}

/// A Secret with such a certificate and its key.
pub(super) fn secret_of(namespace: &str, name: &str, params: &rcgen::CertificateParams) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let block = |text: &str| {
        text.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         stringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        block(&certificate),
        block(&key.serialize_pem())
    )
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn golden(name: &str, text: &str) {
    let path = source("src/cli/testdata").join(name);
    if std::env::var_os("SLUICE_GOLDEN").is_some_and(|value| value == "rewrite") {
        std::fs::write(&path, text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, expected,
        "{name}: look at the difference; SLUICE_GOLDEN=rewrite accepts it"
    );
}

fn explained(offline: &Offline, method: &str, url: &str, headers: &[&str]) -> String {
    let headers: Vec<_> = headers.iter().map(|line| (*line).to_owned()).collect();
    let question = Question::parse(Some(method), url, &headers, None).expect("a question");
    let answer = crate::view::explain::explain(&offline.world, &question);
    explain::text(&answer, false)
}

#[test]
fn explain_says_why_a_listener_that_was_meant_is_not_served() {
    let without_secret = load(&source("../deploy/examples/wildcard-canary")).expect("loads");
    let text = explained(&without_secret, "GET", "https://myapp.k8s.lan/", &[]);
    assert!(text.contains("ports that are served: 80"), "{text}");
    assert!(
        text.contains("Gateway istio-system/istio-gateway, listener https, is not served:")
            && text.contains("Secret istio-system/wildcard-tls does not exist"),
        "{text}"
    );
}

#[test]
fn explain_says_which_hostnames_there_are() {
    let quickstart = load(&source("../deploy/examples/quickstart")).expect("loads");
    let ask = |url: &str| explained(&quickstart, "GET", url, &[]);
    let near = ask("http://app.localhos:8080/");
    assert!(
        near.contains("no route is for host app.localhos; there are routes for app.localhost"),
        "{near}"
    );
    let far = ask("http://something.example:8080/");
    assert!(far.contains("there are routes for app.localhost"), "{far}");
    assert!(!ask("http://app.localhost:8080/").contains("note:"));
}

#[test]
fn explain_names_the_winner_and_why_each_loser_lost() {
    let (_dir, offline) = canary();
    let mut text = String::new();
    for (method, url, headers) in [
        (
            "GET",
            "https://myapp.k8s.lan/cart?x=1",
            &["X-Canary: true"][..],
        ),
        ("GET", "https://myapp.k8s.lan/cart", &[][..]),
        (
            "POST",
            "https://MYAPP.k8s.lan/a/../b//c",
            &["x-canary: false"][..],
        ),
        ("GET", "http://myapp.k8s.lan/cart", &[][..]),
        ("GET", "https://other.k8s.lan/", &[][..]),
        ("GET", "https://k8s.lan/", &[][..]),
        (
            "GET",
            "https://other.k8s.lan/",
            &["Host: myapp.k8s.lan"][..],
        ),
        ("GET", "http://myapp.k8s.lan:443/", &[][..]),
        ("GET", "http://myapp.k8s.lan:8080/", &[][..]),
        ("GET", "https://myapp.k8s.lan/a%2fb", &[][..]),
        ("TRACE", "https://myapp.k8s.lan/", &[][..]),
    ] {
        let asked: String = headers
            .iter()
            .map(|header| format!(" -H '{header}'"))
            .collect();
        text += &format!(
            "$ sluice explain {method} {url}{asked}\n{}\n",
            explained(&offline, method, url, headers)
        );
    }
    golden("explain.txt", &text);
}

#[test]
fn tables_of_the_example_are_worth_reading() {
    let (dir, offline) = canary();
    let world = &offline.world;
    let status = crate::view::process::status(world, None, now());
    let views = crate::view::listeners::listeners(world);
    let text = format!(
        "$ sluice status\n{}\n$ sluice routes\n{}\n$ sluice listeners\n{}",
        status::text(&status, now(), false),
        routes::table(&crate::view::routes::routes(world), false),
        listeners::table(&views, now(), false),
    );
    golden(
        "tables.txt",
        &text.replace(&dir.path().display().to_string(), "DIR"),
    );
}

#[test]
fn statuses_are_what_kubectl_would_print() {
    let (_dir, offline) = canary();
    let mut view = crate::view::process::status(&offline.world, None, now());
    view.objects.retain(|object| object["kind"] == "HTTPRoute");
    let text = yaml(&status::list(&view)).expect("yaml");
    let time = regex_free_times(&text);
    golden("status.yaml", &time);
}

/// The text with every `lastTransitionTime` replaced.
fn regex_free_times(text: &str) -> String {
    let line = |line: &str| match line.split_once("lastTransitionTime: ") {
        Some((before, _)) => format!("{before}lastTransitionTime: TIME\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn check_finds_what_is_wrong_and_what_is_doubtful() {
    let dir = source("src/cli/testdata/mistakes");
    let offline = load(&dir).expect("loads");
    let verdict = check::Verdict::new(&offline, None, now());
    golden("check.txt", &check::text(&verdict, false));
    assert!(verdict.has_errors());
}

#[test]
fn every_kind_of_route_is_shown_as_its_users_write_it() {
    let dir = source("src/cli/testdata/kinds");
    let offline = load(&dir).expect("loads");
    let verdict = check::Verdict::new(&offline, None, now());
    let rows = crate::view::routes::routes(&offline.world);
    let mut text = format!(
        "$ sluice routes\n{}\n$ sluice check\n{}\n",
        routes::table(&rows, false),
        check::text(&verdict, false)
    );
    for (method, url, headers) in [
        (
            "POST",
            "grpc://shop.example.com/shop.v1.Cart/Add",
            &["x-canary: true"][..],
        ),
        ("POST", "grpc://shop.example.com/shop.v1.Pay/List", &[][..]),
        (
            "POST",
            "grpc://shop.example.com/other.Service/Call",
            &[][..],
        ),
        ("POST", "http://shop.example.com/shop.v1.Cart/Add", &[][..]),
    ] {
        text += &format!(
            "$ sluice explain {url}\n{}\n",
            explained(&offline, method, url, headers)
        );
    }
    golden("kinds.txt", &text);
}

#[test]
fn check_against_says_what_would_change() {
    let (dir, before) = canary();
    let edit = |file: &str, from: &str, to: &str| {
        let path = dir.path().join(file);
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
    };
    edit(
        "routes.yaml",
        "    - name: my-service-canary\n",
        "    - name: my-service\n",
    );
    edit("services.yaml", "10.10.1.2,10.10.3.2", "10.10.1.2");
    edit("gateway.yaml", "statusCode: 301", "statusCode: 302");
    let after = load(dir.path()).expect("loads");
    let verdict = check::Verdict::new(&after, Some(&before.world), now());
    golden("against.txt", &check::text(&verdict, false));
    let same = check::Verdict::new(&after, Some(&after.world), now());
    assert_eq!(same.changes, Some(Vec::new()));
}

#[test]
fn nobody_there_names_the_fix() {
    let dir = tempfile::tempdir().expect("tempdir");
    let error = Client::new(Some(dir.path()))
        .get::<serde_json::Value>("/status")
        .expect_err("nobody");
    let text = error.to_string();
    assert!(
        text.contains("sluice run --manifests DIR") && text.contains("give --manifests"),
        "{text}"
    );
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = load(Path::new("/nonexistent/manifests"))
        .expect_err("not there")
        .to_string();
    assert!(error.contains("/nonexistent/manifests"), "{error}");
}

#[test]
fn the_packet_path_in_tables() {
    let frontend = |address: &str, port: u16, restricted: bool| {
        serde_json::json!({
            "address": if address.is_empty() { None } else { Some(address) }, "port": port,
            "protocol": "tcp", "restricted": restricted, "passed_packets": 3608,
            "passed_bytes": 555_477, "dropped_packets": 2, "steered": 214,
        })
    };
    let view = serde_json::json!({
        "mode": "bpf",
        "status": {
            "pin_dir": "/sys/fs/bpf/sluice/net-1/v1", "live": true, "workers": 2,
            "notes": ["eth1 has another XDP program; attached to tc instead"],
            "local_routes": ["192.0.2.1"],
            "attachments": [
                {"interface": "eth0", "ifindex": 2, "hook": "xdp-native", "program_id": 39, "note": null},
                {"interface": "eth1", "ifindex": 3, "hook": "none", "program_id": 0, "note": "no such hook"},
            ],
            "maps": [{"name": "FRONTENDS", "id": 7, "entries": 2, "limit": 8192}],
        },
        "counters": {
            "reasons": {"open": 3608, "denied": 0},
            "frontends": [frontend("", 80, false), frontend("2001:db8::1", 443, true)],
        },
    });
    let sockets = serde_json::json!({"mode": "sockets", "reason": "sockets mode was asked for"});
    golden(
        "l4.txt",
        &format!("{}\n{}", l4::text(&view, false), l4::text(&sockets, false)),
    );
}
