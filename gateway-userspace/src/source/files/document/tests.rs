//! Cutting and parsing.

use gateway_model::names::ObjectKind;

use super::*;

fn pieces(text: &str) -> Vec<(u32, &str)> {
    split(text, Syntax::Yaml)
        .into_iter()
        .map(|piece| (piece.line, piece.text))
        .collect()
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: 80\n"
    )
}

fn faults(text: &str, syntax: Syntax) -> Vec<Fault> {
    let documents = split(text, syntax)
        .into_iter()
        .map(|piece| parse(piece.text, syntax));
    let items = documents.flat_map(|document| document.items);
    items
        .filter_map(|item| match item {
            Item::Fault(fault) => Some(fault),
            Item::Object(_) | Item::Workload | Item::Foreign => None,
        })
        .collect()
}

#[test]
fn a_text_is_cut_where_documents_begin() {
    assert_eq!(
        pieces("a: 1\n---\nb: 2\n"),
        [(1, "a: 1\n"), (2, "---\nb: 2\n")]
    );
    assert_eq!(
        pieces("--- # one\na: 1\n--- {b: 2}\n"),
        [(1, "--- # one\na: 1\n"), (3, "--- {b: 2}\n")]
    );
    assert_eq!(pieces("a: 1\r\n---\r\nb: 2\r\n").len(), 2);
    assert_eq!(
        pieces("a: 1\n...\n---\nb: 2"),
        [(1, "a: 1\n...\n"), (3, "---\nb: 2")]
    );
    assert_eq!(pieces("a: |\n  x\n  ---\n  y\n").len(), 1);
    assert_eq!(pieces("a: ---\n---x: 1\n").len(), 1);
    assert_eq!(pieces("\u{feff}a: 1\n"), [(1, "a: 1\n")]);
}

#[test]
fn blank_documents_are_none() {
    assert!(pieces("").is_empty());
    assert!(pieces("---\n# nothing\n---\n\n--- # here\n...\n").is_empty());
    assert_eq!(pieces("%YAML 1.2\n---\na: 1\n"), [(2, "---\na: 1\n")]);
}

#[test]
fn json_values_are_cut_one_by_one() {
    let text = "{\"a\": 1}\n\n{\"b\":\n 2} {\"c\": 3}\n";
    let found: Vec<_> = split(text, Syntax::Json)
        .into_iter()
        .map(|p| (p.line, p.text))
        .collect();
    assert_eq!(
        found,
        [(1, "{\"a\": 1}"), (3, "{\"b\":\n 2}"), (4, "{\"c\": 3}")]
    );
    let broken = split("{\"a\": 1}\n{\"b\" 2}", Syntax::Json);
    assert_eq!(broken.len(), 2);
    let fault = &faults("{\"a\": 1}\n{\"b\" 2}", Syntax::Json)[1];
    assert!(fault.message.starts_with("is no JSON"), "{fault:?}");
}

#[test]
fn a_syntax_error_names_the_line_and_the_object_it_was_about() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: cart\n  namespace: shop\nspec: [\n  ports: ]]\n";
    let fault = &faults(text, Syntax::Yaml)[0];
    assert!(
        fault.line.is_some_and(|line| (6..=8).contains(&line)),
        "{fault:?}"
    );
    assert_eq!(
        fault.object,
        Some(ObjectRef::new(ObjectKind::Service, "shop", "cart"))
    );
    assert!(fault.message.starts_with("is no YAML: "), "{fault:?}");
    assert!(!fault.message.contains(" line "), "{fault:?}");
}

#[test]
fn an_object_that_does_not_decode_is_named_once() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: cart\nspec:\n  ports: 80\n";
    let fault = &faults(text, Syntax::Yaml)[0];
    assert_eq!(
        fault.object,
        Some(ObjectRef::new(ObjectKind::Service, "default", "cart"))
    );
    assert!(!fault.message.contains("cart"), "{fault:?}");
}

#[test]
fn a_list_holds_many_objects_and_one_of_them_may_be_broken() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n\
                - {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: 1}}\n\
                - {apiVersion: apps/v1, kind: Deployment, metadata: {name: c}}\n";
    let document = parse(text, Syntax::Yaml);
    assert_eq!(document.objects().count(), 1);
    assert!(matches!(
        document.items[..],
        [Item::Object(_), Item::Fault(_), Item::Foreign]
    ));
    let first = document.objects().next().expect("one");
    let again = parse(&first.text, Syntax::Yaml);
    assert_eq!(
        again.objects().next().map(|d| &d.object),
        Some(&first.object)
    );
}

