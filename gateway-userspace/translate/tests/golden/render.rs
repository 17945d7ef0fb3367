//! A translation as YAML that a reviewer can read: one line for what is one thought.

use std::fmt::Write as _;

use gateway_model::ir::{
    Action, Authorities, BackendTarget, Certificate, Cors, CorsOrigin, Endpoints, Filter,
    HeaderEdits, HttpMatch, Ir, Listener, ListenerProtocol, PathMatch, PathRewrite, Redirect,
    Retry, Route, Rule, SubjectAltName, Timeouts, Upstream, UpstreamTls, ValueMatch,
    WeightedBackend,
};
use gateway_translate::{Applied, ProvisionKind, ProvisionedPort, ProvisionedService, Translation};
use serde_json::{Map, Value, json};

/// The whole output of a case.
pub fn output(translation: &Translation, refused: &[String], applied: &Applied) -> String {
    let mut output = Map::new();
    if !refused.is_empty() {
        output.insert("refused".to_owned(), json!(refused));
    }
    output.insert("ir".to_owned(), ir(&translation.ir));
    let statuses: Map<String, Value> = translation
        .statuses
        .iter()
        .map(|(object, status)| {
            let finished = status.finish(object, applied);
            let value = serde_json::to_value(&finished).expect("a status");
            (object.to_string(), shorten(value))
        })
        .collect();
    output.insert("statuses".to_owned(), Value::Object(statuses));
    if !translation.provisions.is_empty() {
        let provisions = translation.provisions.iter();
        let provisions = provisions.map(|(gateway, s)| (gateway.to_string(), service(s)));
        output.insert("provisions".to_owned(), Value::Object(provisions.collect()));
    }
    serde_saphyr::to_string(&Value::Object(output)).expect("yaml")
}

/// Conditions on one line each: `Accepted=True (Accepted, generation 1): message`.
fn shorten(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(shorten).collect(),
        Value::Object(map) if map.contains_key("observedGeneration") => {
            let text = |name: &str| map[name].as_str().expect("a text").to_owned();
            Value::String(format!(
                "{}={} ({}, generation {}): {}",
                text("type"),
                text("status"),
                text("reason"),
                map["observedGeneration"],
                text("message")
            ))
        }
        Value::Object(map) => {
            let features = |(name, value): (String, Value)| {
                if name == "supportedKinds" {
                    (name, kinds(&value))
                } else if name == "supportedFeatures" {
                    let count = value.as_array().map_or(0, Vec::len);
                    (name, json!(format!("{count} features")))
                } else {
                    (name, shorten(value))
                }
            };
            Value::Object(map.into_iter().map(features).collect())
        }
        other => other,
    }
}

fn kinds(value: &Value) -> Value {
    let kinds = value.as_array().into_iter().flatten();
    let kind = |kind: &Value| {
        let text = |name: &str| kind[name].as_str().expect("a text").to_owned();
        json!(format!("{}/{}", text("group"), text("kind")))
    };
    kinds.map(kind).collect()
}

fn ir(ir: &Ir) -> Value {
    let listeners: Map<_, _> = ir
        .listeners
        .iter()
        .map(|(key, l)| (key.to_string(), listener(l)))
        .collect();
    let routes: Map<_, _> = ir
        .routes
        .iter()
        .map(|(object, r)| (object.to_string(), route(r)))
        .collect();
    let upstreams: Map<_, _> = ir
        .upstreams
        .iter()
        .map(|(key, u)| (key.to_string(), json!(upstream(u))))
        .collect();
    let certificates: Map<_, _> = ir
        .certificates
        .iter()
        .map(|(key, c)| (key.0.to_string(), json!(certificate(c))))
        .collect();
    json!({
        "listeners": listeners,
        "routes": routes,
        "upstreams": upstreams,
        "certificates": certificates,
    })
}

