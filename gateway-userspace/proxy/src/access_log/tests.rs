//! Lines of both forms, and what no peer can make of them.

use proptest::prelude::*;

use super::*;

fn record<'a>() -> AccessRecord<'a> {
    AccessRecord {
        time_unix_ms: 784_111_777_123,
        gateway: "infra/web",
        listener: "https",
        route: "shop/cart",
        rule: "0",
        backend: "shop/cart:8080",
        endpoint: Some(SocketAddr::from(([10, 0, 0, 7], 8080))),
        revision: 42,
        client: Some(IpAddr::from([192, 0, 2, 1])),
        method: "GET",
        host: "shop.example.com",
        path: "/cart",
        query: Some("a=b"),
        status: 200,
        bytes_received: 0,
        bytes_sent: 64,
        duration: Duration::from_micros(1234),
        upstream_time: Some(Duration::from_micros(987)),
        protocol: "HTTP/1.1",
        request_id: "abc",
        user_agent: b"curl/8 (x)",
        ..AccessRecord::default()
    }
}

fn line(format: AccessLogFormat, record: &AccessRecord<'_>) -> String {
    let mut out = Vec::new();
    push_line(&mut out, format, record);
    String::from_utf8(out).expect("ASCII")
}

#[test]
fn a_text_line_names_everything_once() {
    assert_eq!(
        line(AccessLogFormat::Text, &record()),
        "1994-11-06T08:49:37.123Z 192.0.2.1 GET shop.example.com /cart?a=b HTTP/1.1 200 - 0 64 \
         1.234 0.987 gateway=infra/web listener=https route=shop/cart rule=0 \
         backend=shop/cart:8080 request_id=abc user_agent=\"curl/8 (x)\" \
         endpoint=10.0.0.7:8080 revision=42\n"
    );
    assert_eq!(line(AccessLogFormat::Off, &record()), "");
}

#[test]
fn a_json_line_is_an_object_with_typed_fields() {
    let text = line(AccessLogFormat::Json, &record());
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["host"], "shop.example.com");
    assert_eq!(value["status"], 200);
    assert_eq!(value["duration_ms"], 1.234);
    assert_eq!(value["endpoint"], "10.0.0.7:8080");
    assert_eq!(value["revision"], 42);
    assert_eq!(value.get("error"), None);
}

#[test]
fn row26_what_a_peer_chose_cannot_forge_a_line() {
    let forged = AccessRecord {
        user_agent: b"x\n2026 GET\t\"a\" \x1b[31m \xff",
        error: "downstream: \"x\r\ny\"",
        ..record()
    };
    let text = line(AccessLogFormat::Text, &forged);
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let json = line(AccessLogFormat::Json, &forged);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["error"], "downstream: \"x\r\ny\"");
}

/// UTF-8, and bytes that are none by their number.
fn shown(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

proptest! {
    #[test]
    fn any_bytes_make_one_line_and_one_object(agent in prop::collection::vec(any::<u8>(), 0..40)) {
        let record = AccessRecord { user_agent: &agent, ..record() };
        prop_assert_eq!(line(AccessLogFormat::Text, &record).matches('\n').count(), 1);
        let json = line(AccessLogFormat::Json, &record);
        prop_assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        if !agent.is_empty() {
            let seen = value["user_agent"].as_str().expect("text");
            prop_assert_eq!(seen, shown(&agent));
        }
    }

    #[test]
    fn text_of_utf8_is_logged_as_it_is(agent in ".{1,20}") {
        let record = AccessRecord { user_agent: agent.as_bytes(), ..record() };
        let json = line(AccessLogFormat::Json, &record);
        prop_assert_eq!(json.matches(char::is_control).count(), 1, "the end of the line");
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        prop_assert_eq!(value["user_agent"].as_str(), Some(agent.as_str()));
    }
}
