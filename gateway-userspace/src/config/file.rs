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
    use super::*;

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
}
