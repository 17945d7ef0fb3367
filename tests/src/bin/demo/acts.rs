//! The points of the demo, one function each.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::http1::Response;
use gateway_tests::load::Report;
use gateway_tests::sluice::Sluice;
use gateway_tests::until;
use gateway_tests::websocket::WebSocket;

use crate::show::Show;
use crate::stage::{HOST, SERVICES, Stage, seen};

/// How often the process is replaced under load.
const UPGRADES: usize = 3;

/// Starts Sluice and shows where it attached.
pub fn start(show: &mut Show, stage: &Stage) -> Option<Sluice> {
    show.point(
        "Sluice starts from a directory of Gateway API manifests",
        |evidence| {
            let started = Instant::now();
            evidence.typed(
                "node",
                &format!("sluice run --manifests {}", stage.manifests.dir().display()),
            );
            let sluice = stage.start().ready()?;
            let took = started.elapsed().as_millis();
            evidence.came(format!("ready after {took} ms"));
            evidence.typed("node", "sluice l4");
            evidence.came(attachments(&sluice)?);
            Ok(sluice)
        },
    )
}

/// Where the packet path hangs, in one line.
fn attachments(sluice: &Sluice) -> Result<String> {
    let l4 = sluice.cli_json(&["l4"])?;
    let mut by_hook: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let all = l4.pointer("/status/attachments");
    for attachment in all.and_then(|all| all.as_array()).into_iter().flatten() {
        let text = |field: &str| {
            attachment
                .get(field)
                .and_then(|v| v.as_str())
                .unwrap_or("?")
        };
        by_hook
            .entry(text("hook"))
            .or_default()
            .push(text("interface"));
    }
    if by_hook.is_empty() {
        return Ok("no packet path: connections arrive on ordinary sockets".to_owned());
    }
    let hooks = by_hook
        .iter()
        .map(|(hook, places)| format!("{hook} on {}", places.join(", ")));
    Ok(hooks.collect::<Vec<_>>().join("; "))
}

/// Port 80 sends everybody to port 443.
pub fn redirect(show: &mut Show, stage: &Stage) {
    show.point("HTTP is redirected to HTTPS", |evidence| {
        let answer = stage.curl(evidence, &[], &stage.http("/cart?id=7"))?;
        let location = answer.header("location").unwrap_or_default().to_owned();
        evidence.came(format!(
            "{}   location: {location}",
            answer.head.start.trim_end()
        ));
        ensure!(
            answer.status == 301 && location == stage.https("/cart?id=7"),
            "not the redirect of the manifest"
        );
        Ok(())
    });
}

/// The wildcard certificate is the right one; curl would refuse any other.
pub fn certificate(show: &mut Show, stage: &Stage) {
    show.point(
        "HTTPS is served with the wildcard certificate",
        |evidence| {
            let answer = stage.curl(evidence, &[], &stage.https("/"))?;
            let subject = subject(stage)?;
            evidence.came(format!(
                "{}   certificate for {subject}, checked by curl",
                answer.head.start.trim_end()
            ));
            ensure!(answer.status == 200 && subject == "*.k8s.lan");
            Ok(())
        },
    );
}

/// The common name of the certificate that is shown for [`HOST`].
fn subject(stage: &Stage) -> Result<String> {
    let config = stage.authority.client_config(&[])?;
    let raw =
        gateway_tests::raw::Raw::connect_tls(stage.client(), stage.https_address(), HOST, config)?;
    let tls = raw.tls().context("a TLS connection")?;
    let leaf = tls
        .peer_certificates()
        .and_then(<[_]>::first)
        .context("no certificate")?;
    // The name stands in the certificate as it is; nothing else of it is of interest here.
    let found = gateway_tests::http1::find(leaf, b"*.k8s.lan");
    Ok(found.map_or("another name", |_| "*.k8s.lan").to_owned())
}

/// Requests with the header go to the canary, all others do not.
pub fn canary(show: &mut Show, stage: &Stage) {
    show.point("A header sends a request to the canary", |evidence| {
        for (arguments, wanted) in [
            (&[][..], SERVICES[0]),
            (&["-H", "X-Canary: true"], SERVICES[1]),
        ] {
            let answer = stage.curl(evidence, arguments, &stage.https("/"))?;
            evidence.came(format!(
                "{}   answered by {}",
                answer.head.start.trim_end(),
                backend(&answer)
            ));
            ensure!(backend(&answer) == wanted, "it should have been {wanted}");
        }
        Ok(())
    });
}

fn backend(answer: &Response) -> &str {
    answer.header("x-backend").unwrap_or("nobody")
}

/// What the backend is told about the client is true, whatever the client says.
pub fn source_address(show: &mut Show, stage: &Stage) {
    show.point(
        "The backend learns the client's real address, and cannot be lied to",
        |evidence| {
            let client = stage.client_address().to_string();
            let answer = stage.curl(
                evidence,
                &["-H", "X-Forwarded-For: 6.6.6.6"],
                &stage.https("/"),
            )?;
            let seen = seen(&answer)?;
            let received = seen.all("x-forwarded-for").join(", ");
            evidence.came(format!(
                "the client is {client}; the backend received X-Forwarded-For: {received}"
            ));
            ensure!(received == client);
            Ok(())
        },
    );
}

