//! Golden pairs: `testdata/<feature>/<case>.in.yaml` to `.out.yaml`, objects to IR and statuses.
//!
//! `SLUICE_BLESS=1 cargo test -p gateway-translate --test golden` rewrites the outputs; the diff is
//! the review. A document without `kind` holds [`Scenario`], the settings of that case. A text of
//! the form `@name` in a Secret or ConfigMap stands for `testdata/keys/name`.
//!
//! Every case is translated in the order written, in reverse, in one batch, object by object and
//! from scratch, and all of these must agree.

mod render;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use gateway_model::failure::Failure;
use gateway_model::names::{ListenerKey, ObjectKind, ObjectRef, Revision};
use gateway_model::snapshot::compile;
use gateway_translate::{
    Applied, Event, Object, Publish, Settings, SourceKind, Translation, Translator, decode_all,
    translate,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// What a case may set.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Scenario {
    /// `source: Cluster`; default files.
    cluster: bool,
    stand_in_classes: Vec<String>,
    node_addresses: Vec<String>,
    address_pool: Vec<String>,
    /// Addresses come from Services of type LoadBalancer; default nodes.
    publish_service: bool,
    crd_version: Option<String>,
    /// Listeners that the data plane could not serve: `namespace/gateway#listener`, or
    /// `ListenerSet namespace/set#listener`, to why.
    failures: BTreeMap<String, String>,
    /// Addresses that no interface of the node has.
    unusable_addresses: Vec<IpAddr>,
    /// Objects that could not be compiled: `Kind namespace/name` to why.
    rejected: BTreeMap<String, String>,
    /// Objects deleted at the end: `Kind namespace/name`.
    deleted: Vec<String>,
}

#[test]
fn every_case_gives_its_golden_output() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let bless = std::env::var_os("SLUICE_BLESS").is_some();
    let cases = cases(&root);
    assert!(cases.len() >= 60, "only {} cases found", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.strip_prefix(&root).expect("below testdata").display();
        let output = run(&root, &case);
        let golden = PathBuf::from(case.to_string_lossy().replace(".in.yaml", ".out.yaml"));
        if bless {
            fs::write(&golden, &output).expect("testdata is writable");
        } else if fs::read_to_string(&golden).unwrap_or_default() != output {
            let expected = fs::read_to_string(&golden).unwrap_or_default();
            wrong.push(format!("{name}\n{}", difference(&expected, &output)));
        }
    }
    assert!(
        wrong.is_empty(),
        "these outputs differ; SLUICE_BLESS=1 rewrites them:\n{}",
        wrong.join("\n")
    );
}

fn cases(root: &Path) -> Vec<PathBuf> {
    let mut cases = Vec::new();
    for feature in fs::read_dir(root).expect("testdata") {
        let feature = feature.expect("an entry").path();
        if !feature.is_dir() {
            continue;
        }
        for file in fs::read_dir(feature).expect("a directory") {
            let path = file.expect("an entry").path();
            if path.to_string_lossy().ends_with(".in.yaml") {
                cases.push(path);
            }
        }
    }
    cases.sort();
    cases
}

fn difference(expected: &str, actual: &str) -> String {
    let lines = expected.lines().zip(actual.lines()).enumerate();
    let first = lines.into_iter().find(|(_, (a, b))| a != b);
    match first {
        Some((at, (a, b))) => format!("  line {}: - {a}\n  line {}: + {b}", at + 1, at + 1),
        None => format!(
            "  {} lines expected, {} found",
            expected.lines().count(),
            actual.lines().count()
        ),
    }
}

