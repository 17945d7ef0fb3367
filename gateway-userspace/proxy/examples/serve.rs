//! Measuring aid: serve LISTEN UPSTREAM [CERT.der KEY.der]
use gateway_model::ir::*;
use gateway_model::names::*;
use gateway_model::snapshot::compile;
use gateway_proxy::{ListenMode, Proxy, Settings};
use std::sync::Arc;

#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let listen: std::net::SocketAddr = a[1].parse().unwrap();
    let up: std::net::SocketAddr = a[2].parse().unwrap();
    let gw = ObjectRef::new(ObjectKind::Gateway, "infra", "web");
    let key = ListenerKey {
        gateway: gw.clone(),
        section: "http".into(),
    };
    let svc = UpstreamKey {
        backend: ObjectRef::new(ObjectKind::Service, "shop", "cart"),
        port: 80,
    };
    let route = ObjectRef::new(ObjectKind::HttpRoute, "shop", "web");
    let mut ir = Ir::default();
    let protocol = if a.len() > 4 {
        let cert = ObjectRef::new(ObjectKind::Secret, "infra", "cert");
        ir.certificates.insert(
            CertificateKey(cert.clone()),
            Arc::new(Certificate {
                chain: vec![std::fs::read(&a[3]).unwrap().into()],
                private_key: PrivateKey::Pkcs8(std::fs::read(&a[4]).unwrap().into()),
                not_after: i64::MAX,
                names: vec![],
            }),
        );
        ListenerProtocol::Https(TlsTermination {
            certificates: vec![CertificateKey(cert)],
        })
    } else {
        ListenerProtocol::Http
    };
    ir.listeners.insert(
        key.clone(),
        Arc::new(Listener {
            key: key.clone(),
            addresses: vec![listen.ip()],
            port: listen.port(),
            protocol,
            hostname: None,
            source_policy: SourcePolicy::default(),
        }),
    );
    ir.upstreams.insert(
        svc.clone(),
        Arc::new(Upstream {
            key: svc.clone(),
            protocol: UpstreamProtocol::Http1,
            endpoints: Endpoints::Addresses(vec![Endpoint { address: up }]),
        }),
    );
    ir.routes.insert(
        route.clone(),
        Arc::new(Route {
            object: route.clone(),
            attachments: vec![RouteAttachment {
                listener: key,
                hostnames: vec![],
            }],
            rules: vec![Arc::new(Rule {
                name: None,
                index: 0,
                matches: vec![RuleMatch {
                    conditions: HttpMatch {
                        path: PathMatch::Prefix("".into()),
                        method: None,
                        headers: vec![],
                        query: vec![],
                    },
                    order: MatchOrder {
                        rank: [0; 5],
                        created: 0,
                        object: route,
                        rule: 0,
                        alternative: 0,
                    },
                }],
                action: Action::Forward(vec![WeightedBackend {
                    weight: 1,
                    target: BackendTarget::Upstream(svc),
                    filters: vec![],
                }]),
                filters: vec![],
                cors: None,
                timeouts: Timeouts::default(),
                retry: None,
            })],
        }),
    );
    let compiled = compile(&ir, Revision(1), None);
    assert!(compiled.rejected.is_empty());
    let mut settings = Settings::default();
    settings.workers = 1.try_into().unwrap();
    if std::env::var_os("LOG").is_some() {
        settings.access_log = gateway_proxy::AccessLogFormat::Json;
    }
    let proxy = Proxy::start(settings, ListenMode::Sockets { inherited: vec![] }).unwrap();
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    rt.block_on(async {
        println!("{:?}", proxy.apply(compiled.snapshot).await);
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            if std::env::var_os("STATS").is_some() {
                println!("{:?}", proxy.stats());
            }
        }
    });
}
