//! What the controller writes to the log: each finding once, each revision once.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_model::snapshot::PortTable;

use crate::source::Report;
use crate::world::World;

/// Says what is new in a report, once.
pub fn report(reported: &mut Option<Arc<Report>>, report: &Arc<Report>) {
    let before = reported.replace(Arc::clone(report)).unwrap_or_default();
    if let Some(error) = report
        .unreadable
        .as_ref()
        .filter(|e| before.unreadable.as_ref() != Some(e))
    {
        tracing::error!(source = %report.origin, error, "objects cannot be read; serving what was good");
    }
    for finding in report
        .findings
        .iter()
        .filter(|f| !before.findings.contains(f))
    {
        tracing::warn!(
            file = finding
                .file
                .as_ref()
                .map(|file| tracing::field::display(file.display())),
            line = finding.line,
            document = finding.document,
            object = finding.object.as_ref().map(tracing::field::display),
            error = finding.message,
            "object is not used"
        );
    }
    for held in report
        .held
        .iter()
        .filter(|held| !before.held.contains(held))
    {
        let file = held
            .file
            .as_ref()
            .map(|file| tracing::field::display(file.display()));
        tracing::warn!(object = %held.object, file, "object is broken; serving its last good form");
    }
    let healed = report.findings.is_empty() && report.held.is_empty();
    if healed && !(before.findings.is_empty() && before.held.is_empty()) {
        tracing::info!(objects = report.objects, "all objects are without mistakes");
    }
}

/// Says what a revision changed.
pub fn announce(world: &World, before: Option<&World>) {
    let snapshot = &world.snapshot;
    tracing::info!(
        revision = %snapshot.revision(),
        listeners = listening(world),
        routes = snapshot.ir().routes.len(),
        upstreams = snapshot.ir().upstreams.len(),
        total_us = world.stages.total_us,
        "revision applied"
    );
    let is_empty = |world: &World| world.snapshot.ir().listeners.is_empty();
    if is_empty(world) && before.is_none_or(|before| !is_empty(before)) {
        tracing::warn!("no listeners: waiting for a Gateway of a class that is ours");
    }
    let known = before.map(|before| (&before.failures, &before.rejected));
    for (listener, reason) in &world.failures {
        if known.is_none_or(|(failures, _)| failures.get(listener) != Some(reason)) {
            tracing::error!(%listener, error = reason, "listener is not served");
        }
    }
    for (object, reason) in &world.rejected {
        if known.is_none_or(|(_, rejected)| rejected.get(object) != Some(reason)) {
            tracing::warn!(%object, error = reason, "object keeps its last good form");
        }
    }
}

/// The ports that are served: `80 http, 443 https`.
fn listening(world: &World) -> String {
    let port = |table: &Arc<PortTable>| {
        let protocol = if table.is_tls() { "https" } else { "http" };
        match table.address {
            Some(address) => format!("{} {protocol}", SocketAddr::new(address, table.port)),
            None => format!("{} {protocol}", table.port),
        }
    };
    world
        .snapshot
        .port_tables()
        .map(port)
        .collect::<Vec<_>>()
        .join(", ")
}
