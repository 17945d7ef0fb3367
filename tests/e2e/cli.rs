//! The commands: the same answer offline and live, and tables that tell the truth.

use anyhow::{Context, Result};
use gateway_tests::manifests::{Manifests, forward, gateway, https_listener, route, tls_secret};
use gateway_tests::{Authority, sluice};

use crate::edge::{Edge, Mode};

#[test]
fn explain_says_the_same_offline_and_live_and_what_the_wire_does() -> Result<()> {
    let rules = "  - matches: [{path: {value: /cart}}]\n    backendRefs: [{name: b1, port: 80}]\n  \
                 - matches: [{path: {value: /cart}, headers: [{name: x-canary, value: 'true'}]}]\n    \
                 backendRefs: [{name: b2, port: 80}]\n";
    let mut edge = Edge::plan(Mode::Sockets)
        .documents([
            route("shop", &["shop.example.com"], rules),
            route("all", &[], &forward("b0")),
        ])
        .start()?;
    let manifests = edge.manifests.dir().display().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["http://shop.example.com/cart"], "b1"),
        (
            &["http://shop.example.com/cart", "-H", "x-canary: true"],
            "b2",
        ),
        (&["https://shop.example.com/cart/item"], "b1"),
        (&["http://shop.example.com/elsewhere"], "b0"),
        (&["POST", "http://a.example.com/"], "b0"),
    ];
    for (arguments, backend) in cases {
        let call = [&["explain"], *arguments].concat();
        let live = edge.sluice().cli_json(&call)?;
        let offline = edge
            .sluice()
            .cli_json(&[&call[..], &["--manifests", &manifests]].concat())?;
        let same = |mut value: serde_json::Value| {
            // An offline look has no revision of a process.
            if let Some(map) = value.as_object_mut() {
                map.remove("revision");
                map.remove("source");
            }
            value
        };
        assert!(
            live.to_string().contains(&format!("{backend}:80")),
            "{arguments:?}: {live:#}"
        );
        assert_eq!(same(live), same(offline), "{arguments:?}");
        let url = arguments
            .iter()
            .find(|a| a.contains("://"))
            .context("a URL")?;
        let headers = arguments.iter().skip_while(|a| **a != "-H").copied();
        let method: &[&str] = if arguments[0] == "POST" {
            &["-X", "POST"]
        } else {
            &[]
        };
        let answer = edge
            .curl(url)?
            .args(headers)
            .args(method.iter().copied())
            .run(edge.client())?;
        assert_eq!(answer.header("x-backend"), Some(*backend), "{arguments:?}");
    }
    let text = edge
        .sluice()
        .cli(&["explain", "http://shop.example.com/cart"])?;
    for word in ["shop", "b1", "x-canary"] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn tables_name_what_is_served() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    for (command, words) in [
        ("status", &["default/edge", "PROGRAMMED", "True"][..]),
        ("routes", &["default/all", "b0"]),
        ("listeners", &["https", "443", "shop.example.com"]),
        ("l4", &["eth0", "native"]),
    ] {
        let text = edge.sluice().cli(&[command])?;
        for word in words {
            assert!(
                text.contains(word),
                "{word} is not in the output of {command}:\n{text}"
            );
        }
        edge.sluice().cli_json(&[command])?;
        edge.sluice().cli(&[command, "-o", "yaml"])?;
    }
    Ok(())
}

#[test]
fn status_tells_of_a_route_that_is_not_accepted() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets)
        .documents([
            route("broken", &[], &forward("nowhere")),
            route("all", &[], &forward("b0")),
        ])
        .start()?;
    let status = edge.sluice().cli_json(&["status"])?.to_string();
    assert!(status.contains("BackendNotFound"), "{status}");
    Ok(())
}

