//! The tables of `testdata/`, fed whole and in every split, and properties of what is written.

#[path = "../../testdata/corpus.rs"]
mod corpus;

use std::net::SocketAddr;

use corpus::Case;
use gateway_model::head::Head;
use gateway_model::ir::{Rewrite, Scheme};
use gateway_model::snapshot::CompiledEdits;
use proptest::prelude::*;

use super::*;
use crate::clock::http_date;
use crate::forwarded::Forwarding;
use crate::head::{Source, Violation};
use crate::limits::{HeadLimits, Limits};

fn limits() -> HeadLimits {
    Limits::default().head
}

fn parse(wire: &[u8]) -> Result<(RequestHead, usize), Violation> {
    let mut head = RequestHead::default();
    match head.parse(wire, &limits())? {
        Progress::Complete(len) => Ok((head, len)),
        Progress::Partial => panic!("the head of a case is whole"),
    }
}

fn encode(head: &impl Source) -> Vec<u8> {
    let peer = SocketAddr::from(([192, 0, 2, 1], 40_000));
    let local = SocketAddr::from(([192, 0, 2, 9], 80));
    let mut out = Vec::new();
    let plan = RequestPlan {
        edits: &CompiledEdits::default(),
        rewrite: &Rewrite::default(),
        prefix_len: 0,
        forwarding: &Forwarding::new(peer, local, Scheme::Http, 0),
        request_id: None,
    };
    encode_request(&mut out, head, &plan);
    out
}

/// Method, target and lines as another parser sees them.
type Seen = (String, String, Vec<(String, Vec<u8>)>);

fn seen(wire: &[u8]) -> Seen {
    let mut lines = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut lines);
    let status = request.parse(wire).expect("another parser's verdict");
    assert_eq!(status, httparse::Status::Complete(wire.len()));
    let lines = request.headers.iter();
    (
        request.method.unwrap_or_default().to_owned(),
        request.path.unwrap_or_default().to_owned(),
        lines
            .map(|line| (line.name.to_ascii_lowercase(), line.value.to_vec()))
            .collect(),
    )
}

fn values<'a>(seen: &'a Seen, name: &str) -> Vec<&'a [u8]> {
    let lines = seen.2.iter().filter(|(line, _)| line == name);
    lines.map(|(_, value)| &value[..]).collect()
}

/// Reads a body to its end; false if it is broken or cut.
fn body_is_whole(kind: BodyKind, mut input: &[u8]) -> bool {
    let mut body = BodyDecoder::new(kind, &limits());
    while !body.is_done() && !input.is_empty() {
        match body.step(input) {
            Ok(step) => input = &input[step.consumed..],
            Err(_) => return false,
        }
    }
    body.end_of_input().is_ok()
}

fn check_forwarded(case: &Case, head: &RequestHead) {
    let view = head.view(&case.bytes);
    let wire = encode(&view);
    let sent = seen(&wire);
    let target = match view.query() {
        Some(query) => format!("{}?{query}", view.path()),
        None => view.path().to_owned(),
    };
    let matched = (view.method().to_owned(), target);
    assert_eq!(
        (&sent.0, &sent.1),
        (&matched.0, &matched.1),
        "{}",
        case.name
    );
    assert_eq!(
        (case.word(0), case.word(1)),
        (&*matched.0, &*matched.1),
        "{}",
        case.name
    );
    assert_eq!(
        values(&sent, "host"),
        [case.word(2).as_bytes()],
        "{}",
        case.name
    );
    for word in &case.expected[3..] {
        let word = String::from_utf8_lossy(word);
        if let Some(absent) = word.strip_prefix('-') {
            assert!(values(&sent, absent).is_empty(), "{} {word}", case.name);
        }
    }
    for word in case.expected[3..]
        .iter()
        .filter_map(|word| word.strip_prefix(b"+"))
    {
        let at = word.iter().position(|&b| b == b'=').expect("name=value");
        let name = String::from_utf8_lossy(&word[..at]);
        assert_eq!(
            values(&sent, &name),
            [&word[at + 1..]],
            "{} {name}",
            case.name
        );
    }
}

