//! What is measured: protocols, bodies, connections, and what was promised for each.

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS 1.3.
    Https,
    /// HTTP/2 over TLS 1.3.
    H2,
}

/// One row of the table.
pub struct Scenario {
    /// For `--scenario`.
    pub name: &'static str,
    /// In words.
    pub title: &'static str,
    /// What the client speaks.
    pub protocol: Protocol,
    /// The path, which chooses the body.
    pub path: &'static str,
    /// Connections at a time.
    pub connections: usize,
    /// Streams of each connection; 1 but for HTTP/2.
    pub streams: usize,
    /// Whether each request has a connection of its own.
    pub fresh: bool,
    /// How many hosts have a route each, of which every request asks for one that is drawn evenly; 0 for one
    /// route of whatever host.
    pub hosts: usize,
    /// Ratios that Sluice must keep.
    pub goals: &'static [Goal],
}

/// At most `ratio` times the CPU per request of the cheapest of `of`.
pub struct Goal {
    /// Names of peers.
    pub of: &'static [&'static str],
    /// The most that is accepted.
    pub ratio: f64,
    /// What is aimed at.
    pub aim: f64,
}

const fn goal(of: &'static [&'static str], ratio: f64, aim: f64) -> Goal {
    Goal { of, ratio, aim }
}

const KEEP_ALIVE: Scenario = Scenario {
    name: "h1",
    title: "http/1.1, 64 B, 64 connections",
    protocol: Protocol::Http,
    path: "/64",
    connections: 64,
    streams: 1,
    fresh: false,
    hosts: 0,
    goals: &[],
};

/// In the order of the report.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        goals: &[
            goal(&["nginx", "haproxy"], 1.0, 0.85),
            goal(&["envoy"], 0.30, 0.22),
            goal(&["null"], 1.45, 1.25),
        ],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h1-c256",
        title: "http/1.1, 64 B, 256 connections",
        connections: 256,
        goals: &[goal(&["nginx", "haproxy"], 1.0, 0.75)],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h1-1k",
        title: "http/1.1, 1 KiB, 64 connections",
        path: "/1k",
        goals: &[goal(&["nginx", "haproxy"], 1.0, 0.85)],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h1-64k",
        title: "http/1.1, 64 KiB, 64 connections",
        path: "/64k",
        goals: &[goal(&["nginx", "haproxy"], 1.0, 0.85)],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "tls",
        title: "https/1.1, 64 B, 64 connections",
        protocol: Protocol::Https,
        goals: &[
            goal(&["nginx", "haproxy"], 0.80, 0.70),
            goal(&["null"], 1.90, 1.45),
        ],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "tls-64k",
        title: "https/1.1, 64 KiB, 64 connections",
        protocol: Protocol::Https,
        path: "/64k",
        goals: &[goal(&["nginx", "haproxy"], 1.0, 0.80)],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2",
        title: "h2 over TLS, 64 B, 16 connections of 16 streams",
        protocol: Protocol::H2,
        connections: 16,
        streams: 16,
        goals: &[goal(&["haproxy"], 0.90, 0.75), goal(&["envoy"], 0.35, 0.28)],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "h2-64k",
        title: "h2 over TLS, 64 KiB, 16 connections of 16 streams",
        protocol: Protocol::H2,
        path: "/64k",
        connections: 16,
        streams: 16,
        goals: &[goal(&["nginx", "haproxy"], 1.0, 0.85)],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "tls-new",
        title: "https/1.1, 64 B, a new TLS 1.3 connection for each request, full handshake",
        protocol: Protocol::Https,
        connections: 32,
        fresh: true,
        goals: &[goal(&["envoy"], 0.85, 0.75), goal(&["nginx"], 0.75, 0.65)],
        ..KEEP_ALIVE
    },
    Scenario {
        name: "hosts",
        title: "http/1.1, 64 B, 64 connections, requests to 100 000 hosts with a route each",
        hosts: 100_000,
        goals: &[
            goal(&["nginx", "haproxy"], 1.0, 0.85),
            goal(&["envoy"], 0.30, 0.22),
            goal(&[ONE_HOST], 1.10, 1.05),
        ],
        ..KEEP_ALIVE
    },
];

/// The row of Sluice with one host, asked in the same way, in a scenario of many.
pub const ONE_HOST: &str = "with one host";

/// The name of one of the hosts of a scenario.
pub fn host(at: usize) -> String {
    format!("h{at}.bench.test")
}
