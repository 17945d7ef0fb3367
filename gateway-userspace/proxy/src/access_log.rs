//! Access log lines. Every value that a peer chose is escaped, so that one request is one line and
//! one field is one field; nothing is allocated but what the buffer grows by.

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::clock;
use crate::head::bytes;
use crate::settings::AccessLogFormat;

/// What is said of one finished request. A text that is empty is not known.
#[derive(Clone, Copy, Debug)]
pub struct AccessRecord<'a> {
    /// When its head was complete, milliseconds since the Unix epoch.
    pub time_unix_ms: u64,
    /// `namespace/name` of the Gateway.
    pub gateway: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// `namespace/name` of the route.
    pub route: &'a str,
    /// The rule's name or position.
    pub rule: &'a str,
    /// `namespace/name:port` of the backend.
    pub backend: &'a str,
    /// The endpoint that answered.
    pub endpoint: Option<SocketAddr>,
    /// Attempts to reach the backend; 0 when it was not asked.
    pub attempts: u32,
    /// The revision that the request saw.
    pub revision: u64,
    /// The client, as far as trusted hops tell.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The host in normal form.
    pub host: &'a str,
    /// The path in normal form; the beginning of the target as it was sent if the head was refused.
    pub path: &'a str,
    /// The query as sent.
    pub query: Option<&'a str>,
    /// The status sent to the client; 0 if there was none.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// From the upstream being asked to its response's head; none if it never answered.
    pub upstream_time: Option<Duration>,
    /// [`crate::error::ProxyError::flag`].
    pub flags: &'a str,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'a str,
    /// `TLSv1.2`, `TLSv1.3`; empty in clear text.
    pub tls_version: &'a str,
    /// The server name of the TLS handshake.
    pub sni: &'a str,
    /// `X-Request-Id`.
    pub request_id: &'a str,
    /// `User-Agent` as sent.
    pub user_agent: &'a [u8],
    /// [`crate::error::ProxyError::chain`].
    pub error: &'a str,
}

impl Default for AccessRecord<'_> {
    fn default() -> Self {
        Self {
            time_unix_ms: 0,
            gateway: "",
            listener: "",
            route: "",
            rule: "",
            backend: "",
            endpoint: None,
            attempts: 0,
            revision: 0,
            client: None,
            method: "",
            host: "",
            path: "",
            query: None,
            status: 0,
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            upstream_time: None,
            flags: "",
            protocol: "",
            tls_version: "",
            sni: "",
            request_id: "",
            user_agent: b"",
            error: "",
        }
    }
}

/// Appends one line with its line feed, or nothing if the log is off.
pub fn push_line(out: &mut Vec<u8>, format: AccessLogFormat, record: &AccessRecord<'_>) {
    match format {
        AccessLogFormat::Off => return,
        AccessLogFormat::Text => push_text(out, record),
        AccessLogFormat::Json => push_json(out, record),
    }
    out.push(b'\n');
}

/// `time client method host path protocol status flags bytes durations`, then `key=value` for
/// what is known.
fn push_text(out: &mut Vec<u8>, record: &AccessRecord<'_>) {
    clock::push_rfc3339(out, record.time_unix_ms);
    out.push(b' ');
    match record.client {
        Some(client) => push_display(out, &client),
        None => out.push(b'-'),
    }
    for text in [record.method, record.host] {
        out.push(b' ');
        push_word(out, text.as_bytes());
    }
    out.push(b' ');
    push_word(out, record.path.as_bytes());
    if let Some(query) = record.query {
        out.push(b'?');
        push_escaped(out, query.as_bytes(), Escape::Word);
    }
    out.push(b' ');
    push_word(out, record.protocol.as_bytes());
    out.push(b' ');
    bytes::push_decimal(out, record.status.into());
    out.push(b' ');
    push_word(out, record.flags.as_bytes());
    for bytes in [record.bytes_received, record.bytes_sent] {
        out.push(b' ');
        bytes::push_decimal(out, bytes);
    }
    out.push(b' ');
    push_millis(out, record.duration);
    out.push(b' ');
    match record.upstream_time {
        Some(time) => push_millis(out, time),
        None => out.push(b'-'),
    }
    push_text_pairs(out, record);
}

fn push_text_pairs(out: &mut Vec<u8>, record: &AccessRecord<'_>) {
    let mut pair = |name: &str, value: &[u8]| {
        if !value.is_empty() {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            push_quoted(out, value);
        }
    };
    for (name, value) in texts(record) {
        pair(name, value);
    }
    if let Some(endpoint) = record.endpoint {
        out.extend_from_slice(b" endpoint=");
        push_display(out, &endpoint);
    }
    if record.attempts > 1 {
        out.extend_from_slice(b" attempts=");
        bytes::push_decimal(out, record.attempts.into());
    }
    out.extend_from_slice(b" revision=");
    bytes::push_decimal(out, record.revision);
}

