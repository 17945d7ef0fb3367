//! Configurations in a few words.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_model::ir::{
    Action, BackendTarget, Certificate, CertificateKey, ClientValidation, ClientValidationMode,
    Cors, Endpoint, Endpoints, Filter, HttpMatch, Ir, Listener, ListenerProtocol, MatchOrder,
    PathMatch, Retry, Route, RouteAttachment, Rule, RuleMatch, SourcePolicy, Timeouts,
    TlsTermination, Upstream, UpstreamProtocol, UpstreamTls, WeightedBackend,
};
use gateway_model::names::{Hostname, ListenerKey, ObjectKind, ObjectRef, UpstreamKey};

use super::Authority;

/// Listeners, routes and upstreams of one world.
#[derive(Clone, Default)]
pub struct Config {
    ir: Ir,
    listeners: Vec<(String, Option<&'static str>, ListenerProtocol, SourcePolicy)>,
    routes: u32,
    shown: Option<CertificateKey>,
}

/// One rule of a route of its own.
pub struct RouteSpec {
    pub listener: &'static str,
    pub hostnames: &'static [&'static str],
    pub path: &'static str,
    pub action: Action,
    pub filters: Vec<Filter>,
    pub cors: Option<Cors>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
}

impl Config {
    /// One clear-text listener and one route to these endpoints.
    pub fn to(endpoints: &[SocketAddr]) -> Self {
        let mut config = Self::default().http("http", None);
        let action = config.upstream("app", endpoints);
        config.route(RouteSpec::new("http", "", action))
    }

    /// The same, to endpoints of HTTP/2 with prior knowledge.
    pub fn to_http2(endpoints: &[SocketAddr]) -> Self {
        let mut config = Self::default().http("http", None);
        let action = config.upstream_of("app", UpstreamProtocol::Http2, addresses(endpoints));
        config.route(RouteSpec::new("http", "", action))
    }

    pub fn http(mut self, name: &str, hostname: Option<&'static str>) -> Self {
        let policy = SourcePolicy::default();
        self.listeners
            .push((name.into(), hostname, ListenerProtocol::Http, policy));
        self
    }

    pub fn https(
        mut self,
        name: &str,
        hostname: Option<&'static str>,
        certificate: &Arc<Certificate>,
    ) -> Self {
        let key = CertificateKey(object(ObjectKind::Secret, name));
        self.ir
            .certificates
            .insert(key.clone(), Arc::clone(certificate));
        let termination = TlsTermination {
            certificates: vec![key],
            client_validation: None,
        };
        let protocol = ListenerProtocol::Https(termination);
        let policy = SourcePolicy::default();
        self.listeners
            .push((name.into(), hostname, protocol, policy));
        self
    }

    /// A further certificate of the last listener.
    pub fn or(mut self, secret: &str, certificate: &Arc<Certificate>) -> Self {
        let key = CertificateKey(object(ObjectKind::Secret, secret));
        self.ir
            .certificates
            .insert(key.clone(), Arc::clone(certificate));
        let Some((.., ListenerProtocol::Https(termination), _)) = self.listeners.last_mut() else {
            unreachable!("a listener of HTTPS comes first")
        };
        termination.certificates.push(key);
        self
    }

    /// A listener of streams.
    pub fn streams(
        mut self,
        name: &str,
        hostname: Option<&'static str>,
        protocol: ListenerProtocol,
    ) -> Self {
        let policy = SourcePolicy::default();
        self.listeners
            .push((name.into(), hostname, protocol, policy));
        self
    }

    /// A listener that terminates TLS and passes on what is inside.
    pub fn terminating(
        mut self,
        name: &str,
        hostname: Option<&'static str>,
        certificate: &Arc<Certificate>,
    ) -> Self {
        self = self.https(name, hostname, certificate);
        let listener = self.listeners.last_mut().unwrap();
        let ListenerProtocol::Https(termination) = listener.2.clone() else {
            unreachable!()
        };
        listener.2 = ListenerProtocol::TlsTerminate(termination);
        self
    }

    /// The listener that was added last believes this certificate too.
    pub fn believing(mut self, certificate: &Certificate) -> Self {
        let listener = self.listeners.last_mut().unwrap();
        let ListenerProtocol::Https(tls) = &mut listener.2 else {
            unreachable!()
        };
        let validation = Arc::make_mut(tls.client_validation.as_mut().unwrap());
        validation
            .authorities
            .push(Arc::clone(&certificate.chain[0]));
        self
    }

    /// The listener that was added last asks clients for certificates.
    pub fn validating(mut self, authorities: &[&Authority], mode: ClientValidationMode) -> Self {
        let validation = ClientValidation {
            authorities: authorities
                .iter()
                .map(|authority| authority.der())
                .collect(),
            mode,
        };
        match &mut self.listeners.last_mut().unwrap().2 {
            ListenerProtocol::Https(tls) | ListenerProtocol::TlsTerminate(tls) => {
                tls.client_validation = Some(Arc::new(validation));
            }
            _ => unreachable!(),
        }
        self
    }

