//! The echo backend: answers with what it received, misbehaves when asked to, and remembers every byte.
//!
//! A request says how it wants to be answered, in its query or in an `x-echo` header
//! (`status=503&delay-ms=20`); [`behaviour`] lists the words.

pub mod behaviour;
mod serve;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::netns::{Netns, runtime};
use crate::world::Host;

pub use behaviour::Behaviour;

/// What a backend saw of one request, and what it answers in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The backend's name.
    pub backend: String,
    /// The method.
    pub method: String,
    /// The request target, byte for byte.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// Header lines as they came: order, case, repetition.
    pub headers: Vec<(String, String)>,
    /// How long the body was, chunked coding removed.
    pub body_bytes: usize,
    /// FNV-1a of the body, in hexadecimal.
    pub body_hash: String,
    /// Trailer lines.
    pub trailers: Vec<(String, String)>,
    /// Who connected, without the port.
    pub peer: String,
    /// A number for the connection, from 1.
    pub connection: u64,
    /// The number of the request on its connection, from 1.
    pub request: u64,
}

impl Seen {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(same)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a header.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(same)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Takes it from a response of a backend.
    ///
    /// # Errors
    /// When the body is no such JSON.
    pub fn from_json(body: &[u8]) -> Result<Self> {
        serde_json::from_slice(body).with_context(|| {
            format!(
                "not from an echo backend: {:?}",
                String::from_utf8_lossy(body)
            )
        })
    }
}

/// A request as recorded: what was seen and the bytes of its head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// What was understood.
    pub seen: Seen,
    /// The head, byte for byte.
    pub raw_head: Vec<u8>,
    /// The body, chunked coding removed.
    pub body: Vec<u8>,
    /// Whether the request came to its end; a broken-off one is recorded too.
    pub complete: bool,
}

#[derive(Debug, Default)]
struct Shared {
    name: String,
    record: bool,
    requests: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    recorded: Mutex<Vec<Recorded>>,
    stray: Mutex<Vec<Vec<u8>>>,
}

impl Shared {
    fn recorded(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running echo backend. Dropping it closes its listener and its connections.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens, by the IPv4 address of its host where it has one.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Backend {
    /// Starts one on a host of a world, for IPv4 and IPv6, on a port that the kernel chooses.
    ///
    /// # Errors
    /// When nothing can be bound.
    pub fn start(host: &Host, name: &str) -> Result<Self> {
        let mut backend = Self::start_in(&host.ns, name, (Ipv6Addr::UNSPECIFIED, 0).into(), false)?;
        backend.address.set_ip(host.v4.into());
        Ok(backend)
    }

    /// As [`Backend::start`], and remembers every request: see [`Backend::recorded`].
    ///
    /// # Errors
    /// When nothing can be bound.
    pub fn recording(host: &Host, name: &str) -> Result<Self> {
        let mut backend = Self::start_in(&host.ns, name, (Ipv6Addr::UNSPECIFIED, 0).into(), true)?;
        backend.address.set_ip(host.v4.into());
        Ok(backend)
    }

    /// Starts one anywhere. `[::]` takes IPv4 too.
    ///
    /// # Errors
    /// When nothing can be bound.
    pub fn start_in(ns: &Netns, name: &str, bind: SocketAddr, record: bool) -> Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            record,
            ..Shared::default()
        });
        let (stop, stopped) = watch::channel(false);
        let listener = ns
            .run(|| serve::bind(bind))
            .with_context(|| format!("backend {name} on {bind}"))?;
        let mut address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V6(Ipv6Addr::LOCALHOST));
        }
        let state = Arc::clone(&shared);
        let thread = ns.spawn_thread(&format!("backend-{name}"), move || {
            let runtime = runtime().expect("a runtime can be made");
            runtime.block_on(serve::accept(listener, state, stopped));
        })?;
        Ok(Self {
            address,
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// The backend's name, as its answers and `x-backend` headers give it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Requests received so far, WebSocket upgrades included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Every request so far, if it is a recording one.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.recorded().clone()
    }

    /// Forgets what was recorded and gives it.
    #[must_use]
    pub fn take_recorded(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.shared.recorded())
    }

    /// What came that was no request: bytes left on a connection when it ended.
    #[must_use]
    pub fn take_stray(&self) -> Vec<Vec<u8>> {
        std::mem::take(
            &mut self
                .shared
                .stray
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Waits for a recorded request that fits, and gives it.
    ///
    /// # Errors
    /// When none comes.
    pub fn wait_recorded(&self, what: &str, fits: impl Fn(&Recorded) -> bool) -> Result<Recorded> {
        crate::until(what, || {
            self.shared.recorded().iter().find(|r| fits(r)).cloned()
        })
    }

    /// Stops it: no new connection, and open ones are cut.
    pub fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

/// FNV-1a with 64 bits, in hexadecimal: what [`Seen::body_hash`] holds.
#[must_use]
pub fn body_hash(body: &[u8]) -> String {
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// A deterministic body of this length, for checks that it arrives whole.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| b'a' + u8::try_from(i % 23).unwrap_or(0))
        .collect()
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