#[test]
fn what_runs_pods_is_told_from_other_kinds() {
    let containers = "spec: {containers: [{name: a, image: b}]}";
    for (head, rest, runs_pods) in [
        ("apiVersion: v1\nkind: Pod", containers.to_owned(), true),
        (
            "apiVersion: apps/v1\nkind: Deployment",
            format!("spec: {{template: {{{containers}}}}}"),
            true,
        ),
        (
            "apiVersion: argoproj.io/v1alpha1\nkind: Rollout",
            format!("spec: {{template: {{{containers}}}}}"),
            true,
        ),
        ("apiVersion: v1\nkind: ServiceAccount", String::new(), false),
        (
            "apiVersion: v1\nkind: Service",
            "spec: {ports: [{port: 80}]}".to_owned(),
            false,
        ),
    ] {
        let document = parse(
            &format!("{head}\nmetadata: {{name: a}}\n{rest}\n"),
            Syntax::Yaml,
        );
        assert!(!document.is_broken(), "{head}");
        assert_eq!(document.has_workload(), runs_pods, "{head}");
    }
}

#[test]
fn a_large_secret_is_read_and_an_alias_bomb_is_not() {
    let data = "QUFB".repeat(300_000);
    let secret =
        format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: big\ndata:\n  blob: {data}\n");
    assert!(!parse(&secret, Syntax::Yaml).is_broken());

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    bomb += &service("bomb");
    let document = parse(&bomb, Syntax::Yaml);
    assert!(document.is_broken());
}

#[test]
fn words_that_yaml_1_1_took_for_booleans_are_texts() {
    let text =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: yes, b: on, c: off}\n";
    assert!(!parse(text, Syntax::Yaml).is_broken());
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&deep, Syntax::Yaml).is_broken());
    assert!(parse(&deep, Syntax::Json).is_broken());
}

#[test]
fn lists_of_a_kind_and_lists_in_lists_are_read() {
    let route = |name: &str| format!("{{metadata: {{name: {name}}}, spec: {{}}}}");
    let typed = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRouteList\nitems: [{}, {}]\n",
        route("one"),
        route("two")
    );
    let names = |text: &str| -> Vec<String> {
        let document = parse(text, Syntax::Yaml);
        assert!(!document.is_broken(), "{document:?}");
        document.objects().map(|o| o.object.to_string()).collect()
    };
    assert_eq!(
        names(&typed),
        ["HTTPRoute default/one", "HTTPRoute default/two"]
    );
    let inner = typed.replace('\n', "\n    ");
    let nested = format!("apiVersion: v1\nkind: List\nitems:\n  - {inner}");
    assert_eq!(names(&nested).len(), 2);
    assert!(names("apiVersion: v1\nkind: List\nitems: []\n").is_empty());
    let broken = parse("apiVersion: v1\nkind: List\nitems: {}\n", Syntax::Yaml);
    assert!(broken.is_broken());
}

#[test]
fn what_is_no_manifest_is_a_fault_that_may_be_any_object() {
    for text in [
        "hello {",
        "foo: bar",
        "[]",
        "apiVersion: v1\nkind:",
        "kind: HTTPRoute\nmetadata: {name: web}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoutes\nmetadata: {name: web}",
        "apiVersion: v1\nkind: List\nitems: [foo]",
    ] {
        let faults = faults(text, Syntax::Yaml);
        assert_eq!(faults.len(), 1, "{text}");
        assert_eq!(faults[0].object, None, "{text}");
    }
    assert!(faults("apiVersion: apps/v1\nkind: Deployment\n", Syntax::Yaml).is_empty());
}

#[test]
fn fields_that_nobody_reads_are_told_with_what_was_meant() {
    let text = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
  labels: {team: a}
  annotations: {sluice.dev/alow-cidrs: 10.0.0.0/8, example.com/x: y}
spec:
  hostname: [a.example]
  parentRefs: [{name: gw}]
  rules:
    - filtres: []
      matches: [{path: {type: Exact, value: /a}}]
      sessionPersistence: {type: Cookie}
      backendRefs: [{name: s, port: 80}]
status: {parents: []}
";
    let document = parse(text, Syntax::Yaml);
    assert!(document.is_doubtful() && !document.is_broken());
    let unread: Vec<_> = document
        .objects()
        .flat_map(|decoded| &decoded.unread)
        .map(|problem| {
            (
                problem.path.as_str(),
                problem.message.rsplit([';', ':']).next(),
            )
        })
        .collect();
    assert_eq!(
        unread,
        [
            ("spec.hostname", Some(" is `hostnames` meant?")),
            ("spec.rules[0].filtres", Some(" is `filters` meant?")),
            (
                "spec.rules[0].sessionPersistence",
                Some(" no such field is read")
            ),
            (
                "metadata.annotations.sluice.dev/alow-cidrs",
                Some(" is `sluice.dev/allow-cidrs` meant?")
            ),
        ]
    );
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ClusterIP, ports: [{port: 80}]}\n";
    assert!(!parse(other, Syntax::Yaml).is_doubtful());
}
