//! Virtual addresses of Gateways: what one of them meets is nothing to the others.

use anyhow::Result;
use gateway_tests::{Sluice, manifests, until};

use crate::edge::{Edge, Mode};

/// A Gateway beside [`Edge`]'s, without an address.
fn beside(port: u16) -> String {
    let listeners = manifests::http_listener("http", port);
    manifests::gateway(&[], &listeners).replace("name: edge", "name: beside")
}

fn is_programmed(sluice: &Sluice, gateway: &str) -> Result<bool> {
    let list = sluice.cli_json(&["status"])?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let wanted = |item: &serde_json::Value| {
        item["kind"] == "Gateway" && item["metadata"]["name"] == *gateway
    };
    let conditions = items.into_iter().find(wanted);
    let conditions = conditions.map(|item| item["status"]["conditions"].clone());
    let conditions = conditions.as_ref().and_then(|found| found.as_array());
    let is_true = |condition: &serde_json::Value| {
        condition["type"] == "Programmed" && condition["status"] == "True"
    };
    Ok(conditions.is_some_and(|conditions| conditions.iter().any(is_true)))
}

#[test]
fn an_address_that_the_node_refuses_fails_its_gateway_alone_and_heals() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    edge.manifests.write("beside.yaml", &[beside(8080)])?;
    let node = edge.world.node.ns.clone();
    node.sysctl("ipv6/conf/lo/disable_ipv6", "1")?;
    edge.put_sluice(start.ready()?);
    edge.wait_served("http://a.example.com/", |answer| answer.status == 200)?;
    edge.wait_served("http://a.example.com:8080/", |answer| answer.status == 404)?;
    let states = |edge: &mut Edge| -> Option<[bool; 2]> {
        let sluice = edge.sluice();
        Some([
            is_programmed(sluice, "edge").ok()?,
            is_programmed(sluice, "beside").ok()?,
        ])
    };
    until("the one fails and the other does not", || {
        (states(&mut edge)? == [false, true]).then_some(())
    })?;
    node.sysctl("ipv6/conf/lo/disable_ipv6", "0")?;
    until("both are programmed", || {
        (states(&mut edge)? == [true, true]).then_some(())
    })?;
    let answer = edge.curl6("http://a.example.com/")?.run(edge.client())?;
    assert_eq!(answer.status, 200);
    Ok(())
}