fn listener(listener: &Listener) -> Value {
    let mut map = Map::new();
    let protocol = match &listener.protocol {
        ListenerProtocol::Http => "HTTP",
        ListenerProtocol::Https(_) => "HTTPS",
        ListenerProtocol::TlsTerminate(_) => "TLS",
        ListenerProtocol::TlsPassthrough => "TLS passthrough",
        ListenerProtocol::Tcp => "TCP",
        ListenerProtocol::Udp => "UDP",
    };
    let certificates = listener.protocol.termination().map(|tls| &tls.certificates);
    let host = listener.hostname.as_ref().map_or("*", |h| h.as_str());
    map.insert(
        "serves".to_owned(),
        json!(format!("{protocol} {host} on port {}", listener.port)),
    );
    if !listener.addresses.is_empty() {
        map.insert("addresses".to_owned(), json!(listener.addresses));
    }
    if let Some(certificates) = certificates {
        let names: Vec<_> = certificates.iter().map(|c| c.0.to_string()).collect();
        map.insert("certificates".to_owned(), json!(names));
    }
    if listener.gateway != listener.key.gateway {
        map.insert("gateway".to_owned(), json!(listener.gateway.to_string()));
    }
    let validation = listener.protocol.termination();
    if let Some(validation) = validation.and_then(|tls| tls.client_validation.as_ref()) {
        let count = validation.authorities.len();
        let text = format!("{:?} by {count} authorities", validation.mode);
        map.insert("clients".to_owned(), json!(text));
    }
    if let Some(key) = &listener.backend_client_certificate {
        map.insert("shows to backends".to_owned(), json!(key.0.to_string()));
    }
    let policy = &listener.source_policy;
    if !policy.allow.is_empty() {
        map.insert("allow".to_owned(), json!(policy.allow));
    }
    if !policy.deny.is_empty() {
        map.insert("deny".to_owned(), json!(policy.deny));
    }
    Value::Object(map)
}

fn service(service: &ProvisionedService) -> Value {
    let kind = match service.kind {
        ProvisionKind::LoadBalancer => "load balancer",
        ProvisionKind::Headless => "headless",
    };
    let ports: Vec<_> = service.ports.iter().map(ProvisionedPort::name).collect();
    json!({
        "service": format!("{} ({kind})", service.name),
        "owner": service.owner,
        "labels": service.labels,
        "annotations": service.annotations,
        "ports": ports,
        "endpoints": service.endpoints,
    })
}

fn certificate(certificate: &Certificate) -> String {
    format!(
        "{} certificates for {}, until {}",
        certificate.chain.len(),
        certificate.names.join(", "),
        certificate.not_after
    )
}

fn upstream(upstream: &Upstream) -> String {
    let mut protocol = format!("{:?}", upstream.protocol);
    if let Some(tls) = &upstream.tls {
        let _ = write!(protocol, " over {}", upstream_tls(tls));
    }
    match &upstream.endpoints {
        Endpoints::Addresses(endpoints) if endpoints.is_empty() => {
            format!("{protocol} to nowhere")
        }
        Endpoints::Addresses(endpoints) => {
            let list: Vec<_> = endpoints.iter().map(|e| e.address.to_string()).collect();
            format!("{protocol} to {}", list.join(", "))
        }
        Endpoints::Dns { host, port } => format!("{protocol} to the name {host} port {port}"),
    }
}

fn upstream_tls(tls: &UpstreamTls) -> String {
    let mut text = format!("TLS as {}", tls.server_name);
    for name in &tls.subject_alt_names {
        let _ = match name {
            SubjectAltName::Hostname(name) => write!(text, " or name {name}"),
            SubjectAltName::Uri(uri) => write!(text, " or URI {uri}"),
        };
    }
    let _ = match &tls.authorities {
        Authorities::System => write!(text, " signed by the system's authorities"),
        Authorities::These(anchors) => write!(text, " signed by {} authorities", anchors.len()),
    };
    text
}

fn route(route: &Route) -> Value {
    let attachments: Map<_, _> = route
        .attachments
        .iter()
        .map(|a| {
            let names: Vec<_> = a.hostnames.iter().map(|h| h.as_str()).collect();
            (a.listener.to_string(), json!(names))
        })
        .collect();
    let rules: Vec<_> = route.rules.iter().map(|r| rule(r)).collect();
    json!({ "attachments": attachments, "rules": rules })
}

fn rule(rule: &Rule) -> Value {
    let mut map = Map::new();
    let name = rule
        .name
        .as_deref()
        .map_or(String::new(), |n| format!(" {n}"));
    map.insert("rule".to_owned(), json!(format!("{}{name}", rule.index)));
    let matches: Vec<_> = rule
        .matches
        .iter()
        .map(|m| {
            let o = &m.order;
            format!(
                "{} @ {} created {} {} {}.{}",
                conditions(&m.conditions),
                o.rank.map(complement).join(" "),
                o.created,
                o.object,
                o.rule,
                o.alternative
            )
        })
        .collect();
    map.insert("matches".to_owned(), json!(matches));
    map.insert("action".to_owned(), action(&rule.action));
    if !rule.filters.is_empty() {
        let steps: Vec<_> = rule.filters.iter().map(filter).collect();
        map.insert("filters".to_owned(), json!(steps));
    }
    if let Some(cors_filter) = &rule.cors {
        map.insert("cors".to_owned(), json!(cors(cors_filter)));
    }
    if rule.timeouts != Timeouts::default() {
        map.insert("timeouts".to_owned(), json!(format!("{:?}", rule.timeouts)));
    }
    if let Some(policy) = &rule.retry {
        map.insert("retry".to_owned(), json!(retry(policy)));
    }
    Value::Object(map)
}

