//! One node: its namespaces, containerd, kubelet and kube-proxy.
//!
//! A node sees the machine's file system with directories of its own for /run, /var/lib and /var/log and a BPF file
//! system of its own, so that every program uses its usual paths and nothing outlives the mount namespace.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use super::daemon::{Daemon, words};
use super::lab::{Lab, Node, PODS4, PODS6};
use super::{cgroups, images, network, pki, succeed_quietly, until};

/// The programs, in the order in which they are started.
pub const PROGRAMS: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];
/// Where containerd listens, on the node.
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Run in a node's new namespaces; `$1` is the node's name, `$2` its directory.
const NAMESPACES: &str = r#"
set -e
hostname "$1"
# Namespaces that others have named must not live on because a node still sees their names.
umount -R -l /run/netns 2> /dev/null || true
mount --bind "$2/run" /run
mount --bind "$2/lib" /var/lib
mount --bind "$2/log" /var/log
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /
: > /run/ready
exec sleep infinity
"#;

/// Makes a node's directories and namespaces; gives the process that keeps them.
pub fn make(lab: &Lab, n: usize) -> anyhow::Result<u32> {
    let node = &lab.nodes[n];
    for dir in ["run/sluice", "lib/sluice", "lib/kubelet", "log", "etc/cni"] {
        let path = node.dir.join(dir);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    configure(lab, n)?;
    let mut inside = words(&["nsenter"]);
    inside.push(format!("--net=/run/netns/{}", node.netns).into());
    let mut argv = words(&[
        "unshare",
        "--mount",
        "--uts",
        "--propagation",
        "private",
        "sh",
        "-c",
        NAMESPACES,
        "sh",
        &node.name,
    ]);
    argv.push(node.dir.clone().into());
    let keeper = Daemon::new(lab, format!("{}/namespaces", node.name), inside, argv);
    keeper.start()?;
    until(
        Duration::from_secs(10),
        "the node's namespaces are made",
        || {
            if !keeper.runs()? {
                bail!("the node's namespaces cannot be made: {}", keeper.tail());
            }
            Ok(node.dir.join("run/ready").exists().then_some(()))
        },
    )?;
    let pids = keeper.pids()?;
    pids.first()
        .copied()
        .context("the node's namespaces are gone")
}

/// Starts a node's programs.
pub fn start(lab: &Lab, n: usize) -> anyhow::Result<()> {
    let start = |program: &str| {
        daemon(lab, n, program)?
            .context("a node's program")?
            .start()
    };
    start("containerd")?;
    let socket = lab.nodes[n].dir.join(&CONTAINERD[1..]);
    until(
        Duration::from_secs(30),
        "containerd listens; see its log",
        || Ok(socket.exists().then_some(())),
    )?;
    let cache = lab
        .programs
        .parent()
        .context("the programs are in a directory of the cache")?;
    for archive in images::archives(cache)? {
        import(lab, n, &archive)?;
    }
    start("kubelet")?;
    start("kube-proxy")
}

/// Imports an archive of images.
pub fn import(lab: &Lab, n: usize, archive: &Path) -> anyhow::Result<()> {
    let mut command = as_command(&enter(&lab.nodes[n]));
    command.arg(lab.program("ctr"));
    command.args(["-a", CONTAINERD, "-n", "k8s.io", "images", "import"]);
    succeed_quietly(command.arg(archive)).map(drop)
}

/// What goes before a command to run it in a node's namespaces.
pub fn enter(node: &Node) -> Vec<OsString> {
    let target = node.pid.to_string();
    words(&[
        "nsenter", "--target", &target, "--mount", "--net", "--uts", "--",
    ])
}

/// One of [`PROGRAMS`] on a node.
pub fn daemon(lab: &Lab, n: usize, program: &str) -> anyhow::Result<Option<Daemon>> {
    let node = &lab.nodes[n];
    let file = |name: &str| node.dir.join("etc").join(name).display().to_string();
    let arguments = match program {
        "containerd" => vec!["--config".to_owned(), file("containerd.toml")],
        "kubelet" => vec![
            format!("--config={}", file("kubelet.yaml")),
            format!("--kubeconfig={}", file("kubelet.conf")),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={},{}", node.ipv4, node.ipv6),
        ],
        "kube-proxy" => vec![format!("--config={}", file("kube-proxy.yaml"))],
        _ => return Ok(None),
    };
    let mut argv = vec![lab.program(program).into()];
    argv.extend(arguments.into_iter().map(OsString::from));
    let mut daemon = Daemon::on_node(lab, n, program, argv);
    // containerd finds its shim there, the kubelet and kube-proxy find mount, nft and their kin behind it.
    let path = format!(
        "{}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        lab.programs.display()
    );
    daemon.env.push(("PATH", path));
    Ok(Some(daemon))
}

fn configure(lab: &Lab, n: usize) -> anyhow::Result<()> {
    let node = &lab.nodes[n];
    let write = |name: &str, text: &str| {
        let path = node.dir.join("etc").join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    cgroups::make(&pods_group(node))?;
    cgroups::weigh()?;
    let subject = format!("/O=system:nodes/CN=system:node:{}", node.name);
    pki::client(
        lab,
        &node.name,
        &subject,
        &node.dir.join("etc/kubelet.conf"),
    )?;
    write("resolv.conf", "")?;
    write(
        "cni/10-pods.conflist",
        &serde_json::to_string_pretty(&cni(n))?,
    )?;
    write("containerd.toml", &containerd(node))?;
    // JSON is YAML.
    write(
        "kubelet.yaml",
        &serde_json::to_string_pretty(&kubelet(lab, node))?,
    )?;
    write(
        "kube-proxy.yaml",
        &serde_json::to_string_pretty(&kube_proxy(lab, node))?,
    )
}

/// Below which the kubelet puts its Pods.
fn pods_group(node: &Node) -> String {
    format!("{}/{}", cgroups::CLUSTER, node.name)
}

/// Routed Pods, without a bridge: traffic between Pods of one node passes kube-proxy's rules as all other does.
fn cni(n: usize) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "mtu": 1500, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": network::pods4(n)}], [{"subnet": network::pods6(n)}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn containerd(node: &Node) -> String {
    format!(
        r#"version = 3
[debug]
level = "warn"
[plugins.'io.containerd.cri.v1.runtime']
# A root without CAP_SYS_RESOURCE cannot lower the score, and runc then fails.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
conf_dir = "{}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{}"
"#,
        node.dir.join("etc/cni").display(),
        images::PAUSE
    )
}

fn kubelet(lab: &Lab, node: &Node) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": lab.pki("ca.crt")},
            "webhook": {"enabled": true},
            "anonymous": {"enabled": false},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", pods_group(node)),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        // The machine's disk is not the cluster's alone.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": node.dir.join("etc/resolv.conf"),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "maxPods": 200,
        "serializeImagePulls": false,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 16,
        "volumeStatsAggPeriod": "-1s",
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
    })
}

fn kube_proxy(lab: &Lab, node: &Node) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": lab.pki("kube-proxy.conf")},
        "hostnameOverride": node.name,
        "mode": "nftables",
        "clusterCIDR": format!("{PODS4},{PODS6}"),
        "nftables": {"syncPeriod": "10m"},
        // The limits belong to the machine, not to a namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    })
}

fn as_command(words: &[OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}
