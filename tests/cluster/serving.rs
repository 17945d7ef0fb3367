//! Every node serves every Gateway, over IPv4 and IPv6, and its backends see the client's own address.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::Node;
use gateway_tests::wait;
use serde_json::Value;

use crate::site::{HOST, Site, route, text};
use crate::sluice::{self, RECOVERY};

/// How many Pods there are.
const PODS: usize = 3;

/// Pods that answer with what they received, on whatever nodes Kubernetes picks.
fn echo(namespace: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: echo, namespace: {namespace}}}\n\
         spec:\n  replicas: {PODS}\n  selector: {{matchLabels: {{app: echo}}}}\n  template:\n    \
         metadata: {{labels: {{app: echo}}}}\n    spec:\n      containers:\n      - name: echo\n        \
         image: registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0\n        imagePullPolicy: Never\n        \
         env:\n        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}\n        \
         - {{name: NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: echo, namespace: {namespace}}}\n\
         spec: {{selector: {{app: echo}}, ports: [{{port: 8080, targetPort: 3000}}]}}\n"
    )
}

/// How many endpoints of the Pods' Service are ready.
fn endpoints(site: &Site) -> Result<usize> {
    let namespace = site.namespace.name();
    let selector = "--selector=kubernetes.io/service-name=echo";
    let list = ["get", "endpointslices", "--namespace", namespace, selector];
    let list = site
        .cluster
        .kubectl(&[&list[..], &["--output=json"]].concat())?;
    let list: Value = serde_json::from_str(&list)?;
    let slices = list["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    Ok(ready.count())
}

/// A site whose route goes to Pods.
fn site_with_pods(name: &str) -> Result<Site> {
    let site = Site::new(name)?;
    let namespace = site.namespace.name();
    site.cluster.apply(&echo(namespace))?;
    site.cluster.wait_rollout("deployment/echo", namespace)?;
    // Another controller than that of Deployments says where the Pods are, and may be later.
    wait::until_within(RECOVERY, "every Pod is an endpoint", || {
        (endpoints(&site).ok()? == PODS).then_some(())
    })?;
    site.cluster.apply(&route(namespace, "echo", 8080))?;
    site.route_accepted("app")?;
    Ok(site)
}

/// Every pair of an address of the Gateway and an address of the client that leads to one node.
fn ways<'a>(site: &'a Site, node: &'a Node) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'a {
    let [ipv4, ipv6] = node.client_addresses();
    let from = move |to: IpAddr| if to.is_ipv4() { ipv4 } else { ipv6 };
    site.addresses.iter().map(move |&to| (to, from(to)))
}

#[test]
fn every_node_serves_every_gateway_in_both_families_with_the_client_s_address() -> Result<()> {
    let site = site_with_pods("serving")?;
    let families: Vec<bool> = site.addresses.iter().map(IpAddr::is_ipv6).collect();
    ensure!(
        families == [false, true],
        "one address of each family: {:?}",
        site.addresses
    );
    for &address in &site.addresses {
        ensure!(
            sluice::is_virtual(&site.cluster, address),
            "{address} is not of the pool"
        );
    }
    for node in site.cluster.nodes() {
        for (to, from) in ways(&site, node) {
            let answer = site.curl("/where", to, from).run(site.cluster.client())?;
            ensure!(
                answer.status == 200,
                "{} at {to}: {}",
                node.name,
                answer.text()
            );
            let seen: Value = serde_json::from_slice(&answer.body)?;
            ensure!(text(&seen, "/path")? == "/where", "{seen:#}");
            let header = text(&seen, "/headers/X-Forwarded-For/0")?;
            ensure!(
                header == from.to_string(),
                "{} at {to}: the client is {from}, the backend sees {header}",
                node.name
            );
        }
    }
    Ok(())
}

#[test]
fn the_packet_path_of_the_node_that_gets_the_packet_counts_it() -> Result<()> {
    const REQUESTS: u64 = 10;
    let site = Site::new("counters")?;
    for node in site.cluster.nodes() {
        for (to, from) in ways(&site, node) {
            let count = |node: &Node| -> Result<(u64, u64)> {
                let path = sluice::packet_path(node)?;
                let frontends = path.pointer("/status/frontends").and_then(Value::as_array);
                let frontend = frontends.into_iter().flatten().find(|frontend| {
                    frontend["address"] == to.to_string() && frontend["port"] == 80
                });
                let frontend =
                    frontend.with_context(|| format!("no frontend {to}:80 in {path:#}"))?;
                let figure = |name: &str| frontend[name].as_u64().context("a figure");
                Ok((figure("passed_packets")?, figure("steered")?))
            };
            let before: Vec<_> = site
                .cluster
                .nodes()
                .iter()
                .map(count)
                .collect::<Result<_>>()?;
            for _ in 0..REQUESTS {
                let answer = site.curl("/", to, from).run(site.cluster.client())?;
                ensure!(answer.status == 200, "{}", answer.text());
            }
            for (other, (packets, steered)) in site.cluster.nodes().iter().zip(before) {
                let (packets_now, steered_now) = count(other)?;
                let moved = (packets_now - packets, steered_now - steered);
                if other.name == node.name {
                    // A SYN, an ACK, a request and a FIN at the least.
                    ensure!(
                        moved.0 >= 4 * REQUESTS && moved.1 == REQUESTS,
                        "{}: {moved:?}",
                        other.name
                    );
                } else {
                    ensure!(
                        moved == (0, 0),
                        "{} got what was {}'s: {moved:?}",
                        other.name,
                        node.name
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn programmed_is_said_when_every_node_serves_and_not_before() -> Result<()> {
    const CHANGES: usize = 10;
    let site = Site::new("programmed")?;
    let namespace = site.namespace.name();
    for change in 0..CHANGES {
        // Another port each time: a listener that no node has had before.
        let port = 8100 + u16::try_from(change)?;
        let patch =
            format!(r#"[{{"op":"replace","path":"/spec/listeners/0/port","value":{port}}}]"#);
        let arguments = [
            "patch",
            "gateway",
            "edge",
            "--namespace",
            namespace,
            "--type=json",
            "--patch",
            &patch,
        ];
        site.cluster.kubectl(&arguments)?;
        let limit = Instant::now() + Duration::from_secs(30);
        site.cluster
            .wait_condition("gateway", namespace, "edge", "Programmed")?;
        ensure!(Instant::now() < limit, "it took longer than 30 s");
        for node in site.cluster.nodes() {
            for (to, from) in ways(&site, node) {
                // Once, without a second try.
                let url = format!("http://{HOST}:{port}/");
                let asked = gateway_tests::tools::Curl::new(&url)
                    .resolve(HOST, (to, port).into())
                    .args(["--interface", &from.to_string()]);
                let answer = asked.run(site.cluster.client());
                let answer =
                    answer.with_context(|| format!("{} at {to}, change {change}", node.name))?;
                ensure!(
                    answer.status == 200,
                    "{} at {to}: {}",
                    node.name,
                    answer.text()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_route_that_goes_is_gone_on_every_node() -> Result<()> {
    let site = Site::new("gone")?;
    site.cluster.kubectl(&[
        "delete",
        "httproute",
        "app",
        "--namespace",
        site.namespace.name(),
    ])?;
    for node in site.cluster.nodes() {
        for (to, from) in ways(&site, node) {
            wait::until("the route is gone", || {
                let answer = site.curl("/", to, from).run(site.cluster.client()).ok()?;
                (answer.status == 404).then_some(())
            })
            .with_context(|| format!("{} at {to}", node.name))?;
        }
    }
    Ok(())
}
