//! How well a cluster is followed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Text, micros};
use crate::source::cluster::{FOLLOWED, Health, KindHealth};
use crate::world;

/// Figures of the source as a whole and of every kind; nothing for files.
pub fn source(health: Option<&Health>, out: &mut Text) {
    let Some(health) = health else { return };
    let name = "sluice_source_stale_seconds";
    let help = "How old what is known of the cluster may be; 0 while everything is watched.";
    out.head(name, "gauge", help);
    out.value(name, &[], seconds(health.stale()));
    gauge(
        health,
        out,
        "sluice_source_watched",
        "Whether a kind is watched; neither is one that the API server does not serve.",
        |health, kind| u8::from(health.moment(kind).is_watched).to_string(),
    );
    gauge(
        health,
        out,
        "sluice_source_silence_seconds",
        "How long nothing was heard of a kind; API servers send a bookmark every minute.",
        |health, kind| seconds(health.moment(kind).silence),
    );
    gauge(
        health,
        out,
        "sluice_source_objects",
        "Objects of a kind that are in force.",
        |health, kind| {
            let objects = &health.of(kind).objects;
            objects.load(Ordering::Relaxed).to_string()
        },
    );
    counters(health, out);
}

fn counters(health: &Health, out: &mut Text) {
    type Figure = (&'static str, &'static str, fn(&KindHealth) -> &AtomicU64);
    let figures: [Figure; 4] = [
        (
            "sluice_source_lists_total",
            "Lists of a kind that were begun; more than one means that a watch could not go on.",
            |kind| &kind.lists,
        ),
        (
            "sluice_source_errors_total",
            "Lists and watches of a kind that failed.",
            |kind| &kind.errors,
        ),
        (
            "sluice_source_changes_total",
            "Objects of a kind that the API server sent, those that changed nothing included.",
            |kind| &kind.changes,
        ),
        (
            "sluice_source_decode_failures_total",
            "Objects of a kind that could not be read and keep their last good form.",
            |kind| &kind.decode_failures,
        ),
    ];
    for (name, help, figure) in figures {
        out.head(name, "counter", help);
        for kind in FOLLOWED {
            let count = figure(health.of(kind)).load(Ordering::Relaxed);
            out.value(name, &[("kind", kind.as_str())], count);
        }
    }
}

fn gauge(
    health: &Health,
    out: &mut Text,
    name: &str,
    help: &str,
    figure: impl Fn(&Health, gateway_model::names::ObjectKind) -> String,
) {
    out.head(name, "gauge", help);
    for kind in FOLLOWED {
        out.value(name, &[("kind", kind.as_str())], figure(health, kind));
    }
}

fn seconds(time: Duration) -> String {
    micros(world::micros(time))
}
