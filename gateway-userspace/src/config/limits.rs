//! The proxy's limits by name: `head.bytes=60KiB` on the command line, a map (of maps) in the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context as _;
use gateway_proxy::Limits;
use serde_json::{Map, Value};

use super::Span;
use crate::text::nearest;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Count,
    Bytes,
    Time,
}

/// One limit.
struct Row {
    name: &'static str,
    meaning: &'static str,
    unit: Unit,
    /// What a number may be; none where every one can be kept.
    ranges: &'static [RangeInclusive<u64>],
    get: fn(&Limits) -> String,
    set: fn(&mut Limits, &str) -> Result<(), String>,
}

/// Flow-control windows of HTTP/2. They begin at 65 535 whatever the settings say (RFC 9113 §6.9.2), and a peer may
/// have sent as much before it has read them: one that is smaller may then never open again.
const WINDOW: RangeInclusive<u64> = 65_535..=0x7fff_ffff;
/// RFC 9113 §4.2.
const FRAME: RangeInclusive<u64> = 16_384..=0xff_ffff;
/// What nothing goes on without.
const SOME: RangeInclusive<u64> = 1..=u64::MAX;
const PERCENT: RangeInclusive<u64> = 1..=100;
/// Places in a head are counted in 16 bits.
const HEAD: RangeInclusive<u64> = 256..=65_535;
/// What is counted in 32 bits, and cannot do without room.
const BUFFER: RangeInclusive<u64> = 1..=0xffff_ffff;

macro_rules! rows {
    ($($unit:ident $group:ident.$field:ident $name:literal $meaning:literal $(in $range:ident)?;)*) => {
        &[$(Row {
            name: $name,
            meaning: $meaning,
            unit: Unit::$unit,
            ranges: &[$($range)?],
            get: |limits| Limit::show(&limits.$group.$field, Unit::$unit),
            set: |limits, text| {
                limits.$group.$field = Limit::parse(text, Unit::$unit)?;
                Ok(())
            },
        }),*]
    };
}

