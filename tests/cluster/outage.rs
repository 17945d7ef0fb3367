//! The API server goes away: what is served is served on, and afterwards all is as it should be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::{Cluster, Node};
use gateway_tests::wait;
use serde_json::Value;

use crate::lifecycle::{ask_each_way, loads_by, more, victim};
use crate::site::{Site, text};
use crate::sluice::{self, RECOVERY};

/// How long the API server is away, in seconds; CI is content with less than what a release is tested with (300).
const LENGTH: &str = "SLUICE_OUTAGE_SECONDS";

fn length() -> Result<Duration> {
    let seconds = std::env::var(LENGTH).map_or(Ok(60), |text| text.parse())?;
    Ok(Duration::from_secs(seconds))
}

/// Everything that Sluice writes a status into, as it stands, by uid.
fn written(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let kinds = "gatewayclasses,gateways,httproutes,grpcroutes,tlsroutes,tcproutes,udproutes,listenersets,backendtlspolicies";
    let list = cluster.kubectl(&["get", kinds, "--all-namespaces", "--output=json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let items = list["items"].as_array().context("a list has items")?;
    let by_uid = |item: &Value| Ok((text(item, "/metadata/uid")?.to_owned(), item.clone()));
    items.iter().map(by_uid).collect()
}

/// Kills the Pod's process and waits until Kubernetes has started another one, which is ready.
fn restart(node: &Node) -> Result<()> {
    let pid = *node.pids_of("sluice").first().context("a process")?;
    gateway_tests::sys::kill(pid, libc::SIGKILL)?;
    wait::until_within(RECOVERY, "another process is ready", || {
        let other = node.pids_of("sluice").into_iter().any(|now| now != pid);
        (other && sluice::ask(node, &["probe", "ready"]).is_ok()).then_some(())
    })
}

#[test]
fn an_absent_api_server_costs_no_request_and_its_return_no_status() -> Result<()> {
    let length = length()?;
    let site = Site::new("outage")?;
    let (victim, others) = victim(&site.cluster)?;
    let elsewhere = loads_by(&site, &others)?;
    let there = loads_by(&site, std::slice::from_ref(&victim))?;
    let before = written(&site.cluster)?;
    let outage = site.cluster.stop("apiserver")?;
    let since = Instant::now();

    // A Pod that starts meanwhile serves the last good snapshot; what it had open goes with it.
    more(&there)?;
    for (name, load) in there {
        load.stop()?.expect_clean().context(name)?;
    }
    restart(&victim)?;
    ask_each_way(&site, &victim).context("from the last good snapshot")?;
    let mut loads = loads_by(&site, std::slice::from_ref(&victim))?;
    loads.extend(elsewhere);

    // The length of the outage is what is tested, not something that is waited for.
    while since.elapsed() < length {
        more(&loads)?;
    }
    outage.now()?;

    // A change is served again, on every node.
    let route = crate::site::route(site.namespace.name(), "outside", 80);
    let changed = "rules: [{matches: [{path: {value: /}}, {path: {value: /changed}}], ";
    site.cluster.apply(&route.replace("rules: [{", changed))?;
    let own = site.route_accepted("app")?;
    for node in site.cluster.nodes() {
        let what = format!("{} serves what changed", node.name);
        wait::until_within(RECOVERY, &what, || {
            let routes = sluice::ask(node, &["routes", "--output", "json"]).ok()?;
            routes.contains("/changed").then_some(())
        })?;
    }
    more(&loads)?;
    for (name, load) in loads {
        load.stop()?.expect_clean().context(name)?;
    }
    nothing_is_rewritten(&site.cluster, before, text(&own, "/metadata/uid")?)
}

/// Nothing but this object has been written since; what went meanwhile, as the namespaces of earlier tests do, is not
/// there to be written.
fn nothing_is_rewritten(
    cluster: &Cluster,
    mut before: BTreeMap<String, Value>,
    but: &str,
) -> Result<()> {
    let after = written(cluster)?;
    let all = before.len();
    before.remove(but);
    let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    let rewritten = before.iter().filter_map(|(uid, old)| {
        let new = after.get(uid).filter(|new| version(new) != version(old))?;
        let name = [&old["kind"], &old["metadata"]["name"]];
        Some(format!("{name:?}\n{}\n{}", old["status"], new["status"]))
    });
    let rewritten: Vec<_> = rewritten.collect();
    ensure!(
        rewritten.is_empty(),
        "written although nothing changed, {} of {all} objects:\n{}",
        rewritten.len(),
        rewritten.join("\n")
    );
    Ok(())
}
