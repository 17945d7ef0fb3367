//! What is heard, and what is passed on of it.

use serde_json::json;

use super::super::super::Origin;
use super::*;

struct Heard {
    catalog: Catalog,
    now: Instant,
}

fn route(name: &str, version: u64, generation: u64) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": generation,
            "resourceVersion": version.to_string()},
        "spec": {"rules": [{}]},
    })
}

fn named(name: &str) -> ObjectRef {
    ObjectRef::new(ObjectKind::HttpRoute, "shop", name)
}

fn raw(value: &Value) -> Word {
    let kind = ObjectKind::HttpRoute;
    let mut trimmed = value.clone();
    super::super::trim::trim(kind, "gateway.networking.k8s.io/v1", &mut trimmed);
    Word::Object(Box::new(Raw {
        name: super::super::trim::name_of(kind, value).expect("a name"),
        version: super::super::feed::version_of(value).expect("a version"),
        observed: crate::status::observed::observe(kind, value, "us"),
        text: serde_json::to_vec(&trimmed).expect("JSON").into(),
        value: trimmed,
    }))
}

impl Heard {
    fn new() -> Self {
        let mut catalog = Catalog::new("https://k".to_owned(), Arc::new(Health::new()));
        catalog.release(Release::Hidden);
        Self {
            catalog,
            now: Instant::now(),
        }
    }

    /// Every kind is listed and empty, and that was passed on.
    fn settled() -> Self {
        let mut heard = Self::new();
        heard.list_all_but(&[]);
        assert!(heard.take().events.is_empty());
        heard
    }

    fn list_all_but(&mut self, left_out: &[ObjectKind]) {
        for kind in KINDS.into_iter().filter(|kind| !left_out.contains(kind)) {
            self.say_of(kind, Word::Begin);
            self.say_of(kind, Word::Complete(10));
        }
    }

    fn say_of(&mut self, kind: ObjectKind, word: Word) {
        self.catalog.hear(Message {
            kind,
            heard: self.now,
            word,
        });
    }

    fn say(&mut self, word: Word) {
        self.say_of(ObjectKind::HttpRoute, word);
    }

    fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn is_due(&mut self) -> bool {
        self.catalog.is_due(self.now).is_ok()
    }

    fn take(&mut self) -> Update {
        assert!(self.is_due(), "nothing is due");
        self.catalog.take()
    }

    fn names(&mut self) -> Vec<String> {
        let describe = |event: &Event| match event {
            Event::Apply(object) => format!("+{}", object.meta().object.name),
            Event::Delete(name) => format!("-{}", name.name),
        };
        self.take().events.iter().map(describe).collect()
    }
}

fn stale(reason: &str, is_denied: bool) -> Word {
    Word::State(
        KindState::Stale,
        Some(Trouble {
            reason: reason.to_owned(),
            is_denied,
        }),
    )
}

#[test]
fn nothing_is_passed_on_before_every_list_is_complete() {
    let mut heard = Heard::new();
    heard.list_all_but(&[ObjectKind::HttpRoute, ObjectKind::UdpRoute]);
    heard.say(Word::Begin);
    heard.say(raw(&route("a", 7, 1)));
    assert!(!heard.is_due());
    heard.say(Word::Complete(10));
    assert!(!heard.is_due());
    heard.say_of(
        ObjectKind::UdpRoute,
        Word::State(KindState::NotServed, None),
    );
    let update = heard.take();
    assert_eq!(update.events.len(), 1);
    assert_eq!(update.position.of(ObjectKind::HttpRoute), 10);
    assert_eq!(update.needed.of(ObjectKind::HttpRoute), 7);
    assert!(update.report.is_founded());
}

#[test]
fn a_kind_that_is_not_allowed_does_not_keep_others_waiting_for_long() {
    let mut heard = Heard::new();
    heard.list_all_but(&[ObjectKind::HttpRoute]);
    heard.say(stale("forbidden", true));
    assert!(!heard.is_due());
    assert!(heard.after(Duration::from_secs(6)).is_due());
    let report = heard.take().report;
    let Origin::Cluster { kinds, .. } = &report.origin else {
        panic!("{report:?}");
    };
    let kind = kinds.iter().find(|k| k.kind == ObjectKind::HttpRoute);
    assert_eq!(kind.and_then(|k| k.reason.as_deref()), Some("forbidden"));
}

#[test]
fn a_world_without_gateways_is_founded_on_nothing() {
    let mut heard = Heard::new();
    heard.list_all_but(&[ObjectKind::Gateway]);
    heard.say_of(ObjectKind::Gateway, stale("forbidden", true));
    assert!(
        !heard
            .after(Duration::from_secs(6))
            .take()
            .report
            .is_founded()
    );
}

