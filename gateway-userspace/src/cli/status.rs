//! `sluice status`.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::table::{Cell, Look, Table, paint};
use super::{ask, print};
use crate::args::{Output, TableArgs};
use crate::source::{KindReport, KindState, Origin, Report};
use crate::text::ago;
use crate::view::process::{Life, ProcessView, StatusView};

/// Prints what is accepted and served. As YAML and JSON: the objects as `kubectl get` prints them.
pub fn status(args: &TableArgs) -> anyhow::Result<()> {
    let mut view: StatusView = ask(&args.live, "/status", |world| {
        crate::view::process::status(world, None, Timestamp::now())
    })?;
    let of_all = view.objects.len();
    if let Some(namespace) = &args.namespace {
        view.objects
            .retain(|object| object["metadata"]["namespace"] == **namespace);
    }
    match args.output {
        Output::Table => print(args.output, &view, |colours| match &args.namespace {
            Some(namespace) if view.objects.is_empty() && of_all > 0 => {
                format!("no object with a status in namespace {namespace}; {of_all} elsewhere\n")
            }
            _ => text(&view, Timestamp::now(), colours),
        }),
        Output::Json | Output::Yaml => print(args.output, &list(&view), |_| String::new()),
    }
}

/// The objects as one `List`.
pub fn list(view: &StatusView) -> Value {
    json!({"apiVersion": "v1", "items": view.objects, "kind": "List"})
}

/// The answer for people.
pub fn text(view: &StatusView, now: Timestamp, colours: bool) -> String {
    let mut out = String::new();
    if let Some(process) = &view.process {
        process_text(process, view, now, colours, &mut out);
    }
    source_text(&view.source, colours, &mut out);
    out.push('\n');
    out.push_str(&objects(view, colours));
    troubles(view, colours, &mut out);
    out
}

fn process_text(
    process: &ProcessView,
    view: &StatusView,
    now: Timestamp,
    colours: bool,
    out: &mut String,
) {
    let state = match process.state {
        Life::Serving => paint("serving", Look::Good, colours),
        other => paint(other.as_str(), Look::Warn, colours),
    };
    let _ = writeln!(
        out,
        "sluice {} is {state}: process {}, {} workers, up {}",
        process.version,
        process.pid,
        process.workers,
        ago(process.started_at, now)
    );
    if let Some(applied_at) = process.applied_at {
        let us = process.stages.total_us;
        let _ = writeln!(
            out,
            "revision {}, applied {} ago within {}.{:01} ms",
            view.revision,
            ago(applied_at, now),
            us / 1000,
            us / 100 % 10
        );
    }
    let reason = process
        .l4_reason
        .as_ref()
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    let _ = writeln!(out, "packet path: {}{reason}", process.l4);
    if let Some(stale @ 1..) = process.stale_seconds {
        let text = format!("the cluster may have changed meanwhile: last heard of {stale}s ago");
        let _ = writeln!(out, "{}", paint(&text, Look::Bad, colours));
    }
}

fn source_text(source: &Report, colours: bool, out: &mut String) {
    match &source.origin {
        Origin::Directory { path, files } => {
            let _ = writeln!(
                out,
                "manifests: {}, {} objects in {}",
                path.display(),
                source.objects,
                count(*files, "file")
            );
        }
        Origin::Cluster {
            server,
            kinds,
            remembers,
            ..
        } => {
            let of = if *remembers {
                ", some of an earlier life"
            } else {
                ""
            };
            let _ = writeln!(out, "cluster: {server}, {} objects{of}", source.objects);
            kinds_text(kinds, colours, out);
        }
    }
    if let Some(reason) = &source.unreadable {
        let text = match source.objects {
            0 => format!("{reason}; there is no last good configuration to serve"),
            _ => format!("{reason}; serving the last good configuration"),
        };
        let _ = writeln!(out, "{}", paint(&text, Look::Bad, colours));
    }
}

fn kinds_text(kinds: &[KindReport], colours: bool, out: &mut String) {
    let named = |state: KindState| {
        let kinds = kinds.iter().filter(move |kind| kind.state == state);
        kinds.map(|kind| kind.kind.as_str()).collect::<Vec<_>>()
    };
    for (state, title) in [
        (KindState::NotServed, "not served there"),
        (KindState::Unknown, "not listed yet"),
    ] {
        let names = named(state);
        if !names.is_empty() {
            let _ = writeln!(out, "  {title}: {}", names.join(", "));
        }
    }
    for kind in kinds.iter().filter(|kind| kind.state == KindState::Stale) {
        let reason = kind.reason.as_deref().unwrap_or("for no known reason");
        let text = format!("{} cannot be followed: {reason}", kind.kind);
        let _ = writeln!(out, "  {}", paint(&text, Look::Bad, colours));
    }
}

fn objects(view: &StatusView, colours: bool) -> String {
    if view.objects.is_empty() {
        return "no object has a status: there is no GatewayClass, Gateway or HTTPRoute that is ours\n".to_owned();
    }
    let mut table = Table::new(
        ["OBJECT", "ACCEPTED", "RESOLVED", "PROGRAMMED", "DETAILS"],
        colours,
    );
    for object in &view.objects {
        let conditions = all_conditions(&object["status"]);
        table.row([
            name(object).into(),
            summary(&conditions, "Accepted"),
            summary(&conditions, "ResolvedRefs"),
            summary(&conditions, "Programmed"),
            details(object, &conditions).into(),
        ]);
    }
    table.render()
}