fn run(root: &Path, case: &Path) -> String {
    let mut scenario = Scenario::default();
    let mut objects = Vec::new();
    let mut refused = Vec::new();
    for mut document in documents(case) {
        if document.get("kind").is_none() {
            scenario = serde_json::from_value(document)
                .unwrap_or_else(|e| panic!("{}: {e}", case.display()));
            continue;
        }
        insert_keys(root, &mut document);
        for decoded in decode_all(document) {
            match decoded {
                Ok(object) => objects.push(object),
                Err(error) => refused.push(error.to_string()),
            }
        }
    }
    let settings = settings(&scenario);
    let translation = agreed(&scenario, &settings, &objects);
    let compiled = compile(&translation.ir, Revision(1), None);
    assert!(
        compiled.rejected.is_empty(),
        "{}: what is translated must compile: {:?}",
        case.display(),
        compiled.rejected
    );
    let applied = Applied {
        failures: failures(&scenario, &translation),
        rejected: scenario
            .rejected
            .iter()
            .map(|(object, why)| (object_ref(object), why.clone()))
            .collect(),
        ..Applied::default()
    };
    render::output(&translation, &refused, &applied)
}

fn documents(case: &Path) -> Vec<Value> {
    let text = fs::read_to_string(case).expect("a case");
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_multiple_with_options(&text, options)
        .unwrap_or_else(|e| panic!("{}: {e}", case.display()))
}

/// Every value of every manifest of every case is replaced by odd ones: it may be refused, it may
/// become a condition, but nothing panics, and nothing that was translated fails to compile.
#[test]
fn no_odd_value_in_a_manifest_does_harm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let cases = cases(&root);
    let (next, mutations) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let take = || cases.get(next.fetch_add(1, Relaxed));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = take() {
                    mutations.fetch_add(mutated(&root, case), Relaxed);
                }
            });
        }
    });
    let mutations = mutations.into_inner();
    assert!(mutations > 10_000, "only {mutations}");
}

/// Translates a case with each of its values replaced by each odd one; how many that were.
fn mutated(root: &Path, case: &Path) -> usize {
    let mut mutations = 0;
    let mut documents = documents(case);
    documents.iter_mut().for_each(|d| insert_keys(root, d));
    let mut translator = Translator::new(Settings::default());
    let decoded = documents.iter().cloned().flat_map(decode_all).flatten();
    translator.apply(decoded.map(Event::Apply));
    for document in &documents {
        let mut places = Vec::new();
        leaves(document, &mut String::new(), &mut places);
        for place in places {
            for odd in odd_values() {
                let mut mutated = document.clone();
                *mutated.pointer_mut(&place).expect("a leaf") = odd;
                translator.apply(decode_all(mutated).into_iter().flatten().map(Event::Apply));
                let ir = translator.translate().ir;
                let rejected = compile(&ir, Revision(1), None).rejected;
                assert!(rejected.is_empty(), "{}: {place}", case.display());
                mutations += 1;
            }
        }
        let original = decode_all(document.clone()).into_iter().flatten();
        translator.apply(original.map(Event::Apply));
    }
    mutations
}

fn leaves(value: &Value, path: &mut String, places: &mut Vec<String>) {
    let parent = path.len();
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                path.push('/');
                path.push_str(&name.replace('~', "~0").replace('/', "~1"));
                leaves(value, path, places);
                path.truncate(parent);
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate().take(3) {
                path.push_str(&format!("/{at}"));
                leaves(value, path, places);
                path.truncate(parent);
            }
        }
        _ => places.push(path.clone()),
    }
}

fn odd_values() -> [Value; 6] {
    [
        Value::Null,
        json!("é\u{0}%/*.(["),
        json!("/"),
        json!(-1),
        json!(65_536),
        json!([{ "name": "*" }]),
    ]
}

/// Replaces `@name` by the contents of a key file.
fn insert_keys(root: &Path, document: &mut Value) {
    let field = match document.get("kind").and_then(Value::as_str) {
        Some("Secret") => "stringData",
        Some("ConfigMap") => "data",
        _ => return,
    };
    let Some(texts) = document.get_mut(field).and_then(Value::as_object_mut) else {
        return;
    };
    for text in texts.values_mut() {
        if let Some(names) = text.as_str().and_then(|t| t.strip_prefix('@')) {
            let read = |name: &str| {
                let path = root.join("keys").join(name);
                fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            };
            *text = Value::String(names.split(" @").map(read).collect());
        }
    }
}