static ROWS: &[Row] = rows! {
    Count connections.total "connections.total" "open connections of the process; lowered to 45 % of RLIMIT_NOFILE" in SOME;
    Count connections.per_port "connections.per-port" "open connections of one address and port" in SOME;
    Count connections.per_source "connections.per-source" "open connections of one source address" in SOME;
    Count connections.backlog "connections.backlog" "connections the kernel holds for one worker until it accepts them" in SOME;
    Count connections.requests "connections.requests" "requests of one connection before it is closed; 0: any number";
    Time connections.age "connections.age" "age at which a connection is asked to end";
    Bytes head.bytes "head.bytes" "a request or response head, or a trailer section (431, 502)" in HEAD;
    Count head.lines "head.lines" "header lines of a head, cookie crumbs included (431, 502)" in SOME;
    Bytes head.target_bytes "head.target-bytes" "the request target (414)" in SOME;
    Time time.first_byte "time.first-byte" "from accept or the end of the handshake to the first byte";
    Time time.head "time.head" "from a head's first byte to its last (408; over HTTP/2 GOAWAY)";
    Time time.keep_alive "time.keep-alive" "between two requests of a connection";
    Time time.body_idle "time.body-idle" "without one byte of a body (408, 504)";
    Count time.body_min_rate "time.body-min-rate" "bytes a second of a request body, on average; 0: any";
    Time time.write_stall "time.write-stall" "without one byte taken by the peer that is written to";
    Time time.request "time.request" "from head to the whole response, where the rule names no timeout (504)";
    Time time.tunnel_idle "time.tunnel-idle" "without one byte on an upgraded connection";
    Time time.drain_grace "time.drain-grace" "between telling an idle connection to end and closing it";
    Time tls.handshake "tls.handshake" "from accept to the end of the handshake";
    Count tls.concurrent_handshakes "tls.concurrent-handshakes" "handshakes answered by one worker before others have their turn" in SOME;
    Bytes tls.client_hello_bytes "tls.client-hello-bytes" "the ClientHello" in SOME;
    Count http2.concurrent_streams "http2.concurrent-streams" "streams of one connection open at once" in SOME;
    Bytes http2.stream_window "http2.stream-window" "flow-control window of a stream" in WINDOW;
    Bytes http2.connection_window "http2.connection-window" "flow-control window of a connection" in WINDOW;
    Bytes http2.frame_bytes "http2.frame-bytes" "the largest frame accepted" in FRAME;
    Bytes http2.header_table_bytes "http2.header-table-bytes" "HPACK's dynamic table";
    Bytes http2.send_buffer "http2.send-buffer" "bytes that wait for one stream's window" in BUFFER;
    Time http2.ping_interval "http2.ping-interval" "silence after which a connection is pinged";
    Time http2.ping_timeout "http2.ping-timeout" "how long the answer to a ping may take";
    Count http2.pending_accept_resets "http2.pending-accept-resets" "streams reset by the client before they were taken up";
    Count http2.local_error_resets "http2.local-error-resets" "streams that the client made us reset";
    Count http2.reset_sample "http2.reset-sample" "streams after which the share of early resets is looked at";
    Bytes http2.head_budget "http2.head-budget" "decoded heads that one connection may hold at once" in SOME;
    Time upstream.connect "upstream.connect" "how long a connection to an endpoint may take to be made";
    Count upstream.connect_attempts "upstream.connect-attempts" "endpoints tried before 502 or 504" in SOME;
    Time upstream.retry_backoff "upstream.retry-backoff" "least pause before a retry where the rule names none";
    Time upstream.retry_backoff_max "upstream.retry-backoff-max" "longest pause before a retry";
    Bytes upstream.retry_bytes "upstream.retry-bytes" "the longest request that is kept for retries";
    Count upstream.idle_per_endpoint "upstream.idle-per-endpoint" "idle connections kept by one worker for one endpoint";
    Count upstream.streams_per_connection "upstream.streams-per-connection" "requests at once on one HTTP/2 connection to an endpoint" in SOME;
    Count upstream.shared_per_endpoint "upstream.shared-per-endpoint" "HTTP/2 connections of one worker to one endpoint" in SOME;
    Bytes upstream.stream_window "upstream.stream-window" "flow-control window of a stream from an endpoint" in WINDOW;
    Bytes upstream.connection_window "upstream.connection-window" "least flow-control window of a connection to an endpoint" in WINDOW;
    Time upstream.idle "upstream.idle" "how long an idle connection is kept";
    Time upstream.age "upstream.age" "age after which a connection is not used again";
    Time upstream.dns_refresh "upstream.dns-refresh" "how long a resolved name is believed";
    Bytes memory.bytes "memory.bytes" "what 100 % is; auto: the control group's limit; 0: no watch";
    Count memory.end_keep_alive_percent "memory.end-keep-alive-percent" "from here on connections end after their request" in PERCENT;
    Count memory.refuse_requests_percent "memory.refuse-requests-percent" "from here on new requests get 503" in PERCENT;
    Count memory.refuse_connections_percent "memory.refuse-connections-percent" "from here on new connections are closed" in PERCENT;
    Bytes mirror.body_bytes "mirror.body-bytes" "the largest body that is copied";
    Count mirror.concurrent "mirror.concurrent" "copies under way in one worker";
    Time mirror.timeout "mirror.timeout" "how long a copy may take";
    Time stream.idle "stream.idle" "without one byte on a TCP or TLS stream";
    Count datagram.sessions "datagram.sessions" "UDP sessions of the process; lowered to 5 % of RLIMIT_NOFILE" in SOME;
    Count datagram.per_listener "datagram.per-listener" "UDP sessions of one address and port" in SOME;
    Count datagram.per_source "datagram.per-source" "UDP sessions of one source address" in SOME;
    Time datagram.idle "datagram.idle" "without a datagram of a UDP session whose client has spoken after an answer";
    Time datagram.unproven_idle "datagram.unproven-idle" "without a datagram of any other UDP session";
    Count datagram.pinned "datagram.pinned" "UDP sessions of one address and port that outlive an upgrade";
    Bytes datagram.receive_buffer "datagram.receive-buffer" "datagrams the kernel holds for one worker and address";
};

