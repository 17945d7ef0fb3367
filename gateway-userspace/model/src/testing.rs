//! What this crate's tests share: small configurations and requests, built in one line.

use std::sync::Arc;

use crate::head::Head;
use crate::ir::{
    Action, BackendTarget, Endpoint, Endpoints, HeaderMatch, HeaderName, HttpMatch, Ir, Listener,
    ListenerProtocol, MatchOrder, PathMatch, QueryMatch, Route, RouteAttachment, Rule, RuleMatch,
    SourcePolicy, Timeouts, TlsTermination, Upstream, UpstreamProtocol, ValueMatch,
    WeightedBackend,
};
use crate::names::{Hostname, ListenerKey, ObjectKind, ObjectRef, UpstreamKey};

/// A request head of plain parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub host: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// `GET` of `host/path?query`.
    pub fn get(url: &str) -> Self {
        let (host, rest) = url.split_once('/').unwrap_or((url, ""));
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        Self {
            method: "GET".to_owned(),
            path: format!("/{path}"),
            query,
            host: host.to_owned(),
            headers: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Head for Request {
    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn header_values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name.as_str()))
            .map(|(_, value)| value.as_bytes())
    }
}

pub(crate) fn hostname(text: &str) -> Hostname {
    Hostname::parse(text).expect("a hostname")
}

pub(crate) fn listener_key(section: &str) -> ListenerKey {
    ListenerKey {
        gateway: ObjectRef::new(ObjectKind::Gateway, "infra", "web"),
        section: section.into(),
    }
}

pub(crate) fn listener(section: &str, port: u16, host: Option<&str>) -> Listener {
    let key = listener_key(section);
    Listener {
        gateway: key.gateway.clone(),
        key,
        addresses: Vec::new(),
        port,
        protocol: ListenerProtocol::Http,
        backend_client_certificate: None,
        hostname: host.map(hostname),
        source_policy: SourcePolicy::default(),
    }
}

pub(crate) fn tls(mut listener: Listener) -> Listener {
    listener.protocol = ListenerProtocol::Https(TlsTermination {
        certificates: Vec::new(),
        client_validation: None,
    });
    listener
}

pub(crate) fn upstream_key(name: &str) -> UpstreamKey {
    UpstreamKey::http(ObjectRef::new(ObjectKind::Service, "shop", name), 80)
}

pub(crate) fn upstream(name: &str, addresses: &[&str]) -> Upstream {
    Upstream {
        key: upstream_key(name),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        endpoints: Endpoints::Addresses(
            addresses
                .iter()
                .map(|address| Endpoint {
                    address: address.parse().expect("an address"),
                })
                .collect(),
        ),
    }
}

pub(crate) fn header_is(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: HeaderName::parse(name).expect("a token"),
        value: ValueMatch::Exact(value.into()),
    }
}

pub(crate) fn query_is(name: &str, value: &str) -> QueryMatch {
    QueryMatch {
        name: name.into(),
        value: ValueMatch::Exact(value.into()),
    }
}

/// Conditions from a path as tests write it: `/a` exact, `/a*` prefix, `~/a.*` regular expression.
pub(crate) fn on(path: &str) -> HttpMatch {
    let path = if let Some(pattern) = path.strip_prefix('~') {
        PathMatch::Regex(pattern.into())
    } else if let Some(prefix) = path.strip_suffix('*') {
        PathMatch::Prefix(prefix.trim_end_matches('/').into())
    } else {
        PathMatch::Exact(path.into())
    };
    HttpMatch {
        path,
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

/// The order in which Gateway API asks matches: exact paths, then longer prefixes, then regular
/// expressions, then more conditions.
pub(crate) fn specificity(conditions: &HttpMatch) -> [u32; 5] {
    let length = |path: &str| u32::MAX - u32::try_from(path.len()).expect("short");
    let (kind, length) = match &conditions.path {
        PathMatch::Exact(path) => (0, length(path)),
        PathMatch::Prefix(path) => (1, length(path)),
        PathMatch::Regex(path) => (2, length(path)),
    };
    let fewer = |n: usize| u32::MAX - u32::try_from(n).expect("few");
    [
        kind,
        length,
        u32::from(conditions.method.is_none()),
        fewer(conditions.headers.len()),
        fewer(conditions.query.len()),
    ]
}

/// A route with one rule for each list of conditions, all on one listener; rule N forwards to upstream `bN`.
pub(crate) fn route(
    name: &str,
    section: &str,
    hosts: &[&str],
    rules: Vec<Vec<HttpMatch>>,
) -> Route {
    let object = ObjectRef::new(ObjectKind::HttpRoute, "shop", name);
    let rules = (0..).zip(rules).map(|(index, alternatives)| {
        let matches = (0..)
            .zip(alternatives)
            .map(|(alternative, conditions)| RuleMatch {
                order: MatchOrder {
                    rank: specificity(&conditions),
                    created: 0,
                    object: object.clone(),
                    rule: index,
                    alternative,
                },
                conditions,
            });
        Arc::new(Rule {
            name: None,
            index,
            matches: matches.collect(),
            action: Action::Forward(Box::new([WeightedBackend {
                weight: 1,
                target: BackendTarget::Upstream(upstream_key(&format!("b{index}"))),
                filters: Box::default(),
            }])),
            filters: Box::default(),
            cors: None,
            timeouts: Timeouts::default(),
            retry: None,
        })
    });
    Route {
        rules: rules.collect(),
        attachments: [RouteAttachment {
            listener: listener_key(section),
            hostnames: hosts.iter().map(|host| hostname(host)).collect(),
        }]
        .into(),
        object,
    }
}

pub(crate) fn ir(
    listeners: impl IntoIterator<Item = Listener>,
    routes: impl IntoIterator<Item = Route>,
    upstreams: impl IntoIterator<Item = Upstream>,
) -> Ir {
    Ir {
        listeners: listeners
            .into_iter()
            .map(|listener| (listener.key.clone(), Arc::new(listener)))
            .collect(),
        routes: routes
            .into_iter()
            .map(|route| (route.object.clone(), Arc::new(route)))
            .collect(),
        upstreams: upstreams
            .into_iter()
            .map(|upstream| (upstream.key.clone(), Arc::new(upstream)))
            .collect(),
        certificates: imbl::OrdMap::new(),
    }
}
