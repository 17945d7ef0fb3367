//! A cluster is followed, whatever becomes of its API server.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use gateway_tests::control_plane::ControlPlane;
use gateway_tests::sluice::{Sluice, Start, workspace};
use gateway_tests::tools::Curl;
use gateway_tests::{World, wait};

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: sluice}
spec: {controllerName: sluice.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: sluice
  listeners: [{name: http, port: 80, protocol: HTTP}]
";

/// A hung API server is found out by pings: 10 s until one is sent, 10 s for its answer.
const NOTICE: Duration = Duration::from_secs(45);

struct Bed {
    world: World,
    api: ControlPlane,
}

/// A route for `NAME.example.com` that answers by itself.
fn route(name: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: default}}\nspec:\n  parentRefs: [{{name: web}}]\n  \
         hostnames: [{name}.example.com]\n  rules:\n  \
         - filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {name}.example.org}}}}]\n"
    )
}

impl Bed {
    fn bare() -> Result<Self> {
        let world = World::plan().backends(0).build()?;
        let api = ControlPlane::start(&world.node.ns, world.dir())?;
        Ok(Self { world, api })
    }

    fn new() -> Result<Self> {
        let bed = Self::bare()?;
        bed.api.install_gateway_api()?;
        bed.api.apply(GATEWAY)?;
        Ok(bed)
    }

    fn start(&self, kubeconfig: &Path) -> Start {
        let kubeconfig = kubeconfig.display().to_string();
        Start::on(&self.world)
            .args(["--kubeconfig", &kubeconfig])
            .args(["--l4", "sockets", "--drain-timeout", "1s"])
    }

    fn sluice(&self) -> Result<Sluice> {
        self.start(&self.api.kubeconfig()).ready()
    }

    fn status(&self, name: &str) -> Option<u16> {
        let address = (self.world.node.v4, 80).into();
        let host = format!("{name}.example.com");
        let curl = Curl::new(&format!("http://{host}/")).resolve(&host, address);
        Some(curl.run(&self.world.client.ns).ok()?.status)
    }

    fn until_served(&self, name: &str) -> Result<()> {
        wait::until_equal(name, &Some(302), || self.status(name))
    }

    fn until_gone(&self, name: &str) -> Result<()> {
        wait::until_equal(name, &Some(404), || self.status(name))
    }
}

fn until_stale(sluice: &Sluice, stale: bool) -> Result<()> {
    let what = format!("stale is {stale}");
    wait::until_within(NOTICE, &what, || {
        let seconds = sluice.metric("sluice_source_stale_seconds", &[]).ok()?;
        ((seconds > 0.0) == stale).then_some(())
    })
}

#[test]
fn what_is_applied_is_served_and_what_is_deleted_is_not() -> Result<()> {
    let bed = Bed::new()?;
    let sluice = bed.sluice()?;
    bed.api.apply(&(route("a") + &route("b")))?;
    bed.until_served("a")?;
    bed.until_served("b")?;
    bed.api.kubectl(&["delete", "httproute", "a"])?;
    bed.until_gone("a")?;
    assert_eq!(bed.status("b"), Some(302));
    let status = sluice.cli(&["status"])?;
    assert!(
        status.contains("cluster: https://127.0.0.1:6443"),
        "{status}"
    );
    let lists = sluice.metric("sluice_source_lists_total", &["HTTPRoute"])?;
    assert!((lists - 1.0).abs() < 0.1, "{lists} lists");
    Ok(())
}

#[test]
fn kinds_that_are_installed_and_removed_are_followed_without_a_restart() -> Result<()> {
    let bed = Bed::bare()?;
    let sluice = bed.sluice()?;
    let status = sluice.cli(&["status"])?;
    assert!(
        status.contains("not served there: GatewayClass"),
        "{status}"
    );
    bed.api.install_gateway_api()?;
    let established = ["wait", "--for=condition=Established", "crd", "--all"];
    bed.api.kubectl(&established)?;
    bed.api.apply(GATEWAY)?;
    bed.api.apply(&route("a"))?;
    bed.until_served("a")?;
    let definition = "httproutes.gateway.networking.k8s.io";
    bed.api.kubectl(&["delete", "crd", definition])?;
    bed.until_gone("a")?;
    bed.api.install_gateway_api()?;
    bed.api.kubectl(&established)?;
    bed.api.apply(&route("b"))?;
    bed.until_served("b")
}