/// Connections move the kernel's counters.
pub fn counters(show: &mut Show, stage: &Stage, sluice: &Sluice) {
    show.point(
        "XDP sees every packet, sk_lookup steers every connection",
        |evidence| {
            let read = || -> Result<(f64, f64)> {
                let packets = sluice.metric("sluice_l4_verdicts_total", &[])?;
                Ok((
                    packets,
                    sluice.metric("sluice_l4_steered_connections_total", &[])?,
                ))
            };
            let before = read()?;
            let report = stage
                .load()?
                .new_connections()
                .limit(100)
                .run(stage.client())?;
            report.expect_clean()?;
            let after = read()?;
            let (packets, steered) = (after.0 - before.0, after.1 - before.1);
            evidence.came(format!(
                "100 new TLS connections: {packets} packets seen, {steered} connections steered"
            ));
            ensure!(steered >= 100.0 && packets >= 400.0);
            Ok(())
        },
    );
}

/// A manifest is edited while requests come in.
pub fn live_edit(show: &mut Show, stage: &Stage) {
    show.point(
        "An edited route is live at once, and no request is lost",
        |evidence| {
            let moved = Arc::new(OnceLock::new());
            let seen = Arc::clone(&moved);
            let load = stage.load()?.check(move |exchange| {
                if backend(exchange.response) == SERVICES[2] {
                    seen.get_or_init(|| exchange.done);
                }
                Ok(())
            });
            let load = load.start(stage.client())?;
            load.wait_more(200)?;
            let path = stage.manifests.path("routes.yaml");
            let text = std::fs::read_to_string(&path)?;
            let (old, new) = (
                format!("name: {}\n", SERVICES[0]),
                format!("name: {}\n", SERVICES[2]),
            );
            evidence.typed(
                "node",
                &format!("sed -i 's/{}$/{}/' routes.yaml", SERVICES[0], SERVICES[2]),
            );
            let saved = Instant::now();
            stage
                .manifests
                .write("routes.yaml", &[text.replace(&old, &new)])?;
            let first = until("the new backend answers", || moved.get().copied())?;
            load.wait_more(200)?;
            stage.manifests.write("routes.yaml", &[text])?;
            load.wait_more(200)?;
            let report = load.stop()?;
            evidence.came(format!(
                "the first answer from {} came {:.1} ms after the save",
                SERVICES[2],
                (first - saved).as_secs_f64() * 1000.0
            ));
            evidence.came(tally(&report));
            report.expect_clean()
        },
    );
}

/// The process is replaced while requests come in and a WebSocket is open.
pub fn upgrade(show: &mut Show, stage: &Stage, sluice: &mut Sluice) {
    show.point(
        "The process is replaced under load: no request lost, WebSockets live on",
        |evidence| {
            let tls = stage.authority.client_config(&["http/1.1"])?;
            let host = stage.https_host();
            let mut socket = WebSocket::open(
                stage.client(),
                stage.https_address(),
                &host,
                "/chat",
                Some(tls),
            )?;
            socket.echo("before")?;
            let loads = [
                stage.load()?.connections(2).start(stage.client())?,
                stage
                    .load()?
                    .connections(2)
                    .new_connections()
                    .start(stage.client())?,
            ];
            evidence.typed(
                "node",
                "sluice run   # the same command again is the upgrade",
            );
            let mut predecessors = Vec::new();
            for _ in 0..UPGRADES {
                loads.iter().try_for_each(|load| load.wait_more(50))?;
                predecessors.push(sluice.upgrade()?);
            }
            loads.iter().try_for_each(|load| load.wait_more(50))?;
            let pids: Vec<String> = predecessors
                .iter()
                .map(|old| old.pid().to_string())
                .collect();
            evidence.came(format!("pid {} → {}", pids.join(" → "), sluice.pid()));
            for (load, kind) in loads.into_iter().zip(["keep-alive", "new connection each"]) {
                let report = load.stop()?;
                evidence.came(format!("{kind:<20} {}", tally(&report)));
                report.expect_clean()?;
            }
            socket.echo("after")?;
            evidence.came(format!(
                "the WebSocket opened before still talks, through pid {}",
                pids[0]
            ));
            socket.close()?;
            for mut old in predecessors {
                old.wait_exit(Duration::from_secs(30))?;
            }
            evidence.came("and with its end the last old process is gone");
            Ok(())
        },
    );
}

fn tally(report: &Report) -> String {
    format!(
        "{} requests, {} failed",
        report.ok + report.failures(),
        report.failures()
    )
}

/// Stops it and says that nothing is left.
pub fn stop(show: &mut Show, mut sluice: Sluice) {
    let outcome = sluice
        .terminate()
        .and_then(|()| sluice.wait_exit(Duration::from_secs(35)));
    match outcome {
        Ok(status) if status.success() => {
            show.aside("stopped and cleaned up; cargo xtask demo --keep leaves it running");
        }
        Ok(status) => drop(show.point("It stops cleanly", |_| -> Result<()> {
            anyhow::bail!("sluice ended with {status}\n{}", sluice.log())
        })),
        Err(error) => drop(show.point("It stops cleanly", |_| -> Result<()> { Err(error) })),
    }
}