/// The defaults with what the settings say instead.
///
/// # Errors
/// A name that is no limit (the nearest one is named), or a value that is no number of its unit or one that cannot be
/// kept.
pub fn resolve(settings: &BTreeMap<String, Value>) -> anyhow::Result<Limits> {
    let mut limits = Limits::default();
    for (name, value) in flatten(settings)? {
        let row = ROWS
            .iter()
            .find(|row| row.name == name)
            .with_context(|| unknown(&name))?;
        row.set(&mut limits, &value)
            .map_err(|error| anyhow::anyhow!("limit `{name}`: {error}"))?;
    }
    Ok(limits)
}

/// Every limit by name, as it can be written back.
pub fn values(limits: &Limits) -> Map<String, Value> {
    ROWS.iter()
        .map(|row| (row.name.to_owned(), Value::String((row.get)(limits))))
        .collect()
}

/// The table of limits for `sluice run --help`.
#[must_use]
pub fn help() -> String {
    let defaults = Limits::default();
    let mut text = String::from(
        "Limits, with their defaults (durations: 250ms, 10s, 1h30m; sizes: 512, 60KiB, 1MiB):\n",
    );
    for row in ROWS {
        let default = (row.get)(&defaults);
        let _ = write!(text, "  {:<30} {default:>8}  {}", row.name, row.meaning);
        for range in row.ranges {
            let _ = write!(text, "; {}", in_words(range));
        }
        text.push('\n');
    }
    text.push_str(
        "\nEach setting may also be given as an environment variable or as a key of the settings \
         file, the flag's name without the dashes in front. A flag wins over the environment, the \
         environment over the file.",
    );
    text
}

fn in_words(range: &RangeInclusive<u64>) -> String {
    match (range.start(), range.end()) {
        (least, &u64::MAX) => format!("at least {least}"),
        (least, most) => format!("{least} to {most}"),
    }
}

fn flatten(settings: &BTreeMap<String, Value>) -> anyhow::Result<Vec<(String, String)>> {
    let mut flat = Vec::new();
    for (name, value) in settings {
        match value {
            Value::Object(group) => {
                for (field, value) in group {
                    flat.push((format!("{name}.{field}"), scalar(field, value)?));
                }
            }
            value => flat.push((name.clone(), scalar(name, value)?)),
        }
    }
    Ok(flat)
}

fn scalar(name: &str, value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => anyhow::bail!("limit `{name}` is neither a number nor a text such as 10s or 60KiB"),
    }
}

fn unknown(name: &str) -> String {
    match nearest(name, ROWS.iter().map(|row| row.name)) {
        Some(near) => format!("unknown limit `{name}`; is `{near}` meant?"),
        None => format!("unknown limit `{name}`; `sluice run --help` lists them"),
    }
}

impl Row {
    fn set(&self, limits: &mut Limits, text: &str) -> Result<(), String> {
        for range in self.ranges {
            if !range.contains(&integer(text, self.unit)?) {
                return Err(format!("{text} is not allowed: {}", in_words(range)));
            }
        }
        (self.set)(limits, text)
    }
}

/// A type that a limit can have.
trait Limit: Sized {
    fn parse(text: &str, unit: Unit) -> Result<Self, String>;
    fn show(&self, unit: Unit) -> String;
}

impl Limit for Duration {
    fn parse(text: &str, _: Unit) -> Result<Self, String> {
        text.parse::<Span>().map(|span| span.0)
    }

    fn show(&self, _: Unit) -> String {
        Span(*self).to_string()
    }
}

impl Limit for Option<u64> {
    fn parse(text: &str, unit: Unit) -> Result<Self, String> {
        if text == "auto" {
            Ok(None)
        } else {
            integer(text, unit).map(Some)
        }
    }

    fn show(&self, unit: Unit) -> String {
        self.map_or_else(|| "auto".to_owned(), |number| show(number, unit))
    }
}