    /// The policy of the listener that was added last.
    pub fn permitting(mut self, policy: SourcePolicy) -> Self {
        self.listeners.last_mut().unwrap().3 = policy;
        self
    }

    /// An upstream; gives the action that forwards to it.
    pub fn upstream(&mut self, name: &str, endpoints: &[SocketAddr]) -> Action {
        self.upstream_of(name, UpstreamProtocol::Http1, addresses(endpoints))
    }

    pub fn upstream_of(
        &mut self,
        name: &str,
        protocol: UpstreamProtocol,
        endpoints: Endpoints,
    ) -> Action {
        let key = upstream_key(name);
        let upstream = Upstream {
            tls: None,
            key: key.clone(),
            protocol,
            endpoints,
        };
        self.ir.upstreams.insert(key.clone(), Arc::new(upstream));
        Action::Forward(Box::new([WeightedBackend {
            weight: 1,
            target: BackendTarget::Upstream(key),
            filters: Box::default(),
        }]))
    }

    /// An action that shares out what comes: an upstream of each name, or nothing where there is no endpoint.
    pub fn shares(&mut self, shares: &[(u32, &str, Option<SocketAddr>)]) -> Action {
        let backend = |(weight, name, endpoint): &(u32, &str, Option<SocketAddr>)| {
            let target = match endpoint {
                Some(endpoint) => {
                    self.upstream(name, &[*endpoint]);
                    BackendTarget::Upstream(upstream_key(name))
                }
                None => BackendTarget::Unavailable {
                    status: 500,
                    reason: (*name).into(),
                },
            };
            WeightedBackend {
                weight: *weight,
                target,
                filters: Box::default(),
            }
        };
        Action::Forward(shares.iter().map(backend).collect())
    }

    /// Speaks TLS with an upstream that has been added.
    pub fn secure(&mut self, name: &str, tls: UpstreamTls) {
        let upstream = self.ir.upstreams.get_mut(&upstream_key(name)).unwrap();
        Arc::make_mut(upstream).tls = Some(Arc::new(tls));
    }

    /// Shows backends this certificate.
    pub fn showing(mut self, certificate: &Arc<Certificate>) -> Self {
        let key = CertificateKey(object(ObjectKind::Secret, "shown"));
        self.ir
            .certificates
            .insert(key.clone(), Arc::clone(certificate));
        self.shown = Some(key);
        self
    }

    pub fn route(mut self, spec: RouteSpec) -> Self {
        self.routes += 1;
        let route = object(ObjectKind::HttpRoute, &format!("route-{}", self.routes));
        let order = MatchOrder {
            rank: [u32::MAX - spec.path.len() as u32, 0, 0, 0, 0],
            created: 0,
            object: route.clone(),
            rule: 0,
            alternative: 0,
        };
        let conditions = HttpMatch {
            path: PathMatch::Prefix(spec.path.into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        };
        let rule = Rule {
            name: None,
            index: 0,
            matches: [RuleMatch { conditions, order }].into(),
            action: spec.action,
            filters: spec.filters.into(),
            cors: spec.cors.map(Box::new),
            timeouts: spec.timeouts,
            retry: spec.retry.map(Arc::new),
        };
        let hostnames = spec.hostnames.iter();
        let attachment = RouteAttachment {
            listener: listener_key(spec.listener),
            hostnames: hostnames.map(|h| Hostname::parse(h).unwrap()).collect(),
        };
        let object = Route {
            object: route.clone(),
            attachments: [attachment].into(),
            rules: vec![Arc::new(rule)],
        };
        self.ir.routes.insert(route, Arc::new(object));
        self
    }

    pub fn build(mut self, address: SocketAddr) -> Ir {
        for (name, hostname, protocol, source_policy) in self.listeners {
            let key = listener_key(&name);
            let listener = Listener {
                key: key.clone(),
                gateway: key.gateway.clone(),
                backend_client_certificate: self.shown.clone(),
                addresses: match address.ip().is_unspecified() {
                    true => Vec::new(),
                    false => vec![address.ip()],
                },
                port: address.port(),
                protocol,
                hostname: hostname.map(|name| Hostname::parse(name).unwrap()),
                source_policy,
            };
            self.ir.listeners.insert(key, Arc::new(listener));
        }
        self.ir
    }
}

impl RouteSpec {
    pub fn new(listener: &'static str, path: &'static str, action: Action) -> Self {
        Self {
            listener,
            hostnames: &[],
            path,
            action,
            filters: Vec::new(),
            cors: None,
            timeouts: Timeouts::default(),
            retry: None,
        }
    }
}

/// Endpoints with these addresses.
pub fn addresses(addresses: &[SocketAddr]) -> Endpoints {
    let list = addresses.iter().map(|&address| Endpoint { address });
    Endpoints::Addresses(list.collect())
}

pub fn listener_key(name: &str) -> ListenerKey {
    ListenerKey {
        gateway: object(ObjectKind::Gateway, "gateway"),
        section: name.into(),
    }
}

pub fn upstream_key(name: &str) -> UpstreamKey {
    UpstreamKey::http(object(ObjectKind::Service, name), 80)
}

fn object(kind: ObjectKind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "test", name)
}
