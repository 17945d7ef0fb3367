//! The proxies that are measured, each configured to do the same: one thread, keep-alive pools
//! upstream, X-Forwarded-For added, access log off, TLS 1.3 with one P-256 certificate.

mod config;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::process::{PROXY_CORE, Process, pinned};
use super::scenario::Protocol;

/// What every proxy of a run has in common.
#[derive(Clone)]
pub struct Setting {
    /// Directory of this run, removed at its end.
    pub dir: PathBuf,
    /// The backend.
    pub backend: SocketAddr,
    /// PEM files.
    pub certificate: PathBuf,
    /// PEM file of the certificate's key.
    pub key: PathBuf,
    /// As in the scenario. Of many hosts only HTTP is served: a certificate for each is not what is measured.
    pub hosts: usize,
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
    /// `sluice` at this path.
    Sluice(PathBuf),
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
    /// How many hosts it knows; 0 if it serves whatever host.
    pub hosts: usize,
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
            hosts: setting.hosts,
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
        let secure = (setting.hosts == 0).then_some(https);
        let line = match self {
            Kind::Null => {
                let this = std::env::current_exe()?;
                return Ok(vec![
                    text(&this),
                    "relay".into(),
                    http.to_string(),
                    setting.backend.to_string(),
                ]);
            }
            Kind::Nginx => {
                let config = write(
                    dir,
                    "nginx.conf",
                    &config::nginx(dir, setting, http, secure),
                )?;
                vec![
                    "nginx".into(),
                    "-p".into(),
                    text(dir),
                    "-e".into(),
                    "stderr".into(),
                    "-c".into(),
                    config,
                ]
            }
            Kind::Haproxy => {
                let pem =
                    fs::read_to_string(&setting.certificate)? + &fs::read_to_string(&setting.key)?;
                let pem = write(dir, "bench.pem", &pem)?;
                let map = write(dir, "hosts.map", &config::haproxy_map(setting))?;
                let config = config::haproxy(&pem, &map, setting, http, secure);
                let config = write(dir, "haproxy.cfg", &config)?;
                vec!["haproxy".into(), "-db".into(), "-f".into(), config]
            }
            Kind::Envoy(binary) => {
                let config = config::envoy(setting, http, secure).to_string();
                let config = write(dir, "envoy.json", &config)?;
                let flags = [
                    "-c",
                    &config,
                    "--concurrency",
                    "1",
                    "--log-level",
                    "error",
                    "--disable-hot-restart",
                ];
                std::iter::once(text(binary))
                    .chain(flags.map(str::to_owned))
                    .collect()
            }
            Kind::Sluice(binary) => sluice(binary, dir, &config::sluice(setting, http, secure)?)?,
            Kind::Other(_, command) => {
                let words = command.split_whitespace().map(|word| {
                    word.replace("{listen}", &http.to_string())
                        .replace("{backend}", &setting.backend.to_string())
                        .replace("{cert}", &text(&setting.certificate))
                        .replace("{key}", &text(&setting.key))
                });
                words.collect()
            }
        };
        Ok(line)
    }
}

/// Writes the manifests; yields the command line.
fn sluice(binary: &Path, dir: &Path, texts: &[String]) -> anyhow::Result<Vec<String>> {
    let (manifests, state) = (dir.join("manifests"), text(&dir.join("state")));
    fs::create_dir_all(&manifests)?;
    for (at, manifest) in texts.iter().enumerate() {
        write(&manifests, &format!("bench-{at}.yaml"), manifest)?;
    }
    let mut words = vec![text(binary), "run".to_owned()];
    words.extend([
        "--manifests".to_owned(),
        text(&manifests),
        "--state-dir".to_owned(),
        state,
    ]);
    let flags = ["--workers", "1", "--l4", "sockets", "--access-log", "off"];
    words.extend(flags.map(str::to_owned));
    Ok(words)
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A loopback address that nobody listens on.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?)
}