fn troubles(view: &StatusView, colours: bool, out: &mut String) {
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{}", paint(title, Look::Bold, colours));
            for line in lines {
                let _ = writeln!(out, "  {line}");
            }
        }
    };
    section(
        "MISTAKES",
        view.source
            .findings
            .iter()
            .map(ToString::to_string)
            .collect(),
    );
    section(
        "WITHOUT EFFECT",
        view.source.doubts.iter().map(ToString::to_string).collect(),
    );
    section("WARNINGS", view.warnings.clone());
    let held = view.source.held.iter();
    section(
        "SERVED IN THEIR LAST GOOD FORM, FOR THEY ARE BROKEN",
        held.map(|held| match &held.file {
            Some(file) => format!("{} ({})", held.object, file.display()),
            None => held.object.to_string(),
        })
        .collect(),
    );
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter()
            .map(|(name, reason)| format!("{name}: {reason}"))
            .collect()
    };
    section(
        "SERVED IN THEIR LAST GOOD FORM, FOR THEY DO NOT COMPILE",
        pairs(&view.rejected),
    );
    section("NOT SERVED EVERYWHERE", pairs(&view.failures));
}

/// `Kind namespace/name`.
pub fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    match metadata.get("namespace") {
        Some(namespace) => format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(namespace),
            text(&metadata["name"])
        ),
        None => format!("{} {}", text(&object["kind"]), text(&metadata["name"])),
    }
}

/// Every condition of an object with where it stands: the object itself, a listener or a parent.
pub fn all_conditions(status: &Value) -> Vec<(String, &Value)> {
    let array = |key: &str| {
        status[key]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
    };
    let own = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| (String::new(), c));
    let listeners = array("listeners").flat_map(|listener| {
        let place = format!(
            "listener {}: ",
            listener["name"].as_str().unwrap_or_default()
        );
        conditions(listener).map(move |c| (place.clone(), c))
    });
    let parents = array("parents").flat_map(|parent| {
        let place = format!("{}: ", parent_name(&parent["parentRef"]));
        conditions(parent).map(move |c| (place.clone(), c))
    });
    let ancestors = array("ancestors").flat_map(|ancestor| {
        let place = format!("{}: ", parent_name(&ancestor["ancestorRef"]));
        conditions(ancestor).map(move |c| (place.clone(), c))
    });
    own.chain(listeners)
        .chain(parents)
        .chain(ancestors)
        .collect()
}

/// Whether a condition says that something is wrong.
pub fn is_trouble(condition: &Value) -> bool {
    let is = |text: &str| condition["status"] == text;
    match condition["type"].as_str().unwrap_or_default() {
        "Conflicted"
        | "InsecureFrontendValidationMode"
        | "OverlappingTLSConfig"
        | "PartiallyInvalid" => is("True"),
        _ => !is("True"),
    }
}

fn conditions(value: &Value) -> impl Iterator<Item = &Value> {
    value["conditions"].as_array().into_iter().flatten()
}

fn parent_name(parent: &Value) -> String {
    let text = |key: &str| parent[key].as_str();
    let mut name = String::from("parent ");
    if let Some(namespace) = text("namespace") {
        let _ = write!(name, "{namespace}/");
    }
    name.push_str(text("name").unwrap_or_default());
    if let Some(section) = text("sectionName") {
        let _ = write!(name, "#{section}");
    }
    name
}

/// The worst status of all conditions of a type.
fn summary(conditions: &[(String, &Value)], kind: &str) -> Cell {
    let of_kind = conditions.iter().filter(|(_, c)| c["type"] == kind);
    let mut seen = "";
    for (_, condition) in of_kind {
        seen = match (seen, condition["status"].as_str().unwrap_or_default()) {
            ("False", _) | (_, "False") => "False",
            ("Unknown", _) | (_, "Unknown") => "Unknown",
            _ => "True",
        };
    }
    let look = match seen {
        "True" => Look::Good,
        "False" => Look::Bad,
        _ => Look::Warn,
    };
    Cell::new(seen, look)
}

/// What is wrong with an object, each thing once: where a Gateway repeats what it says of a
/// listener, and one condition what another says, the most specific one speaks.
pub fn troubles_of(conditions: &[(String, &Value)]) -> Vec<String> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for (place, condition) in conditions
        .iter()
        .filter(|(_, condition)| is_trouble(condition))
    {
        let text = |key: &str| condition[key].as_str().unwrap_or_default();
        let message = text("message");
        let core = match message
            .strip_prefix("listener ")
            .and_then(|rest| rest.split_once(": "))
        {
            Some((_, core)) => core,
            None => message,
        };
        let line = format!("{place}{}: {message}", text("reason"));
        match found.iter_mut().find(|(other, _)| *other == core) {
            Some((_, other)) => *other = line,
            None => found.push((core, line)),
        }
    }
    found.into_iter().map(|(_, line)| line).collect()
}

/// What is wrong; if nothing is, what there is.
fn details(object: &Value, conditions: &[(String, &Value)]) -> String {
    let troubles = troubles_of(conditions);
    if !troubles.is_empty() {
        return troubles.join("; ");
    }
    let listeners = object["status"]["listeners"]
        .as_array()
        .into_iter()
        .flatten();
    let listeners = listeners.map(|listener| {
        let routes = listener["attachedRoutes"].as_u64().unwrap_or(0);
        let name = listener["name"].as_str().unwrap_or_default();
        format!(
            "{name}: {}",
            count(usize::try_from(routes).unwrap_or(usize::MAX), "route")
        )
    });
    let parents = object["status"]["parents"].as_array().into_iter().flatten();
    let parents =
        parents.map(|parent| parent_name(&parent["parentRef"]).replacen("parent ", "", 1));
    listeners.chain(parents).collect::<Vec<_>>().join(", ")
}

/// `1 file`, `2 files`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
