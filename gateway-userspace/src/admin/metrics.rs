//! `/metrics` in the text format of Prometheus.
//!
//! Labels are names that somebody configured (gateway, listener, route, rule, Secret), classes of
//! status codes and reasons of Sluice's own, never anything that a client sends; a rule without
//! requests has no series, and requests that no rule matched are one series.

mod source;
mod statuses;

use std::fmt::{Display, Write as _};

use gateway_model::snapshot::{CompiledRule, DURATION_BOUNDS_US, RuleTotals};
use gateway_proxy::MetricKind;
use gateway_proxy::head::{ByViolation, Violation};

use super::AdminState;
use crate::view::listeners;
use crate::view::process::Life;
use crate::world::World;

/// The content type.
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted.
pub async fn metrics(state: &AdminState) -> String {
    let mut out = Text::default();
    process(state, &mut out);
    let world = state.world.borrow().clone();
    if let Some(world) = world {
        configuration(&world, &mut out);
        rules(&world, &mut out);
    }
    source::source(state.health.as_deref(), &mut out);
    statuses::statuses(state.statuses.as_deref(), &mut out);
    state.times.write(&mut out.0);
    let stats = state.proxy.stats();
    for metric in stats.metrics() {
        let (suffix, kind) = match metric.kind {
            MetricKind::Counter => ("_total", "counter"),
            MetricKind::Gauge => ("", "gauge"),
        };
        let name = format!("sluice_{}{suffix}", metric.name);
        out.head(&name, kind, metric.help);
        out.value(&name, &[], metric.value);
    }
    refusals(&stats.refusals, &mut out);
    packets(state, &mut out).await;
    out.0
}

/// Samples with their heads.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let _ = writeln!(
            self.0,
            "{} {value}",
            if labels.is_empty() { "" } else { "}" }
        );
    }
}

fn process(state: &AdminState, out: &mut Text) {
    out.head("sluice_build_info", "gauge", "The version of this process.");
    out.value("sluice_build_info", &[("version", crate::version::LONG)], 1);
    out.head(
        "sluice_start_time_seconds",
        "gauge",
        "When the process started, in Unix time.",
    );
    out.value(
        "sluice_start_time_seconds",
        &[],
        state.started_at.as_second(),
    );
    out.head("sluice_state", "gauge", "1 for what the process is doing.");
    let life = *state.life.borrow();
    for each in [Life::Starting, Life::Serving, Life::Draining] {
        out.value(
            "sluice_state",
            &[("state", each.as_str())],
            u8::from(each == life),
        );
    }
    out.head(
        "sluice_l4_bpf",
        "gauge",
        "Whether connections are steered by BPF; 0 means ordinary sockets.",
    );
    out.value("sluice_l4_bpf", &[], u8::from(state.l4_reason.is_none()));
}

fn configuration(world: &World, out: &mut Text) {
    let name = "sluice_config_revision";
    out.head(name, "gauge", "The revision that is served.");
    out.value(name, &[], world.revision());
    let name = "sluice_config_applied_timestamp_seconds";
    out.head(
        name,
        "gauge",
        "When that revision was applied, in Unix time.",
    );
    out.value(name, &[], world.applied_at.as_second());
    let name = "sluice_config_objects";
    out.head(name, "gauge", "Objects in force.");
    out.value(name, &[], world.source.objects);
    let name = "sluice_config_errors";
    out.head(
        name,
        "gauge",
        "Mistakes in manifests, objects in their last good form, listeners that are not served.",
    );
    let source = &world.source;
    let unreadable = usize::from(source.unreadable.is_some());
    for (kind, count) in [
        ("manifest", source.findings.len() + unreadable),
        ("held", source.held.len()),
        ("rejected", world.rejected.len()),
        ("listener", world.failures.len()),
    ] {
        out.value(name, &[("kind", kind)], count);
    }
    let name = "sluice_listener_up";
    out.head(name, "gauge", "Whether a listener is served.");
    for (key, listener) in &world.snapshot.ir().listeners {
        let gateway = format!("{}/{}", listener.gateway.namespace, listener.gateway.name);
        let failure = world.failures.get(key);
        let is_up = failure.is_none_or(|failure| !failure.served.is_empty());
        out.value(
            name,
            &[("gateway", &gateway), ("listener", &listener.label())],
            u8::from(is_up),
        );
    }
    let name = "sluice_certificate_expiry_timestamp_seconds";
    out.head(name, "gauge", "When a certificate expires, in Unix time.");
    for certificate in listeners::certificates(world) {
        out.value(
            name,
            &[("secret", &certificate.secret)],
            certificate.not_after.as_second(),
        );
    }
}

