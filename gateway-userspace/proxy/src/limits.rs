//! Every limit that keeps a client or a backend from costing more than it spends itself.

use std::time::Duration;

/// Limits of one process; [`Limits::default`] is safe at the edge. Counts are per process unless a
/// field says otherwise; sizes are in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections and the sockets they arrive on.
    pub connections: ConnectionLimits,
    /// Heads, whatever the protocol, in both directions.
    pub head: HeadLimits,
    /// How long a peer may take.
    pub time: TimeLimits,
    /// TLS handshakes.
    pub tls: TlsLimits,
    /// HTTP/2 connections.
    pub http2: Http2Limits,
    /// Connections to endpoints.
    pub upstream: UpstreamLimits,
    /// Copies of requests.
    pub mirror: MirrorLimits,
    /// TCP and TLS streams.
    pub stream: StreamLimits,
    /// UDP sessions.
    pub datagram: DatagramLimits,
    /// What is given up when memory runs out.
    pub memory: MemoryLimits,
}

/// Connections and the sockets they arrive on.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionLimits {
    /// Open downstream connections. Default 50 000; lowered at start to 45 % of `RLIMIT_NOFILE`, for
    /// each may need a socket to a backend too.
    pub total: usize,
    /// Open connections of one address and port. Default 10 000.
    pub per_port: usize,
    /// Open connections of one source address. Default 1 000: one NAT stands for many people, and
    /// what a connection can pin is bounded by itself.
    pub per_source: usize,
    /// Connections the kernel holds for one worker until it accepts them. Default 4 096.
    pub backlog: u32,
    /// Requests served by one connection before it is closed; 0 means any number, the default.
    pub requests: u64,
    /// Age at which a connection is asked to end after the request it is serving; each connection
    /// draws up to a tenth less, so that they do not all return at once. Default 1 h.
    pub age: Duration,
}

/// Heads, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// A request or response head with all its lines, or a trailer section. Default 60 KiB (431, 502).
    pub bytes: usize,
    /// Header lines of a head or a trailer section, cookie crumbs included. Default 100 (431, 502).
    pub lines: usize,
    /// The request target. Default 8 KiB (414).
    pub target_bytes: usize,
}

/// How long a peer may take.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeLimits {
    /// From accept (TLS: from the end of the handshake) to the first byte. Default 10 s.
    pub first_byte: Duration,
    /// From a head's first byte to its last. Default 10 s (408; GOAWAY for a header block of HTTP/2, before whose end
    /// nothing else can come).
    pub head: Duration,
    /// Between two requests of a connection. Default 75 s.
    pub keep_alive: Duration,
    /// Without one byte of a body from whoever sends it. Default 30 s (408, 504).
    pub body_idle: Duration,
    /// Bytes of a request body a second that a client has to reach on average once
    /// [`TimeLimits::body_idle`] has passed. Default 240; 0 switches it off.
    pub body_min_rate: u64,
    /// Without one byte taken by the peer that is written to. Default 30 s.
    pub write_stall: Duration,
    /// From a request's head to the whole response where the rule names no timeout; a response that
    /// has begun may stream on for as long as it moves. Default 300 s (504).
    pub request: Duration,
    /// Without one byte in either direction of an upgraded connection. Default 1 h.
    pub tunnel_idle: Duration,
    /// What an idle connection is given between being told to end and being closed, so that a
    /// request already on its way is answered. One of HTTP/2 that does not confirm that it was told
    /// is given no more than that either, and its new streams are refused afterwards. Default 1 s.
    pub drain_grace: Duration,
}

/// TLS handshakes.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsLimits {
    /// From accept to the end of the handshake. Default 10 s.
    pub handshake: Duration,
    /// Handshakes that one worker answers before its other connections have their turn again; the
    /// next ones wait. Those that are answered wait for their clients outside of this limit, for as
    /// long as [`TlsLimits::handshake`] says and as many as [`ConnectionLimits`] do. Default 16: 2 ms
    /// with keys of ECDSA.
    pub concurrent_handshakes: usize,
    /// The `ClientHello`. Default 16 KiB.
    pub client_hello_bytes: usize,
}

