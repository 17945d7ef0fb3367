//! An API server with its store and nothing else: enough for whoever watches and writes objects,
//! and up in seconds. Made of the programs that `cargo xtask cluster` has built.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::api::Endpoint;
use crate::netns::Netns;
use crate::process::{self, Process};
use crate::{Authority, wait};

const PORT: u16 = 6443;
const ADMIN_TOKEN: &str = "administrator";
/// How long an API server may take to start.
const START: Duration = Duration::from_mins(1);

/// An API server and etcd, in one namespace.
#[derive(Debug)]
pub struct ControlPlane {
    ns: Netns,
    address: IpAddr,
    authority: Authority,
    dir: PathBuf,
    programs: PathBuf,
    api: Option<Process>,
    _etcd: Process,
}

impl ControlPlane {
    /// Starts both, for the namespace alone, and waits until the API server is ready.
    ///
    /// # Errors
    /// When the programs are not built, or do not start; the error has their output.
    pub fn start(ns: &Netns, dir: &Path) -> Result<Self> {
        Self::start_at(ns, Ipv4Addr::LOCALHOST.into(), dir)
    }

    /// As [`Self::start`], with the API server at this address of the namespace.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(ns: &Netns, address: IpAddr, dir: &Path) -> Result<Self> {
        let dir = dir.join("control-plane");
        std::fs::create_dir_all(&dir)?;
        let programs = programs()?;
        let authority = Authority::new()?;
        credentials(&authority, address, &dir)?;
        ns.ip(&["link set lo up"])?;
        let mut etcd = Command::new(programs.join("bin/etcd"));
        etcd.arg("--data-dir").arg(dir.join("etcd"));
        etcd.args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
        ]);
        let etcd = Process::start(ns, "etcd", etcd, &dir.join("etcd.log"))?;
        let mut control_plane = Self {
            ns: ns.clone(),
            address,
            authority,
            dir,
            programs,
            api: None,
            _etcd: etcd,
        };
        control_plane.start_api()?;
        Ok(control_plane)
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    /// When it is not; the error has its output.
    pub fn start_api(&mut self) -> Result<()> {
        let mut api = Command::new(self.programs.join("bin/kube-apiserver"));
        let file = |flag: &str, name: &str| format!("{flag}={}", self.dir.join(name).display());
        api.args([
            file("--tls-cert-file", "api.crt"),
            file("--tls-private-key-file", "api.key"),
            file("--token-auth-file", "tokens.csv"),
            file("--service-account-key-file", "accounts.crt"),
            file("--service-account-signing-key-file", "accounts.key"),
        ]);
        api.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--advertise-address=192.0.2.1",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
        ]);
        api.arg(format!("--bind-address={}", self.address))
            .arg(format!("--secure-port={PORT}"));
        let log = self.dir.join("kube-apiserver.log");
        let api = self
            .api
            .insert(Process::start(&self.ns, "kube-apiserver", api, &log)?);
        let output = || api.output();
        let ready = wait::until_within(START, "the API server is ready", || {
            let ready = kubectl(
                &self.ns,
                &self.programs,
                &self.dir,
                &["get", "--raw=/readyz"],
            );
            ready.ok().filter(|output| output.status.success())
        });
        ready.map(drop).map_err(|error| error.context(output()))
    }

    /// Kills the API server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_api(&mut self) -> Result<()> {
        self.api.take().context("the API server runs")?.kill()
    }

    /// Sends the API server a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal_api(&self, signal: i32) -> Result<()> {
        self.api
            .as_ref()
            .context("the API server runs")?
            .signal(signal)
    }

    /// Where the definitions of Gateway API's kinds are.
    #[must_use]
    pub fn definitions(&self) -> PathBuf {
        self.programs.join("crds")
    }

    /// Installs them.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn install_gateway_api(&self) -> Result<()> {
        let definitions = self.definitions().display().to_string();
        self.kubectl(&["apply", "--server-side", "-f", &definitions])?;
        Ok(())
    }

    /// The API server, for the administrator.
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn endpoint(&self) -> Result<Endpoint> {
        Ok(Endpoint {
            server: (self.address, PORT).into(),
            ns: self.ns.clone(),
            tls: self.authority.client_config(&["h2"])?,
            token: Some(ADMIN_TOKEN.to_owned()),
        })
    }

    /// A kubeconfig of the administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    /// A kubeconfig of whoever has this token.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_of(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{name}.conf"));
        std::fs::write(&path, kubeconfig(self.address, &self.dir, token))?;
        Ok(path)
    }

    /// Runs kubectl as the administrator and gives what it printed.
    ///
    /// # Errors
    /// With what it printed, when it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = kubectl(&self.ns, &self.programs, &self.dir, arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "kubectl {arguments:?}: {errors}{text}"
        );
        Ok(text)
    }

    /// `kubectl apply` of these manifests.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let path = self.dir.join("apply.yaml");
        std::fs::write(&path, manifests)?;
        self.kubectl(&["apply", "-f", &path.display().to_string()])?;
        Ok(())
    }
}

fn kubectl(
    ns: &Netns,
    programs: &Path,
    dir: &Path,
    arguments: &[&str],
) -> Result<std::process::Output> {
    let mut command = Command::new(programs.join("bin/kubectl"));
    command
        .env("HOME", dir)
        .arg("--kubeconfig")
        .arg(dir.join("admin.conf"))
        .args(arguments)
        .stdin(Stdio::null());
    process::output(ns, command)
}

/// `$SLUICE_CLUSTER_PROGRAMS`, else the newest directory in the cache of `cargo xtask cluster`.
fn programs() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SLUICE_CLUSTER_PROGRAMS") {
        return Ok(dir.into());
    }
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("$HOME is not set")?).join(".cache"),
    };
    let entries = std::fs::read_dir(cache.join("sluice/cluster"));
    let built = entries.into_iter().flatten().flatten().map(|e| e.path());
    let built = built.filter(|dir| dir.join("bin/kube-apiserver").is_file());
    let newest = built.max_by_key(|dir| dir.metadata().and_then(|m| m.modified()).ok());
    newest.context("Kubernetes is not built: run `cargo xtask cluster up` once")
}

fn credentials(authority: &Authority, address: IpAddr, dir: &Path) -> Result<()> {
    authority.write(dir)?;
    let api = authority.issue(&[&address.to_string()])?;
    std::fs::write(dir.join("api.crt"), api.certificate)?;
    std::fs::write(dir.join("api.key"), api.key)?;
    let accounts = authority.issue(&["accounts"])?;
    std::fs::write(dir.join("accounts.crt"), accounts.certificate)?;
    std::fs::write(dir.join("accounts.key"), accounts.key)?;
    let tokens = format!("{ADMIN_TOKEN},admin,1,system:masters\n");
    std::fs::write(dir.join("tokens.csv"), tokens)?;
    std::fs::write(
        dir.join("admin.conf"),
        kubeconfig(address, dir, ADMIN_TOKEN),
    )?;
    Ok(())
}

fn kubeconfig(address: IpAddr, dir: &Path, token: &str) -> String {
    let server = format!("https://{}", SocketAddr::new(address, PORT));
    let authority = dir.join("ca.pem").display().to_string();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
         contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n\
         clusters: [{{name: it, cluster: {{server: \"{server}\", certificate-authority: \"{authority}\"}}}}]\n\
         users: [{{name: it, user: {{token: \"{token}\"}}}}]\n"
    )
}
