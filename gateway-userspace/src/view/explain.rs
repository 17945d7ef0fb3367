//! Where a request goes and why: the question as typed, and the model's answer to it.
//!
//! The question is written as an HTTP/1.1 head and read by the proxy's own parser, so that the
//! head policy (normal paths, refused bytes) is the one that a client meets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use gateway_model::explain::{ExplainedOutcome, Explanation};
use gateway_model::ir::PortKind;
use gateway_model::names::ObjectKind;
use gateway_model::snapshot::{PortTable, Snapshot};
use gateway_proxy::h1::{Progress, RequestHead};
use serde::{Deserialize, Serialize};

use super::routes::routes;
use crate::text::nearest;
use crate::world::World;

/// A request to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    method: String,
    scheme: Scheme,
    host: String,
    port: u16,
    target: String,
    headers: Vec<(String, String)>,
    address: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    Tls,
    Tcp,
    Udp,
}

impl Scheme {
    /// What connections to a port of it begin with.
    fn port_kind(self) -> PortKind {
        match self {
            Self::Http => PortKind::Http,
            Self::Https | Self::Tls => PortKind::Tls,
            Self::Tcp => PortKind::Tcp,
            Self::Udp => PortKind::Udp,
        }
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https | Self::Tls => Some(443),
            Self::Tcp | Self::Udp => None,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// It is refused before any listener is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// What to know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The way it takes.
    #[serde(flatten)]
    pub explanation: Option<Explanation>,
}

/// Why a request is refused whatever the routes say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The status it is answered with; none if there is no answer at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The rule it breaks.
    pub reason: String,
}

