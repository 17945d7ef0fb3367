//! The configurations: the same work for each, in the words of each.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::Setting;

/// nginx.conf: one process, no master.
pub fn nginx(dir: &Path, setting: &Setting, http: SocketAddr, https: SocketAddr) -> String {
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

/// haproxy.cfg: one thread.
pub fn haproxy(pem: &str, setting: &Setting, http: SocketAddr, https: SocketAddr) -> String {
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
pub fn envoy(setting: &Setting, http: SocketAddr, https: SocketAddr) -> serde_json::Value {
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

/// What a user would write: one Gateway with two listeners, one HTTPRoute, one Service; and `routes` HTTPRoutes more.
pub fn sluice(
    setting: &Setting,
    http: SocketAddr,
    https: SocketAddr,
    routes: usize,
) -> anyhow::Result<String> {
    let certificate = base64(&fs::read(&setting.certificate)?);
    let key = base64(&fs::read(&setting.key)?);
    let (http, https, backend) = (http.port(), https.port(), setting.backend);
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: sluice}}\n\
         spec: {{controllerName: sluice.dev/gateway-controller}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: bench, namespace: default}}\n\
         spec:\n  gatewayClassName: sluice\n  listeners:\n  \
         - {{name: http, port: {http}, protocol: HTTP}}\n  \
         - name: https\n    port: {https}\n    protocol: HTTPS\n    \
         tls: {{mode: Terminate, certificateRefs: [{{name: bench}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n  name: backend\n  namespace: default\n  \
         annotations: {{sluice.dev/endpoints: \"{backend}\"}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: bench, namespace: default}}\ntype: kubernetes.io/tls\n\
         data: {{tls.crt: {certificate}, tls.key: {key}}}\n"
    );
    text.push_str(&route("bench", "/"));
    for index in 0..routes {
        text.push_str(&route(
            &format!("route-{index}"),
            &format!("/route/{index}"),
        ));
    }
    Ok(text)
}

fn route(name: &str, prefix: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: default}}\nspec:\n  parentRefs: [{{name: bench}}]\n  rules:\n  \
         - matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]\n    backendRefs: [{{name: backend, port: 80}}]\n"
    )
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
