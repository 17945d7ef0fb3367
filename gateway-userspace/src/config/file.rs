//! The settings file: one YAML map whose keys are the long names of `sluice run`'s flags.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use serde_json::{Map, Value};

use crate::args::{Cli, RunArgs};
use crate::text::{nearest, yaml_reason};

/// Reads a settings file and checks its keys.
///
/// # Errors
/// The file cannot be read, is no YAML map, or has a key that is no setting; names the nearest one.
pub fn read(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("settings file {}", path.display()))?;
    parse(&text).with_context(|| format!("settings file {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Map<String, Value>> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let read = serde_saphyr::from_str_with_options(text, options);
    let value: Value = read.map_err(|error| anyhow::anyhow!(yaml_reason(&error)))?;
    let mut map = match value {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        _ => anyhow::bail!("is no map of settings, such as `workers: 4`"),
    };
    let known = known_keys();
    if let Some(key) = map.keys().find(|key| !known.contains(key)) {
        match nearest(key, known.iter().map(String::as_str)) {
            Some(near) => anyhow::bail!("unknown setting `{key}`; is `{near}` meant?"),
            None => anyhow::bail!("unknown setting `{key}`; `sluice run --help` lists them"),
        }
    }
    for (key, value) in &mut map {
        split(key, value);
        understand(key, value)?;
    }
    Ok(map)
}

/// What flags and variables take apart at commas may be written so here too.
fn split(key: &str, value: &mut Value) {
    let command = Cli::command();
    let mut flags = run_flags(&command);
    let is_list =
        flags.any(|flag| flag.get_long() == Some(key) && flag.get_value_delimiter().is_some());
    if let (true, Value::String(text)) = (is_list, &*value) {
        *value = text
            .split(',')
            .map(|part| Value::from(part.trim()))
            .collect();
    }
}

/// Whether a setting's value is one of its kind; what is wrong otherwise is said of the setting.
fn understand(key: &str, value: &Value) -> anyhow::Result<()> {
    let alone = Map::from_iter([(key.to_owned(), value.clone())]);
    match serde_json::from_value::<RunArgs>(Value::Object(alone)) {
        Ok(_) => Ok(()),
        Err(error) => anyhow::bail!("`{key}: {}`: {error}", shown(value)),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn run_flags(command: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
    let run = command.find_subcommand("run").into_iter();
    run.flat_map(clap::Command::get_arguments)
}

fn known_keys() -> Vec<String> {
    let command = Cli::command();
    run_flags(&command)
        .filter_map(clap::Arg::get_long)
        .filter(|long| !matches!(*long, "config" | "help"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::builder::PossibleValue;
    use serde_json::json;

    use super::*;
    use crate::config::Span;

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_one() {
        let error = parse("worker: 4\n").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "unknown setting `worker`; is `workers` meant?"
        );
        let error = parse("frobnicate: 4\n").expect_err("unknown");
        assert!(error.to_string().contains("--help"), "{error}");
    }

    #[test]
    fn a_value_of_another_kind_is_told_with_its_setting() {
        for (text, says) in [
            ("drain-timeout: 10", "`drain-timeout: 10`: "),
            ("workers: two", "`workers: two`: "),
            ("access-log: xml", "`access-log: xml`: "),
            ("pin-workers: yes", "`pin-workers: yes`: "),
            (
                "address-pool: 10.0.0.0/33",
                "`address-pool: [\"10.0.0.0/33\"]`: ",
            ),
            ("limits: 7", "`limits: 7`: "),
            ("workers: 1\nworkers: 2", "duplicate mapping key: workers"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(says), "{error}");
            assert!(!error.contains("Options"), "{error}");
        }
    }

    #[test]
    fn lists_may_be_written_with_commas() {
        let map = parse("class-names: a, b\nnode-addresses: 192.0.2.1\n").expect("lists");
        assert_eq!(map["class-names"], serde_json::json!(["a", "b"]));
        assert_eq!(map["node-addresses"], serde_json::json!(["192.0.2.1"]));
    }

    #[test]
    fn an_empty_file_has_no_settings() {
        assert!(parse("# nothing\n").expect("empty").is_empty());
    }

    /// What the chart sets by values of its own, or the Pod says of itself; elsewhere these would be without effect.
    const NOT_IN_THE_CHART: [&str; 10] = [
        "manifests",
        "kubeconfig",
        "controller-name",
        "address-pool",
        "pod-name",
        "pod-namespace",
        "pod-uid",
        "node-name",
        "state-dir",
        "drain-timeout",
    ];

    fn chart_settings() -> Value {
        let schema = include_str!("../../../deploy/helm/sluice/values.schema.json");
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        schema["properties"]["settings"]["properties"].clone()
    }

    fn keys(map: &Value) -> BTreeSet<String> {
        let map = map.as_object().expect("a map");
        map.keys().cloned().collect()
    }

    #[test]
    fn the_chart_takes_the_settings_that_there_are() {
        let mut wanted: BTreeSet<String> = known_keys().into_iter().collect();
        for key in NOT_IN_THE_CHART {
            assert!(wanted.remove(key), "{key} is no setting");
        }
        let settings = chart_settings();
        assert_eq!(keys(&settings), wanted);
        let command = Cli::command();
        for flag in run_flags(&command) {
            let values = flag.get_possible_values();
            let names: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
            let Some(long) = flag.get_long().filter(|long| wanted.contains(*long)) else {
                continue;
            };
            let is_choice = !names.is_empty() && long != "pin-workers";
            let listed = settings[long].get("enum").cloned();
            assert_eq!(listed, is_choice.then(|| json!(names)), "{long}");
        }
    }

    #[test]
    fn the_chart_takes_the_limits_that_there_are() {
        let limits = chart_settings()["limits"]["properties"].clone();
        let groups = limits.as_object().expect("groups of limits");
        let listed = groups.iter().flat_map(|(group, limits)| {
            let names = keys(&limits["properties"]);
            names.into_iter().map(move |name| format!("{group}.{name}"))
        });
        let known = crate::config::limits::values(&gateway_proxy::Limits::default());
        let listed: BTreeSet<String> = listed.collect();
        assert_eq!(listed, known.keys().cloned().collect());
        // The default of each is of the kind that the chart asks for.
        for (name, default) in known {
            let (group, limit) = name.split_once('.').expect("a group");
            let kind = groups[group]["properties"][limit]["$ref"].as_str();
            let text = default.as_str().expect("a text");
            let is_number = text.parse::<u64>().is_ok();
            let fits = match kind.and_then(|kind| kind.rsplit('/').next()) {
                Some("duration") => !is_number && text.parse::<Span>().is_ok(),
                Some("count") => is_number,
                Some("bytes") => is_number || text.ends_with("iB"),
                Some("bytes-or-auto") => text == "auto",
                _ => false,
            };
            assert!(fits, "{name}: {kind:?} and {text}");
        }
    }

    /// The example stands in a comment, each line behind `#`.
    #[test]
    fn the_example_in_the_values_of_the_chart_is_understood() {
        let values = include_str!("../../../deploy/helm/sluice/values.yaml");
        let example = values
            .lines()
            .skip_while(|line| *line != "#   settings:")
            .skip(1)
            .map_while(|line| line.strip_prefix("#     "));
        let text: Vec<&str> = example.collect();
        let map = parse(&text.join("\n")).expect("the example");
        assert!(map.len() > 8, "{map:?}");
        let limits = map["limits"].as_object().expect("limits").clone();
        crate::config::limits::resolve(&limits.into_iter().collect()).expect("limits");
    }
}
