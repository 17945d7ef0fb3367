//! The proxies that are measured, each configured to do the same: one thread, keep-alive pools
//! upstream, X-Forwarded-For added, access log off, TLS 1.3 with one P-256 certificate.

mod config;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use self::config::{envoy, haproxy, nginx, sluice};
use super::process::{PROXY_CORE, Process, pinned};
use super::scenario::Protocol;

/// What every proxy of a run has in common.
pub struct Setting {
    /// Directory of this run, removed at its end.
    pub dir: PathBuf,
    /// The backend.
    pub backend: SocketAddr,
    /// PEM files.
    pub certificate: PathBuf,
    /// PEM file of the certificate's key.
    pub key: PathBuf,
}

/// One kind of proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The null relay: no parsing, no TLS.
    Null,
    /// Debian's nginx.
    Nginx,
    /// Debian's haproxy.
    Haproxy,
    /// Envoy at this path.
    Envoy(PathBuf),
    /// `sluice` at this path, with so many more routes on the host that is asked.
    Sluice(PathBuf, usize),
    /// Any other command that serves one protocol; `{listen}`, `{backend}`, `{cert}` and `{key}` are filled in.
    Other(Protocol, String),
}

/// A proxy under a name.
#[derive(Clone, Debug)]
pub struct Peer {
    /// As in the table.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// A proxy that runs.
pub struct Running {
    /// As in the table.
    pub name: String,
    /// Its process; killed when dropped.
    pub process: Process,
    kind: Kind,
    http: SocketAddr,
    https: SocketAddr,
}

impl Running {
    /// Where it serves `protocol`, if it does.
    pub fn address(&self, protocol: Protocol) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Null if protocol == Protocol::H2 => None,
            // It relays TLS of nobody: its plain figure is the floor of TLS, too.
            Kind::Null => Some(self.http),
            Kind::Other(served, _) if *served != protocol => None,
            Kind::Other(..) => Some(self.http),
            _ if protocol == Protocol::Http => Some(self.http),
            _ => Some(self.https),
        }
    }

    /// Whether what it serves is plain whatever the protocol.
    pub fn is_plain(&self) -> bool {
        self.kind == Kind::Null
    }
}

impl Peer {
    /// Starts it on ports that the kernel chose.
    pub fn start(&self, setting: &Setting) -> anyhow::Result<Running> {
        let (http, https) = (free_port()?, free_port()?);
        let dir = setting.dir.join(&self.name);
        fs::create_dir_all(&dir)?;
        let command = self.kind.command(&dir, setting, http, https)?;
        let mut words = command.iter().map(String::as_str);
        let mut pinned = pinned(PROXY_CORE, words.next().context("an empty command")?);
        pinned.args(words);
        let process = Process::start(&self.name, pinned, &dir.join("output"))?;
        Ok(Running {
            name: self.name.clone(),
            process,
            kind: self.kind.clone(),
            http,
            https,
        })
    }
}

impl Kind {
    /// Writes the configuration below `dir`; yields the command line.
    fn command(
        &self,
        dir: &Path,
        setting: &Setting,
        http: SocketAddr,
        https: SocketAddr,
    ) -> anyhow::Result<Vec<String>> {
        let backend = setting.backend;
        Ok(match self {
            Kind::Null => line(
                &std::env::current_exe()?,
                &format!("relay {http} {backend}"),
            ),
            Kind::Nginx => {
                let config = write(dir, "nginx.conf", &nginx(dir, setting, http, https))?;
                let flags = format!("-p {} -e stderr -c {config}", dir.display());
                line(Path::new("nginx"), &flags)
            }
            Kind::Haproxy => {
                let pem = fs::read_to_string(&setting.certificate)?;
                let pem = write(
                    dir,
                    "bench.pem",
                    &(pem + &fs::read_to_string(&setting.key)?),
                )?;
                let config = write(dir, "haproxy.cfg", &haproxy(&pem, setting, http, https))?;
                line(Path::new("haproxy"), &format!("-db -f {config}"))
            }
            Kind::Envoy(binary) => {
                let config = write(dir, "envoy.json", &envoy(setting, http, https).to_string())?;
                let quiet = "--log-level error --disable-hot-restart";
                line(binary, &format!("-c {config} --concurrency 1 {quiet}"))
            }
            Kind::Sluice(binary, routes) => {
                fs::create_dir_all(dir.join("manifests"))?;
                let manifest = sluice(setting, http, https, *routes)?;
                write(dir, "manifests/bench.yaml", &manifest)?;
                let dir = dir.display();
                let what = format!("--manifests {dir}/manifests --state-dir {dir}/state");
                let how = "--workers 1 --l4 sockets --access-log off";
                line(binary, &format!("run {what} {how}"))
            }
            Kind::Other(_, command) => {
                let command = command
                    .replace("{listen}", &http.to_string())
                    .replace("{backend}", &backend.to_string())
                    .replace("{cert}", &setting.certificate.to_string_lossy())
                    .replace("{key}", &setting.key.to_string_lossy());
                let (program, arguments) = command.split_once(' ').unwrap_or((&command, ""));
                line(Path::new(program), arguments)
            }
        })
    }
}

/// A command line; `arguments` hold no white space of their own.
fn line(program: &Path, arguments: &str) -> Vec<String> {
    let program = program.to_string_lossy().into_owned();
    std::iter::once(program)
        .chain(arguments.split_whitespace().map(str::to_owned))
        .collect()
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}

/// A loopback address that nobody listens on.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?)
}