#[test]
fn an_api_server_that_never_answers_settles_nothing() {
    let mut heard = Heard::new();
    for kind in KINDS {
        heard.say_of(kind, stale("connection refused", false));
    }
    assert!(!heard.after(Duration::from_secs(3600)).is_due());
}

#[test]
fn what_changes_nothing_is_not_passed_on_but_moves_the_position_soon() {
    let mut heard = Heard::settled();
    heard.say(raw(&route("a", 11, 1)));
    let first = heard.take();
    assert_eq!((first.events.len(), first.observed.len()), (1, 1));
    let mut silent = route("a", 12, 1);
    silent["metadata"]["managedFields"] = json!([{"time": "later"}]);
    let Word::Object(mut object) = raw(&silent) else {
        panic!("an object");
    };
    object.observed = None;
    heard.say(Word::Object(object));
    assert!(!heard.is_due());
    let second = heard.after(QUIET).take();
    assert!(second.events.is_empty());
    assert_eq!(second.position.of(ObjectKind::HttpRoute), 12);
    assert_eq!(second.needed.of(ObjectKind::HttpRoute), 11);
    assert_eq!(second.seen, None);
}

#[test]
fn the_release_is_waited_for_and_its_change_is_news() {
    let mut heard = Heard::new();
    heard.catalog.release = Release::Unknown;
    heard.list_all_but(&[]);
    assert!(!heard.is_due());
    heard.catalog.release(Release::Known(Some("v1.7.0".into())));
    assert_eq!(heard.take().crd_version.as_deref(), Some("v1.7.0"));
    assert!(!heard.is_due());
    heard.catalog.release(Release::Known(Some("v1.8.0".into())));
    assert_eq!(heard.take().crd_version.as_deref(), Some("v1.8.0"));
}

#[test]
fn a_bookmark_alone_is_no_news() {
    let mut heard = Heard::settled();
    heard.say(Word::Bookmark(99));
    assert!(!heard.after(Duration::from_secs(60)).is_due());
    heard.say(raw(&route("a", 100, 1)));
    assert_eq!(heard.take().position.of(ObjectKind::HttpRoute), 100);
}

#[test]
fn what_happens_to_one_object_in_between_is_one_event() {
    let mut heard = Heard::settled();
    for version in 11..50 {
        heard.say(raw(&route("a", version, version)));
    }
    heard.say(raw(&route("b", 50, 1)));
    heard.say(Word::Removed(named("b"), 51));
    assert_eq!(heard.names(), ["+a", "-b"]);
}

#[test]
fn a_new_list_takes_away_what_it_does_not_name_and_only_when_it_is_complete() {
    let mut heard = Heard::settled();
    heard.say(raw(&route("a", 11, 1)));
    heard.say(raw(&route("b", 12, 1)));
    heard.take();
    heard.say(Word::Begin);
    heard.say(raw(&route("b", 12, 1)));
    // The first try breaks off.
    heard.say(Word::Begin);
    heard.say(raw(&route("b", 12, 1)));
    heard.say(raw(&route("c", 13, 1)));
    assert_eq!(heard.names(), ["+b", "+c"].map(str::to_owned)[1..]);
    heard.say(Word::Complete(20));
    assert_eq!(heard.names(), ["-a"]);
}

#[test]
fn an_object_that_breaks_keeps_its_last_good_form_and_heals() {
    let mut heard = Heard::settled();
    heard.say(raw(&route("a", 11, 1)));
    heard.take();
    let mut broken = route("a", 12, 2);
    broken["spec"]["rules"] = json!("none");
    heard.say(raw(&broken));
    let update = heard.take();
    assert!(update.events.is_empty());
    assert_eq!(update.report.held[0].object, named("a"));
    assert_eq!(update.report.findings[0].object, Some(named("a")));
    assert!(update.report.findings[0].message.contains("spec.rules"));
    assert_eq!(update.report.objects, 1);
    heard.say(raw(&route("a", 13, 1)));
    let update = heard.take();
    assert!(update.report.findings.is_empty() && update.report.held.is_empty());
    heard.say(raw(&broken));
    heard.say(Word::Removed(named("a"), 15));
    let update = heard.take();
    assert_eq!(update.events, [Event::Delete(named("a"))]);
    assert!(update.report.findings.is_empty());
}

#[test]
fn an_object_that_was_never_good_spoils_nothing() {
    let mut heard = Heard::new();
    heard.list_all_but(&[ObjectKind::HttpRoute]);
    heard.say(Word::Begin);
    let mut broken = route("bad", 5, 1);
    broken["spec"] = json!(7);
    heard.say(raw(&broken));
    heard.say(raw(&route("good", 6, 1)));
    heard.say(Word::Complete(10));
    let update = heard.take();
    assert_eq!(update.events.len(), 1);
    assert_eq!(update.report.findings.len(), 1);
    assert!(update.report.held.is_empty());
    heard.say(Word::Removed(named("bad"), 12));
    let update = heard.take();
    assert!(update.events.is_empty() && update.report.findings.is_empty());
}

