//! Without any value of its own the chart is what `deploy/kustomize/base` is.

use anyhow::{Context, Result, ensure};
use gateway_tests::sluice::workspace;
use serde_json::{Value, json};

use crate::helm;
use crate::objects::{self, Objects, differences};

const NAMESPACE: &str = "sluice-system";

/// What the chart renders, without what is Helm's own: labels, and where the release is.
fn chart() -> Result<Objects> {
    let mut plain = Objects::new();
    for ((kind, _), mut object) in helm::render("sluice", NAMESPACE, "{}")? {
        let namespace = object.pointer("/metadata/namespace").cloned();
        let is_everywhere = matches!(
            kind.as_str(),
            "ClusterRole" | "ClusterRoleBinding" | "GatewayClass"
        );
        ensure!(
            namespace == (!is_everywhere).then(|| json!(NAMESPACE)),
            "{object:#}"
        );
        simplify(&mut object);
        let name = object["metadata"]["name"].as_str().context("no name")?;
        plain.insert((kind, name.to_owned()), object);
    }
    Ok(plain)
}

/// What kustomize applies, but for the namespace, which an installer of charts makes.
fn base() -> Result<Objects> {
    let directory = workspace().join("deploy/kustomize/base");
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let kustomization = objects::yaml(&read("kustomization.yaml")?)?;
    ensure!(kustomization["namespace"] == NAMESPACE);
    // What else it may say would change what stands in the files.
    let keys: Vec<_> = kustomization
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys().cloned())
        .collect();
    ensure!(
        keys == ["apiVersion", "kind", "namespace", "resources"],
        "{keys:?}"
    );
    let mut base = Objects::new();
    for file in kustomization["resources"].as_array().into_iter().flatten() {
        let text = read(file.as_str().context("a resource is a file")?)?;
        base.extend(objects::parse(&text)?);
    }
    let namespace = base.remove(&("Namespace".to_owned(), NAMESPACE.to_owned()));
    ensure!(namespace.is_some(), "the base has no namespace");
    base.values_mut().for_each(simplify);
    Ok(base)
}

/// Takes away labels and namespaces of objects, which both have in their own way, and the label that tells releases apart;
/// and gives the names of a release in its namespace back.
fn simplify(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("labels");
        metadata.remove("namespace");
    }
    rename(object);
}

fn rename(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("app.kubernetes.io/instance");
            map.values_mut().for_each(rename);
        }
        Value::Array(list) => list.iter_mut().for_each(rename),
        Value::String(text) if text == "sluice-system:sluice" => *text = "sluice".to_owned(),
        _ => {}
    }
}

#[test]
fn the_chart_lints_without_a_warning() -> Result<()> {
    for values in ["{}", crate::values::EXAMPLE] {
        let output = helm::lint(values)?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{said}");
        ensure!(!said.contains("[WARNING]"), "{said}");
    }
    Ok(())
}

#[test]
fn the_chart_means_the_same_as_the_manifests_of_kustomize() -> Result<()> {
    let found = differences(&base()?, &chart()?);
    ensure!(
        found.is_empty(),
        "kustomize and Helm differ:\n{}",
        found.join("\n")
    );
    Ok(())
}

/// The comparison above is only as good as what it sees.
#[test]
fn what_stands_in_one_and_not_in_the_other_is_seen() -> Result<()> {
    let base = base()?;
    let container = "/spec/template/spec/containers/0";
    let lists = [
        ("ClusterRole", "/rules/0/verbs".to_owned()),
        ("ClusterRole", "/rules".to_owned()),
        ("Role", "/rules/0/verbs".to_owned()),
        ("RoleBinding", "/subjects".to_owned()),
        (
            "DaemonSet",
            format!("{container}/securityContext/capabilities/add"),
        ),
        ("DaemonSet", format!("{container}/env")),
        ("DaemonSet", format!("{container}/volumeMounts")),
        (
            "DaemonSet",
            format!("{container}/livenessProbe/exec/command"),
        ),
        ("DaemonSet", "/spec/template/spec/volumes".to_owned()),
    ];
    for (kind, pointer) in lists {
        let mut changed = base.clone();
        let object = changed.get_mut(&(kind.to_owned(), "sluice".to_owned()));
        let list = object.and_then(|object| object.pointer_mut(&pointer)?.as_array_mut());
        list.with_context(|| pointer.clone())?.pop();
        ensure!(differences(&base, &changed).len() == 1, "{kind} {pointer}");
    }
    for field in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let mut changed = base.clone();
        let object = changed.get_mut(&("DaemonSet".to_owned(), "sluice".to_owned()));
        let container = object.and_then(|object| object.pointer_mut(container)?.as_object_mut());
        container.context("a container")?.remove(field);
        ensure!(differences(&base, &changed).len() == 1, "{field}");
    }
    let mut changed = base.clone();
    changed.pop_first();
    ensure!(differences(&base, &changed).len() == 1, "an object");
    ensure!(differences(&changed, &base).len() == 1, "an object more");
    Ok(())
}

#[test]
fn releases_of_one_name_in_two_namespaces_share_no_object() -> Result<()> {
    let values = "gatewayClass: {create: false}";
    let one = helm::render("edge", "one", values)?;
    let other = helm::render("edge", "other", values)?;
    for (key, object) in &one {
        let place = |object: &Value| object.pointer("/metadata/namespace").cloned();
        let twin = other.get(key).map(place);
        ensure!(twin != Some(place(object)), "{key:?} is one object of both");
    }
    Ok(())
}

#[test]
fn what_selects_pods_does_not_change_with_the_version() -> Result<()> {
    let objects = helm::render("edge", "net", "podLabels: {team: net}")?;
    let daemonset = objects::only(&objects, "DaemonSet")?;
    let labels = json!({"app.kubernetes.io/name": "sluice", "app.kubernetes.io/instance": "edge"});
    ensure!(daemonset["spec"]["selector"]["matchLabels"] == labels);
    let budget = objects::only(&objects, "PodDisruptionBudget")?;
    ensure!(budget["spec"]["selector"]["matchLabels"] == labels);
    let pod = &daemonset["spec"]["template"]["metadata"]["labels"];
    ensure!(pod["app.kubernetes.io/instance"] == "edge" && pod["team"] == "net");
    ensure!(daemonset["metadata"]["labels"]["helm.sh/chart"].is_string());
    ensure!(pod.get("helm.sh/chart").is_none(), "{pod}");
    Ok(())
}