#[test]
fn requests_are_refused_or_forwarded_as_the_table_says() {
    for case in corpus::requests() {
        match (case.verdict, parse(&case.bytes)) {
            ("pass", Ok((head, len))) => {
                assert!(
                    body_is_whole(head.body(), &case.bytes[len..]),
                    "{}",
                    case.name
                );
                check_forwarded(&case, &head);
            }
            ("abort", Ok((head, len))) => {
                assert!(
                    !body_is_whole(head.body(), &case.bytes[len..]),
                    "{}",
                    case.name
                );
            }
            (_, Err(violation)) => {
                assert_eq!(
                    Some(violation.status()),
                    case.status(),
                    "{} {violation}",
                    case.name
                );
            }
            (verdict, Ok(_)) => panic!("{} passes instead of {verdict}", case.name),
        }
    }
}

#[test]
fn requests_have_unique_names_and_every_row_of_bytes_is_there() {
    let cases = corpus::requests();
    let mut names = cases.iter().map(|case| case.name).collect::<Vec<_>>();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len());
    for row in [
        "row6-", "row8-", "row9-", "row10-", "row11-", "row12-", "row13-", "row14-", "row15-",
        "row27-", "row28-", "3a-",
    ] {
        assert!(names.iter().any(|name| name.starts_with(row)), "{row}");
    }
}

#[test]
fn a_request_means_the_same_however_it_is_split() {
    for case in corpus::requests()
        .iter()
        .filter(|case| case.bytes.len() < 3000)
    {
        let whole = parse(&case.bytes).map(|(head, len)| (encode(&head.view(&case.bytes)), len));
        let mut head = RequestHead::default();
        let split = (0..=case.bytes.len())
            .map(|len| head.parse(&case.bytes[..len], &limits()))
            .find(|progress| *progress != Ok(Progress::Partial))
            .expect("an end");
        let split = split.map(|progress| match progress {
            Progress::Complete(len) => (encode(&head.view(&case.bytes)), len),
            Progress::Partial => unreachable!("filtered"),
        });
        assert_eq!(split, whole, "{}", case.name);
        for at in 0..case.bytes.len() {
            let mut head = RequestHead::default();
            let first = head.parse(&case.bytes[..at], &limits());
            let second = head.parse(&case.bytes, &limits());
            let outcome = if let Err(violation) = first {
                Err(violation)
            } else {
                second
            };
            assert_eq!(
                outcome.map(|_| ()),
                whole.as_ref().map(|_| ()).map_err(|v| *v),
                "{} {at}",
                case.name
            );
        }
    }
}

/// Drives a response as a connection would: status, body and whether the connection may be kept.
fn respond(wire: &[u8], asked: Asked) -> Result<(u16, Vec<u8>, bool), Violation> {
    let mut head = ResponseHead::default();
    let mut rest = wire;
    loop {
        let Progress::Complete(len) = head.parse(rest, &limits(), asked)? else {
            return Err(Violation::Truncated);
        };
        if !head.is_informational() {
            let (data, left) = response_body(head.body(), &rest[len..])?;
            let keep = head.keep_alive() && left == 0;
            return Ok((head.status(), data, keep));
        }
        rest = &rest[len..];
        head.reset();
    }
}

fn response_body(kind: BodyKind, mut input: &[u8]) -> Result<(Vec<u8>, usize), Violation> {
    let mut body = BodyDecoder::of_response(kind, &limits());
    let mut data = Vec::new();
    while !body.is_done() && !input.is_empty() {
        let step = body.step(input)?;
        data.extend_from_slice(&input[step.data]);
        input = &input[step.consumed..];
    }
    body.end_of_input()?;
    Ok((data, input.len()))
}

