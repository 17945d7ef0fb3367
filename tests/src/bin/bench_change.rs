//! The second half of `cargo xtask bench route`: how long after a file is written its change is served.
//!
//! The shipped binary follows a directory with ten thousand HTTPRoutes. One of them redirects to a
//! path with a number in it; its file is replaced, again and again, with the next number, while a client on one
//! connection asks and asks. What is measured runs from before the write to the first answer with
//! the new number. Once the changed route has a file of its own, once it shares one with 99 others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use gateway_tests::http1::Wire;
use gateway_tests::manifests::{Manifests, gateway, http_listener, route};
use gateway_tests::netns::{self, Netns};
use gateway_tests::numbered::{Spread, ask};
use gateway_tests::sluice::Start;
use serde::Serialize;
use tokio::net::TcpStream;

const ROUTES: usize = 10_000;
const PER_FILE: usize = 100;

/// What was measured in one layout.
#[derive(Serialize)]
struct Measured {
    /// Routes in the file that was written.
    routes_in_file: usize,
    /// Changes.
    changes: usize,
    /// Milliseconds from before the write to the first answer of the new form.
    millis: Spread,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (json, changes) = match words[..] {
        [] => (false, 100),
        ["--quick"] => (false, 10),
        ["-o", "json"] => (true, 100),
        _ => bail!("bench_change [--quick | -o json]"),
    };
    let dir = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
    let manifests = Manifests::new(dir.path().join("manifests"))?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port();
    write_routes(&manifests, port)?;
    let started = Instant::now();
    let start = Start::new(&Netns::current()?, dir.path()).manifests(manifests.dir());
    let sluice = start
        .args(["--l4", "sockets", "--workers", "1", "--access-log", "off"])
        .ready()?;
    let ready = started.elapsed();
    let runtime = netns::runtime()?;
    let mut measured = Vec::new();
    for (name, before) in [("alone.yaml", 0), ("shared.yaml", PER_FILE - 1)] {
        let millis = runtime.block_on(change(&manifests, port, name, before, changes))?;
        measured.push(Measured {
            routes_in_file: before + 1,
            changes,
            millis: Spread::of(millis),
        });
    }
    drop(sluice);
    if json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
        return Ok(());
    }
    println!(
        "\n{ROUTES} routes served {:.2} s after the start; a change to one of them, file write to served:",
        ready.as_secs_f64()
    );
    println!(
        "  {:<16}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "routes in file", "changes", "min ms", "p50 ms", "p99 ms", "max ms"
    );
    for m in &measured {
        println!(
            "  {:<16}{:>9}{:>9.2}{:>9.2}{:>9.2}{:>9.2}  {}",
            m.routes_in_file,
            m.changes,
            m.millis.min,
            m.millis.p50,
            m.millis.p99,
            m.millis.max,
            if m.millis.p99 <= 20.0 {
                "pass: p99 within 20 ms"
            } else {
                "SHORT: p99 over 20 ms"
            }
        );
    }
    Ok(())
}

/// The Gateway and all routes, a hundred to a file; the files that will change are among them.
fn write_routes(manifests: &Manifests, port: u16) -> anyhow::Result<()> {
    manifests.write(
        "gateway.yaml",
        &[gateway(&[], &http_listener("http", port))],
    )?;
    let fixed = ROUTES - PER_FILE - 1;
    for first in (0..fixed).step_by(PER_FILE) {
        let routes: Vec<String> = (first..fixed.min(first + PER_FILE)).map(other).collect();
        manifests.write(&format!("routes-{first}.yaml"), &routes)?;
    }
    write_changed(manifests, "alone.yaml", 0, 0)?;
    write_changed(manifests, "shared.yaml", PER_FILE - 1, 0)
}

/// Replaces the file `name`: `before` routes that stay the same, then one that redirects to `/to-N`.
fn write_changed(
    manifests: &Manifests,
    name: &str,
    before: usize,
    number: u64,
) -> anyhow::Result<()> {
    let mut routes: Vec<String> = (ROUTES..ROUTES + before).map(other).collect();
    let stem = name.trim_end_matches(".yaml");
    routes.push(redirect(stem, &format!("{stem}.example.com"), number));
    manifests.write(name, &routes)
}

fn other(index: usize) -> String {
    redirect(&format!("r{index}"), &format!("r{index}.example.com"), 0)
}

fn redirect(name: &str, host: &str, number: u64) -> String {
    let rules = format!(
        "  - filters:\n    - type: RequestRedirect\n      requestRedirect: \
         {{statusCode: 302, path: {{type: ReplaceFullPath, replaceFullPath: /to-{number}}}}}\n"
    );
    route(name, &[host], &rules)
}

/// Changes the route of the file `name` so many times; the milliseconds of each.
async fn change(
    manifests: &Manifests,
    port: u16,
    name: &str,
    before: usize,
    changes: usize,
) -> anyhow::Result<Vec<f64>> {
    let host = name.replace(".yaml", ".example.com");
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    let mut millis = Vec::new();
    let mut number = ask(&mut wire, &host).await?;
    for _ in 0..changes {
        // From before the write: afterwards would miss what is done while this thread waits for a core.
        let written = Instant::now();
        write_changed(manifests, name, before, number + 1)?;
        loop {
            let served = ask(&mut wire, &host).await?;
            if served == number + 1 {
                break;
            }
            ensure!(
                served == number,
                "asked for {number}, then {}, was sent to {served}",
                number + 1
            );
            ensure!(
                written.elapsed() < Duration::from_secs(30),
                "a change was not served within 30 s"
            );
        }
        millis.push(written.elapsed().as_secs_f64() * 1e3);
        number += 1;
    }
    Ok(millis)
}
