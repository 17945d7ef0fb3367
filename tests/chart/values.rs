//! What each value does.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::helm::{chart, render};
use crate::objects::{self, only};

/// Where a Pod's container stands in a DaemonSet.
const CONTAINER: &str = "/spec/template/spec/containers/0";

/// The settings that values.yaml shows as an example.
pub const EXAMPLE: &str = "
settings:
  access-log: json
  log-level: info,gateway_proxy=debug
  l4: auto
  interfaces: [eth0, eth1]
  workers: 4
  trusted-hops: 1
  admin-address: 127.0.0.1:9901
  limits:
    head: {bytes: 60KiB, lines: 100}
    time: {request: 300s}
    connections: {total: 2000000}
    memory: {bytes: auto}
";

/// A line of `effects.yaml`.
#[derive(Deserialize)]
struct Effect {
    value: String,
    values: String,
    kind: String,
    at: Option<String>,
    is: Option<Value>,
}

fn effects() -> Result<Vec<Effect>> {
    let effects = objects::yaml(include_str!("effects.yaml"))?;
    Ok(serde_json::from_value(effects)?)
}

#[test]
fn every_value_has_its_effect() -> Result<()> {
    for effect in effects()? {
        let objects = render("edge", "net", &effect.values)?;
        let Some(at) = effect.at else {
            let is_there = objects.keys().any(|(kind, _)| *kind == effect.kind);
            ensure!(!is_there, "{}: there is a {}", effect.values, effect.kind);
            continue;
        };
        let object = only(&objects, &effect.kind)?;
        let found = match at.strip_prefix("env ") {
            Some(name) => variable(object, name),
            None => object.pointer(&at.replace('@', CONTAINER)),
        };
        ensure!(
            found == effect.is.as_ref(),
            "{}: at {at} stands {found:?}",
            effect.values
        );
    }
    Ok(())
}

#[test]
fn no_value_is_without_a_test() -> Result<()> {
    let values = objects::yaml(&std::fs::read_to_string(chart().join("values.yaml"))?)?;
    let mut known = BTreeSet::new();
    leaves("", &values, &mut known);
    let tested: BTreeSet<String> = effects()?.into_iter().map(|effect| effect.value).collect();
    ensure!(known == tested, "{known:?}\n{tested:?}");
    Ok(())
}

#[test]
fn other_settings_make_other_pods_and_the_same_ones_do_not() -> Result<()> {
    let checksum = |values: &str| -> Result<Value> {
        let objects = render("edge", "net", values)?;
        let pod = &only(&objects, "DaemonSet")?["spec"]["template"];
        Ok(pod["metadata"]["annotations"]["checksum/settings"].clone())
    };
    let two = checksum("settings: {workers: 2, l4: auto}")?;
    ensure!(two.is_string(), "{two}");
    ensure!(checksum("settings: {l4: auto, workers: 2}")? == two);
    ensure!(checksum("settings: {workers: 3, l4: auto}")? != two);
    Ok(())
}

/// A large number must not become 2e+06, nor a text a number.
#[test]
fn settings_reach_the_process_as_they_were_written() -> Result<()> {
    let objects = render("edge", "net", EXAMPLE)?;
    let text = &only(&objects, "ConfigMap")?["data"]["sluice.yaml"];
    let read = objects::yaml(text.as_str().context("a text")?)?;
    ensure!(read == objects::yaml(EXAMPLE)?["settings"], "{text}");
    Ok(())
}

#[test]
fn releases_on_one_node_do_not_take_each_other_for_a_predecessor() -> Result<()> {
    let state = |release: &str| -> Result<Value> {
        let objects = render(release, "net", "{}")?;
        let daemonset = only(&objects, "DaemonSet")?;
        let path = daemonset.pointer("/spec/template/spec/volumes/1/hostPath/path");
        Ok(path.context("a directory of the node")?.clone())
    };
    ensure!(state("sluice")? == "/var/lib/sluice");
    ensure!(state("edge")? == "/var/lib/edge-sluice");
    Ok(())
}

fn variable<'a>(daemonset: &'a Value, name: &str) -> Option<&'a Value> {
    let list = daemonset.pointer(&format!("{CONTAINER}/env"))?.as_array()?;
    let mut named = list.iter().filter(|variable| variable["name"] == name);
    named.next()?.get("value")
}

/// Names of values as `a.b`; what is an empty map or a list is a value itself.
fn leaves(place: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let dot = if place.is_empty() { "" } else { "." };
                leaves(&format!("{place}{dot}{key}"), value, found);
            }
        }
        _ => {
            found.insert(place.to_owned());
        }
    }
}
