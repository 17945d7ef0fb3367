//! The settings file: one YAML map whose keys are the long names of `sluice run`'s flags.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use serde_json::{Map, Value};

use crate::args::Cli;
use crate::text::nearest;

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
    let value: Value = serde_saphyr::from_str_with_options(text, options)?;
    let map = match value {
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
    Ok(map)
}

fn known_keys() -> Vec<String> {
    let command = Cli::command();
    let run = command.find_subcommand("run").into_iter();
    run.flat_map(clap::Command::get_arguments)
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
    fn an_empty_file_has_no_settings() {
        assert!(parse("# nothing\n").expect("empty").is_empty());
    }
}