/// HTTP/2 connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Http2Limits {
    /// Streams open at once. Default 100.
    pub concurrent_streams: u32,
    /// Flow-control window of one stream, from 65 535 to 2^31 - 1. Default 64 KiB.
    pub stream_window: u32,
    /// Flow-control window of a connection, from 65 535 to 2^31 - 1. Default 1 MiB.
    pub connection_window: u32,
    /// The largest frame accepted, from 16 KiB to 2^24 - 1 (RFC 9113 §4.2). Default 16 KiB.
    pub frame_bytes: u32,
    /// HPACK's dynamic table. Default 4 KiB.
    pub header_table_bytes: u32,
    /// Bytes of answers that wait for one stream's window, from 1 to 2^32 - 1. Default 64 KiB. The streams
    /// of a connection hand over 256 KiB together before all is written, or a window stays closed.
    pub send_buffer: usize,
    /// How often it is looked whether a connection was silent, and then pinged. Default 30 s.
    pub ping_interval: Duration,
    /// How long the answer to a ping may take. Default 20 s.
    pub ping_timeout: Duration,
    /// Streams reset by the client before they were taken up. Default 20 (CVE-2023-44487).
    pub pending_accept_resets: usize,
    /// Streams that the client made us reset. Default 100 (CVE-2025-8671).
    pub local_error_resets: usize,
    /// Streams after which the share of early resets is looked at. Default 500; when the client has
    /// reset more than half of them within a second of their start the connection is closed.
    pub reset_sample: u64,
    /// Heads that one connection may have on their way to backends at once; a stream over it is refused,
    /// and may be tried again. Default 256 KiB: a client that repeats one header line by reference pays a
    /// byte for kilobytes (CVE-2026-47774). One head that is longer is answered with 431.
    pub head_budget: usize,
}

/// Connections to endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamLimits {
    /// How long a connection may take to be made, TLS and the SETTINGS of HTTP/2 included. Default 5 s.
    pub connect: Duration,
    /// Endpoints tried before a request is answered with 502 or 504. Default 3.
    pub connect_attempts: u32,
    /// Least pause before a request is tried again, where the rule that asks for it names none.
    /// Default 25 ms.
    pub retry_backoff: Duration,
    /// The longest such pause, which doubles from attempt to attempt; never below the least.
    /// Default 250 ms.
    pub retry_backoff_max: Duration,
    /// Bytes of a request that are kept so that a rule's retries can send it again. A request that is
    /// longer is not tried again once that much has been sent. Default 64 KiB.
    pub retry_bytes: usize,
    /// Idle connections kept by one worker for one endpoint. Default 512.
    pub idle_per_endpoint: usize,
    /// Requests under way at once on one HTTP/2 connection, unless the endpoint allows fewer. Default 100.
    pub streams_per_connection: u32,
    /// HTTP/2 connections of one worker to one endpoint; requests that find all of them full wait
    /// for a place. Default 16.
    pub shared_per_endpoint: usize,
    /// Flow-control window of one HTTP/2 stream, up to 2^31 - 1. Default 64 KiB.
    pub stream_window: u32,
    /// Flow-control window of an HTTP/2 connection, up to 2^31 - 1. Default 1 MiB; never less than the
    /// windows of [`UpstreamLimits::streams_per_connection`], so that no stream waits for another's client.
    pub connection_window: u32,
    /// How long an idle connection is kept. Default 60 s.
    pub idle: Duration,
    /// Age after which a connection is not used again. Default 10 min.
    pub age: Duration,
    /// How long a resolved DNS name is believed. Default 5 s; a failed look-up keeps the last good
    /// addresses.
    pub dns_refresh: Duration,
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorLimits {
    /// The largest body that is copied; a request with more is not mirrored. Default 64 KiB.
    pub body_bytes: usize,
    /// Copies under way in one worker; what exceeds it is not sent. Default 256.
    pub concurrent: usize,
    /// How long a copy may take. Default 10 s.
    pub timeout: Duration,
}

/// TCP and TLS streams. Their number is limited by [`ConnectionLimits`], the time to a backend by
/// [`UpstreamLimits`].
#[derive(Clone, Debug, PartialEq)]
pub struct StreamLimits {
    /// Without one byte in either direction. Default 1 h; then both sides are reset.
    pub idle: Duration,
}

