//! What the user typed: the command line as types, nothing resolved and nothing touched.
//!
//! `sluice run`'s settings ([`RunArgs`]) may also stand in the environment and in a file;
//! [`crate::config`] joins the three.

mod query;
mod run;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Parser, Subcommand};

pub use query::{
    CheckArgs, CompletionArgs, ExplainArgs, L4Args, L4Command, Live, Output, Probe, ProbeArgs,
    TableArgs, TraceArgs,
};
pub use run::{AccessLog, Attach, L4Mode, LogFormat, PublishAddresses, RunArgs};

/// A gateway for the Kubernetes Gateway API, with or without Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version = crate::version::LONG,
    styles = STYLES,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "\
Start with
  sluice check ./manifests              what is wrong with a directory of manifests
  sluice explain https://shop.example.com/cart --manifests ./manifests
  sluice run --manifests ./manifests    serve it; edits take effect while it runs"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, in the order in which people meet them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve what a directory of manifests says, and follow its changes
    Run(Box<RunArgs>),
    /// Find mistakes in a directory of manifests; exit code 1 if there are any
    Check(CheckArgs),
    /// Print what is accepted and served, object by object
    Status(TableArgs),
    /// Print the routes in the order in which they are asked
    Routes(TableArgs),
    /// Print where connections are accepted
    Listeners(TableArgs),
    /// Say where a request goes and why the other rules lost
    Explain(ExplainArgs),
    /// Look at the packet path
    L4(L4Args),
    /// Print the version and what this build contains
    Version,
    /// Ask as an orchestrator does; exit code 0 for yes
    #[command(hide = true)]
    Probe(ProbeArgs),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions(CompletionArgs),
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_of_run_has_an_environment_variable_and_a_help_text() {
        let command = Cli::command();
        let run = command.find_subcommand("run").expect("run");
        for arg in run
            .get_arguments()
            .filter(|a| a.get_long().is_some_and(|l| l != "help"))
        {
            let long = arg.get_long().expect("filtered");
            let upper = long.to_ascii_uppercase().replace('-', "_");
            // What Kubernetes tells a Pod has names of its own.
            let expected = match long {
                "pod-name" | "pod-namespace" | "pod-uid" | "node-name" => upper,
                _ => format!("SLUICE_{upper}"),
            };
            assert_eq!(
                arg.get_env().and_then(|e| e.to_str()),
                Some(expected.as_str()),
                "{long}"
            );
            assert!(arg.get_help().is_some(), "{long} has no help");
            assert!(arg.get_help_heading().is_some(), "{long} is in no group");
        }
    }
}
