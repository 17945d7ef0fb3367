//! What the controller writes to the log: each finding once, each revision once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use gateway_model::ir::{ListenerProtocol, PortKind};
use gateway_model::snapshot::PortTable;

use crate::source::{Finding, KindState, Origin, Report};
use crate::world::World;

/// Says what is new in a report, once.
pub fn report(reported: &mut Option<Arc<Report>>, report: &Arc<Report>) {
    let before = reported.replace(Arc::clone(report)).unwrap_or_default();
    unreadable(report, &before);
    kinds(report, &before);
    for (finding, message) in new(&report.findings, &before.findings, "object is not used")
        .chain(new(&report.doubts, &before.doubts, "field is not used"))
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
            "{message}"
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

/// The findings that were not there before.
fn new<'a>(
    now: &'a [Finding],
    before: &'a [Finding],
    message: &'static str,
) -> impl Iterator<Item = (&'a Finding, &'static str)> {
    let known: BTreeSet<_> = before.iter().collect();
    now.iter()
        .filter(move |finding| !known.contains(finding))
        .map(move |finding| (finding, message))
}

/// Says that the source as a whole fails or works again. The reasons of a cluster's kinds differ and
/// take turns; one is enough.
fn unreadable(report: &Report, before: &Report) {
    let is_cluster = matches!(report.origin, Origin::Cluster { .. });
    match (&report.unreadable, &before.unreadable) {
        (Some(_), Some(_)) if is_cluster => {}
        (Some(error), old) if old.as_ref() != Some(error) => {
            let kept = match report.objects {
                0 => "objects cannot be read, and none are known",
                _ => "objects cannot be read; serving what was good",
            };
            tracing::error!(source = %report.origin, error, "{kept}");
        }
        (None, Some(_)) => tracing::info!(source = %report.origin, "objects can be read again"),
        _ => {}
    }
}

/// Says which kinds of a cluster are not followed any more, and which are again.
fn kinds(report: &Report, before: &Report) {
    let (Origin::Cluster { kinds, .. }, None) = (&report.origin, &report.unreadable) else {
        return;
    };
    let known: &[_] = match &before.origin {
        Origin::Cluster { kinds, .. } => kinds,
        Origin::Directory { .. } => &[],
    };
    for now in kinds {
        let old = known.iter().find(|old| old.kind == now.kind);
        let old = old.map_or(KindState::Unknown, |old| old.state);
        let kind = now.kind;
        match (old, now.state) {
            (old, new) if old == new && before.unreadable.is_none() => {}
            (_, KindState::Stale) => {
                let error = now.reason.as_deref();
                tracing::warn!(%kind, error, "kind cannot be followed; serving what was known of it");
            }
            (KindState::Stale, KindState::Watched) if before.unreadable.is_none() => {
                tracing::info!(%kind, "kind is followed again");
            }
            (KindState::NotServed, KindState::Watched) => {
                tracing::info!(%kind, "kind is served by the API server now");
            }
            (old, KindState::NotServed) if old != KindState::NotServed => {
                tracing::info!(%kind, "kind is not served by the API server");
            }
            _ => {}
        }
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
    for (listener, failure) in &world.failures {
        if known.is_none_or(|(failures, _)| failures.get(listener) != Some(failure)) {
            tracing::error!(%listener, error = %failure, "listener is not served everywhere");
        }
    }
    for (object, reason) in &world.rejected {
        if known.is_none_or(|(_, rejected)| rejected.get(object) != Some(reason)) {
            tracing::warn!(%object, error = reason, "object does not compile");
        }
    }
}

/// The ports that are served: `80 http, 443 https`.
fn listening(world: &World) -> String {
    let port = |table: &Arc<PortTable>| {
        let only_http = table
            .listeners
            .iter()
            .all(|listener| matches!(listener.protocol(), ListenerProtocol::Https(_)));
        let protocol = match table.kind {
            PortKind::Http => "http",
            PortKind::Tls if only_http => "https",
            PortKind::Tls => "tls",
            PortKind::Tcp => "tcp",
            PortKind::Udp => "udp",
        };
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