fn rules(world: &World, out: &mut Text) {
    let used: Vec<(&CompiledRule, RuleTotals)> = world
        .snapshot
        .rules()
        .map(|rule| (&**rule, rule.stats.totals()))
        .filter(|(_, totals)| totals.requests() > 0)
        .collect();
    let name = "sluice_route_requests_total";
    out.head(
        name,
        "counter",
        "Requests by rule and class of the status sent; none means that there was no answer.",
    );
    for (rule, totals) in &used {
        for (class, count) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]
            .iter()
            .zip(totals.by_class)
        {
            if count > 0 {
                out.value(
                    name,
                    &[
                        ("route", &rule.labels.route),
                        ("rule", &rule.labels.rule),
                        ("code", class),
                    ],
                    count,
                );
            }
        }
    }
    type Figure = (&'static str, &'static str, fn(&RuleTotals) -> String);
    let figures: [Figure; 3] = [
        (
            "sluice_route_duration_seconds_total",
            "Time from head to the end of the response, summed.",
            |t| micros(t.duration_sum_us),
        ),
        (
            "sluice_route_received_bytes_total",
            "Bytes of request bodies.",
            |t| t.bytes_received.to_string(),
        ),
        (
            "sluice_route_sent_bytes_total",
            "Bytes of response bodies.",
            |t| t.bytes_sent.to_string(),
        ),
    ];
    for (name, help, figure) in figures {
        out.head(name, "counter", help);
        for (rule, totals) in &used {
            out.value(
                name,
                &[("route", &rule.labels.route), ("rule", &rule.labels.rule)],
                figure(totals),
            );
        }
    }
    durations(&used, out);
}

/// One histogram over all rules: a histogram for each would be fifteen series for each.
fn durations(used: &[(&CompiledRule, RuleTotals)], out: &mut Text) {
    let name = "sluice_request_duration_seconds";
    out.head(
        name,
        "histogram",
        "Time from a request's head to the end of its response, of all rules.",
    );
    let bucket = format!("{name}_bucket");
    let mut count = 0;
    for (at, bound) in DURATION_BOUNDS_US.iter().enumerate() {
        count += used
            .iter()
            .map(|(_, totals)| totals.durations[at])
            .sum::<u64>();
        out.value(&bucket, &[("le", &micros(*bound))], count);
    }
    count += used
        .iter()
        .map(|(_, totals)| totals.durations[DURATION_BOUNDS_US.len()])
        .sum::<u64>();
    out.value(&bucket, &[("le", "+Inf")], count);
    let sum = used.iter().map(|(_, totals)| totals.duration_sum_us).sum();
    out.value(&format!("{name}_sum"), &[], micros(sum));
    out.value(&format!("{name}_count"), &[], count);
}

/// Every reason that a request can give, those without a count too: who makes an alert finds them all here, and the
/// first refusal is a rise.
fn refusals(refusals: &ByViolation<u64>, out: &mut Text) {
    let name = "sluice_requests_refused_total";
    out.head(
        name,
        "counter",
        "Requests refused by the head policy, a head limit or for a malformed body, by what was wrong.",
    );
    for &violation in Violation::ALL {
        let count = refusals[violation];
        if count > 0 || !violation.is_of_responses() {
            out.value(name, &[("reason", violation.name())], count);
        }
    }
}

async fn packets(state: &AdminState, out: &mut Text) {
    let counters = match state.l4.lock().await.as_ref() {
        Some(l4) => l4.counters(),
        None => return,
    };
    let Ok(counters) = counters else { return };
    let name = "sluice_l4_verdicts_total";
    out.head(
        name,
        "counter",
        "Packets (connections, for steering) by what was decided and why.",
    );
    for (reason, count) in &counters.reasons {
        out.value(name, &[("reason", reason)], count);
    }
    type Figure = (
        &'static str,
        &'static str,
        fn(&gateway_l4::FrontendStatus) -> u64,
    );
    let figures: [Figure; 4] = [
        (
            "sluice_l4_passed_packets_total",
            "Packets let through to a frontend.",
            |f| f.passed_packets,
        ),
        (
            "sluice_l4_passed_bytes_total",
            "Bytes of those packets.",
            |f| f.passed_bytes,
        ),
        (
            "sluice_l4_dropped_packets_total",
            "Packets dropped by a frontend's source policy.",
            |f| f.dropped_packets,
        ),
        (
            "sluice_l4_steered_connections_total",
            "Connections handed to a worker.",
            |f| f.steered,
        ),
    ];
    for (name, help, figure) in figures {
        out.head(name, "counter", help);
        for frontend in &counters.frontends {
            let address = frontend
                .address
                .map_or_else(|| "*".to_owned(), |a| a.to_string());
            let port = frontend.port.to_string();
            let labels = [
                ("address", address.as_str()),
                ("port", &port),
                ("protocol", frontend.protocol),
            ];
            out.value(name, &labels, figure(frontend));
        }
    }
}

/// Microseconds as decimal seconds.
fn micros(micros: u64) -> String {
    crate::controller::seconds(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_reason_and_reasons_their_zero() {
        let mut counts = ByViolation::default();
        counts[Violation::HostMissing] = 2;
        counts[Violation::TooManyHeaders] = 1;
        let mut out = Text::default();
        refusals(&counts, &mut out);
        let samples = out.0.lines().filter(|line| !line.starts_with('#'));
        let samples: Vec<&str> = samples.collect();
        for sample in [
            "sluice_requests_refused_total{reason=\"host-missing\"} 2",
            "sluice_requests_refused_total{reason=\"too-many-headers\"} 1",
            "sluice_requests_refused_total{reason=\"chunk\"} 0",
        ] {
            assert!(samples.contains(&sample), "{samples:?}");
        }
        let values = samples.iter().filter_map(|line| line.rsplit(' ').next());
        let values = values.map(|value| value.parse::<u64>().expect("a count"));
        assert_eq!(values.sum::<u64>(), 3);
        assert!(!out.0.contains("status-line"), "no request has one");
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = Text::default();
        out.value("x", &[("a", "q\"b\\c\nd"), ("e", "f")], 3);
        assert_eq!(out.0, "x{a=\"q\\\"b\\\\c\\nd\",e=\"f\"} 3\n");
    }
}
