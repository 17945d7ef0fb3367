//! Which rule takes a request.

use super::{fresh, local, one_listener, winner, won};
use crate::ir::ValueMatch;
use crate::testing::{Request, header_is, ir, listener, on, query_is, route};

#[test]
fn exact_path_beats_longer_prefix() {
    let snapshot = fresh(&one_listener([route(
        "r",
        "http",
        &[],
        vec![
            vec![on("/a/b*")],
            vec![on("/a/b")],
            vec![on("/*")],
            vec![on("~/a/.*")],
        ],
    )]));
    assert_eq!(won(&snapshot, "x/a/b").as_deref(), Some("r/1"));
    assert_eq!(won(&snapshot, "x/a/b/").as_deref(), Some("r/0"));
    assert_eq!(won(&snapshot, "x/a/bc").as_deref(), Some("r/2"));
}

#[test]
fn specific_host_wins_and_what_it_does_not_match_falls_through() {
    let snapshot = fresh(&one_listener([
        route("any", "http", &[], vec![vec![on("/*")]]),
        route(
            "wild",
            "http",
            &["*.example.com"],
            vec![vec![on("/long/path")]],
        ),
        route(
            "wilder",
            "http",
            &["*.com"],
            vec![vec![on("/long/path")], vec![on("/x*")]],
        ),
        route(
            "exact",
            "http",
            &["a.example.com"],
            vec![vec![on("/long*")]],
        ),
    ]));
    assert_eq!(
        won(&snapshot, "a.example.com/long/path").as_deref(),
        Some("exact/0")
    );
    assert_eq!(
        won(&snapshot, "b.example.com/long/path").as_deref(),
        Some("wild/0")
    );
    assert_eq!(
        won(&snapshot, "a.example.com/x").as_deref(),
        Some("wilder/1")
    );
    assert_eq!(won(&snapshot, "a.example.com/y").as_deref(), Some("any/0"));
    assert_eq!(
        won(&snapshot, "example.com/long/path").as_deref(),
        Some("wilder/0")
    );
    assert_eq!(won(&snapshot, "/long/path").as_deref(), Some("any/0"));
}

#[test]
fn nothing_falls_through_to_another_listener() {
    let snapshot = fresh(&ir(
        [
            listener("all", 80, None),
            listener("shop", 80, Some("*.shop.example")),
        ],
        [
            route("all", "all", &[], vec![vec![on("/*")]]),
            route("shop", "shop", &[], vec![vec![on("/cart*")]]),
        ],
        [],
    ));
    assert_eq!(
        won(&snapshot, "a.shop.example/cart").as_deref(),
        Some("shop/0")
    );
    assert_eq!(won(&snapshot, "a.shop.example/x"), None);
    assert_eq!(won(&snapshot, "shop.example/x").as_deref(), Some("all/0"));
}

#[test]
fn headers_of_one_name_count_as_joined() {
    let mut conditions = on("/*");
    conditions.headers = vec![header_is("x-tags", "a,b")];
    let snapshot = fresh(&one_listener([route(
        "r",
        "http",
        &[],
        vec![vec![conditions]],
    )]));
    let request = |values: &[&str]| {
        values
            .iter()
            .fold(Request::get("x/"), |r, value| r.header("X-Tags", value))
    };
    for (values, expected) in [
        (&["a,b"][..], true),
        (&["a", "b"], true),
        (&["a", "b", ""], false),
        (&["a"], false),
        (&["", "a", "b"], false),
        (&[], false),
    ] {
        assert_eq!(
            winner(&snapshot, &request(values)).is_some(),
            expected,
            "{values:?}"
        );
    }
}

#[test]
fn a_header_can_begin_with_a_value() {
    let mut conditions = on("/*");
    let mut begins = header_is("x-tags", "");
    begins.value = ValueMatch::Prefix("a,b".into());
    conditions.headers = vec![begins];
    let snapshot = fresh(&one_listener([route(
        "r",
        "http",
        &[],
        vec![vec![conditions]],
    )]));
    for (values, expected) in [
        (&["a,b"][..], true),
        (&["a,bc"], true),
        (&["a", "bc"], true),
        (&["a", "b", ""], true),
        (&["a", "c"], false),
        (&["a"], false),
        (&["", "a,b"], false),
        (&[], false),
    ] {
        let head = values
            .iter()
            .fold(Request::get("x/"), |r, value| r.header("X-Tags", value));
        assert_eq!(winner(&snapshot, &head).is_some(), expected, "{values:?}");
    }
}

#[test]
fn the_first_query_parameter_of_a_name_counts_and_is_not_decoded() {
    let mut conditions = on("/*");
    conditions.query = vec![query_is("q", "a%20b")];
    let snapshot = fresh(&one_listener([route(
        "r",
        "http",
        &[],
        vec![vec![conditions]],
    )]));
    assert!(won(&snapshot, "x/?q=a%20b&q=c").is_some());
    assert!(won(&snapshot, "x/?q=c&q=a%20b").is_none());
    assert!(won(&snapshot, "x/?q=a+b").is_none());
    assert!(won(&snapshot, "x/?q").is_none());
    assert!(won(&snapshot, "x/").is_none());
}

#[test]
fn prefix_length_is_reported_for_rewrites() {
    let snapshot = fresh(&one_listener([route(
        "r",
        "http",
        &[],
        vec![vec![on("/a/b*")]],
    )]));
    let table = snapshot.port_table(local("[::1]:80")).expect("a table");
    let listener = table.listener_for("x").expect("a listener");
    let found = listener
        .find(&Request::get("x/a/b/c"))
        .expect("a rule")
        .prefix_len;
    assert_eq!(found, 4);
}
