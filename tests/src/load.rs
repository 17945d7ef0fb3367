//! Load that counts every outcome: many connections that ask one request after another and check
//! each answer.

mod http2;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::http1::{NothingCame, Response, Wire};
use crate::netns::{Netns, runtime};

/// What a response must be like; an error makes the request count as [`Failure::Wrong`].
pub type Check = dyn Fn(&Exchange<'_>) -> Result<()> + Send + Sync;
/// The bytes of the n-th request of one connection.
pub type Requests = dyn Fn(u64) -> Vec<u8> + Send + Sync;

/// One request and its response, with the times between which it was under way.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// When the first byte of the request was about to be sent.
    pub sent: Instant,
    /// When the last byte of the response had come.
    pub done: Instant,
    /// The response.
    pub response: &'a Response,
}

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection: refused.
    Refused,
    /// Reset, while connecting or later.
    Reset,
    /// Nothing for too long.
    Timeout,
    /// Closed before the response or inside it.
    Closed,
    /// The TLS handshake failed.
    Tls,
    /// A status of 400 or more that was not asked for.
    Status,
    /// The check did not like the response.
    Wrong,
    /// Anything else.
    Other,
}

/// What to ask, where, how often.
#[derive(Clone)]
pub struct Load {
    address: SocketAddr,
    from: Option<IpAddr>,
    host: String,
    tls: Option<Arc<ClientConfig>>,
    connections: usize,
    keep_alive: bool,
    http2: Option<String>,
    timeout: Duration,
    pause: Duration,
    limit: Option<u64>,
    requests: Arc<Requests>,
    check: Arc<Check>,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} connections to {} at {}",
            self.connections, self.host, self.address
        )
    }
}

impl Load {
    /// Four keep-alive connections that ask `GET /` of a host at an address, without pauses.
    #[must_use]
    pub fn new(address: SocketAddr, host: &str) -> Self {
        let load = Self {
            address,
            from: None,
            host: host.to_owned(),
            tls: None,
            connections: 4,
            keep_alive: true,
            http2: None,
            timeout: Duration::from_secs(10),
            pause: Duration::ZERO,
            limit: None,
            requests: Arc::new(|_| Vec::new()),
            check: Arc::new(|_| Ok(())),
        };
        load.get("/")
    }

    /// Connects from this address of the client's.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address);
        self
    }

    /// Asks for this target.
    #[must_use]
    pub fn get(self, target: &str) -> Self {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host).into_bytes();
        self.requests(move |_| bytes.clone())
    }

    /// Speaks HTTP/2 and asks for this target; with TLS, the configuration has to offer `h2`.
    #[must_use]
    pub fn http2(mut self, target: &str) -> Self {
        self.http2 = Some(target.to_owned());
        self
    }

    /// Sends these requests; each is a head and a body with its framing.
    #[must_use]
    pub fn requests(mut self, requests: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.requests = Arc::new(requests);
        self
    }

    /// Speaks TLS, with the host as the server name.
    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Uses so many connections at once.
    #[must_use]
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// Makes a new connection for each request.
    #[must_use]
    pub fn new_connections(mut self) -> Self {
        self.keep_alive = false;
        self
    }

    /// Waits so long after each response.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Gives up on a request after so long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Ends by itself after so many requests altogether.
    #[must_use]
    pub fn limit(mut self, requests: u64) -> Self {
        self.limit = Some(requests);
        self
    }

    /// Checks every response with a status below 400.
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&Exchange<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.check = Arc::new(check);
        self
    }

    /// Starts it in a namespace.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(self, ns: &Netns) -> Result<Running> {
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        let thread = ns.spawn_thread("load", move || {
            let runtime = runtime().expect("a runtime can be made");
            let started = Instant::now();
            let local = tokio::task::LocalSet::new();
            for _ in 0..self.connections {
                local.spawn_local(client(self.clone(), Arc::clone(&state)));
            }
            runtime.block_on(local);
            started.elapsed()
        })?;
        Ok(Running {
            shared,
            thread: Some(thread),
        })
    }

    /// Runs it in a namespace until its limit.
    ///
    /// # Errors
    /// When it has no limit, or no thread can be started.
    pub fn run(self, ns: &Netns) -> Result<Report> {
        anyhow::ensure!(
            self.limit.is_some(),
            "a load without limit has to be stopped"
        );
        self.start(ns)?.join()
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    started: AtomicU64,
    ok: AtomicU64,
    report: Mutex<Report>,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests that were answered and passed the check.
    pub ok: u64,
    /// Requests that were not.
    pub failed: BTreeMap<Failure, u64>,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses by their `x-backend` header.
    pub backends: BTreeMap<String, u64>,
    /// Connections made.
    pub connections: u64,
    /// Times that a kept-alive connection was closed, without a byte, before the answer to its
    /// next request; the request was sent again on another one, as RFC 9110 §9.2.2 allows. HTTP/1 alone: a
    /// request of HTTP/2 that was sent and not answered has failed.
    pub resent: u64,
    /// The first few failures in words.
    pub examples: Vec<String>,
    /// Latencies in microseconds: how many requests took less than 2^n.
    pub latency_log2_us: [u64; 32],
    /// How long it ran.
    pub elapsed: Duration,
}