#[test]
fn the_admin_socket_answers_what_it_promises() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    for path in [
        "/healthz/ready",
        "/healthz/live",
        "/metrics",
        "/snapshot",
        "/routes",
        "/listeners",
        "/status",
        "/l4",
        "/config",
    ] {
        let (status, body) = edge.sluice().admin(path)?;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (_, snapshot) = edge.sluice().admin("/snapshot")?;
    assert!(!snapshot.contains("PRIVATE KEY"), "keys are never shown");
    let (_, metrics) = edge.sluice().admin("/metrics")?;
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        assert!(matches!(value, Some(Ok(_))), "no Prometheus line: {line}");
    }
    assert_eq!(edge.sluice().admin("/nonsense")?.0, 404);
    Ok(())
}

#[test]
fn the_access_log_names_everything_and_the_revision() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native)
        .args(["--access-log", "json"])
        .start()?;
    assert_eq!(edge.get("http://a.example.com/logged?q=1")?.status, 200);
    let line = gateway_tests::until("the line is written", || {
        let log = edge.sluice().log();
        log.lines()
            .find(|line| line.contains("/logged"))
            .map(str::to_owned)
    })?;
    let line: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    for field in [
        "gateway", "listener", "route", "rule", "backend", "endpoint", "revision", "status",
        "method", "host", "client",
    ] {
        assert!(line.get(field).is_some(), "{field} is missing in {line:#}");
    }
    Ok(())
}

#[test]
fn a_packet_trace_shows_the_verdicts_of_one_peer() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let peer = edge.world.client.v4.to_string();
    let mut command = std::process::Command::new(sluice::binary());
    command
        .args(["l4", "trace", "--peer", &peer, "--state-dir"])
        .arg(edge.sluice().state_dir());
    let log = edge.world.dir().join("trace.log");
    let trace =
        gateway_tests::process::Process::start(&edge.world.node.ns, "trace", command, &log)?;
    gateway_tests::until("a line names the peer", || {
        edge.get("http://a.example.com/").ok()?;
        trace.output().contains(&peer).then_some(())
    })
    .map_err(|error| error.context(trace.output()))
}

#[test]
fn a_mistaken_setting_is_refused_with_a_hint() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Sockets).prepare()?;
    let mut sluice = start.args(["--limits", "head.bites=5"]).spawn()?;
    let status = sluice.wait_exit(gateway_tests::wait::PATIENCE)?;
    assert!(!status.success());
    assert!(sluice.log().contains("head.bytes"), "{}", sluice.log());
    edge.put_sluice(sluice);
    Ok(())
}

#[test]
fn check_warns_of_what_is_valid_and_hardly_meant() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets).start()?;
    let clean = edge.manifests.dir().display().to_string();
    let text = edge.sluice().cli(&["check", &clean])?;
    assert!(
        !text.contains("error:") && !text.contains("has no endpoint"),
        "{text}"
    );

    let dir = tempfile::tempdir()?;
    let mistaken = Manifests::new(dir.path())?;
    let listener = https_listener("shop", 443, Some("shop.example.com"), "www");
    let identity = Authority::new()?.issue(&["www.example.com"])?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: nowhere, namespace: default}\nspec: \
                   {ports: [{port: 80}]}\n";
    let hostnames = ["shop.example.com", "shop.example.org"];
    mistaken.write(
        "all.yaml",
        &[
            gateway(&[], &listener),
            tls_secret("www", &identity),
            service.to_owned(),
            route("shop", &hostnames, &forward("nowhere")),
        ],
    )?;
    let path = dir.path().display().to_string();
    // Warnings leave the exit code alone, in every form.
    let text = edge.sluice().cli(&["check", &path])?;
    let json = edge.sluice().cli_json(&["check", &path])?;
    edge.sluice().cli(&["check", &path, "-o", "yaml"])?;
    let warnings = [
        "listener default/edge#shop: the certificate of Secret default/www is for www.example.com, not for \
         shop.example.com",
        "HTTPRoute default/shop rule 0: requests get 503: Service default/nowhere has no EndpointSlice",
        "HTTPRoute default/shop: hostname shop.example.org falls under no hostname",
    ];
    let issues = json["issues"].as_array().context("issues")?;
    assert_eq!(issues.len(), warnings.len(), "{json:#}");
    for warning in warnings {
        assert!(text.contains(&format!("warning: {warning}")), "{text}");
        let is_it = |issue: &serde_json::Value| {
            issue["severity"] == "warning"
                && issue["text"]
                    .as_str()
                    .is_some_and(|t| t.starts_with(warning))
        };
        assert!(issues.iter().any(is_it), "{json:#}");
    }
    Ok(())
}

