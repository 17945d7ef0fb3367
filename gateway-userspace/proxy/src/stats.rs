//! Counters and gauges: one set per worker, written by that worker alone, added up when asked.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::head::{ByViolation, Violation};

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes both ways.
    Gauge,
}

/// One figure with what an exporter has to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name without prefix and suffix, in snake case.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// Its value, all workers added up.
    pub value: u64,
}

/// One figure of one worker. A single thread writes it, so that a store suffices.
#[derive(Debug, Default)]
pub(crate) struct Figure(AtomicU64);

impl Figure {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn down(&self) {
        self.add(u64::MAX);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! figures {
    ($($kind:ident $name:ident: $help:literal,)*) => {
        /// All figures of a proxy, all workers added up.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $(#[doc = $help] pub $name: u64,)*
            /// Requests refused by the head policy, a head limit or for a malformed body.
            pub requests_refused: u64,
            /// The same by what was wrong with them.
            pub refusals: ByViolation<u64>,
        }

        impl Stats {
            /// Every figure that is one number, in a fixed order; refusals are one for each reason.
            pub fn metrics(&self) -> impl Iterator<Item = Metric> {
                [$(Metric {
                    name: stringify!($name),
                    help: $help,
                    kind: MetricKind::$kind,
                    value: self.$name,
                },)*].into_iter()
            }

            pub(crate) fn include(&mut self, worker: &Counters) {
                $(self.$name = self.$name.wrapping_add(worker.$name.read());)*
                self.include_refusals(&worker.refusals);
            }
        }

        /// The figures of one worker; aligned so that no two workers write one cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct Counters {
            $(pub(crate) $name: Figure,)*
            pub(crate) refusals: ByViolation<Figure>,
        }
    };
}

figures! {
    Counter connections_accepted: "Downstream connections accepted.",
    Gauge connections_open: "Downstream connections open.",
    Counter connections_over_limit: "Connections closed at once because a connection limit was reached.",
    Counter connections_denied: "Connections closed at once because the source policy refuses the client.",
    Counter accept_errors: "Failures to accept a connection, file descriptors running out included.",
    Counter tls_handshakes: "TLS handshakes finished.",
    Counter tls_resumptions: "TLS handshakes that resumed a session.",
    Counter tls_handshake_failures: "TLS handshakes that failed or took too long.",
    Gauge tls_handshakes_active: "TLS handshakes under way.",
    Counter requests_http1: "HTTP/1 requests.",
    Counter requests_http2: "HTTP/2 requests.",
    Gauge requests_active: "Requests being served.",
    Counter requests_misdirected: "Requests answered with 421.",
    Counter requests_unrouted: "Requests that no rule matched.",
    Counter requests_aborted: "Requests whose client went away before the whole response was sent.",
    Counter responses_1xx: "Final responses of class 1xx: switched protocols.",
    Counter responses_2xx: "Responses of class 2xx.",
    Counter responses_3xx: "Responses of class 3xx.",
    Counter responses_4xx: "Responses of class 4xx.",
    Counter responses_5xx: "Responses of class 5xx.",
    Counter timeouts_downstream: "Connections or requests ended because the client took too long.",
    Counter timeouts_upstream: "Requests ended because a backend took too long.",
    Counter upstream_connections: "Connections made to endpoints.",
    Counter upstream_connect_failures: "Connections to endpoints that could not be made.",
    Counter upstream_reuses: "Requests sent on a connection that had served one before.",
    Counter upstream_stale_retries: "Requests sent again because the endpoint had closed an idle connection.",
    Counter upstream_retries: "Requests tried again because their rule asks for it.",
    Counter upstream_protocol_errors: "Responses that broke HTTP.",
    Gauge upstream_idle: "Idle connections to endpoints.",
    Gauge tunnels_open: "Upgraded connections open.",
    Counter tunnels: "Connections upgraded.",
    Gauge streams_open: "TCP and TLS streams open to a backend.",
    Counter streams: "TCP and TLS streams that reached a backend.",
    Counter streams_refused: "TCP and TLS streams reset because no route or no backend took them.",
    Counter streams_broken: "TCP and TLS streams that one side broke off.",
    Counter streams_idle: "TCP and TLS streams ended because nothing moved for too long.",
    Gauge datagram_sessions_open: "UDP sessions open.",
    Counter datagram_sessions: "UDP sessions opened.",
    Counter datagram_sessions_evicted: "UDP sessions ended to make room for others.",
    Counter datagrams_received: "Datagrams from clients that had a session.",
    Counter datagrams_sent: "Datagrams sent to clients.",
    Counter datagrams_dropped: "Datagrams not sent on, in either direction and for any reason.",
    Counter datagrams_unrouted: "Datagrams dropped because no route or no backend takes them.",
    Counter datagrams_denied: "Datagrams dropped because the source policy refuses the client.",
    Counter datagrams_over_limit: "Datagrams dropped because no session could be opened for them.",
    Counter mirrors_sent: "Copies of requests sent.",
    Counter mirrors_dropped: "Copies of requests not sent or failed.",
    Counter http2_abuse: "HTTP/2 connections closed for abuse of resets.",
    Counter overload_refusals: "Connections and requests refused because memory was short, the process's or a connection's own.",
    Counter access_log_dropped: "Access log lines dropped because the writer fell behind or could not write them.",
    Counter panics: "Panics caught while serving a connection.",
}

impl Stats {
    fn include_refusals(&mut self, worker: &ByViolation<Figure>) {
        for &violation in Violation::ALL {
            let count = worker[violation].read();
            self.refusals[violation] += count;
            self.requests_refused += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_all_workers_are_added_up_and_gauges_go_down_again() {
        let workers = [Counters::default(), Counters::default()];
        workers[0].connections_open.up();
        workers[1].connections_open.up();
        workers[1].connections_open.down();
        workers[1].requests_http1.add(3);
        let mut stats = Stats::default();
        workers.iter().for_each(|w| stats.include(w));
        assert_eq!((stats.connections_open, stats.requests_http1), (1, 3));
        assert!(
            stats
                .metrics()
                .any(|m| m.name == "requests_http1" && m.value == 3)
        );
    }

    #[test]
    fn refusals_of_all_workers_are_added_up_by_reason_and_altogether() {
        let workers = [Counters::default(), Counters::default()];
        workers[0].refusals[Violation::HostMissing].up();
        workers[1].refusals[Violation::HostMissing].up();
        workers[1].refusals[Violation::InformationalBody].up();
        let mut stats = Stats::default();
        workers.iter().for_each(|w| stats.include(w));
        assert_eq!(stats.refusals[Violation::HostMissing], 2);
        assert_eq!(stats.refusals[Violation::InformationalBody], 1);
        assert_eq!(stats.refusals[Violation::HostInvalid], 0);
        assert_eq!(stats.requests_refused, 3);
    }
}