impl Question {
    /// Reads a URL and header lines as a person types them; the method's default is GET. The schemes
    /// `grpc` and `grpcs` stand for a call of the method in the path: POST, with gRPC's content type; `tls`, `tcp` and
    /// `udp` for what has no head.
    ///
    /// # Errors
    /// The URL or a header makes no sense; says what would.
    pub fn parse(
        method: Option<&str>,
        url: &str,
        headers: &[String],
        address: Option<IpAddr>,
    ) -> anyhow::Result<Self> {
        let (scheme, is_grpc, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, false, rest),
            Some(("https", rest)) => (Scheme::Https, false, rest),
            Some(("grpc", rest)) => (Scheme::Http, true, rest),
            Some(("grpcs", rest)) => (Scheme::Https, true, rest),
            Some(("tls", rest)) => (Scheme::Tls, false, rest),
            Some(("tcp", rest)) => (Scheme::Tcp, false, rest),
            Some(("udp", rest)) => (Scheme::Udp, false, rest),
            Some((other, _)) => anyhow::bail!(
                "{other:?} is no scheme of a gateway; write http://, https://, grpc://, grpcs://, \
                 tls://, tcp:// or udp://"
            ),
            None => anyhow::bail!("{url:?} is no URL; write https://{url}"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = authority_parts(authority)
            .with_context(|| format!("{authority:?} is no host; write host or host:port"))?;
        let port = port.or(scheme.default_port());
        let port = port.with_context(|| format!("{url:?} has no port; write {url}:PORT"))?;
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        let mut headers = headers
            .iter()
            .map(|line| header(line))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let has_type = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
        if is_grpc && !headers.iter().any(has_type) {
            headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
        }
        Ok(Self {
            method: method
                .unwrap_or(if is_grpc { "POST" } else { "GET" })
                .to_owned(),
            scheme,
            host: host.to_owned(),
            port,
            target,
            headers,
            address,
        })
    }

    /// The head as a client would send it.
    fn head(&self) -> Vec<u8> {
        let named = self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !named {
            text += &format!("Host: {}\r\n", self.host);
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text.into_bytes()
    }

    /// What a TLS client puts into its ClientHello (RFC 6066 §3: no addresses).
    fn sni(&self) -> Option<String> {
        let is_address = self.host.starts_with('[') || self.host.parse::<IpAddr>().is_ok();
        let is_tls = self.scheme.port_kind() == PortKind::Tls;
        (is_tls && !is_address).then(|| self.host.to_ascii_lowercase())
    }

    /// The address that is dialled: the one given, else the one whose listeners take the host.
    fn local(&self, snapshot: &Snapshot) -> SocketAddr {
        let transport = self.scheme.port_kind().transport();
        let tables = || {
            snapshot
                .port_tables()
                .filter(|table| table.port == self.port && table.kind.transport() == transport)
        };
        let host = self.host.to_ascii_lowercase();
        let takes = |table: &&std::sync::Arc<PortTable>| table.listener_for(&host).is_some();
        let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let found = tables().find(takes).or_else(|| tables().next());
        let is_stream = matches!(self.scheme, Scheme::Tls | Scheme::Tcp | Scheme::Udp);
        let named = host.trim_matches(['[', ']']).parse().ok();
        let address = self
            .address
            .or(named.filter(|_| is_stream))
            .or_else(|| found.and_then(|table| table.address));
        SocketAddr::new(address.unwrap_or(anywhere), self.port)
    }
}

/// Explains a request.
pub fn explain(world: &World, question: &Question) -> Answer {
    let local = question.local(&world.snapshot);
    match question.scheme {
        Scheme::Tls | Scheme::Tcp | Scheme::Udp => {
            let (kind, sni) = (question.scheme.port_kind(), question.sni());
            let explanation = world.snapshot.explain_stream(kind, local, sni.as_deref());
            answer(world, local, explanation)
        }
        Scheme::Http | Scheme::Https => explain_request(world, question, local),
    }
}

fn explain_request(world: &World, question: &Question, local: SocketAddr) -> Answer {
    let head = question.head();
    let mut parser = RequestHead::default();
    let limits = gateway_proxy::Limits::default().head;
    match parser.parse(&head, &limits) {
        Ok(Progress::Complete(_)) => {}
        Ok(Progress::Partial) => return refuse(Some(400), &"the head is not complete"),
        Err(violation) => return refuse(Some(violation.status()), &violation),
    }
    let snapshot = &world.snapshot;
    let port = local.port();
    let kind = snapshot.port_table(local).map(|table| table.kind);
    match (kind, question.scheme) {
        (Some(PortKind::Tls), Scheme::Http) => {
            return refuse(
                None,
                &format!("port {port} speaks TLS, and the URL says http"),
            );
        }
        (Some(PortKind::Tcp), _) => {
            let reason = format!("port {port} passes bytes on as they are; ask with tcp://");
            return refuse(None, &reason);
        }
        (Some(PortKind::Http), Scheme::Https) => {
            return refuse(
                None,
                &format!("port {port} does not speak TLS, and the URL says https"),
            );
        }
        _ => {}
    }
    let sni = question.sni();
    let explanation = snapshot.explain(local, sni.as_deref(), &parser.view(&head));
    answer(world, local, explanation)
}

fn answer(world: &World, local: SocketAddr, mut explanation: Explanation) -> Answer {
    if local.ip().is_unspecified() {
        let every = format!("*:{}", local.port());
        for text in [&mut explanation.summary, &mut explanation.request.host] {
            *text = text.replace(&local.to_string(), &every);
        }
    }
    let notes = match explanation.outcome {
        ExplainedOutcome::NotServed => {
            let mut notes = vec![ports(&world.snapshot)];
            notes.extend(unserved(world));
            notes
        }
        ExplainedOutcome::NoRule | ExplainedOutcome::NoListener if explanation.hosts.is_empty() => {
            vec![hosts(world, &explanation.request.host)]
        }
        _ => Vec::new(),
    };
    Answer {
        refused: None,
        notes,
        explanation: Some(explanation),
    }
}

fn refuse(status: Option<u16>, reason: &dyn std::fmt::Display) -> Answer {
    let refused = Some(Refusal {
        status,
        reason: reason.to_string(),
    });
    Answer {
        refused,
        notes: Vec::new(),
        explanation: None,
    }
}

/// The hostnames there are routes for, the one that is nearly the request's first.
fn hosts(world: &World, asked: &str) -> String {
    const SHOWN: usize = 5;
    let routes = routes(world);
    let mut known: Vec<_> = routes
        .iter()
        .filter_map(|view| view.hostname.as_deref())
        .collect();
    known.sort_unstable();
    known.dedup();
    if let Some(near) = nearest(asked, known.iter().copied()) {
        known.sort_by_key(|host| *host != near);
    }
    let shown = known[..known.len().min(SHOWN)].join(", ");
    match known.len() {
        0 => format!("no route is for host {asked}, and none is for any other"),
        all if all > SHOWN => format!(
            "no route is for host {asked}; there are routes for {shown} and {} more",
            all - SHOWN
        ),
        _ => format!("no route is for host {asked}; there are routes for {shown}"),
    }
}

fn ports(snapshot: &Snapshot) -> String {
    let mut ports: Vec<_> = snapshot
        .port_tables()
        .map(|table| table.port.to_string())
        .collect();
    ports.dedup();
    let ports = if ports.is_empty() {
        "none".to_owned()
    } else {
        ports.join(", ")
    };
    format!("ports that are served: {ports}")
}

/// The listeners that are written but not served, for one of them may be the one that was meant.
fn unserved(world: &World) -> Vec<String> {
    let gateways = world
        .statuses
        .iter()
        .filter(|(object, _)| matches!(object.kind, ObjectKind::Gateway | ObjectKind::ListenerSet));
    let mut notes = Vec::new();
    for (gateway, status) in gateways {
        for listener in status["listeners"].as_array().into_iter().flatten() {
            let mut conditions = listener["conditions"].as_array().into_iter().flatten();
            let off = conditions.find(|c| c["type"] == "Programmed" && c["status"] == "False");
            if let (Some(name), Some(off)) = (listener["name"].as_str(), off) {
                let why = off["message"].as_str().unwrap_or_default();
                notes.push(format!("{gateway}, listener {name}, is not served: {why}"));
            }
        }
    }
    notes
}

fn authority_parts(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => {
            (&authority[..at], Some(authority[at + 1..].parse().ok()?))
        }
        _ => (authority, None),
    };
    (!host.is_empty() && !host.contains('@')).then_some((host, port))
}

fn header(line: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = line
        .split_once(':')
        .with_context(|| format!("{line:?} is no header; write 'name: value'"))?;
    anyhow::ensure!(!line.contains(['\r', '\n']), "a header is one line");
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(url: &str) -> anyhow::Result<Question> {
        Question::parse(None, url, &[], None)
    }

    #[test]
    fn a_url_is_taken_apart() {
        let parts = |url| {
            let q = question(url).expect(url);
            (q.host.clone(), q.port, q.target.clone(), q.sni())
        };
        let name = || "shop.example.com".to_owned();
        assert_eq!(
            parts("https://shop.example.com"),
            (name(), 443, "/".to_owned(), Some(name()))
        );
        assert_eq!(
            parts("http://shop.example.com:8080/a?b=c"),
            (name(), 8080, "/a?b=c".to_owned(), None)
        );
        assert_eq!(
            parts("https://shop.example.com?q"),
            (name(), 443, "/?q".to_owned(), Some(name()))
        );
        assert_eq!(parts("https://[2001:db8::1]:8443/").0, "[2001:db8::1]");
        assert_eq!(parts("https://[2001:db8::1]/").3, None);
    }

    #[test]
    fn a_grpc_url_is_a_call() {
        let call = question("grpcs://shop.example.com/shop.v1.Cart/Add").expect("a URL");
        assert_eq!((call.port, call.method.as_str()), (443, "POST"));
        let head = String::from_utf8(call.head()).expect("text");
        assert!(
            head.contains("content-type: application/grpc\r\n"),
            "{head}"
        );
        let own = ["Content-Type: application/grpc+json".to_owned()];
        let own = Question::parse(None, "grpc://x/a.B/C", &own, None).expect("a URL");
        assert_eq!((own.port, own.headers.len()), (80, 1));
    }

    #[test]
    fn what_has_no_head_is_asked_for_by_its_transport() {
        let parts = |url| {
            let q = question(url).expect(url);
            (q.scheme, q.port, q.sni())
        };
        let name = Some("db.example.com".to_owned());
        assert_eq!(parts("tls://db.example.com"), (Scheme::Tls, 443, name));
        assert_eq!(parts("tcp://192.0.2.1:5432"), (Scheme::Tcp, 5432, None));
        assert_eq!(parts("udp://dns:53"), (Scheme::Udp, 53, None));
        let error = question("udp://dns").expect_err("no port").to_string();
        assert!(error.contains("udp://dns:PORT"), "{error}");
    }

    #[test]
    fn what_is_no_url_says_what_would_be() {
        let error = |url| question(url).expect_err(url).to_string();
        assert!(error("shop.example.com/cart").contains("https://shop.example.com/cart"));
        assert!(error("ftp://x").contains("http://"));
        assert!(error("http://:80/").contains("host:port"));
        assert!(error("http://x:99999/").contains("host:port"));
    }
}