/// UDP sessions: the datagrams between one client and one address. One that is *proven* has heard from its
/// client again after an answer, so that its source is not forged; a new session takes the place of the
/// oldest that is not. Counts are shared out evenly among the workers.
#[derive(Clone, Debug, PartialEq)]
pub struct DatagramLimits {
    /// Open sessions, each with a socket. Default 16 384; lowered at start to 5 % of `RLIMIT_NOFILE`.
    pub sessions: usize,
    /// Open sessions of one address and port. Default 8 192.
    pub per_listener: usize,
    /// Open sessions of one source address. Default 1 024.
    pub per_source: usize,
    /// Without a datagram in either direction of a proven session. Default 60 s.
    pub idle: Duration,
    /// The same of one that is not proven. Default 30 s.
    pub unproven_idle: Duration,
    /// Sessions of one address and port that stay with an old process when a new one takes over, each with
    /// one more socket. Default 1 024.
    pub pinned: usize,
    /// Bytes the kernel holds for one worker and address until they are read. Default 1 MiB; without
    /// `CAP_NET_ADMIN` no more than `net.core.rmem_max`.
    pub receive_buffer: usize,
}

/// What is given up when memory runs out. Looked at four times a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// What 100 % is. Default none: the limit of the control group, and no watch if it has none. A
    /// number is compared with the process's resident memory; 0 switches the watch off.
    pub bytes: Option<u64>,
    /// From here on connections end after the request they are serving. Default 92.
    pub end_keep_alive_percent: u64,
    /// From here on new requests are answered with 503. Default 95.
    pub refuse_requests_percent: u64,
    /// From here on new connections are closed at once. Default 98.
    pub refuse_connections_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits {
                total: 50_000,
                per_port: 10_000,
                per_source: 1_000,
                backlog: 4_096,
                requests: 0,
                age: Duration::from_secs(3_600),
            },
            head: HeadLimits::default(),
            time: TimeLimits::default(),
            tls: TlsLimits {
                handshake: Duration::from_secs(10),
                concurrent_handshakes: 16,
                client_hello_bytes: 16 * 1024,
            },
            http2: Http2Limits::default(),
            upstream: UpstreamLimits {
                connect: Duration::from_secs(5),
                connect_attempts: 3,
                retry_backoff: Duration::from_millis(25),
                retry_backoff_max: Duration::from_millis(250),
                retry_bytes: 64 * 1024,
                idle_per_endpoint: 512,
                streams_per_connection: 100,
                shared_per_endpoint: 16,
                stream_window: 64 * 1024,
                connection_window: 1024 * 1024,
                idle: Duration::from_secs(60),
                age: Duration::from_secs(600),
                dns_refresh: Duration::from_secs(5),
            },
            mirror: MirrorLimits {
                body_bytes: 64 * 1024,
                concurrent: 256,
                timeout: Duration::from_secs(10),
            },
            stream: StreamLimits {
                idle: Duration::from_secs(3_600),
            },
            datagram: DatagramLimits {
                sessions: 16_384,
                per_listener: 8_192,
                per_source: 1_024,
                idle: Duration::from_secs(60),
                unproven_idle: Duration::from_secs(30),
                pinned: 1_024,
                receive_buffer: 1024 * 1024,
            },
            memory: MemoryLimits {
                bytes: None,
                end_keep_alive_percent: 92,
                refuse_requests_percent: 95,
                refuse_connections_percent: 98,
            },
        }
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            bytes: 60 * 1024,
            lines: 100,
            target_bytes: 8 * 1024,
        }
    }
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_idle: Duration::from_secs(30),
            body_min_rate: 240,
            write_stall: Duration::from_secs(30),
            request: Duration::from_secs(300),
            tunnel_idle: Duration::from_secs(3_600),
            drain_grace: Duration::from_secs(1),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            concurrent_streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
            frame_bytes: 16 * 1024,
            header_table_bytes: 4 * 1024,
            send_buffer: 64 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            pending_accept_resets: 20,
            local_error_resets: 100,
            reset_sample: 500,
            head_budget: 256 * 1024,
        }
    }
}