#[test]
fn a_start_without_an_api_server_serves_the_last_good_objects_until_it_is_back() -> Result<()> {
    let mut bed = Bed::new()?;
    bed.api.apply(&(route("stays") + &route("goes")))?;
    let sluice = bed.sluice()?;
    bed.until_served("stays")?;
    bed.until_served("goes")?;
    let start = sluice.kill()?;
    bed.api.kubectl(&["delete", "httproute", "goes"])?;
    bed.api.apply(&route("comes"))?;
    bed.api.stop_api()?;

    let sluice = start.ready()?;
    bed.until_served("stays")?;
    bed.until_served("goes")?;
    assert_eq!(bed.status("comes"), Some(404));
    until_stale(&sluice, true)?;
    let status = sluice.cli(&["status"])?;
    assert!(status.contains("some of an earlier life"), "{status}");

    bed.api.start_api()?;
    bed.until_served("comes")?;
    bed.until_gone("goes")?;
    bed.until_served("stays")?;
    until_stale(&sluice, false)
}

#[test]
fn an_api_server_that_hangs_is_noticed_and_what_it_says_later_is_followed() -> Result<()> {
    let bed = Bed::new()?;
    let sluice = bed.sluice()?;
    bed.api.apply(&route("a"))?;
    bed.until_served("a")?;
    bed.api.signal_api(libc::SIGSTOP)?;
    until_stale(&sluice, true)?;
    assert_eq!(bed.status("a"), Some(302));
    bed.api.signal_api(libc::SIGCONT)?;
    bed.api.apply(&route("b"))?;
    bed.until_served("b")?;
    until_stale(&sluice, false)
}

#[test]
fn the_shipped_rights_are_enough_and_one_that_is_revoked_takes_nothing_away() -> Result<()> {
    let bed = Bed::new()?;
    let base = workspace().join("deploy/kustomize/base");
    bed.api.kubectl(&[
        "apply",
        "-f",
        &base.join("namespace.yaml").display().to_string(),
    ])?;
    for file in ["serviceaccount.yaml", "rbac.yaml"] {
        let file = base.join(file).display().to_string();
        bed.api
            .kubectl(&["apply", "-n", "sluice-system", "-f", &file])?;
    }
    let token = bed
        .api
        .kubectl(&["create", "token", "sluice", "-n", "sluice-system"])?;
    let kubeconfig = bed.api.kubeconfig_of("sluice", token.trim())?;
    bed.api.apply(&route("a"))?;
    let sluice = bed.start(&kubeconfig).ready()?;
    bed.until_served("a")?;
    until_stale(&sluice, false)?;
    assert!(!sluice.cli(&["status"])?.contains("cannot be followed"));
    let class = sluice.cli(&["status", "-o", "yaml"])?;
    assert!(class.contains("type: SupportedVersion"), "{class}");

    let role = bed
        .api
        .kubectl(&["get", "clusterrole", "sluice", "-o", "yaml"])?;
    bed.api
        .apply(&role.replace("- httproutes\n", "- nothing\n"))?;
    gateway_tests::sys::kill(sluice.pid(), libc::SIGHUP)?;
    until_stale(&sluice, true)?;
    let status = sluice.cli(&["status"])?;
    assert!(status.contains("HTTPRoute cannot be followed"), "{status}");
    assert_eq!(bed.status("a"), Some(302));
    assert_eq!(sluice.admin("/healthz/ready")?.0, 200);

    bed.api.kubectl(&["delete", "clusterrole", "sluice"])?;
    let rights = base.join("rbac.yaml").display().to_string();
    bed.api
        .kubectl(&["apply", "-n", "sluice-system", "-f", &rights])?;
    until_stale(&sluice, false)?;
    bed.api.apply(&route("b"))?;
    bed.until_served("b")
}