/// A complement as the number it was made of.
fn complement(rank: u32) -> String {
    if rank > u32::MAX / 2 {
        format!("~{}", !rank)
    } else {
        rank.to_string()
    }
}

fn conditions(conditions: &HttpMatch) -> String {
    let mut text = match &conditions.path {
        PathMatch::Exact(path) => format!("exact {path}"),
        PathMatch::Prefix(path) => format!("prefix {path}/"),
        PathMatch::Regex(path) => format!("regex {path}"),
    };
    if let Some(method) = &conditions.method {
        let _ = write!(text, " method {method}");
    }
    for header in &conditions.headers {
        let _ = write!(
            text,
            " header {}{}",
            header.name.as_str(),
            value(&header.value)
        );
    }
    for query in &conditions.query {
        let _ = write!(text, " query {}{}", query.name, value(&query.value));
    }
    text
}

fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(text) => format!("={text}"),
        ValueMatch::Prefix(text) => format!("={text}..."),
        ValueMatch::Regex(text) => format!("~{text}"),
    }
}

fn action(action: &Action) -> Value {
    match action {
        Action::Forward(backends) if backends.is_empty() => json!("nowhere to go: 500"),
        Action::Forward(backends) => backends.iter().map(backend).collect(),
        Action::Redirect(r) => json!(redirect(r)),
        Action::Respond { status, reason } => json!(format!("answer {status}: {reason}")),
    }
}

fn backend(backend: &WeightedBackend) -> Value {
    let target = match &backend.target {
        BackendTarget::Upstream(key) => format!("{}: {key}", backend.weight),
        BackendTarget::Unavailable { status, reason } => {
            format!("{}: answer {status}: {reason}", backend.weight)
        }
    };
    if backend.filters.is_empty() {
        return json!(target);
    }
    let steps: Vec<_> = backend.filters.iter().map(filter).collect();
    json!({ target: steps })
}

fn redirect(redirect: &Redirect) -> String {
    let mut text = format!("redirect {}", redirect.status);
    if let Some(scheme) = redirect.scheme {
        let _ = write!(text, " scheme {}", scheme.as_str());
    }
    if let Some(hostname) = &redirect.hostname {
        let _ = write!(text, " host {hostname}");
    }
    if let Some(port) = redirect.port {
        let _ = write!(text, " port {port}");
    }
    if let Some(modifier) = &redirect.path {
        let _ = write!(text, " {}", path(modifier));
    }
    text
}

fn path(path: &PathRewrite) -> String {
    match path {
        PathRewrite::Full(text) => format!("path {text:?}"),
        PathRewrite::Prefix(text) => format!("prefix {text:?}"),
    }
}

fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(edits) => format!("request headers{}", header_edits(edits)),
        Filter::ResponseHeaders(edits) => format!("response headers{}", header_edits(edits)),
        Filter::Rewrite(rewrite) => {
            let mut text = "rewrite".to_owned();
            if let Some(hostname) = &rewrite.hostname {
                let _ = write!(text, " host {hostname}");
            }
            if let Some(modifier) = &rewrite.path {
                let _ = write!(text, " {}", path(modifier));
            }
            text
        }
        Filter::Mirror(mirror) => {
            let target = mirror
                .target
                .upstream()
                .map_or("nowhere".to_owned(), ToString::to_string);
            let share = mirror.fraction.map_or("all".to_owned(), |f| {
                format!("{} of {}", f.numerator, f.denominator)
            });
            format!("mirror {share} to {target}")
        }
    }
}

fn header_edits(edits: &HeaderEdits) -> String {
    let mut text = String::new();
    for name in &edits.remove {
        let _ = write!(text, " remove {}", name.as_str());
    }
    for line in &edits.set {
        let _ = write!(text, " set {}={}", line.name.as_str(), line.value);
    }
    for line in &edits.add {
        let _ = write!(text, " add {}={}", line.name.as_str(), line.value);
    }
    text
}

fn cors(cors: &Cors) -> String {
    let origins: Vec<_> = cors
        .allow_origins
        .iter()
        .map(|origin| match origin {
            CorsOrigin::Any => "any".to_owned(),
            CorsOrigin::Exact(text) => text.to_string(),
            CorsOrigin::Wildcard { before, after } => format!("{before}<any>{after}"),
        })
        .collect();
    format!(
        "origins {} credentials {} methods {} headers {} expose {} for {} s",
        origins.join(", "),
        cors.allow_credentials,
        cors.allow_methods.join(", "),
        cors.allow_headers.join(", "),
        cors.expose_headers.join(", "),
        cors.max_age_s
    )
}

fn retry(retry: &Retry) -> String {
    format!(
        "{} attempts on {:?} after {:?}",
        retry.attempts, retry.codes, retry.backoff
    )
}
