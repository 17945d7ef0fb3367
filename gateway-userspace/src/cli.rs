//! Commands that ask and print: each asks a running process over its admin socket, or computes
//! the same answer from a directory of manifests, and prints it as a table, JSON or YAML.

mod check;
mod client;
mod explain;
mod l4;
mod listeners;
mod probe;
mod routes;
mod status;
mod table;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::{Cli, Command, CompletionArgs, Live, Output};
use crate::world::{Offline, World};

use client::Client;

/// Answers a command other than `run`. Exit code 1 if there is no answer, or `check` found mistakes.
pub fn answer(command: &Command) -> ExitCode {
    let answered = match command {
        Command::Run(_) => return ExitCode::FAILURE,
        Command::Check(args) => check::check(args),
        Command::Status(args) => status::status(args).map(|()| ExitCode::SUCCESS),
        Command::Routes(args) => routes::routes(args).map(|()| ExitCode::SUCCESS),
        Command::Listeners(args) => listeners::listeners(args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => explain::explain(args).map(|()| ExitCode::SUCCESS),
        Command::L4(args) => l4::l4(args).map(|()| ExitCode::SUCCESS),
        Command::Probe(args) => probe::probe(args).map(|()| ExitCode::SUCCESS),
        Command::Version => version().map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => completions(args).map(|()| ExitCode::SUCCESS),
    };
    answered.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// Prints an error with its causes.
pub fn complain(error: &anyhow::Error) {
    let colours = colours(std::io::stderr().is_terminal());
    let label = table::paint("error:", table::Look::Bad, colours);
    eprintln!("{label} {}", crate::telemetry::chain(error.as_ref()));
}

/// Whether to write colours to something that is or is not a terminal.
pub fn colours(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An answer from a running process, or from a directory if one is given.
fn ask<T: DeserializeOwned>(
    live: &Live,
    path: &str,
    offline: impl FnOnce(&World) -> T,
) -> anyhow::Result<T> {
    match &live.manifests {
        Some(directory) => Ok(offline(&load(directory)?.world)),
        None => Client::new(live.state_dir.as_deref()).get(path),
    }
}

/// What a sluice with default settings would serve from this directory.
fn load(directory: &std::path::Path) -> anyhow::Result<Offline> {
    World::offline(directory, crate::config::offline_settings()?)
}

/// Prints an answer in the form that was asked for.
fn print<T: Serialize + ?Sized>(
    output: Output,
    answer: &T,
    text: impl FnOnce(bool) -> String,
) -> anyhow::Result<()> {
    match output {
        Output::Table => write(&text(colours(std::io::stdout().is_terminal()))),
        Output::Json => write(&(serde_json::to_string_pretty(answer)? + "\n")),
        Output::Yaml => write(&yaml(answer)?),
    }
}

fn yaml<T: Serialize + ?Sized>(answer: &T) -> anyhow::Result<String> {
    let value = serde_json::to_value(answer)?;
    Ok(serde_saphyr::to_string(&value)?)
}

/// Writes to standard output; a reader that has seen enough is no error.
fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn version() -> anyhow::Result<()> {
    let object = if crate::version::has_ebpf() {
        "included"
    } else {
        "not included"
    };
    write(&format!(
        "sluice {}\neBPF object: {object}\n",
        crate::version::LONG
    ))
}

fn completions(args: &CompletionArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sluice", &mut script);
    write(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests;
