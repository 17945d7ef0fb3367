//! etcd and the control plane, in the router's namespace.

use std::time::Duration;

use super::daemon::{Daemon, words};
use super::lab::{API_PORT, Lab, ROUTER4, SERVICES4, SERVICES6};
use super::until;

/// The programs, in the order in which they are started.
pub const PROGRAMS: [&str; 4] = ["etcd", "apiserver", "controller-manager", "scheduler"];

/// One of [`PROGRAMS`].
pub fn daemon(lab: &Lab, program: &str) -> Option<Daemon> {
    let (binary, arguments) = match program {
        "etcd" => ("etcd", etcd(lab)),
        "apiserver" => ("kube-apiserver", apiserver(lab)),
        "controller-manager" => ("kube-controller-manager", controller_manager(lab)),
        "scheduler" => ("kube-scheduler", scheduler(lab)),
        _ => return None,
    };
    let mut argv = vec![lab.program(binary).into()];
    argv.extend(words(
        &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
    ));
    let mut daemon = Daemon::in_router(lab, program, argv);
    // Memory is cheaper than processor time on the machines that run this.
    daemon.env.push(("GOGC", "300".to_owned()));
    Some(daemon)
}

/// Waits until the API server answers.
pub fn ready(lab: &Lab) -> anyhow::Result<()> {
    let log = lab.dir.join("log/apiserver.log");
    let what = format!("the API server is ready; see {}", log.display());
    until(Duration::from_secs(120), &what, || {
        let mut ask = lab.kubectl();
        ask.args(["--request-timeout=5s", "get", "--raw", "/readyz"]);
        Ok(ask.output()?.status.success().then_some(()))
    })
}

fn etcd(lab: &Lab) -> Vec<String> {
    let mut arguments = vec![
        format!("--data-dir={}", lab.dir.join("etcd").display()),
        // A cluster that ends with the machine need not survive it.
        "--unsafe-no-fsync".to_owned(),
        "--quota-backend-bytes=8000000000".to_owned(),
    ];
    arguments.extend(
        [
            "--log-level=error",
            "--heartbeat-interval=500",
            "--election-timeout=5000",
        ]
        .map(str::to_owned),
    );
    arguments
}

fn apiserver(lab: &Lab) -> Vec<String> {
    let pki = |file: &str| lab.pki(file).display().to_string();
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=::".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={ROUTER4}"),
        format!("--service-cluster-ip-range={SERVICES4},{SERVICES6}"),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("admin.crt")),
        format!("--kubelet-client-key={}", pki("admin.key")),
        // No name service knows the nodes' names; logs and exec go to their addresses.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged".to_owned(),
        "--profiling=false".to_owned(),
        format!("--cert-dir={}", pki("")),
    ]
}

fn controller_manager(lab: &Lab) -> Vec<String> {
    let pki = |file: &str| lab.pki(file).display().to_string();
    let mut arguments = as_client(lab, "kube-controller-manager");
    arguments.extend([
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--use-service-account-credentials".to_owned(),
        // A node that is cut off is known to be within these; the kubelets report four times as often.
        "--node-monitor-grace-period=16s".to_owned(),
        "--node-monitor-period=2s".to_owned(),
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ]);
    arguments
}

fn scheduler(lab: &Lab) -> Vec<String> {
    as_client(lab, "kube-scheduler")
}

fn as_client(lab: &Lab, name: &str) -> Vec<String> {
    let config = lab.pki(&format!("{name}.conf")).display().to_string();
    vec![
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", lab.pki(name).display()),
    ]
}
