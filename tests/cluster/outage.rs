//! The API server goes away: what is served is served on, and afterwards all is as it should be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::Cluster;
use gateway_tests::wait;
use serde_json::Value;

use crate::site::Site;
use crate::sluice::{self, RECOVERY};

/// How long the API server is away, in seconds; CI is content with less than what a release is tested with (300).
const LENGTH: &str = "SLUICE_OUTAGE_SECONDS";

fn length() -> Result<Duration> {
    let seconds = std::env::var(LENGTH).map_or(Ok(60), |text| text.parse())?;
    Ok(Duration::from_secs(seconds))
}

/// Everything that Sluice writes a status into, with the version that it has.
fn versions(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let kinds = "gatewayclasses,gateways,httproutes,grpcroutes,tlsroutes,tcproutes,udproutes,listenersets,backendtlspolicies";
    let list = cluster.kubectl(&["get", kinds, "--all-namespaces", "--output=json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let items = list["items"].as_array().context("a list has items")?;
    let text = |item: &Value, pointer: &str| {
        let found = item.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    Ok(items
        .iter()
        .map(|item| {
            (
                text(item, "/metadata/uid"),
                text(item, "/metadata/resourceVersion"),
            )
        })
        .collect())
}

#[test]
fn an_absent_api_server_costs_no_request_and_its_return_no_status() -> Result<()> {
    let length = length()?;
    let site = Site::new("outage")?;
    let load = site
        .load()
        .pause(Duration::from_millis(20))
        .start(site.cluster.client())?;
    let new = site
        .load()
        .pause(Duration::from_millis(20))
        .new_connections()
        .start(site.cluster.client())?;
    load.wait_more(50)?;
    let before = versions(&site.cluster)?;
    let outage = site.cluster.stop("apiserver")?;
    let since = Instant::now();

    // A Pod that starts meanwhile serves the last good snapshot.
    let victim = site.cluster.nodes().last().context("a node")?;
    let withdrawn = site.cluster.withdraw(&victim.name)?;
    let pid = *victim.pids_of("sluice").first().context("a process")?;
    gateway_tests::sys::kill(pid, libc::SIGKILL)?;
    wait::until_within(RECOVERY, "another process serves", || {
        let other = victim.pids_of("sluice").into_iter().any(|now| now != pid);
        (other && sluice::ask(victim, &["probe", "ready"]).is_ok()).then_some(())
    })?;
    for &to in &site.addresses {
        let from = victim.client_addresses()[usize::from(to.is_ipv6())];
        let answer = site.curl("/", to, from).run(site.cluster.client())?;
        ensure!(
            answer.status == 200,
            "{to} from the last good snapshot: {}",
            answer.text()
        );
    }
    withdrawn.now()?;

    // The length of the outage is what is tested, not something that is waited for.
    while since.elapsed() < length {
        load.wait_more(50)?;
        new.wait_more(50)?;
    }
    outage.now()?;

    // A change is served again, on every node.
    let route = crate::site::route(site.namespace.name(), "outside", 80);
    let changed = "rules: [{matches: [{path: {value: /}}, {path: {value: /changed}}], ";
    site.cluster.apply(&route.replace("rules: [{", changed))?;
    site.route_accepted("app")?;
    for node in site.cluster.nodes() {
        wait::until_within(
            RECOVERY,
            &format!("{} serves what changed", node.name),
            || {
                sluice::ask(node, &["routes", "--output", "json"])
                    .ok()?
                    .contains("/changed")
                    .then_some(())
            },
        )?;
    }
    let own = site.httproute("app")?;
    let own = own
        .pointer("/metadata/uid")
        .and_then(Value::as_str)
        .context("a uid")?;
    let after = versions(&site.cluster)?;
    // What went meanwhile, as the namespaces of earlier tests do, is not there to be written.
    let is_rewritten = |(uid, version): &&(String, String)| {
        let now = after.iter().find(|(other, _)| other == uid);
        uid != own && now.is_some_and(|(_, now)| now != version)
    };
    let rewritten: Vec<_> = before.iter().filter(is_rewritten).collect();
    ensure!(
        rewritten.is_empty(),
        "written although nothing changed: {rewritten:?} of {} objects",
        before.len()
    );
    load.stop()?.expect_clean().context("kept alive")?;
    new.stop()?.expect_clean().context("new connections")
}
