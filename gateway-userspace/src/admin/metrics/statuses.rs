//! What becomes of statuses in a cluster.

use super::{Text, micros};
use crate::status::{Count, Stats};

/// What becomes of statuses in a cluster; nothing for files.
pub fn statuses(stats: Option<&Stats>, out: &mut Text) {
    let Some(stats) = stats else { return };
    let name = "sluice_status_leader";
    out.head(name, "gauge", "Whether this process writes the statuses.");
    out.value(name, &[], u8::from(stats.leads()));
    let name = "sluice_status_writes_total";
    out.head(name, "counter", "Statuses by what became of writing them.");
    for (result, count) in [
        ("written", Count::Written),
        ("skipped", Count::Skipped),
        ("conflict", Count::Conflict),
        ("gone", Count::Gone),
        ("failed", Count::Failed),
    ] {
        out.value(name, &[("result", result)], stats.total(count));
    }
    for (name, count, help) in [
        ("sluice_events_total", Count::Event, "Events sent."),
        (
            "sluice_events_dropped_total",
            Count::EventDropped,
            "Events left out, for there were too many or they could not be sent.",
        ),
        (
            "sluice_service_writes_total",
            Count::Service,
            "Changes of Services that are kept for Gateways.",
        ),
        (
            "sluice_node_reports_total",
            Count::Report,
            "Reports of this node, signs of life included.",
        ),
    ] {
        out.head(name, "counter", help);
        out.value(name, &[], stats.total(count));
    }
    let now = stats.gauges();
    for (name, value, help) in [
        (
            "sluice_status_queue",
            now.queued.to_string(),
            "Objects whose status waits to be written.",
        ),
        (
            "sluice_status_lag_seconds",
            micros(crate::world::micros(now.lag)),
            "For how long the oldest change has waited for nodes to confirm it.",
        ),
        (
            "sluice_status_nodes",
            now.live_nodes.to_string(),
            "Nodes that report to the writer, which must be this process.",
        ),
        (
            "sluice_status_stale_nodes",
            now.stale_nodes.to_string(),
            "Nodes that have stopped reporting.",
        ),
    ] {
        out.head(name, "gauge", help);
        out.value(name, &[], value);
    }
}
