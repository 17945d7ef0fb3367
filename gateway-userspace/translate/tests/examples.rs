//! Every example that is shipped means something: nothing of it is refused, every Gateway and route
//! is accepted, and the only reference that may lead nowhere is to a certificate, which nobody ships.

use std::fs;
use std::path::{Path, PathBuf};

use gateway_translate::status::{ConditionStatus, ConditionType, Conditions, Reason};
use gateway_translate::{Event, Settings, Status, Translator, decode_all};
use serde_json::Value;

#[test]
fn every_example_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let examples: Vec<_> = fs::read_dir(&root)
        .expect("examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(!examples.is_empty(), "no example below {}", root.display());
    for example in examples {
        check(&example);
    }
}

fn check(example: &Path) {
    let mut translator = Translator::new(Settings {
        stand_in_classes: vec!["istio".into()],
        ..Settings::default()
    });
    for file in manifests(example) {
        let text = fs::read_to_string(&file).expect("readable");
        let options = serde_saphyr::options! { strict_booleans: true };
        let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(&text, options)
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for decoded in documents.into_iter().flat_map(decode_all) {
            let object = decoded.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            translator.apply([Event::Apply(object)]);
        }
    }
    let translation = translator.translate();
    assert!(!translation.ir.routes.is_empty(), "{}", example.display());
    for (object, status) in &translation.statuses {
        let name = format!("{}: {object}", example.display());
        match &**status {
            Status::GatewayClass(status) => accepted(&name, &status.conditions),
            Status::Gateway(status) => {
                accepted(&name, &status.conditions);
                for listener in &status.listeners {
                    accepted(&format!("{name}#{}", listener.name), &listener.conditions);
                }
            }
            Status::ListenerSet(status) => {
                accepted(&name, &status.conditions);
                for listener in &status.listeners {
                    accepted(&format!("{name}#{}", listener.name), &listener.conditions);
                }
            }
            Status::Policy(status) => {
                for ancestor in &status.ancestors {
                    accepted(&name, &ancestor.conditions);
                }
            }
            Status::Route(status) => {
                for parent in &status.parents {
                    accepted(&name, &parent.conditions);
                    let partly = parent.conditions.get(ConditionType::PartiallyInvalid);
                    assert_eq!(partly, None, "{name}");
                }
            }
        }
    }
}

fn accepted(name: &str, conditions: &Conditions) {
    for kind in [ConditionType::Accepted, ConditionType::ResolvedRefs] {
        let Some(condition) = conditions.get(kind) else {
            continue;
        };
        let without_certificate = matches!(
            condition.reason,
            Reason::InvalidCertificateRef | Reason::ListenersNotResolved
        );
        assert!(
            condition.status == ConditionStatus::True || without_certificate,
            "{name}: {condition:?}"
        );
    }
}

fn manifests(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}
