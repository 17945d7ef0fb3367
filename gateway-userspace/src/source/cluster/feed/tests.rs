//! The protocol, against a server that does what an API server does only when things go wrong.

use serde_json::json;

use super::super::scripted::{Reply, Scripted, Then};
use super::*;

const PATIENCE: Patience = Patience {
    answer: Duration::from_millis(300),
    silence: Duration::from_millis(300),
    watch: Duration::from_secs(60),
};

fn feed(server: &Scripted) -> Feed {
    Feed::new(server.client(), "/apis/g/v1/things".to_owned(), None).with_patience(PATIENCE)
}

fn thing(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn event(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string() + "\n"
}

fn end_of_list(version: u64) -> String {
    let mut object = thing("", version);
    object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    event("BOOKMARK", &object)
}

fn listed(then: Then) -> Reply {
    let lines = [event("ADDED", &thing("a", 3)), end_of_list(5)];
    Reply::Stream(lines.concat(), then)
}

async fn expect(feed: &mut Feed, items: &[Item]) {
    for item in items {
        assert_eq!(feed.next().await.as_ref(), Ok(item));
    }
}

async fn expect_list(feed: &mut Feed) {
    let items = [Item::Begin, Item::Object(thing("a", 3)), Item::Complete(5)];
    expect(feed, &items).await;
}

#[tokio::test]
async fn a_list_is_streamed_and_the_watch_goes_on_from_the_last_bookmark() {
    let more = [
        event("MODIFIED", &thing("a", 6)),
        event("DELETED", &thing("a", 7)),
        event("BOOKMARK", &thing("", 9)),
    ];
    let first = [
        event("ADDED", &thing("a", 3)),
        end_of_list(5),
        more.concat(),
    ]
    .concat();
    let server = Scripted::start(vec![
        Reply::Stream(first, Then::Close),
        Reply::Stream(String::new(), Then::Close),
    ])
    .await;
    let mut feed = feed(&server);
    expect_list(&mut feed).await;
    expect(
        &mut feed,
        &[
            Item::Object(thing("a", 6)),
            Item::Removed(thing("a", 7)),
            Item::Bookmark(9),
        ],
    )
    .await;
    assert_eq!(feed.next().await, Err(End::Closed));
    expect(&mut feed, &[Item::Resumed]).await;
    let asked = server.asked();
    assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(!asked[0].contains("&resourceVersion="), "{asked:?}");
    assert!(asked[1].contains("&resourceVersion=9"), "{asked:?}");
    assert!(!asked[1].contains("sendInitialEvents"), "{asked:?}");
}

#[tokio::test]
async fn what_is_too_old_is_listed_again_whether_the_answer_or_the_watch_says_so() {
    let gone = json!({"kind": "Status", "code": 410, "message": "too old resource version"});
    let server = Scripted::start(vec![
        listed(Then::Close),
        Reply::Status(410, gone.to_string()),
        listed(Then::Close),
        Reply::Stream(event("ERROR", &gone), Then::Hang),
        listed(Then::Hang),
    ])
    .await;
    let mut feed = feed(&server);
    expect_list(&mut feed).await;
    assert_eq!(feed.next().await, Err(End::Closed));
    assert_eq!(feed.next().await, Err(End::Expired));
    expect_list(&mut feed).await;
    assert_eq!(feed.next().await, Err(End::Closed));
    expect(&mut feed, &[Item::Resumed]).await;
    assert_eq!(feed.next().await, Err(End::Expired));
    expect_list(&mut feed).await;
}

#[tokio::test]
async fn a_server_that_cannot_stream_lists_is_asked_for_pages() {
    let refused = json!({"message": "sendInitialEvents is forbidden for watch"});
    let page = |names: &[&str], token: &str| {
        let items: Vec<_> = names.iter().map(|name| thing(name, 3)).collect();
        json!({"metadata": {"resourceVersion": "8", "continue": token}, "items": items}).to_string()
    };
    let server = Scripted::start(vec![
        Reply::Status(422, refused.to_string()),
        Reply::Status(200, page(&["a", "b"], "next/1")),
        Reply::Status(200, page(&["c"], "")),
        Reply::Stream(event("ADDED", &thing("d", 9)), Then::Hang),
    ])
    .await;
    let mut feed = feed(&server);
    expect(
        &mut feed,
        &[
            Item::Begin,
            Item::Object(thing("a", 3)),
            Item::Object(thing("b", 3)),
            Item::Object(thing("c", 3)),
            Item::Complete(8),
            Item::Resumed,
            Item::Object(thing("d", 9)),
        ],
    )
    .await;
    let asked = server.asked();
    assert!(asked[2].contains("continue=next%2F1"), "{asked:?}");
    assert!(asked[3].contains("resourceVersion=8"), "{asked:?}");
}

#[tokio::test]
async fn silence_ends_a_watch_which_goes_on_where_it_was() {
    let server = Scripted::start(vec![listed(Then::Hang), listed(Then::Hang)]).await;
    let mut feed = feed(&server);
    expect_list(&mut feed).await;
    let silent = feed.next().await;
    assert!(
        matches!(&silent, Err(End::Failed(reason)) if reason.contains("no answer")),
        "{silent:?}"
    );
    expect(&mut feed, &[Item::Resumed]).await;
    assert!(server.asked()[1].contains("resourceVersion=5"));
}

#[tokio::test]
async fn a_server_that_takes_requests_and_never_answers_is_given_up() {
    let server = Scripted::start(vec![Reply::Silence]).await;
    let answer = feed(&server).next().await;
    assert!(
        matches!(&answer, Err(End::Failed(reason)) if reason.contains("no answer")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_list_that_is_never_complete_is_fetched_in_pages() {
    let page = json!({"metadata": {"resourceVersion": "8"}, "items": []});
    let server = Scripted::start(vec![
        Reply::Stream(event("ADDED", &thing("a", 3)), Then::Hang),
        Reply::Status(200, page.to_string()),
    ])
    .await;
    let mut feed = feed(&server);
    expect(&mut feed, &[Item::Begin, Item::Object(thing("a", 3))]).await;
    assert!(feed.next().await.is_err());
    expect(&mut feed, &[Item::Begin, Item::Complete(8)]).await;
}

#[tokio::test]
async fn garbage_and_half_a_line_are_no_events() {
    let half = "{\"type\":\"ADDED\",\"obj";
    let server = Scripted::start(vec![
        listed(Then::Close),
        Reply::Stream("<html>busy</html>\n".to_owned(), Then::Hang),
        Reply::Stream(event("MODIFIED", &thing("a", 6)) + half, Then::Abort),
        Reply::Stream(half.to_owned(), Then::Close),
        Reply::Stream(event("?", &thing("a", 7)), Then::Close),
    ])
    .await;
    let mut feed = feed(&server);
    expect_list(&mut feed).await;
    assert_eq!(feed.next().await, Err(End::Closed));
    expect(&mut feed, &[Item::Resumed]).await;
    let garbage = feed.next().await;
    assert!(
        matches!(&garbage, Err(End::Failed(reason)) if reason.contains("no JSON")),
        "{garbage:?}"
    );
    expect(&mut feed, &[Item::Resumed, Item::Object(thing("a", 6))]).await;
    assert!(matches!(feed.next().await, Err(End::Failed(_))));
    expect(&mut feed, &[Item::Resumed]).await;
    assert!(server.asked()[3].contains("resourceVersion=6"));
    assert_eq!(feed.next().await, Err(End::Closed));
    expect(&mut feed, &[Item::Resumed]).await;
    assert_eq!(feed.next().await, Err(End::Closed));
}

#[tokio::test]
async fn refusals_say_why() {
    let denied = json!({"message": "things is forbidden: User \"x\" cannot list"});
    let server = Scripted::start(vec![
        Reply::Status(403, denied.to_string()),
        Reply::Status(404, "404 page not found".to_owned()),
        Reply::Status(429, json!({"message": "later"}).to_string()),
    ])
    .await;
    let mut feed = feed(&server);
    let reason = "things is forbidden: User \"x\" cannot list".to_owned();
    assert_eq!(feed.next().await, Err(End::Denied(reason)));
    assert_eq!(feed.next().await, Err(End::NotServed));
    let later = "the API server answers 429: later".to_owned();
    assert_eq!(feed.next().await, Err(End::Failed(later)));
}

#[tokio::test]
async fn a_version_that_is_refused_again_and_again_is_given_up() {
    let mut replies = vec![listed(Then::Close)];
    let refused = json!({"message": "Too large resource version"}).to_string();
    for _ in 0..MAX_REFUSALS {
        replies.push(Reply::Status(504, refused.clone()));
    }
    replies.push(listed(Then::Hang));
    let server = Scripted::start(replies).await;
    let mut feed = feed(&server);
    expect_list(&mut feed).await;
    assert_eq!(feed.next().await, Err(End::Closed));
    for _ in 0..MAX_REFUSALS {
        assert!(matches!(feed.next().await, Err(End::Failed(_))));
    }
    expect_list(&mut feed).await;
}

#[tokio::test]
async fn nobody_there_is_a_failure_with_its_cause() {
    let server = Scripted::start(Vec::new()).await;
    let mut feed = feed(&server);
    drop(server);
    let answer = feed.next().await;
    assert!(
        matches!(&answer, Err(End::Failed(reason)) if reason.contains("refused")),
        "{answer:?}"
    );
}
