//! The programs of a cluster, and Helm, each built once from its Go module into a cache that outlives `target/`.
//!
//! The cache's directory is named by the versions. A program is renamed to its place when it is whole, so that a
//! build that was interrupted goes on where it was. Nothing is cgo: no C compiler, and one set of compiled
//! packages for all of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::{gomod, images, xdg};
use crate::ebpf::which;

const KUBERNETES: &str = "1.36.3";
const CONTAINERD: &str = "2.3.7";
const ETCD: &str = "3.6.16";
const GATEWAY_API: &str = "1.7.0";
/// Helm has a directory of its own in the cache: another version of it leaves the cluster's programs as they are.
const HELM: &str = "3.22.0";
/// The last version of the suite that carries the backend it tests with.
const ECHO: &str = "1.6.3";
/// The toolchain that Gateway API asks for; Go fetches it as it fetches modules.
const GATEWAY_API_GO: &str = "go1.27.4";
/// The oldest Go that the other modules accept.
const GO: (u32, u32) = (1, 26);
/// What a build with nothing cached takes on disk at its height, in KiB: Go's two caches and the programs.
const DISK_KIB: u64 = 8 << 20;

/// A program and where it comes from.
struct Program {
    name: &'static str,
    package: &'static str,
    source: &'static Source,
}

/// A main module to build programs with.
struct Source {
    name: &'static str,
    module: &'static str,
    version: &'static str,
    kind: Kind,
    tags: &'static str,
}

/// How a main module is made.
enum Kind {
    /// With the requirements of the module, which holds the programs.
    Borrowed,
    /// With this program of our own; the second module replaces a sibling directory of the first.
    Own(&'static str, Option<&'static str>),
}

const K8S: Source = Source {
    name: "kubernetes",
    module: "k8s.io/kubernetes",
    version: KUBERNETES,
    kind: Kind::Borrowed,
    tags: "",
};
const RUNTIME: Source = Source {
    name: "containerd",
    module: "github.com/containerd/containerd/v2",
    version: CONTAINERD,
    kind: Kind::Borrowed,
    tags: "no_btrfs no_zfs",
};
const STORE: Source = Source {
    name: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    version: ETCD,
    kind: Kind::Own(
        "package main\n\nimport (\n\t\"os\"\n\n\t\"go.etcd.io/etcd/server/v3/etcdmain\"\n)\n\n\
         func main() { etcdmain.Main(os.Args) }\n",
        None,
    ),
    tags: "",
};
const BACKEND: Source = Source {
    name: "echo",
    module: "sigs.k8s.io/gateway-api/conformance",
    version: ECHO,
    kind: Kind::Own(
        "//go:build tools\n\npackage main\n\nimport _ \"sigs.k8s.io/gateway-api/conformance/echo-basic/tcpserver\"\n",
        Some("sigs.k8s.io/gateway-api"),
    ),
    tags: "",
};
const CHARTS: Source = Source {
    name: "helm",
    module: "helm.sh/helm/v3",
    version: HELM,
    kind: Kind::Borrowed,
    tags: "",
};
/// What holds a Pod's namespaces open.
const PAUSE: Source = Source {
    name: "pause",
    module: "",
    version: "",
    kind: Kind::Own(
        "package main\n\nimport (\n\t\"os\"\n\t\"os/signal\"\n\t\"syscall\"\n)\n\nfunc main() {\n\tend := make(chan os.Signal, 1)\n\
         \tsignal.Notify(end, syscall.SIGINT, syscall.SIGTERM)\n\t<-end\n}\n",
        None,
    ),
    tags: "",
};