impl Report {
    /// How many requests failed, in whatever way.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Says no if any request failed.
    ///
    /// # Errors
    /// With the numbers and the first failures.
    pub fn expect_clean(&self) -> Result<()> {
        anyhow::ensure!(self.ok > 0, "no request was answered: {self}");
        anyhow::ensure!(self.failures() == 0, "{self}");
        Ok(())
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered, {} failed", self.ok, self.failures())?;
        for (failure, count) in &self.failed {
            write!(f, ", {count} {failure:?}")?;
        }
        write!(
            f,
            " on {} connections in {:.1?}",
            self.connections, self.elapsed
        )?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

/// A load under way. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<Duration>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ok", self.ok.load(Ordering::Relaxed))
    }
}

impl Running {
    /// How many requests have been answered well so far.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.shared.ok.load(Ordering::Relaxed)
    }

    /// How many requests have failed so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.report().failures()
    }

    /// Waits until so many more requests have been answered well.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn wait_more(&self, requests: u64) -> Result<()> {
        let wanted = self.ok() + requests;
        crate::until("more requests are answered", || {
            (self.ok() >= wanted).then_some(())
        })
        .map_err(|error| error.context(self.shared.report().to_string()))
    }

    /// Ends it after the requests that are under way.
    ///
    /// # Errors
    /// When its thread panicked.
    pub fn stop(self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(mut self) -> Result<Report> {
        let thread = self
            .thread
            .take()
            .ok_or_else(|| anyhow!("already stopped"))?;
        let elapsed = thread.join().map_err(|_| anyhow!("the load panicked"))?;
        let mut report = self.shared.report();
        report.elapsed = elapsed;
        report.ok = self.shared.ok.load(Ordering::Relaxed);
        Ok(report)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn report(&self) -> Report {
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note(&self, note: impl FnOnce(&mut Report)) {
        note(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn next(&self, limit: Option<u64>) -> bool {
        !self.stop.load(Ordering::Relaxed)
            && limit.is_none_or(|limit| self.started.fetch_add(1, Ordering::Relaxed) < limit)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}
type Connection = Wire<Box<dyn Stream>>;

async fn client(load: Load, shared: Arc<Shared>) {
    let mut kept = Kept::default();
    let mut number = 0;
    while shared.next(load.limit) {
        let sent = Instant::now();
        let attempt = kept.ask(&load, &shared, number);
        number += 1;
        let outcome = match tokio::time::timeout(load.timeout, attempt).await {
            Ok(Ok(response)) => judge(&load, &shared, sent, &response),
            Ok(Err(error)) => Err((classify(&error), format!("{error:#}"))),
            Err(_) => Err((
                Failure::Timeout,
                format!("no answer after {:?}", load.timeout),
            )),
        };
        match outcome {
            Ok(()) => drop(shared.ok.fetch_add(1, Ordering::Relaxed)),
            Err((failure, text)) => {
                kept = Kept::default();
                shared.note(|report| report.add(failure, &text));
                // A refusal takes no time; leave the processor to those who would end it.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        if !load.pause.is_zero() {
            tokio::time::sleep(load.pause).await;
        }
    }
}

/// The connection that one client of the load keeps.
#[derive(Default)]
struct Kept {
    http1: Option<Connection>,
    http2: Option<http2::Connection>,
}

impl Kept {
    async fn ask(&mut self, load: &Load, shared: &Shared, number: u64) -> Result<Response> {
        match &load.http2 {
            Some(target) => http2::exchange(load, shared, &mut self.http2, target).await,
            None => exchange(load, shared, &mut self.http1, &(load.requests)(number)).await,
        }
    }
}

impl Report {
    fn add(&mut self, failure: Failure, text: &str) {
        *self.failed.entry(failure).or_default() += 1;
        if self.examples.len() < 8 {
            self.examples.push(format!("{failure:?}: {text}"));
        }
    }
}

fn judge(
    load: &Load,
    shared: &Shared,
    sent: Instant,
    response: &Response,
) -> Result<(), (Failure, String)> {
    let done = Instant::now();
    let micros = u64::try_from((done - sent).as_micros())
        .unwrap_or(u64::MAX)
        .max(1);
    let bucket = (micros.ilog2() as usize + 1).min(31);
    shared.note(|report| {
        report.latency_log2_us[bucket] += 1;
        *report.statuses.entry(response.status).or_default() += 1;
        if let Some(backend) = response.header("x-backend") {
            match report.backends.get_mut(backend) {
                Some(count) => *count += 1,
                None => drop(report.backends.insert(backend.to_owned(), 1)),
            }
        }
    });
    if response.status >= 400 {
        return Err((
            Failure::Status,
            format!("{} {}", response.head.start, response.text()),
        ));
    }
    let exchange = Exchange {
        sent,
        done,
        response,
    };
    (load.check)(&exchange).map_err(|error| (Failure::Wrong, format!("{error:#}")))
}

/// One request on the kept connection or a new one. A kept connection that was closed in the
/// meantime is replaced once, as every HTTP client does.
async fn exchange(
    load: &Load,
    shared: &Shared,
    kept: &mut Option<Connection>,
    request: &[u8],
) -> Result<Response> {
    if let Some(mut connection) = kept.take() {
        match ask(&mut connection, request).await {
            Ok(response) => return Ok(finish(load, kept, connection, response)),
            Err(error) if error.is::<NothingCame>() => shared.note(|report| report.resent += 1),
            Err(error) => return Err(error),
        }
    }
    let mut connection = connect(load).await?;
    shared.note(|report| report.connections += 1);
    let response = ask(&mut connection, request).await?;
    Ok(finish(load, kept, connection, response))
}

fn finish(
    load: &Load,
    kept: &mut Option<Connection>,
    connection: Connection,
    response: Response,
) -> Response {
    if load.keep_alive && response.keeps_alive() {
        *kept = Some(connection);
    }
    response
}

async fn ask(connection: &mut Connection, request: &[u8]) -> Result<Response> {
    connection.stream.write_all(request).await?;
    connection.stream.flush().await?;
    let method = request.split(|&b| b == b' ').next().unwrap_or_default();
    connection.response(&String::from_utf8_lossy(method)).await
}

/// Marks an error as one of the TLS handshake.
#[derive(Debug)]
struct Handshake(std::io::Error);

impl std::fmt::Display for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TLS handshake: {}", self.0)
    }
}

impl std::error::Error for Handshake {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

async fn connect(load: &Load) -> Result<Connection> {
    Ok(Wire::new(dial(load).await?))
}

async fn dial(load: &Load) -> Result<Box<dyn Stream>> {
    let socket = match load.address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(from) = load.from {
        socket.bind((from, 0).into())?;
    }
    let stream = socket.connect(load.address).await?;
    stream.set_nodelay(true)?;
    let Some(config) = &load.tls else {
        return Ok(Box::new(stream));
    };
    let host = load.host.split(':').next().unwrap_or_default().to_owned();
    let name = ServerName::try_from(host)?;
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name, stream).await.map_err(Handshake)?;
    Ok(Box::new(stream))
}

fn classify(error: &anyhow::Error) -> Failure {
    use std::io::ErrorKind;
    let kind = error
        .chain()
        .find_map(|e| e.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    match kind {
        Some(ErrorKind::ConnectionRefused) => Failure::Refused,
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted) => {
            Failure::Reset
        }
        Some(ErrorKind::TimedOut) => Failure::Timeout,
        _ if error.is::<Handshake>() => Failure::Tls,
        Some(ErrorKind::UnexpectedEof) => Failure::Closed,
        _ if error.is::<NothingCame>() => Failure::Closed,
        _ if format!("{error:#}").contains("the stream ends") => Failure::Closed,
        _ => Failure::Other,
    }
}
