//! Pods of Sluice beside one API server, as far as statuses are concerned.

use std::time::Duration;

use anyhow::Result;
use gateway_tests::control_plane::ControlPlane;
use gateway_tests::sluice::{Sluice, Start};
use gateway_tests::{World, wait};
use serde_json::Value;

const CLASS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: sluice}
spec: {controllerName: sluice.dev/gateway-controller}
---
";

/// Longer than any Lease lives here.
pub const FAILOVER: Duration = Duration::from_secs(60);

/// An API server with one Gateway, and where Pods of Sluice can be started.
pub struct Bed {
    pub world: World,
    pub api: ControlPlane,
}

/// A Gateway with one listener for HTTP; `more` are lines of its spec.
pub fn gateway(name: &str, port: u16, more: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: default}}\nspec:\n  gatewayClassName: sluice\n{more}  \
         listeners: [{{name: http, port: {port}, protocol: HTTP}}]\n---\n"
    )
}

/// A route that answers by itself, with a redirect to a host of that name.
pub fn route(name: &str, to: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: default}}\nspec:\n  parentRefs: [{{name: web}}]\n  \
         hostnames: [{name}.example.com]\n  rules:\n  \
         - filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {to}.example.org}}}}]\n---\n"
    )
}

impl Bed {
    /// With the Gateway `web` on port 80.
    pub fn new() -> Result<Self> {
        let world = World::plan().backends(0).build()?;
        let api = ControlPlane::start(&world.node.ns, world.dir())?;
        api.install_gateway_api()?;
        api.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
        api.apply(&(CLASS.to_owned() + &gateway("web", 80, "")))?;
        Ok(Self { world, api })
    }

    /// How to start a Pod of that name.
    pub fn pod(&self, name: &str) -> Start {
        let dir = self.world.dir().join(name);
        let kubeconfig = self.api.kubeconfig().display().to_string();
        Start::new(&self.world.node.ns, &dir)
            .args(["--kubeconfig", &kubeconfig, "--l4", "sockets"])
            .args(["--workers", "1", "--drain-timeout", "1s"])
            .args(["--pod-name", name, "--node-name", name])
            .args(["--lease-duration", "5s"])
    }

    /// Starts one.
    pub fn start(&self, name: &str) -> Result<Sluice> {
        std::fs::create_dir_all(self.world.dir().join(name))?;
        self.pod(name).ready()
    }

    /// An object as it stands.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.api.kubectl(&["get", kind, name, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until our entry of a route speaks of that generation, and gives the route.
    pub fn until_observed(&self, name: &str, generation: i64) -> Result<Value> {
        wait::until_within(FAILOVER, &format!("{name} at {generation}"), || {
            let route = self.get("httproute", name).ok()?;
            let parents = route["status"]["parents"].as_array()?;
            let ours = parents.iter().find(|parent| is_ours(parent))?;
            let observed = &ours["conditions"][0]["observedGeneration"];
            (*observed == generation).then(|| route.clone())
        })
    }

    /// The condition of a Gateway.
    pub fn programmed(&self, gateway: &str) -> Option<Value> {
        let gateway = self.get("gateway", gateway).ok()?;
        let conditions = gateway["status"]["conditions"].as_array()?;
        conditions
            .iter()
            .find(|c| c["type"] == "Programmed")
            .cloned()
    }

    /// Waits until a Gateway is that.
    pub fn until_programmed(&self, gateway: &str, status: &str, reason: &str) -> Result<Value> {
        wait::until(&format!("{gateway} is {status} {reason}"), || {
            let condition = self.programmed(gateway)?;
            (condition["status"] == status && condition["reason"] == reason).then_some(condition)
        })
    }

    /// The Pod that writes the statuses.
    pub fn writer(&self) -> Option<String> {
        let lease = self.get("lease", "sluice-status-writer").ok()?;
        let holder = lease["spec"]["holderIdentity"].as_str()?;
        (!holder.is_empty()).then(|| holder.to_owned())
    }

    /// Waits until these Pods have said how far they are.
    pub fn until_reported(&self, pods: &[&str]) -> Result<()> {
        wait::until("every node reports", || {
            let reported = |pod: &&str| self.get("lease", &format!("sluice-node-{pod}")).is_ok();
            pods.iter().all(reported).then_some(())
        })
    }
}

/// Whether a route's entry is one that Sluice writes.
pub fn is_ours(entry: &Value) -> bool {
    entry["controllerName"] == "sluice.dev/gateway-controller"
}

/// What changes with every write.
pub fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}
