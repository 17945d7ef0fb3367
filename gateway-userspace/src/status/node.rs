//! What each node says it serves: a Lease of its own Pod's, renewed as a sign of life, with a report
//! as an annotation.
//!
//! How often it may speak depends on how many nodes there are, so that the API server's work does
//! not: see [`Pace`].

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_model::failure::Failure;
use gateway_model::names::ListenerKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lease::micro_time;
use crate::source::Position;
use crate::text::shortened;

/// The annotation of a node's Lease that holds its [`NodeReport`] as JSON.
pub const REPORT: &str = "sluice.dev/applied";
/// The annotation of the status writer's Lease that says how many nodes report.
pub const NODES: &str = "sluice.dev/nodes";
/// The label of nodes' Leases, and its value.
pub const LABEL: (&str, &str) = ("sluice.dev/lease", "node");

/// Failures that one report can hold, and the length of one's reason: a Lease is small.
const MOST_FAILURES: usize = 200;
const REASON_BYTES: usize = 256;

/// What a node has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Of the binary.
    pub version: String,
    /// It serves what the API server said up to here.
    pub position: Position,
    /// What it does not serve.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub failures: Vec<NodeFailure>,
}

/// A listener that cannot be served on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFailure {
    /// Which.
    pub listener: ListenerKey,
    /// Why.
    pub reason: String,
}

impl NodeReport {
    /// What a node has applied.
    pub fn new(position: Position, failures: &BTreeMap<ListenerKey, Failure>) -> Self {
        let failure = |(listener, failure): (&ListenerKey, &Failure)| NodeFailure {
            listener: listener.clone(),
            reason: shortened(&failure.to_string(), REASON_BYTES),
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            position,
            failures: failures.iter().take(MOST_FAILURES).map(failure).collect(),
        }
    }

    /// Reads the annotation; one that cannot be read says nothing.
    pub fn parse(annotation: &str) -> Self {
        serde_json::from_str(annotation).unwrap_or_default()
    }
}

/// Whose Lease it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The Pod's namespace, where the Leases are.
    pub namespace: String,
    /// The Pod.
    pub pod: String,
    /// The Pod's uid, once it is known.
    pub pod_uid: Option<String>,
    /// The node.
    pub node: String,
}

impl Identity {
    /// The name of its Lease.
    pub fn lease(&self) -> String {
        format!("sluice-node-{}", self.pod)
    }

    /// Its Lease with a report, for a merge patch or to create it.
    pub fn lease_of(&self, report: &NodeReport, pace: Pace, now: Timestamp) -> Value {
        let report = serde_json::to_string(report).unwrap_or_default();
        let mut metadata = json!({
            "name": self.lease(),
            "namespace": self.namespace,
            "labels": {"app.kubernetes.io/name": "sluice", LABEL.0: LABEL.1},
            "annotations": {REPORT: report},
        });
        if let Some(uid) = &self.pod_uid {
            metadata["ownerReferences"] = json!([
                {"apiVersion": "v1", "kind": "Pod", "name": self.pod, "uid": uid},
            ]);
        }
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.node,
                "leaseDurationSeconds": pace.lease().as_secs(),
                "renewTime": micro_time(now),
            },
        })
    }
}

/// How often nodes speak, by how many there are.
///
/// | nodes | a report at most every | a sign of life every | requests a second at most |
/// |---|---|---|---|
/// | 3 | 50 ms | 2 s | 60 + 1.5 |
/// | 100 | 667 ms | 2 s | 150 + 50 |
/// | 500 | 3.3 s | 10 s | 150 + 50 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    nodes: u32,
}

/// Reports a second that all nodes send together at most.
const REPORTS_PER_S: u32 = 150;
/// Between two reports of one node at least: what changes meanwhile is one report.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);
/// Signs of life a second that all nodes send together.
const SIGNS_PER_S: u32 = 50;

impl Pace {
    /// That of so many nodes.
    pub fn of(nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        Self {
            nodes: nodes.clamp(1, 10_000),
        }
    }

