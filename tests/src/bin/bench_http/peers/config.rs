//! What each proxy is given: the same routes, in its own words.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::Setting;
use crate::scenario::host;

/// How many routes of Sluice stand in a file.
const ROUTES_PER_FILE: usize = 1000;

/// The hosts that have a route each; None if one route is for whatever host.
fn hosts(setting: &Setting) -> Option<impl Iterator<Item = String>> {
    (setting.hosts > 0).then(|| (0..setting.hosts).map(host))
}

pub fn nginx(dir: &Path, setting: &Setting, http: SocketAddr, https: Option<SocketAddr>) -> String {
    let (dir, backend) = (dir.display(), setting.backend);
    let (certificate, key) = (setting.certificate.display(), setting.key.display());
    let mut listen = format!("listen {http} backlog=4096;");
    if let Some(https) = https {
        let _ = write!(
            listen,
            " listen {https} ssl http2 backlog=4096;\n\
             ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;"
        );
    }
    let mut servers = String::new();
    let mut serve = |name: &str, listen: &str| {
        let _ = writeln!(
            servers,
            "server {{ {name} {listen} location / {{ proxy_pass http://backend; }} }}"
        );
    };
    match hosts(setting) {
        None => serve("", &listen),
        // What is said of an address stands in one of its servers only.
        Some(hosts) => hosts.enumerate().for_each(|(at, host)| {
            let again = format!("listen {http};");
            let listen = if at == 0 { &listen } else { &again };
            serve(&format!("server_name {host};"), listen);
        }),
    }
    format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/pid;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
           access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n\
           server_names_hash_max_size 4194304; server_names_hash_bucket_size 128;\n\
           client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;\n\
           uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
           upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 600s; }}\n\
           proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
           proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
           {servers}\n\
         }}\n"
    )
}

pub fn haproxy(
    pem: &str,
    map: &str,
    setting: &Setting,
    http: SocketAddr,
    https: Option<SocketAddr>,
) -> String {
    let bind = https.map_or_else(String::new, |https| {
        format!("bind {https} ssl crt {pem} alpn h2,http/1.1 backlog 4096")
    });
    let choose = match setting.hosts {
        0 => "default_backend backend".to_owned(),
        _ => format!("use_backend %[req.hdr(host),field(1,:),lower,map_str({map})]"),
    };
    format!(
        "global\n  nbthread 1\n  maxconn 8192\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n  \
         option http-keep-alive\n  option forwardfor\n  http-reuse always\n\
         frontend bench\n  bind {http} backlog 4096\n  {bind}\n  {choose}\n\
         backend backend\n  server backend {backend} pool-max-conn 512\n",
        backend = setting.backend
    )
}

/// Each host beside the name of its backend.
pub fn haproxy_map(setting: &Setting) -> String {
    let hosts = hosts(setting).into_iter().flatten();
    hosts.map(|host| format!("{host} backend\n")).collect()
}

/// Its own defaults, without what the others do not do: request ids and `x-envoy-*` headers.
pub fn envoy(setting: &Setting, http: SocketAddr, https: Option<SocketAddr>) -> serde_json::Value {
    use serde_json::json;
    let virtual_host = |name: &str, domain: &str| {
        json!({"name": name, "domains": [domain],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]})
    };
    let virtual_hosts: Vec<_> = match hosts(setting) {
        None => vec![virtual_host("bench", "*")],
        Some(hosts) => hosts.map(|host| virtual_host(&host, &host)).collect(),
    };
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
            "route_config": {"virtual_hosts": virtual_hosts},
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
    let mut listeners = Vec::new();
    if let Some(https) = https {
        let chain = json!({"filters": filters, "transport_socket": tls});
        listeners
            .push(json!({"name": "https", "address": address(https), "filter_chains": [chain]}));
    }
    let chain = json!({"filters": filters});
    listeners.push(json!({"name": "http", "address": address(http), "filter_chains": [chain]}));
    json!({"static_resources": {
        "listeners": listeners,
        "clusters": [{"name": "backend", "connect_timeout": "5s", "type": "STATIC", "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(setting.backend)}}]}]}}],
    }})
}

/// What a user would write, as the texts of files: one Gateway with two listeners, one HTTPRoute, one Service; or an
/// HTTPRoute for each host.
pub fn sluice(
    setting: &Setting,
    http: SocketAddr,
    https: Option<SocketAddr>,
) -> anyhow::Result<Vec<String>> {
    let certificate = base64(&fs::read(&setting.certificate)?);
    let key = base64(&fs::read(&setting.key)?);
    let (port, backend) = (http.port(), setting.backend);
    let mut listeners = format!("  - {{name: http, port: {port}, protocol: HTTP}}\n");
    if let Some(https) = https {
        let _ = write!(
            listeners,
            "  - name: https\n    port: {}\n    protocol: HTTPS\n    \
             tls: {{mode: Terminate, certificateRefs: [{{name: bench}}]}}\n",
            https.port()
        );
    }
    let mut files = vec![format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: sluice}}\n\
         spec: {{controllerName: sluice.dev/gateway-controller}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: bench, namespace: default}}\n\
         spec:\n  gatewayClassName: sluice\n  listeners:\n{listeners}---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n  name: backend\n  namespace: default\n  \
         annotations: {{sluice.dev/endpoints: \"{backend}\"}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: bench, namespace: default}}\ntype: kubernetes.io/tls\n\
         data: {{tls.crt: {certificate}, tls.key: {key}}}\n"
    )];
    let route = |name: &str, hosts: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: {name}, namespace: default}}\n\
             spec:\n  parentRefs: [{{name: bench}}]\n  hostnames: [{hosts}]\n  rules:\n  \
             - matches: [{{path: {{type: PathPrefix, value: /}}}}]\n    backendRefs: [{{name: backend, port: 80}}]\n"
        )
    };
    match hosts(setting) {
        None => files.push(route("bench", "")),
        Some(hosts) => {
            let routes: Vec<_> = hosts.map(|host| route(&host, &host)).collect();
            files.extend(routes.chunks(ROUTES_PER_FILE).map(<[_]>::concat));
        }
    }
    Ok(files)
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
