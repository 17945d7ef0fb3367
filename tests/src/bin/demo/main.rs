//! The demo: from the wire to a backend, in front of your eyes. `cargo xtask demo` builds what it
//! needs and runs it.

mod acts;
mod show;
mod stage;

use std::process::ExitCode;

use anyhow::Result;

use show::Show;
use stage::Stage;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let unknown = arguments
        .iter()
        .find(|a| !["--keep", "--sockets"].contains(&a.as_str()));
    if let Some(unknown) = unknown {
        eprintln!("demo: unknown argument {unknown}; known are --keep and --sockets");
        return ExitCode::from(2);
    }
    let given = |flag: &str| arguments.iter().any(|a| a == flag);
    match run(given("--keep"), given("--sockets")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Shows everything; whether every point held.
fn run(keep: bool, sockets: bool) -> Result<bool> {
    let mut show = Show::new();
    let stage = Stage::build(sockets || !gateway_tests::sys::is_root())?;
    show.opening(&stage);
    let Some(mut sluice) = acts::start(&mut show, &stage) else {
        return Ok(false);
    };
    acts::redirect(&mut show, &stage);
    acts::certificate(&mut show, &stage);
    acts::canary(&mut show, &stage);
    acts::source_address(&mut show, &stage);
    if stage.has_packet_path() {
        acts::counters(&mut show, &stage, &sluice);
    }
    acts::live_edit(&mut show, &stage);
    acts::upgrade(&mut show, &stage, &mut sluice);
    let all = show.closing();
    if keep {
        show.invitation(&stage, &sluice);
        // Ctrl-C ends it: the harness cleans up and leaves.
        loop {
            std::thread::park();
        }
    }
    acts::stop(&mut show, sluice);
    Ok(all && show.closing_of_stop())
}