#[test]
fn a_revoked_permission_takes_nothing_away() {
    let mut heard = Heard::settled();
    heard.say(raw(&route("a", 11, 1)));
    heard.take();
    heard.say(stale("forbidden", true));
    let update = heard.take();
    assert!(update.events.is_empty());
    assert_eq!(
        (update.report.objects, &update.report.unreadable),
        (1, &None)
    );
    heard.say(Word::Begin);
    heard.say(raw(&route("a", 11, 1)));
    heard.say(Word::Complete(20));
    assert!(heard.take().events.is_empty());
}

#[test]
fn a_kind_that_vanishes_takes_its_objects_away_only_when_it_stays_away() {
    let mut heard = Heard::settled();
    heard.say(raw(&route("a", 11, 1)));
    heard.take();
    heard.say(Word::State(KindState::NotServed, None));
    assert!(heard.take().events.is_empty());
    heard.after(Duration::from_secs(3));
    heard.say(Word::State(KindState::NotServed, None));
    assert!(!heard.is_due());
    heard.after(MISSING);
    heard.say(Word::State(KindState::NotServed, None));
    assert_eq!(heard.names(), ["-a"]);
}

fn remembered(heard: &mut Heard, names: &[&str]) {
    for name in names {
        let text = serde_json::to_vec(&route(name, 1, 1)).expect("JSON");
        heard.catalog.remember(&named(name), &text, heard.now);
    }
    heard.catalog.remembered();
}

#[test]
fn an_earlier_life_is_served_until_this_one_has_listed_everything() {
    let mut heard = Heard::new();
    remembered(&mut heard, &["a", "b"]);
    let update = heard.take();
    assert_eq!(update.events.len(), 2);
    assert!(update.report.unreadable.is_some());
    assert!(update.position.is_empty());
    heard.say(Word::Begin);
    heard.say(raw(&route("b", 5, 2)));
    heard.say(Word::Complete(10));
    assert!(!heard.is_due());
    heard.list_all_but(&[ObjectKind::HttpRoute]);
    assert_eq!(heard.names(), ["-a", "+b"]);
}

#[test]
fn what_an_earlier_life_knew_is_needed_of_others_when_it_is_listed() {
    let mut heard = Heard::new();
    let object = route("a", 7, 1);
    let Word::Object(listed) = raw(&object) else {
        panic!("an object");
    };
    let text = listed.text.clone();
    heard.catalog.remember(&named("a"), &text, heard.now);
    heard.catalog.remembered();
    assert_eq!(heard.take().needed, Position::default());
    heard.list_all_but(&[ObjectKind::HttpRoute]);
    heard.say(Word::Begin);
    heard.say(raw(&object));
    heard.say(Word::Complete(10));
    let update = heard.take();
    assert!(update.events.is_empty());
    assert_eq!(update.needed.of(ObjectKind::HttpRoute), 7);
    heard.say(raw(&route("a", 12, 1)));
    assert_eq!(heard.take().needed.of(ObjectKind::HttpRoute), 7);
}

#[test]
fn a_kind_that_cannot_be_listed_keeps_an_earlier_lifes_objects() {
    let mut heard = Heard::new();
    remembered(&mut heard, &["a"]);
    heard.take();
    heard.list_all_but(&[ObjectKind::HttpRoute]);
    heard.say(stale("500", false));
    heard.is_due();
    let update = heard.after(Duration::from_secs(31)).take();
    assert!(update.events.is_empty());
    assert_eq!(update.report.objects, 1);
    let is_remembering = matches!(
        &update.report.origin,
        Origin::Cluster {
            remembers: true,
            ..
        }
    );
    assert!(is_remembering);
}

#[test]
fn an_earlier_life_says_nothing_about_what_was_listed() {
    let mut heard = Heard::new();
    heard.say(Word::Begin);
    heard.say(raw(&route("b", 5, 2)));
    heard.say(Word::Complete(10));
    remembered(&mut heard, &["a", "b"]);
    heard.list_all_but(&[ObjectKind::HttpRoute]);
    assert_eq!(heard.names(), ["+b"]);
}

#[test]
fn every_change_is_kept_on_disk_in_its_last_good_form() {
    let mut heard = Heard::settled();
    heard.say(raw(&route("a", 11, 1)));
    let mut broken = route("a", 12, 2);
    broken["spec"]["rules"] = json!("none");
    heard.say(raw(&broken));
    let records = std::mem::take(heard.catalog.records());
    let text = records[&named("a")].as_ref().expect("kept");
    let kept: Value = serde_json::from_slice(text).expect("JSON");
    assert_eq!(kept["metadata"]["generation"], 1);
    heard.say(Word::Removed(named("a"), 13));
    assert_eq!(heard.catalog.records()[&named("a")], None);
}