fn push_json(out: &mut Vec<u8>, record: &AccessRecord<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock::push_rfc3339(out, record.time_unix_ms);
    out.push(b'"');
    if let Some(client) = record.client {
        out.extend_from_slice(b",\"client\":\"");
        push_display(out, &client);
        out.push(b'"');
    }
    let request = [
        ("method", record.method),
        ("host", record.host),
        ("path", record.path),
        ("query", record.query.unwrap_or_default()),
        ("protocol", record.protocol),
        ("flags", record.flags),
    ];
    for (name, value) in request {
        push_json_text(out, name, value.as_bytes());
    }
    for (name, value) in texts(record) {
        push_json_text(out, name, value);
    }
    if let Some(endpoint) = record.endpoint {
        out.extend_from_slice(b",\"endpoint\":\"");
        push_display(out, &endpoint);
        out.push(b'"');
    }
    push_json_numbers(out, record);
    out.push(b'}');
}

fn push_json_numbers(out: &mut Vec<u8>, record: &AccessRecord<'_>) {
    for (name, value) in [
        ("status", record.status.into()),
        ("bytes_received", record.bytes_received),
        ("bytes_sent", record.bytes_sent),
        ("revision", record.revision),
    ] {
        push_json_name(out, name);
        bytes::push_decimal(out, value);
    }
    if record.attempts > 0 {
        push_json_name(out, "attempts");
        bytes::push_decimal(out, record.attempts.into());
    }
    push_json_name(out, "duration_ms");
    push_millis(out, record.duration);
    if let Some(time) = record.upstream_time {
        push_json_name(out, "upstream_ms");
        push_millis(out, time);
    }
}

/// The texts that both forms write as name and value, in order.
fn texts<'a>(record: &AccessRecord<'a>) -> [(&'static str, &'a [u8]); 10] {
    [
        ("gateway", record.gateway.as_bytes()),
        ("listener", record.listener.as_bytes()),
        ("route", record.route.as_bytes()),
        ("rule", record.rule.as_bytes()),
        ("backend", record.backend.as_bytes()),
        ("tls", record.tls_version.as_bytes()),
        ("sni", record.sni.as_bytes()),
        ("request_id", record.request_id.as_bytes()),
        ("user_agent", record.user_agent),
        ("error", record.error.as_bytes()),
    ]
}

fn push_json_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn push_json_text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !value.is_empty() {
        push_json_name(out, name);
        out.push(b'"');
        push_json_escaped(out, value);
        out.push(b'"');
    }
}

/// One word of a text line; `-` for nothing.
fn push_word(out: &mut Vec<u8>, text: &[u8]) {
    match text {
        [] => out.push(b'-'),
        _ => push_escaped(out, text, Escape::Word),
    }
}

/// A value of a text line, in quotes if it holds a space.
fn push_quoted(out: &mut Vec<u8>, text: &[u8]) {
    if memchr::memchr(b' ', text).is_none() {
        return push_escaped(out, text, Escape::Word);
    }
    out.push(b'"');
    push_escaped(out, text, Escape::Quoted);
    out.push(b'"');
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// A word of a text line: no space, no quote.
    Word,
    /// In quotes in a text line.
    Quoted,
    /// In quotes in JSON; ASCII only.
    Json,
}

/// A text in quotes in JSON: UTF-8 as it is but for controls, a byte that is none as the text `\xNN`.
fn push_json_escaped(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_ascii() {
        return push_escaped(out, text, Escape::Json);
    }
    for chunk in text.utf8_chunks() {
        for part in chunk.valid().split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(last) => {
                    push_json_part(out, &part[..part.len() - last.len_utf8()]);
                    let _ = write!(out, "\\u{:04x}", u32::from(last));
                }
                None => push_json_part(out, part),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\\\x{byte:02x}");
        }
    }
}

/// A text without controls.
fn push_json_part(out: &mut Vec<u8>, text: &str) {
    for part in text.split_inclusive(['"', '\\']) {
        match part.as_bytes() {
            [before @ .., last @ (b'"' | b'\\')] => {
                out.extend_from_slice(before);
                out.extend([b'\\', *last]);
            }
            all => out.extend_from_slice(all),
        }
    }
}

/// Copies runs of harmless bytes and escapes the others: controls, quotes, backslashes, everything
/// beyond ASCII, and, in a word, spaces.
fn push_escaped(out: &mut Vec<u8>, text: &[u8], escape: Escape) {
    let mut run = 0;
    for (at, &b) in text.iter().enumerate() {
        let harmless = b.is_ascii_graphic() && !matches!(b, b'"' | b'\\')
            || b == b' ' && escape != Escape::Word;
        if harmless {
            continue;
        }
        out.extend_from_slice(&text[run..at]);
        run = at + 1;
        let digits = b"0123456789abcdef";
        let (high, low) = (digits[usize::from(b >> 4)], digits[usize::from(b & 15)]);
        match (b, escape) {
            (b'"' | b'\\', _) => out.extend([b'\\', b]),
            (_, Escape::Json) => out.extend([b'\\', b'u', b'0', b'0', high, low]),
            _ => out.extend([b'\\', b'x', high, low]),
        }
    }
    out.extend_from_slice(&text[run..]);
}

/// Milliseconds with three decimals.
fn push_millis(out: &mut Vec<u8>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    bytes::push_decimal(out, micros / 1000);
    out.push(b'.');
    let rest = micros % 1000;
    out.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8));
}

fn push_display(out: &mut Vec<u8>, value: &impl Display) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests;
