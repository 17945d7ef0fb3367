//! The API server goes away and comes back: nobody is judged by it, nothing is lost, nothing is
//! written that stands.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use gateway_tests::sluice::Sluice;
use gateway_tests::tools::Curl;
use gateway_tests::{World, wait};
use serde_json::{Value, json};

use crate::bed::{Bed, FAILOVER, gateway, route};

/// Longer than the Lease of a node and that of the writer, in seconds.
const OUTAGE_S: f64 = 15.0;
/// The Pod of a node that never gets any further.
const LAGGARD: &str = "sluice-node-laggard";

/// What Sluice writes statuses into, with the version that each has.
fn versions(bed: &Bed) -> Result<BTreeMap<String, String>> {
    let kinds = "gatewayclasses,gateways,httproutes";
    let list = bed
        .api
        .kubectl(&["get", kinds, "--all-namespaces", "--output=json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |item: &Value| {
        let name = format!(
            "{}/{}",
            text(&item["kind"]),
            text(&item["metadata"]["name"])
        );
        (name, text(&item["metadata"]["resourceVersion"]))
    };
    let items = list["items"].as_array().context("a list has items")?;
    Ok(items.iter().map(of).collect())
}

/// Waits until one of them writes statuses, sees all of them, and has nothing left to write.
fn until_settled(pods: &[&Sluice]) -> Result<()> {
    wait::until_within(FAILOVER, "the statuses are settled", || {
        let is = |pod: &Sluice, name: &str, wanted: f64| {
            let value = pod.metric(name, &[]).ok()?;
            ((value - wanted).abs() < 0.1).then_some(())
        };
        let leads = |pod: &&&Sluice| is(pod, "sluice_status_leader", 1.0).is_some();
        let writer = pods.iter().find(leads)?;
        let all = f64::from(u32::try_from(pods.len()).ok()?);
        is(writer, "sluice_status_nodes", all)?;
        is(writer, "sluice_status_lag_seconds", 0.0)?;
        is(writer, "sluice_status_queue", 0.0)
    })
}

fn until_away(pod: &Sluice) -> Result<()> {
    wait::until_within(FAILOVER, "the API server is away for long", || {
        let seconds = pod.metric("sluice_source_stale_seconds", &[]).ok()?;
        (seconds >= OUTAGE_S).then_some(())
    })
}

/// Gateways and routes whose statuses are written.
fn plant(bed: &Bed, names: &[&str]) -> Result<()> {
    for (name, port) in names.iter().zip(81..) {
        bed.api
            .apply(&(gateway(name, port, "") + &route(name, "one")))?;
    }
    for name in names {
        bed.until_programmed(name, "True", "Programmed")?;
        bed.until_observed(name, 1)?;
    }
    Ok(())
}

#[test]
fn an_outage_longer_than_any_lease_is_followed_by_no_write_but_of_what_changed() -> Result<()> {
    let mut bed = Bed::new()?;
    let stays = bed.start("a")?;
    let restarts = bed.start("b")?;
    bed.until_reported(&["a", "b"])?;
    plant(&bed, &["one", "two", "three", "four"])?;
    bed.until_programmed("web", "True", "Programmed")?;
    until_settled(&[&stays, &restarts])?;
    let before = versions(&bed)?;

    bed.api.stop_api()?;
    let restarted = restarts.kill()?.ready()?;
    until_away(&stays)?;
    until_away(&restarted)?;
    bed.api.start_api()?;

    bed.api.apply(&route("one", "two"))?;
    bed.until_observed("one", 2)?;
    until_settled(&[&stays, &restarted])?;
    let mut after = versions(&bed)?;
    let changed = "HTTPRoute/one".to_owned();
    assert_ne!(before.get(&changed), after.get(&changed));
    after.insert(changed.clone(), before[&changed].clone());
    assert_eq!(before, after);
    Ok(())
}

#[test]
fn a_writer_that_takes_over_while_a_node_lags_takes_nothing_back() -> Result<()> {
    let bed = Bed::new()?;
    let mut pods = vec![("a", bed.start("a")?), ("b", bed.start("b")?)];
    bed.until_reported(&["a", "b"])?;
    plant(&bed, &["one", "two"])?;
    bed.until_programmed("web", "True", "Programmed")?;
    until_settled(&[&pods[0].1, &pods[1].1])?;
    let before = versions(&bed)?;

    let report = json!({"version": "0", "position": {}});
    let laggard = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": LAGGARD, "namespace": "default",
            "labels": {"sluice.dev/lease": "node"},
            "annotations": {"sluice.dev/applied": report.to_string()},
        },
        "spec": {"holderIdentity": "laggard", "leaseDurationSeconds": 3600},
    });
    bed.api.apply(&laggard.to_string())?;
    let writer = wait::until("there is a writer", || bed.writer())?;
    let at = pods.iter().position(|(name, _)| *name == writer);
    let (_, gone) = pods.remove(at.context("the writer is one of them")?);
    gone.terminate()?;

    // The new writer has judged the laggard when it says so of what is new.
    bed.api.apply(&gateway("late", 90, ""))?;
    let pending = bed.until_programmed("late", "False", "Pending")?;
    assert_eq!(pending["message"], "waiting for laggard to apply it");
    bed.api.kubectl(&["delete", "lease", LAGGARD])?;
    bed.until_programmed("late", "True", "Programmed")?;
    until_settled(&[&pods[0].1])?;
    let mut after = versions(&bed)?;
    after.remove("Gateway/late");
    assert_eq!(before, after);
    Ok(())
}

