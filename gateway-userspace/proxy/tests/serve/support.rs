//! A world for one test: a proxy with one worker or more, scripted backends, raw clients.

mod backend;
mod client;
mod config;
mod http2_backend;
mod http2_client;
mod secure;
mod secure_backend;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway_model::names::Revision;
use gateway_model::snapshot::{Snapshot, compile};
use gateway_proxy::{Applied, Limits, ListenMode, Proxy, Settings, Stats};
use socket2::{Domain, Socket, Type};

pub use backend::Backend;
pub use client::{Client, Response};
pub use config::{Config, RouteSpec, addresses, listener_key, upstream_key};
pub use http2_backend::{Asked, Http2Backend};
pub use http2_client::{Body, empty, full, get, http2_over, streamed};
pub use secure::{Authority, tls_connect};
pub use secure_backend::SecureBackend;

/// A running proxy and the address it listens on.
pub struct World {
    pub proxy: Proxy,
    pub address: SocketAddr,
    revision: AtomicU64,
    applied: Mutex<Option<Arc<Snapshot>>>,
}

impl World {
    /// A proxy that serves this configuration on a port of the kernel's choosing.
    pub async fn new(config: Config) -> Self {
        Self::with(config, |_| {}).await
    }

    /// The same with other limits.
    pub async fn with(config: Config, change: impl FnOnce(&mut Limits)) -> Self {
        let mut settings = Settings {
            workers: 1.try_into().unwrap(),
            ..Settings::default()
        };
        change(&mut settings.limits);
        Self::start(config, settings).await
    }

    /// The same with other settings.
    pub async fn start(config: Config, settings: Settings) -> Self {
        // The port serves datagrams too, if the configuration says so.
        let (address, fd, _reserved) = loop {
            let (address, fd) = listening_socket();
            if let Ok((_, reserved)) = reserved(address) {
                break (address, fd, reserved);
            }
        };
        Self::at(address, vec![(address, fd)], config, settings).await
    }

    /// The same on this address, with the sockets of another proxy.
    pub async fn at(
        address: SocketAddr,
        inherited: Vec<(SocketAddr, OwnedFd)>,
        config: Config,
        settings: Settings,
    ) -> Self {
        let proxy = Proxy::start(settings, ListenMode::Sockets { inherited }).unwrap();
        let world = Self {
            proxy,
            address,
            revision: AtomicU64::new(0),
            applied: Mutex::default(),
        };
        let applied = world.apply(config).await;
        assert_eq!(applied.failures, []);
        world
    }

    /// Applies another configuration.
    pub async fn apply(&self, config: Config) -> Applied {
        let revision = Revision(self.revision.fetch_add(1, Ordering::Relaxed) + 1);
        let before = self.applied.lock().unwrap().clone();
        let compiled = compile(&config.build(self.address), revision, before.as_deref());
        assert_eq!(compiled.rejected, []);
        *self.applied.lock().unwrap() = Some(Arc::clone(&compiled.snapshot));
        self.proxy.apply(compiled.snapshot).await
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Response {
        let mut client = self.client().await;
        client.get(host, path).await
    }

    /// Waits until the proxy's figures satisfy a condition.
    pub async fn until(&self, what: &str, holds: impl Fn(&Stats) -> bool) {
        let failed = || format!("{what}: {:?}", self.proxy.stats());
        wait(failed, || holds(&self.proxy.stats())).await;
    }
}

/// Waits for a condition.
pub async fn eventually(what: &str, holds: impl FnMut() -> bool) {
    wait(|| what.to_owned(), holds).await;
}

async fn wait(what: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "never: {}",
            what()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An address for datagrams, its port the kernel's choice if it is 0, that nobody else gets as long as the socket
/// lives; the proxy may share it.
pub fn reserved(address: SocketAddr) -> std::io::Result<(SocketAddr, Socket)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let address = socket.local_addr()?.as_socket();
    Ok((address.expect("an address of IP"), socket))
}

/// An endpoint that refuses connections: its port is taken, and nobody listens.
pub struct Refusing {
    pub address: SocketAddr,
    _socket: Socket,
}

impl Refusing {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        Self {
            address: socket.local_addr().unwrap().as_socket().unwrap(),
            _socket: socket,
        }
    }
}

/// A listening socket on loopback that further workers may share.
pub fn listening_socket() -> (SocketAddr, OwnedFd) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(1024).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (address, socket.into())
}