macro_rules! integer_limit {
    ($($type:ty),*) => {$(
        impl Limit for $type {
            fn parse(text: &str, unit: Unit) -> Result<Self, String> {
                let number = integer(text, unit)?;
                Self::try_from(number).map_err(|_| format!("{text} is too large"))
            }

            fn show(&self, unit: Unit) -> String {
                show(u64::try_from(*self).unwrap_or(u64::MAX), unit)
            }
        }
    )*};
}

integer_limit!(u32, u64, usize);

fn integer(text: &str, unit: Unit) -> Result<u64, String> {
    let (digits, factor) = match (unit, text) {
        (Unit::Bytes, text) => match text.strip_suffix("KiB") {
            Some(digits) => (digits, 1024),
            None => match text.strip_suffix("MiB") {
                Some(digits) => (digits, 1024 * 1024),
                None => (text, 1),
            },
        },
        (_, text) => (text, 1),
    };
    let number = digits
        .trim_end()
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor));
    number.ok_or_else(|| match unit {
        Unit::Bytes => format!("{text:?} is no size: write 512, 60KiB or 1MiB"),
        Unit::Count | Unit::Time => format!("{text:?} is no number"),
    })
}

fn show(number: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes if number >= 1 << 20 && number.is_multiple_of(1 << 20) => {
            format!("{}MiB", number >> 20)
        }
        Unit::Bytes if number >= 1 << 10 && number.is_multiple_of(1 << 10) => {
            format!("{}KiB", number >> 10)
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).expect("a map")
    }

    #[test]
    fn every_limit_of_the_proxy_has_a_name() {
        let debug = format!("{:?}", Limits::default());
        // Each group's own type, less the whole.
        let groups = debug.matches("Limits {").count() - 1;
        assert_eq!(ROWS.len() + groups, debug.matches(": ").count());
    }

    #[test]
    fn what_is_shown_reads_back() {
        let limits = Limits::default();
        let shown = values(&limits).into_iter().collect();
        assert_eq!(resolve(&shown).expect("resolves"), limits);
    }

    #[test]
    fn a_map_of_maps_and_dotted_names_mean_the_same() {
        let nested =
            resolve(&settings(json!({"head": {"bytes": "32KiB", "lines": 50}}))).expect("nested");
        let dotted =
            resolve(&settings(json!({"head.bytes": 32768, "head.lines": "50"}))).expect("dotted");
        assert_eq!(nested, dotted);
        assert_eq!(nested.head.bytes, 32 * 1024);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |value| {
            resolve(&settings(value))
                .expect_err("a mistake")
                .to_string()
        };
        assert_eq!(
            error(json!({"head.byte": 1})),
            "unknown limit `head.byte`; is `head.bytes` meant?"
        );
        assert!(error(json!({"time.head": "10"})).contains("write 10s"));
        assert!(error(json!({"head.bytes": "1 parsec"})).contains("60KiB"));
        assert!(error(json!({"connections.backlog": 1_u64 << 40})).contains("too large"));
        assert_eq!(
            error(json!({"http2.stream-window": "16KiB"})),
            "limit `http2.stream-window`: 16KiB is not allowed: 65535 to 2147483647"
        );
    }

    #[test]
    fn what_nothing_can_go_on_with_is_refused_at_its_edges() {
        let resolved = |name: &str, value: u64| resolve(&settings(json!({ name: value })));
        let mut with_ranges = 0;
        for row in ROWS {
            let [range] = row.ranges else { continue };
            with_ranges += 1;
            let (least, most) = (*range.start(), *range.end());
            let mut edges = vec![(least - 1, false), (least, true)];
            if let Some(above) = most.checked_add(1) {
                edges.extend([(most, true), (above, false)]);
            }
            for (value, holds) in edges {
                let result = resolved(row.name, value);
                assert_eq!(result.is_ok(), holds, "{} {value}", row.name);
            }
        }
        assert_eq!(
            with_ranges, 26,
            "a limit without a range holds at any number"
        );
        let zero = resolved("connections.total", 0)
            .expect_err("none")
            .to_string();
        assert!(zero.ends_with("0 is not allowed: at least 1"), "{zero}");
    }
}