#[test]
fn a_node_that_comes_back_late_from_an_outage_is_waited_for() -> Result<()> {
    let mut bed = Bed::new()?;
    let (early, late) = (bed.start("a")?, bed.start("b")?);
    bed.until_reported(&["a", "b"])?;
    bed.until_programmed("web", "True", "Programmed")?;
    until_settled(&[&early, &late])?;
    bed.api.stop_api()?;
    until_away(&early)?;
    gateway_tests::sys::kill(late.pid(), libc::SIGSTOP)?;
    bed.api.start_api()?;
    bed.api.apply(&gateway("new", 90, ""))?;
    let pending = bed.until_programmed("new", "False", "Pending")?;
    assert_eq!(pending["message"], "waiting for b to apply it");

    // So many signs of life take longer than a node may be silent at other times.
    let signs = || early.metric("sluice_node_reports_total", &[]);
    let before = signs()?;
    wait::until_within(FAILOVER, "there are signs of life", || {
        (signs().ok()? >= before + 8.0).then_some(())
    })?;
    let still = bed.programmed("new").context("a condition")?;
    gateway_tests::sys::kill(late.pid(), libc::SIGCONT)?;
    assert_eq!(still["reason"], "Pending");
    bed.until_programmed("new", "True", "Programmed")?;
    Ok(())
}

/// The status that a host's route answers with at an address.
fn ask(bed: &Bed, name: &str, to: std::net::IpAddr) -> Result<u16> {
    let host = format!("{name}.example.com");
    let curl = Curl::new(&format!("http://{host}/")).resolve(&host, (to, 80).into());
    Ok(curl.run(&bed.world.client.ns)?.status)
}

#[test]
fn what_was_served_when_a_pod_was_killed_is_served_as_soon_as_it_is_ready_again() -> Result<()> {
    let mut bed = Bed::new()?;
    let pin_dir = bed.world.pin_dir().display().to_string();
    let interfaces = bed.world.node_interfaces().join(",");
    bed.api.kubectl(&["delete", "gateway", "web"])?;
    std::fs::create_dir_all(bed.world.dir().join("a"))?;
    let start = bed
        .pod("a")
        .args(["--l4", "bpf", "--pin-dir", &pin_dir])
        .args(["--interfaces", &interfaces])
        .args(["--address-pool", "192.0.2.10/32"]);
    let mut sluice = start.ready()?;
    let at = World::VIP4.into();
    for round in 0..3 {
        let name = format!("new{round}");
        // The first time the Gateway and its address are new too.
        bed.api
            .apply(&(gateway("web", 80, "") + &route(&name, "one")))?;
        wait::until_within(Duration::from_secs(30), &name, || {
            (ask(&bed, &name, at).ok()? == 302).then_some(())
        })?;
        let killed = sluice.kill()?;
        bed.api.stop_api()?;
        sluice = killed.ready()?;
        assert_eq!(ask(&bed, &name, at)?, 302, "{}", sluice.log());
        bed.api.start_api()?;
    }
    Ok(())
}