#[test]
fn row29_responses_are_refused_or_forwarded_as_the_table_says() {
    for case in corpus::responses() {
        let asked = Asked {
            head: case.verdict == "head",
            websocket: false,
        };
        let outcome = respond(&case.bytes, asked);
        let mut head = ResponseHead::default();
        let head_passes = head.parse(&case.bytes, &limits(), asked).is_ok();
        match case.verdict {
            "502" => assert!(!head_passes, "{}", case.name),
            "abort" => assert!(head_passes && outcome.is_err(), "{}", case.name),
            _ => {
                let (status, body, keep) = outcome.expect(case.name);
                assert_eq!(status.to_string(), case.word(0), "{}", case.name);
                assert_eq!(body, case.word(1).as_bytes(), "{}", case.name);
                assert_eq!(
                    if keep { "keep" } else { "close" },
                    case.word(2),
                    "{}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn row12_only_an_asked_for_websocket_is_switched_to() {
    let asked = Asked {
        head: false,
        websocket: true,
    };
    for (fields, agreed) in [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
        ("Connection: upgrade\r\nUpgrade: WebSocket\r\n", true),
        ("Upgrade: websocket\r\n", false),
        ("Connection: Upgrade\r\n", false),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", false),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
            false,
        ),
    ] {
        let wire = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        let mut head = ResponseHead::default();
        let outcome = head.parse(wire.as_bytes(), &limits(), asked);
        assert_eq!(outcome.is_ok(), agreed, "{fields}");
    }
}

#[test]
fn a_response_means_the_same_however_it_is_split() {
    for case in corpus::responses() {
        if case.bytes.len() > 3000 {
            continue;
        }
        let mut whole = ResponseHead::default();
        let expected = whole.parse(&case.bytes, &limits(), Asked::default());
        for at in 0..case.bytes.len() {
            let mut split = ResponseHead::default();
            let first = split.parse(&case.bytes[..at], &limits(), Asked::default());
            let found = match first {
                Ok(Progress::Partial) => split.parse(&case.bytes, &limits(), Asked::default()),
                found => found,
            };
            assert_eq!(found, expected, "{} {at}", case.name);
            assert_eq!(split.body(), whole.body(), "{} {at}", case.name);
        }
    }
}

#[test]
fn a_connection_is_kept_as_the_version_has_it() {
    for (version, connection, kept) in [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.1", "Connection: Close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let wire = format!("GET / {version}\r\nHost: a\r\n{connection}\r\n");
        let (head, _) = parse(wire.as_bytes()).expect("well-formed");
        assert_eq!(head.keep_alive(), kept, "{version} {connection}");
    }
}

fn respond_to(wire: &str, http10: bool, keep_alive: bool) -> (String, EncodedResponse) {
    let mut head = ResponseHead::default();
    let parsed = head.parse(wire.as_bytes(), &limits(), Asked::default());
    assert!(matches!(parsed, Ok(Progress::Complete(_))), "{parsed:?}");
    let plan = ResponsePlan {
        edits: &CompiledEdits::default(),
        cors: &[],
        date: &http_date(0),
        http10,
        keep_alive,
    };
    let mut out = Vec::new();
    let encoded = encode_response(&mut out, &head.view(wire.as_bytes()), &plan);
    let text = String::from_utf8(out).expect("text");
    let date = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    assert_eq!(text.contains(date), !wire.contains("\r\nDate: "), "{text}");
    (text.replace(date, ""), encoded)
}

#[test]
fn responses_are_framed_for_the_client_at_hand() {
    let chunked = "HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\nVia: y\r\n\r\n";
    let (wire, encoded) = respond_to(chunked, false, true);
    assert_eq!(
        wire,
        "HTTP/1.1 200 OK\r\nServer: x\r\nVia: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    assert_eq!((encoded.body, encoded.keep_alive), (BodyOut::Chunked, true));
    let (wire, encoded) = respond_to(chunked, true, true);
    assert_eq!(
        wire,
        "HTTP/1.1 200 OK\r\nServer: x\r\nVia: y\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        (encoded.body, encoded.keep_alive),
        (BodyOut::UntilClose, false)
    );
    let plain = "HTTP/1.0 200 \r\nContent-Length: 3\r\n\r\n";
    let (wire, encoded) = respond_to(plain, true, true);
    assert_eq!(
        wire,
        "HTTP/1.1 200 \r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n"
    );
    assert_eq!((encoded.body, encoded.keep_alive), (BodyOut::Length, true));
    let (wire, _) = respond_to(
        "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
        false,
        true,
    );
    assert_eq!(
        wire,
        "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n"
    );
    let (wire, _) = respond_to(plain, false, false);
    assert_eq!(
        wire,
        "HTTP/1.1 200 \r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    );
    let (wire, encoded) = respond_to(
        "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
        false,
        true,
    );
    assert_eq!(wire, "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(encoded.body, BodyOut::None);
    let (wire, _) = respond_to(
        "HTTP/1.1 200 OK\r\nContent-Length: 003\r\nContent-Length: 3\r\n\r\n",
        false,
        true,
    );
    assert_eq!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
}

#[test]
fn a_status_that_allows_no_framing_gets_none() {
    for (status, lines, sent) in [
        ("204 No Content", "", ""),
        ("304 Not Modified", "", "Transfer-Encoding: chunked\r\n"),
        (
            "101 Switching Protocols",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        ),
    ] {
        let wire =
            format!("HTTP/1.1 {status}\r\nDate: x\r\nTransfer-Encoding: chunked\r\n{lines}\r\n");
        let asked = Asked {
            head: false,
            websocket: true,
        };
        let mut head = ResponseHead::default();
        let parsed = head.parse(wire.as_bytes(), &limits(), asked);
        assert!(matches!(parsed, Ok(Progress::Complete(_))), "{parsed:?}");
        let plan = ResponsePlan {
            edits: &CompiledEdits::default(),
            cors: &[],
            date: &http_date(0),
            http10: false,
            keep_alive: true,
        };
        let mut out = Vec::new();
        encode_response(&mut out, &head.view(wire.as_bytes()), &plan);
        let expected = format!("HTTP/1.1 {status}\r\nDate: x\r\n{sent}\r\n");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}

/// Takes a request of the table apart by random edits.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let cases = corpus::requests();
    let small = cases.into_iter().filter(|case| case.bytes.len() < 600);
    let wires = small.map(|case| case.bytes).collect::<Vec<_>>();
    let bytes = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n\t :,;/.%?#\\\0@[]2fFeE".to_vec()),
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), bytes, 0..3_u8), 0..6);
    (prop::sample::select(wires), edits).prop_map(|(mut wire, edits)| {
        for (at, byte, kind) in edits {
            let at = at.index(wire.len());
            match kind {
                0 => wire[at] = byte,
                1 => wire.insert(at, byte),
                _ if wire.len() > 1 => drop(wire.remove(at)),
                _ => {}
            }
        }
        wire
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_forwarded_is_what_was_matched(wire in mutated()) {
        let mut head = RequestHead::default();
        if let Ok(Progress::Complete(len)) = head.parse(&wire, &limits()) {
            let view = head.view(&wire);
            let sent = encode(&view);
            let other = seen(&sent);
            prop_assert_eq!(&other.0, view.method());
            let path = other.1.split('?').next().unwrap_or_default();
            prop_assert_eq!(path, view.path());
            prop_assert!(path == "*" || crate::head::path::is_normal(path.as_bytes()) || path.contains('%') || path.contains("/."));
            prop_assert_eq!(values(&other, "host"), [view.authority().as_bytes()]);
            prop_assert!(values(&other, "content-length").len() + values(&other, "transfer-encoding").len() <= 1);
            for (name, value) in &other.2 {
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
                prop_assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
            }
            prop_assert!(len <= wire.len());
            if !view.authority().is_empty() {
                let (again, _) = parse(&sent).expect("our own spelling");
                let again = again.view(&sent);
                prop_assert_eq!((again.method(), again.path(), again.query(), again.host()), (view.method(), view.path(), view.query(), view.host()));
                prop_assert_eq!(again.head().body(), head.body());
            }
        }
    }

    #[test]
    fn splits_change_nothing(wire in mutated(), at in any::<prop::sample::Index>()) {
        let mut whole = RequestHead::default();
        let expected = whole.parse(&wire, &limits());
        let mut split = RequestHead::default();
        let first = split.parse(&wire[..at.index(wire.len())], &limits());
        let found = if first.is_err() { first } else { split.parse(&wire, &limits()) };
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn lines_that_concern_nobody_else_pass_in_order(
        lines in prop::collection::vec(("q[a-z]{0,12}-z", "[!-~]([ -~]{0,20}[!-~])?"), 0..20),
        path in "/[a-z0-9/._~-]{0,30}",
    ) {
        use std::fmt::Write;
        let mut wire = format!("GET {path} HTTP/1.1\r\nHost: a\r\n");
        for (name, value) in &lines {
            write!(wire, "{name}: {value}\r\n").expect("a string");
        }
        wire.push_str("\r\n");
        let (head, _) = parse(wire.as_bytes()).expect("well-formed");
        let sent = seen(&encode(&head.view(wire.as_bytes())));
        let passed = sent.2.iter().filter(|(name, _)| name.ends_with("-z"));
        let passed = passed.map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned())).collect::<Vec<_>>();
        prop_assert_eq!(passed, lines);
    }

    #[test]
    fn noise_never_panics(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = RequestHead::default().parse(&wire, &limits());
        let _ = ResponseHead::default().parse(&wire, &limits(), Asked::default());
        let mut status = b"HTTP/1.1 200 OK\r\n".to_vec();
        status.extend_from_slice(&wire);
        let _ = ResponseHead::default().parse(&status, &limits(), Asked::default());
    }
}
