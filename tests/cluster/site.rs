//! What a user would have in a namespace: a Gateway for HTTP and HTTPS on addresses of its own, a route, a backend.
//!
//! The backends of a site run beside the clients, behind the router, so that a node that goes takes no backend with it;
//! tests that want Pods make them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::{Cluster, TestNamespace};
use gateway_tests::tools::Curl;
use gateway_tests::websocket::WebSocket;
use gateway_tests::{Authority, Backend, Load, manifests};
use serde_json::Value;

/// The host of every route of a site.
pub const HOST: &str = "app.example.com";

/// A namespace with a Gateway that is served.
#[derive(Debug)]
pub struct Site {
    pub cluster: Cluster,
    pub namespace: TestNamespace,
    /// Lives as long as the site.
    _backend: Backend,
    /// The Gateway's addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    authority: Authority,
}

impl Site {
    /// Makes it, and waits until the Gateway is programmed.
    pub fn new(name: &str) -> Result<Self> {
        let cluster = Cluster::running()?;
        let namespace = cluster.test_namespace(name)?;
        let bind = SocketAddr::new(cluster.client_addresses()[0], 0);
        let backend = Backend::start_in(cluster.client(), "outside", bind, false)?;
        let authority = Authority::new()?;
        let secret = manifests::tls_secret("tls", &authority.issue(&[HOST])?);
        let here = format!("namespace: {}", namespace.name());
        let secret = secret.replace("namespace: default", &here);
        let documents = [
            secret,
            gateway(namespace.name()),
            external_service(namespace.name(), backend.address),
            route(namespace.name(), "outside", 80),
        ];
        cluster.apply(&documents.join("---\n"))?;
        let mut site = Self {
            cluster,
            namespace,
            _backend: backend,
            addresses: Vec::new(),
            authority,
        };
        site.addresses = site.programmed()?;
        Ok(site)
    }

    /// Waits until the Gateway is programmed and the route accepted; gives the Gateway's addresses, IPv4 first.
    fn programmed(&self) -> Result<Vec<IpAddr>> {
        let gateway =
            self.cluster
                .wait_condition("gateway", self.namespace.name(), "edge", "Programmed")?;
        self.route_accepted("app")?;
        let addresses = gateway
            .pointer("/status/addresses")
            .and_then(Value::as_array);
        let values = addresses
            .into_iter()
            .flatten()
            .filter_map(|a| a.get("value")?.as_str());
        let mut addresses: Vec<IpAddr> = values.map(str::parse).collect::<Result<_, _>>()?;
        addresses.sort_by_key(IpAddr::is_ipv6);
        ensure!(
            !addresses.is_empty(),
            "the Gateway has no address: {gateway:#}"
        );
        Ok(addresses)
    }

    /// Waits until a route of this generation is accepted by its one parent.
    pub fn route_accepted(&self, name: &str) -> Result<Value> {
        self.cluster
            .wait_for("httproute", self.namespace.name(), name, |route| {
                let generation = route.pointer("/metadata/generation");
                let conditions = route
                    .pointer("/status/parents/0/conditions")
                    .and_then(Value::as_array);
                let accepted = conditions
                    .into_iter()
                    .flatten()
                    .find(|c| c["type"] == "Accepted");
                accepted.is_some_and(|c| {
                    c["status"] == "True" && c.get("observedGeneration") == generation
                })
            })
    }

    /// The Gateway's address of a family, with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[0], port)
    }

    /// A request to one address, from one address of the client's, which decides what node gets it.
    pub fn curl(&self, path: &str, to: IpAddr, from: IpAddr) -> Curl {
        let url = format!("http://{HOST}{path}");
        Curl::new(&url)
            .resolve(HOST, SocketAddr::new(to, 80))
            .args(["--interface", &from.to_string()])
    }

    /// Load in clear text, over every node.
    pub fn load(&self) -> Load {
        Load::new(self.at(80), HOST).connections(6)
    }

    /// Load over TLS.
    pub fn tls_load(&self, alpn: &[&str]) -> Result<Load> {
        let config = self.authority.client_config(alpn)?;
        Ok(Load::new(self.at(443), HOST).tls(config).connections(6))
    }

    /// An open WebSocket.
    pub fn websocket(&self) -> Result<WebSocket> {
        WebSocket::open(self.cluster.client(), self.at(80), HOST, "/ws", None)
    }

    /// One that is encrypted.
    pub fn tls_websocket(&self) -> Result<WebSocket> {
        let config = self.authority.client_config(&["http/1.1"])?;
        let ns = self.cluster.client();
        WebSocket::open(ns, self.at(443), HOST, "/ws", Some(Arc::clone(&config)))
    }
}

fn gateway(namespace: &str) -> String {
    let listeners = [
        manifests::http_listener("http", 80),
        manifests::https_listener("https", 443, None, "tls"),
    ];
    let gateway = manifests::gateway(&[], &listeners.concat());
    gateway.replace("namespace: default", &format!("namespace: {namespace}"))
}

/// A Service whose one endpoint is outside of the cluster.
pub fn external_service(namespace: &str, endpoint: SocketAddr) -> String {
    let family = if endpoint.is_ipv6() { "IPv6" } else { "IPv4" };
    let (ip, port) = (endpoint.ip(), endpoint.port());
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: outside, namespace: {namespace}}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: {port}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: outside, namespace: {namespace}, labels: {{kubernetes.io/service-name: outside}}}}\n\
         addressType: {family}\nports: [{{name: http, port: {port}}}]\n\
         endpoints: [{{addresses: [\"{ip}\"], conditions: {{ready: true}}}}]\n"
    )
}

/// The route `app` to a Service.
pub fn route(namespace: &str, service: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: app, namespace: {namespace}}}\n\
         spec:\n  parentRefs: [{{name: edge}}]\n  hostnames: [{HOST}]\n  \
         rules: [{{backendRefs: [{{name: {service}, port: {port}}}]}}]\n"
    )
}

/// The string at a place of a JSON answer.
pub fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("no {pointer} in {value:#}"))
}
