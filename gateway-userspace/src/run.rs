//! `sluice run`: the order in which a process starts, takes over, serves, hands over and ends.

mod handover;
mod origin;
mod packet_path;
mod serve;
mod signals;
pub mod socket_file;
pub mod state_dir;
mod successor;

use std::process::ExitCode;

use clap::ArgMatches;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::RunArgs;
use crate::config::Config;
use crate::telemetry;

/// Runs until told to stop. Exit code 0 after a drain, 1 if it could not start or serve.
pub fn run(args: &RunArgs, matches: &ArgMatches) -> ExitCode {
    let config = match Config::load(args, matches) {
        Ok(config) => config,
        Err(error) => {
            crate::cli::complain(&error);
            return ExitCode::from(2);
        }
    };
    telemetry::start(&config);
    log_panics();
    raise_descriptor_limit();
    refuse_huge_pages();
    // One thread, and so one heap: what is heard, translated and compiled is freed where it was made.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build();
    let served = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(serve::serve(config)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = telemetry::chain(error.as_ref()), "sluice ends");
            ExitCode::FAILURE
        }
    }
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("unknown");
        tracing::error!(location, message, "panic");
    }));
}

/// A configuration is many small objects that come and go: on huge pages they took a third more memory.
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(error = %error, "cannot do without huge pages");
    }
}

/// Every connection needs descriptors; the hard limit is what the operator allows.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %error, "cannot raise the limit of open files");
    }
}