const PROGRAMS: [Program; 12] = [
    k8s("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    k8s("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    k8s(
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    k8s("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    k8s("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    k8s("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    runtime(
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
    ),
    runtime(
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    runtime("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    Program {
        name: "etcd",
        package: ".",
        source: &STORE,
    },
    Program {
        name: "echo-basic",
        package: "sigs.k8s.io/gateway-api/conformance/echo-basic",
        source: &BACKEND,
    },
    Program {
        name: "pause",
        package: ".",
        source: &PAUSE,
    },
];

const HELM_PROGRAM: Program = Program {
    name: "helm",
    package: "helm.sh/helm/v3/cmd/helm",
    source: &CHARTS,
};

const fn k8s(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        source: &K8S,
    }
}

const fn runtime(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        source: &RUNTIME,
    }
}

/// Builds what is not there yet, and gives the cache's directory: `bin/`, `images/`, and `crds/` of
/// Gateway API's standard channel.
pub fn build() -> anyhow::Result<PathBuf> {
    let dir = cache()?;
    let bin = dir.join("bin");
    let missing: Vec<&Program> = PROGRAMS
        .iter()
        .filter(|p| !bin.join(p.name).is_file())
        .collect();
    if missing.is_empty() && dir.join("crds").is_dir() && dir.join("images").is_dir() {
        return Ok(dir);
    }
    std::fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
    let lock = std::fs::File::open(&dir)?;
    lock.lock().context("lock on the cache")?;
    if !missing.is_empty() || !dir.join("crds").is_dir() {
        ensure_go()?;
    }
    if missing.len() > PROGRAMS.len() / 2 {
        ensure_disk(&dir)?;
        println!(
            "cluster: building Kubernetes {KUBERNETES}, containerd {CONTAINERD} and etcd {ETCD} into {}: about 12 minutes, once",
            dir.display()
        );
    }
    for program in missing {
        compile(program, &dir).with_context(|| {
            format!(
                "{} does not build; what is built already is kept, so try again",
                program.name
            )
        })?;
    }
    copy_crds(&dir)?;
    images::make(&dir)?;
    std::fs::remove_dir_all(dir.join("modules")).ok();
    Ok(dir)
}

/// Builds Helm if it is not there yet, and gives the program.
pub fn helm() -> anyhow::Result<PathBuf> {
    let dir = xdg("XDG_CACHE_HOME", ".cache")?
        .join("sluice/helm")
        .join(HELM);
    let program = dir.join("bin").join(HELM_PROGRAM.name);
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(dir.join("bin")).with_context(|| dir.display().to_string())?;
    let lock = std::fs::File::open(&dir)?;
    lock.lock().context("lock on the cache")?;
    ensure_go()?;
    println!("cluster: building Helm {HELM}: about three minutes, once");
    compile(&HELM_PROGRAM, &dir)?;
    std::fs::remove_dir_all(dir.join("modules")).ok();
    Ok(program)
}

/// `${XDG_CACHE_HOME:-~/.cache}/sluice/cluster/VERSIONS`.
fn cache() -> anyhow::Result<PathBuf> {
    let versions =
        format!("k8s-{KUBERNETES}-containerd-{CONTAINERD}-etcd-{ETCD}-gateway-api-{GATEWAY_API}");
    Ok(xdg("XDG_CACHE_HOME", ".cache")?
        .join("sluice/cluster")
        .join(versions))
}

fn compile(program: &Program, dir: &Path) -> anyhow::Result<()> {
    let place = dir.join("bin").join(program.name);
    if place.is_file() {
        return Ok(()); // By someone who held the lock before.
    }
    let started = Instant::now();
    let module = dir.join("modules").join(program.source.name);
    if !module.join("go.sum").is_file() {
        main_module(program.source, &module)?;
    }
    let partial = dir
        .join("modules")
        .join(program.name)
        .with_extension("partial");
    let flags = format!("-s -w {}", versions());
    let mut build = go(&module);
    build.args([
        "build",
        "-mod=mod",
        "-tags",
        program.source.tags,
        "-ldflags",
        &flags,
    ]);
    run(build.arg("-o").arg(&partial).arg(program.package))?;
    std::fs::rename(&partial, &place).with_context(|| place.display().to_string())?;
    println!(
        "cluster: built {} in {:.0} s",
        program.name,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What the programs are told, as the linker is: which version of Kubernetes they are, or are for.
fn versions() -> String {
    let mut flags = Vec::new();
    for package in [
        "k8s.io/component-base/version",
        "k8s.io/client-go/pkg/version",
    ] {
        flags.push(format!("-X {package}.gitVersion=v{KUBERNETES}"));
    }
    // Where Helm renders without a cluster.
    let (major, rest) = KUBERNETES.split_once('.').unwrap_or((KUBERNETES, ""));
    let minor = rest.split_once('.').map_or(rest, |(minor, _)| minor);
    for package in ["pkg/chartutil", "pkg/lint/rules"] {
        let package = format!("helm.sh/helm/v3/{package}");
        flags.push(format!(
            "-X {package}.k8sVersionMajor={major} -X {package}.k8sVersionMinor={minor}"
        ));
    }
    flags.push(format!(
        "-X helm.sh/helm/v3/internal/version.version=v{HELM}"
    ));
    flags.join(" ")
}

/// Writes the main module of a source, with `go.sum` last.
fn main_module(source: &Source, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    match &source.kind {
        Kind::Borrowed => {
            let from = download(source.module, source.version)?;
            let theirs = std::fs::read_to_string(from.join("go.mod"))?;
            std::fs::write(
                dir.join("go.mod"),
                gomod::borrow(&theirs, source.module, source.version),
            )?;
            // What comes from Go's cache of modules is read-only, and its copy must not be.
            std::fs::write(dir.join("go.sum"), std::fs::read(from.join("go.sum"))?)?;
        }
        Kind::Own(main, sibling) => {
            let own = [(source.module, source.version)];
            let modules: Vec<_> = own
                .into_iter()
                .filter(|(module, _)| !module.is_empty())
                .collect();
            let replaced = sibling.map(|module| (module, source.version));
            std::fs::write(dir.join("go.mod"), gomod::requiring(&modules, replaced))?;
            std::fs::write(dir.join("main.go"), main)?;
            run(go(dir).args(["mod", "tidy"]))?;
            // A module without requirements gets none.
            std::fs::File::options()
                .create(true)
                .append(true)
                .open(dir.join("go.sum"))?;
        }
    }
    Ok(())
}

fn copy_crds(dir: &Path) -> anyhow::Result<()> {
    let place = dir.join("crds");
    if place.is_dir() {
        return Ok(());
    }
    let from = download("sigs.k8s.io/gateway-api", GATEWAY_API)?.join("config/crd/standard");
    let partial = dir.join("crds.partial");
    std::fs::create_dir_all(&partial)?;
    for entry in std::fs::read_dir(&from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        std::fs::write(
            partial.join(entry.file_name()),
            std::fs::read(entry.path())?,
        )?;
    }
    std::fs::rename(&partial, &place).with_context(|| place.display().to_string())
}

/// Where a module lies in Go's cache.
fn download(module: &str, version: &str) -> anyhow::Result<PathBuf> {
    let mut go = go(&std::env::temp_dir());
    if module == "sigs.k8s.io/gateway-api" {
        go.env("GOTOOLCHAIN", GATEWAY_API_GO);
    }
    let output = go
        .args(["mod", "download", "-json", &format!("{module}@v{version}")])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start go")?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let dir = answer
        .get("Dir")
        .and_then(|dir| dir.as_str())
        .map(PathBuf::from);
    dir.with_context(|| {
        let why = answer
            .get("Error")
            .and_then(|e| e.as_str())
            .unwrap_or("no answer");
        format!(
            "{module} v{version} cannot be had: {why}; is the module proxy ($GOPROXY) reachable?"
        )
    })
}

/// Go with nothing of the user's own settings that would change what is built.
fn go(dir: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(dir)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off");
    go
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .context("cannot start go")?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

/// Says how to get Go where it is missing or too old.
pub fn ensure_go() -> anyhow::Result<()> {
    let fix = format!(
        "the cluster's programs are built with Go {}.{} or newer: https://go.dev/dl, unpacked to /usr/local/go, and /usr/local/go/bin on the PATH",
        GO.0, GO.1
    );
    if which("go").is_none() {
        bail!("no `go` on the PATH; {fix}");
    }
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text
        .trim()
        .trim_start_matches("go")
        .split('.')
        .map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(found >= GO, "{} is too old; {fix}", text.trim());
    Ok(())
}

fn ensure_disk(dir: &Path) -> anyhow::Result<()> {
    let output =
        super::succeed_quietly(Command::new("df").args(["--output=avail", "-k"]).arg(dir))?;
    let text = String::from_utf8_lossy(&output);
    let free: u64 = text
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or(u64::MAX);
    ensure!(
        free >= DISK_KIB,
        "{} GiB are free below {}, and the build takes {}: make room, or set XDG_CACHE_HOME, GOCACHE and GOMODCACHE to where there is some",
        free >> 20,
        dir.display(),
        DISK_KIB >> 20
    );
    Ok(())
}