    /// Reads the annotation [`NODES`] of the writer's Lease.
    pub fn parse(annotation: &str) -> Option<Self> {
        Some(Self::of(annotation.parse().ok()?))
    }

    /// How many nodes there are, as text.
    pub fn annotation(self) -> String {
        self.nodes.to_string()
    }

    /// Between two reports of one node.
    pub fn interval(self) -> Duration {
        (Duration::from_secs(1) * self.nodes / REPORTS_PER_S).max(LEAST_INTERVAL)
    }

    /// Over how long the nodes spread the first report after a quiet time, for a change reaches all
    /// of them at once: nothing for a few nodes, the whole interval for many.
    pub fn spread(self) -> Duration {
        self.interval().saturating_sub(Duration::from_millis(100))
    }

    /// Between two signs of life of one node.
    pub fn renewal(self) -> Duration {
        let even = Duration::from_secs(1) * self.nodes / SIGNS_PER_S;
        even.clamp(Duration::from_secs(2), Duration::from_secs(60))
    }

    /// Without a sign of life for so long a node is not waited for.
    pub fn lease(self) -> Duration {
        self.renewal() * 3
    }

    /// A node that has not confirmed a change after so long lags.
    pub fn patience(self) -> Duration {
        Duration::from_secs(2) + self.interval()
    }
}

#[cfg(test)]
mod tests {
    use gateway_model::names::{ObjectKind, ObjectRef};

    use super::*;

    fn listener(section: &str) -> ListenerKey {
        ListenerKey {
            gateway: ObjectRef::new(ObjectKind::Gateway, "infra", "web"),
            section: section.into(),
        }
    }

    #[test]
    fn a_report_survives_the_way_through_a_lease() {
        let mut position = Position::default();
        position.advance(ObjectKind::HttpRoute, 812);
        let failures = BTreeMap::from([(listener("http"), Failure::of_all("address in use"))]);
        let report = NodeReport::new(position, &failures);
        let identity = Identity {
            namespace: "sluice-system".to_owned(),
            pod: "sluice-x7k2p".to_owned(),
            pod_uid: Some("u".to_owned()),
            node: "node0".to_owned(),
        };
        let lease = identity.lease_of(&report, Pace::of(3), Timestamp::UNIX_EPOCH);
        let read = super::super::lease::Lease::read(&lease);
        assert_eq!(read.name, "sluice-node-sluice-x7k2p");
        assert_eq!(read.holder, "node0");
        assert_eq!(
            NodeReport::parse(read.annotation(REPORT).expect("a report")),
            report
        );
        assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(NodeReport::parse("{"), NodeReport::default());
    }

    #[test]
    fn a_report_stays_small() {
        let failures = (0..5_000).map(|n| {
            (
                listener(&n.to_string()),
                Failure::of_all("x".repeat(10_000)),
            )
        });
        let report = NodeReport::new(Position::default(), &failures.collect());
        let text = serde_json::to_string(&report).expect("serializes");
        assert!(text.len() < 100_000, "{}", text.len());
    }

    #[test]
    fn the_load_does_not_grow_with_the_number_of_nodes() {
        for nodes in [3_u32, 10, 50, 100, 500, 1_000, 3_000] {
            let pace = Pace::of(nodes as usize);
            let reports = f64::from(nodes) / pace.interval().as_secs_f64();
            let signs = f64::from(nodes) / pace.renewal().as_secs_f64();
            assert!(reports < 151.0, "{nodes}: {reports}");
            assert!(signs < 51.0, "{nodes}: {signs}");
            assert!(pace.lease() >= 3 * pace.renewal());
            assert!(pace.patience() > pace.interval());
        }
        assert_eq!(Pace::of(3).interval(), LEAST_INTERVAL);
        assert_eq!(Pace::of(3).spread(), Duration::ZERO);
        assert_eq!(Pace::of(3).lease(), Duration::from_secs(6));
        assert!(Pace::of(500).spread() > Duration::from_secs(3));
        assert_eq!(Pace::parse("x"), None);
        assert_eq!(Pace::parse(&Pace::of(7).annotation()), Some(Pace::of(7)));
    }
}
