//! What becomes of objects is written to the API server: by one, once, and nothing of others.

use anyhow::{Context as _, Result};
use gateway_tests::wait;
use serde_json::{Value, json};

use crate::bed::{Bed, gateway, is_ours, route, version};

#[test]
fn entries_of_other_controllers_stay_byte_for_byte() -> Result<()> {
    let bed = Bed::new()?;
    let _sluice = bed.start("a")?;
    bed.api.apply(&route("shop", "one"))?;
    let before = bed.until_observed("shop", 1)?;
    let foreign = json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "unmanaged"},
        "controllerName": "example.org/stale-controller",
        "conditions": [{
            "type": "example.org/Stale", "status": "True", "reason": "Stale", "message": "of others",
            "observedGeneration": 1, "lastTransitionTime": "2020-02-02T02:02:02Z",
        }],
    });
    let patch = json!([{"op": "add", "path": "/status/parents/0", "value": foreign}]).to_string();
    bed.api.kubectl(&[
        "patch",
        "httproute",
        "shop",
        "--subresource=status",
        "--type=json",
        "-p",
        &patch,
    ])?;
    bed.api.apply(&route("shop", "two"))?;
    let after = bed.until_observed("shop", 2)?;
    let parents = after["status"]["parents"].as_array().context("parents")?;
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0], foreign);
    let time = |route: &Value| {
        let parents = route["status"]["parents"].as_array().cloned();
        let ours = parents.into_iter().flatten().find(is_ours);
        ours.map(|entry| entry["conditions"][0]["lastTransitionTime"].clone())
    };
    assert_eq!(time(&before), time(&after));
    bed.api.kubectl(&[
        "patch",
        "httproute",
        "shop",
        "--type=json",
        "-p",
        r#"[{"op": "replace", "path": "/spec/parentRefs/0/name", "value": "unmanaged"}]"#,
    ])?;
    let left = wait::until("our entry is gone", || {
        let route = bed.get("httproute", "shop").ok()?;
        let parents = route["status"]["parents"].as_array()?.clone();
        (!parents.iter().any(is_ours)).then_some(parents)
    })?;
    assert_eq!(left, [foreign]);
    Ok(())
}

#[test]
fn a_restart_writes_nothing_and_a_change_is_one_write() -> Result<()> {
    let bed = Bed::new()?;
    bed.api
        .apply(&(route("stays", "one") + &route("moves", "one")))?;
    let first = bed.start("a")?;
    bed.until_observed("stays", 1)?;
    bed.until_observed("moves", 1)?;
    bed.until_programmed("web", "True", "Programmed")?;
    let before = ["stays", "moves"].map(|name| bed.get("httproute", name));
    let start = first.kill()?;
    let second = start.ready()?;
    bed.api.apply(&route("moves", "two"))?;
    let changed = bed.until_observed("moves", 2)?;
    let [stays, moves] = before;
    let (stays, moves) = (stays?, moves?);
    assert_eq!(version(&stays), version(&bed.get("httproute", "stays")?));
    assert_ne!(version(&moves), version(&changed));
    let written = second.metric("sluice_status_writes_total", &["written"])?;
    assert!((written - 1.0).abs() < 0.1, "{written} writes");
    Ok(())
}

#[test]
fn when_the_writer_ends_another_one_goes_on() -> Result<()> {
    let bed = Bed::new()?;
    let mut pods = vec![("a", bed.start("a")?), ("b", bed.start("b")?)];
    bed.until_reported(&["a", "b"])?;
    bed.until_programmed("web", "True", "Programmed")?;
    let writer = wait::until("there is a writer", || bed.writer())?;
    let at = pods.iter().position(|(name, _)| *name == writer);
    let (gone, sluice) = pods.remove(at.context("the writer is one of them")?);
    sluice.terminate()?;
    bed.api.apply(&route("stays", "one"))?;
    bed.until_observed("stays", 1)?;
    let (left, _) = &pods[0];
    assert_eq!(bed.writer().as_deref(), Some(*left));
    let back = bed.start(&format!("{gone}-again"))?;
    let (_, killed) = pods.remove(0);
    killed.kill()?;
    bed.api.apply(&route("moves", "one"))?;
    bed.until_observed("moves", 1)?;
    assert!((back.metric("sluice_status_leader", &[])? - 1.0).abs() < 0.1);
    Ok(())
}

#[test]
fn a_gateway_is_programmed_when_every_node_that_lives_serves_it() -> Result<()> {
    let bed = Bed::new()?;
    let pods = [("a", bed.start("a")?), ("b", bed.start("b")?)];
    bed.until_reported(&["a", "b"])?;
    bed.until_programmed("web", "True", "Programmed")?;
    let writer = wait::until("there is a writer", || bed.writer())?;
    let (name, other) = pods
        .iter()
        .find(|(name, _)| *name != writer)
        .context("another one")?;
    let pid = other.pid().to_string();
    let signal = |signal: &str| {
        std::process::Command::new("kill")
            .args([signal, &pid])
            .status()
    };
    signal("-STOP")?;
    bed.api.apply(&gateway("late", 81, ""))?;
    let pending = bed.until_programmed("late", "False", "Pending");
    signal("-CONT")?;
    assert_eq!(
        pending?["message"],
        format!("waiting for {name} to apply it")
    );
    bed.until_programmed("late", "True", "Programmed")?;
    let web = bed.programmed("web").context("a condition")?;
    assert_eq!(web["status"], "True");
    Ok(())
}

#[test]
fn a_service_is_kept_for_a_gateway_but_never_one_of_somebody_else() -> Result<()> {
    let bed = Bed::new()?;
    let foreign = "apiVersion: v1\nkind: Service\nmetadata: {name: taken-sluice, namespace: default}\n\
                   spec: {clusterIP: None, ports: [{port: 9}]}\n---\n";
    let asks = "  infrastructure: {labels: {team: shop}, annotations: {note: hello}}\n";
    bed.api.apply(foreign)?;
    let _sluice = bed.start("a")?;
    bed.api
        .apply(&(gateway("taken", 81, asks) + &gateway("kept", 82, asks)))?;
    let kept = wait::until("the Service is there", || {
        bed.get("service", "kept-sluice").ok()
    })?;
    let label = "gateway.networking.k8s.io/gateway-name";
    assert_eq!(kept["metadata"]["labels"][label], "kept");
    assert_eq!(kept["metadata"]["labels"]["team"], "shop");
    assert_eq!(kept["metadata"]["annotations"]["note"], "hello");
    wait::until("an Event tells of the other one", || {
        let events = bed.api.kubectl(&["get", "events", "-o", "json"]).ok()?;
        events.contains("NameTaken").then_some(())
    })?;
    let taken = bed.get("service", "taken-sluice")?;
    assert_eq!(taken["metadata"]["labels"], Value::Null);
    bed.api.apply(&gateway("kept", 82, ""))?;
    wait::until("the Service is gone", || {
        bed.get("service", "kept-sluice").err()
    })?;
    assert_eq!(
        version(&taken),
        version(&bed.get("service", "taken-sluice")?)
    );
    Ok(())
}