fn settings(scenario: &Scenario) -> Settings {
    let parse = |text: &String| text.parse().expect("an address");
    Settings {
        source: if scenario.cluster {
            SourceKind::Cluster
        } else {
            SourceKind::Files
        },
        stand_in_classes: scenario
            .stand_in_classes
            .iter()
            .map(|c| c.as_str().into())
            .collect(),
        node_addresses: scenario.node_addresses.iter().map(parse).collect(),
        address_pool: scenario
            .address_pool
            .iter()
            .map(|t| t.parse().expect("a network"))
            .collect(),
        publish: if scenario.publish_service {
            Publish::Service
        } else {
            Publish::Nodes
        },
        crd_version: scenario.crd_version.as_deref().map(Into::into),
        ..Settings::default()
    }
}

/// The translation, after checking that no way to reach it gives another one.
fn agreed(scenario: &Scenario, settings: &Settings, objects: &[Object]) -> Translation {
    let mut events: Vec<_> = objects.iter().cloned().map(Event::Apply).collect();
    events.extend(
        scenario
            .deleted
            .iter()
            .map(|d| Event::Delete(object_ref(d))),
    );
    let mut in_steps = Translator::new(settings.clone());
    let mut translation = in_steps.translate();
    for event in &events {
        in_steps.apply([event.clone()]);
        translation = in_steps.translate();
    }
    let mut at_once = Translator::new(settings.clone());
    at_once.apply(events.clone());
    assert_eq!(at_once.translate(), translation, "one batch");
    let scratch = translate(in_steps.objects(), settings);
    assert_eq!(scratch, translation, "from scratch");
    let names: Vec<_> = objects.iter().map(Object::reference).collect();
    let each_once = (1..names.len()).all(|at| !names[..at].contains(&names[at]));
    if each_once && scenario.deleted.is_empty() {
        let mut reversed = Translator::new(settings.clone());
        for event in events.into_iter().rev() {
            reversed.apply([event]);
            reversed.translate();
        }
        assert_eq!(reversed.translate(), translation, "reversed");
    }
    translation
}

fn object_ref(text: &str) -> ObjectRef {
    let (kind, name) = text.split_once(' ').expect("a kind and a name");
    let kind: ObjectKind =
        serde_json::from_value(Value::String(kind.to_owned())).expect("a known kind");
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    ObjectRef::new(kind, namespace, name)
}

/// What the data plane says of listeners that it does not serve everywhere.
fn failures(scenario: &Scenario, translation: &Translation) -> BTreeMap<ListenerKey, Failure> {
    let unusable = &scenario.unusable_addresses;
    let listeners = translation.ir.listeners.values();
    let partly = listeners.filter_map(|listener| {
        let addresses = listener.addresses.iter().copied();
        let (unusable, served): (Vec<_>, _) = addresses.partition(|ip| unusable.contains(ip));
        let failure = Failure {
            served,
            reason: format!("no interface has {unusable:?}"),
            unusable,
            is_refused: false,
        };
        (!failure.unusable.is_empty()).then(|| (listener.key.clone(), failure))
    });
    scenario
        .failures
        .iter()
        .map(failure)
        .chain(partly)
        .collect()
}

fn failure((listener, why): (&String, &String)) -> (ListenerKey, Failure) {
    let (gateway, section) = listener.split_once('#').expect("gateway#listener");
    let declarer = match gateway.split_once(' ') {
        Some(_) => gateway.to_owned(),
        None => format!("Gateway {gateway}"),
    };
    let key = ListenerKey {
        gateway: object_ref(&declarer),
        section: section.into(),
    };
    (key, Failure::of_all(why.as_str()))
}
