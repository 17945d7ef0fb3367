//! Precedence, defaults and mistakes.

use clap::{CommandFactory as _, FromArgMatches as _};

use super::*;
use crate::args::{Cli, Command};

fn load(arguments: &[&str]) -> anyhow::Result<Config> {
    let words = ["sluice", "run"]
        .into_iter()
        .chain(arguments.iter().copied());
    let matches = Cli::command().try_get_matches_from(words)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let (Command::Run(args), Some((_, matches))) = (&cli.command, matches.subcommand()) else {
        panic!("not run");
    };
    Config::load(args, matches)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), text).expect("write");
    file
}

fn origin_of(config: &Config, name: &str) -> Origin {
    config
        .origins
        .iter()
        .find(|setting| setting.name == name)
        .expect(name)
        .origin
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let settings =
        file("manifests: /from-file\nworkers: 3\ndrain-timeout: 10s\nclass-names: [a, b]\n");
    let path = settings.path().to_str().expect("a path");
    let config = load(&["--config", path, "--workers", "5"]).expect("loads");
    assert_eq!(config.manifests.as_deref(), Some(Path::new("/from-file")));
    assert_eq!(config.workers.get(), 5);
    assert_eq!(config.drain_timeout, Duration::from_secs(10));
    assert_eq!(config.class_names, ["a", "b"]);
    assert_eq!(config.controller_name, "sluice.dev/gateway-controller");
    assert_eq!(origin_of(&config, "workers"), Origin::Flag);
    assert_eq!(origin_of(&config, "drain-timeout"), Origin::File);
    assert_eq!(origin_of(&config, "controller-name"), Origin::Default);
}

#[test]
fn more_workers_than_there_is_room_for_are_refused_when_they_are_read() {
    let settings = file("workers: 257\n");
    let path = settings.path().to_str().expect("a path");
    for arguments in [["--workers", "100000"], ["--config", path]] {
        let error = load(&arguments).expect_err("too many").to_string();
        assert!(error.contains("1 to 256"), "{error}");
    }
    assert_eq!(
        load(&["--workers", "256"]).expect("loads").workers.get(),
        256
    );
}

#[test]
fn the_environment_stands_between_flag_and_file() {
    let settings = file("manifests: /from-file\nworkers: 3\ndrain-timeout: 10s\n");
    let binary = std::env::current_exe().expect("this test");
    let output = std::process::Command::new(binary)
        .args([
            "--exact",
            "config::tests::as_the_environment_says",
            "--nocapture",
        ])
        .env("SLUICE_CONFIG", settings.path())
        .env("SLUICE_WORKERS", "7")
        .env("SLUICE_LIMITS", "head.lines=33")
        .env("SLUICE_TEST_ENVIRONMENT", "1")
        .output()
        .expect("runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Run by the test above in a process of its own, whose environment is its own.
#[test]
fn as_the_environment_says() {
    if std::env::var_os("SLUICE_TEST_ENVIRONMENT").is_none() {
        return;
    }
    let config = load(&["--limits", "head.bytes=1KiB"]).expect("loads");
    assert_eq!(config.workers.get(), 7);
    assert_eq!(origin_of(&config, "workers"), Origin::Environment);
    assert_eq!(origin_of(&config, "drain-timeout"), Origin::File);
    assert_eq!(config.limits.head.bytes, 1024);
    let config = load(&["--workers", "2"]).expect("loads");
    assert_eq!(config.workers.get(), 2);
    assert_eq!(config.limits.head.lines, 33);
}

#[test]
fn limits_of_file_and_flags_are_joined() {
    let settings =
        file("manifests: /m\nlimits:\n  head: {lines: 50, bytes: 8KiB}\n  time.head: 3s\n");
    let path = settings.path().to_str().expect("a path");
    let config = load(&[
        "--config",
        path,
        "--limits",
        "head.lines=60,http2.concurrent-streams=7",
    ])
    .expect("loads");
    assert_eq!(config.limits.head.lines, 60);
    assert_eq!(config.limits.head.bytes, 8 * 1024);
    assert_eq!(config.limits.time.head, Duration::from_secs(3));
    assert_eq!(config.limits.http2.concurrent_streams, 7);
}

#[test]
fn every_default_in_the_help_is_the_default() {
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("run");
    let shown = |long: &str| {
        let arg = run
            .get_arguments()
            .find(|arg| arg.get_long() == Some(long))
            .expect(long);
        let help = arg.get_help().expect("help").to_string();
        let start = help.find("[default: ").expect(long) + "[default: ".len();
        help[start..start + help[start..].find(']').expect("]")].to_owned()
    };
    let defaults = load(&["--manifests", "/m"]).expect("loads");
    for setting in &defaults.origins {
        let value = match &setting.value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => setting.value.to_string(),
            Value::Array(list) if !list.is_empty() => list[0].as_str().expect("text").to_owned(),
            _ => continue,
        };
        let of_the_machine = ["manifests", "state-dir", "workers", "pod-name", "node-name"];
        if !of_the_machine.contains(&setting.name.as_str()) {
            assert_eq!(shown(&setting.name), value, "{}", setting.name);
        }
    }
}

#[test]
fn a_pool_is_a_list_of_networks_and_addresses() {
    let config = load(&[
        "--manifests",
        "/m",
        "--address-pool",
        "192.0.2.7/24,2001:db8::1",
        "--publish-addresses",
        "service",
    ])
    .expect("loads");
    let settings = config.translate_settings();
    let pool: Vec<_> = settings
        .address_pool
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(pool, ["192.0.2.0/24", "2001:db8::1/128"]);
    assert_eq!(settings.publish, gateway_translate::Publish::Service);
}

#[test]
fn in_a_cluster_the_node_objects_name_the_nodes() {
    let settings = load(&[]).expect("loads").translate_settings();
    assert!(settings.node_addresses.is_empty());
    let given = load(&["--node-addresses", "192.0.2.1"]).expect("loads");
    let given = given.translate_settings().node_addresses;
    assert_eq!(given, ["192.0.2.1".parse::<IpAddr>().expect("an address")]);
}

#[test]
fn mistakes_name_what_would_be_right() {
    let error = |arguments: &[&str]| load(arguments).expect_err("a mistake").to_string();
    assert!(error(&["--manifests", "/m", "--admin-address", "0.0.0.0:9"]).contains("127.0.0.1:9"));
    assert!(error(&["--manifests", "/m", "--drain-timeout", "10"]).contains("write 10s"));
    assert!(error(&["--manifests", "/m", "--address-pool", "all"]).contains("write 192.0.2.0/24"));
    assert!(error(&["--manifests", "/m", "--limits", "head.byte=1"]).contains("head.bytes"));
}
