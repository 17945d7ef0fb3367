//! The `sluice` binary: joins the source of objects, the translator, the compiler, the proxy and
//! the packet path, and answers questions about them. What a request or a packet goes through
//! lives in the crates it uses.

mod admin;
mod args;
mod cli;
mod config;
mod controller;
mod pipeline;
mod run;
mod source;
mod status;
mod telemetry;
mod text;
mod version;
mod view;
mod world;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Cli, Command};

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match (&cli.command, matches.subcommand()) {
        (Command::Run(args), Some((_, matches))) => run::run(args, matches),
        (command, _) => cli::answer(command),
    }
}