/// Rules that overlap in every way: each answer says which one it was.
fn overlapping_routes() -> Vec<String> {
    let rule = |mark: &str, conditions: &str| {
        format!(
            "  - matches: [{{{conditions}}}]\n    filters: [{{type: ResponseHeaderModifier, \
             responseHeaderModifier: {{set: [{{name: x-rule, value: '{mark}'}}]}}}}]\n    \
             backendRefs: [{{name: b0, port: 80}}]\n"
        )
    };
    let rules = |name: &str, conditions: &[&str]| -> String {
        let marked = conditions.iter().enumerate();
        marked
            .map(|(i, c)| rule(&format!("{name}/{i}"), c))
            .collect()
    };
    let header = "headers: [{name: x-a, value: '1'}]";
    let both = "headers: [{name: x-a, value: '1'}, {name: x-b, value: '2'}]";
    let query = "queryParams: [{name: q, value: '1'}]";
    let one = rules(
        "one",
        &[
            "path: {value: /}",
            "path: {value: /a}",
            "path: {type: Exact, value: /a/b}",
            "path: {value: /a}, method: POST",
            &format!("path: {{value: /a}}, {header}"),
            &format!("path: {{value: /a}}, {both}"),
            &format!("path: {{value: /a}}, {query}"),
            "path: {type: RegularExpression, value: '/r.*'}",
        ],
    );
    let two = rules(
        "two",
        &[
            "path: {value: /a/b}",
            &format!("path: {{value: /}}, {both}"),
            "path: {value: /a}",
        ],
    );
    let wild = rules(
        "wild",
        &["path: {value: /only-wild}", "path: {value: /a/b/c}"],
    );
    vec![
        route("one", &["www.example.com", "one.example.com"], &one),
        route("two", &["www.example.com"], &two),
        route("wild", &["*.example.com"], &wild),
    ]
}

#[test]
fn explain_names_the_rule_that_answers_whatever_is_asked() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets)
        .documents(overlapping_routes())
        .start()?;
    let hosts = [
        "www.example.com",
        "one.example.com",
        "x.example.com",
        "elsewhere.test",
    ];
    let paths = [
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b/c",
        "/ab",
        "/only-wild",
        "/rr",
        "/a?q=1",
        "/a/../a/b",
    ];
    let headers: [&[&str]; 3] = [&[], &["-H", "x-a: 1"], &["-H", "x-a: 1", "-H", "x-b: 2"]];
    let mut asked = 0;
    for (host, path) in hosts
        .iter()
        .flat_map(|host| paths.iter().map(move |path| (host, path)))
    {
        for (headers, method) in headers.iter().zip(["GET", "POST", "GET"]) {
            let url = format!("http://{host}{path}");
            let call = [&["explain", method, &url], *headers].concat();
            let explained = edge.sluice().cli_json(&call)?;
            let winner = explained
                .get("winner")
                .filter(|winner| !winner.is_null())
                .map(|winner| {
                    let name = winner.pointer("/route/name").and_then(|name| name.as_str());
                    let index = winner.get("rule_index").and_then(serde_json::Value::as_u64);
                    format!("{}/{}", name.unwrap_or("?"), index.unwrap_or(u64::MAX))
                });
            let answer = edge.curl(&url)?.args(["--path-as-is", "-X", method]);
            let answer = answer.args(headers.iter().copied()).run(edge.client())?;
            let answered = answer.header("x-rule").map(str::to_owned);
            assert_eq!(
                winner, answered,
                "{method} {url} {headers:?}: {explained:#}"
            );
            assert_eq!(answered.is_none(), answer.status == 404, "{method} {url}");
            asked += 1;
        }
    }
    assert_eq!(asked, 120);
    Ok(())
}
