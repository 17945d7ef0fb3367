//! The proxies that are measured, each configured to do the same: one thread, keep-alive pools
//! upstream, X-Forwarded-For added, access log off, TLS 1.3 with one P-256 certificate.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

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
                let config = write(dir, "nginx.conf", &nginx(dir, setting, http, https))?;
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
                let config = write(dir, "haproxy.cfg", &haproxy(&pem, setting, http, https))?;
                vec!["haproxy".into(), "-db".into(), "-f".into(), config]
            }
            Kind::Envoy(binary) => {
                let config = write(dir, "envoy.json", &envoy(setting, http, https).to_string())?;
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
            Kind::Sluice(binary) => {
                let manifests = dir.join("manifests");
                fs::create_dir_all(&manifests)?;
                write(&manifests, "bench.yaml", &sluice(setting, http, https)?)?;
                let state = text(&dir.join("state"));
                let manifests = text(&manifests);
                let flags = [
                    "run",
                    "--manifests",
                    &manifests,
                    "--state-dir",
                    &state,
                    "--workers",
                    "1",
                    "--l4",
                    "sockets",
                    "--access-log",
                    "off",
                ];
                std::iter::once(text(binary))
                    .chain(flags.map(str::to_owned))
                    .collect()
            }
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

fn nginx(dir: &Path, setting: &Setting, http: SocketAddr, https: SocketAddr) -> String {
    let (dir, backend) = (dir.display(), setting.backend);
    let (certificate, key) = (setting.certificate.display(), setting.key.display());
    format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/pid;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
           access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n\
           client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;\n\
           uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
           upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 600s; }}\n\
           server {{\n\
             listen {http} backlog=4096; listen {https} ssl http2 backlog=4096;\n\
             ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;\n\
             location / {{\n\
               proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
               proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             }}\n\
           }}\n\
         }}\n"
    )
}

fn haproxy(pem: &str, setting: &Setting, http: SocketAddr, https: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 8192\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n  \
         option http-keep-alive\n  option forwardfor\n  http-reuse always\n\
         frontend bench\n  bind {http} backlog 4096\n  bind {https} ssl crt {pem} alpn h2,http/1.1 backlog 4096\n  \
         default_backend backend\n\
         backend backend\n  server backend {backend} pool-max-conn 512\n",
        backend = setting.backend
    )
}

/// Its own defaults, without what the others do not do: request ids and `x-envoy-*` headers.
fn envoy(setting: &Setting, http: SocketAddr, https: SocketAddr) -> serde_json::Value {
    use serde_json::json;
    let typed = "type.googleapis.com/envoy.extensions";
    let address = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let filters = json!([{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{typed}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "bench",
            "codec_type": "AUTO",
            "use_remote_address": true,
            "generate_request_id": false,
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": format!("{typed}.filters.http.router.v3.Router"), "suppress_envoy_headers": true}}],
            "route_config": {"virtual_hosts": [{"name": "bench", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]}]},
        },
    }]);
    let tls = json!({"name": "tls", "typed_config": {
        "@type": format!("{typed}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{
                "certificate_chain": {"filename": setting.certificate}, "private_key": {"filename": setting.key}}],
        },
    }});
    json!({"static_resources": {
        "listeners": [
            {"name": "http", "address": address(http), "filter_chains": [{"filters": filters}]},
            {"name": "https", "address": address(https), "filter_chains": [{"filters": filters, "transport_socket": tls}]},
        ],
        "clusters": [{"name": "backend", "connect_timeout": "5s", "type": "STATIC", "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(setting.backend)}}]}]}}],
    }})
}

/// What a user would write: one Gateway with two listeners, one HTTPRoute, one Service.
fn sluice(setting: &Setting, http: SocketAddr, https: SocketAddr) -> anyhow::Result<String> {
    let certificate = base64(&fs::read(&setting.certificate)?);
    let key = base64(&fs::read(&setting.key)?);
    let (http, https, backend) = (http.port(), https.port(), setting.backend);
    Ok(format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: sluice}}\n\
         spec: {{controllerName: sluice.dev/gateway-controller}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: bench, namespace: default}}\n\
         spec:\n  gatewayClassName: sluice\n  listeners:\n  \
         - {{name: http, port: {http}, protocol: HTTP}}\n  \
         - name: https\n    port: {https}\n    protocol: HTTPS\n    \
         tls: {{mode: Terminate, certificateRefs: [{{name: bench}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: bench, namespace: default}}\n\
         spec:\n  parentRefs: [{{name: bench}}]\n  rules:\n  \
         - matches: [{{path: {{type: PathPrefix, value: /}}}}]\n    backendRefs: [{{name: backend, port: 80}}]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n  name: backend\n  namespace: default\n  \
         annotations: {{sluice.dev/endpoints: \"{backend}\"}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: bench, namespace: default}}\ntype: kubernetes.io/tls\n\
         data: {{tls.crt: {certificate}, tls.key: {key}}}\n"
    ))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[index])
            } else {
                '='
            });
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_pads_what_is_left_over() {
        // RFC 4648 §10.
        let vectors = [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("", ""),
        ];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
