//! What there is to say about a cluster.

use gateway_model::names::ObjectKind;

use super::super::super::{Finding, Held, KindReport, KindState, Origin, Report};
use super::super::api::KINDS;
use super::Catalog;

/// Kinds without which nothing can be said to be served.
const VITAL: [ObjectKind; 2] = [ObjectKind::GatewayClass, ObjectKind::Gateway];

impl Catalog {
    /// What there is to say about it.
    pub fn report(&self) -> Report {
        let kinds = KINDS.into_iter().filter_map(|kind| {
            let of = self.kinds.get(&kind)?;
            Some(KindReport {
                kind,
                state: of.state,
                reason: of.trouble.as_ref().map(|trouble| trouble.reason.clone()),
            })
        });
        let finding = |(object, message): (&gateway_model::names::ObjectRef, &String)| Finding {
            file: None,
            line: None,
            document: None,
            object: Some(object.clone()),
            message: message.clone(),
        };
        let held = self.broken.keys().filter(|name| {
            let of = self.kinds.get(&name.kind);
            let known = of.and_then(|of| of.known.get(*name));
            known.is_some_and(|known| known.is_in_force)
        });
        let remembers = |kind: &super::Kind| !kind.was_listed && !kind.known.is_empty();
        Report {
            origin: Origin::Cluster {
                server: self.server.clone(),
                kinds: kinds.collect(),
                remembers: self.kinds.values().any(remembers),
                is_founded: VITAL.iter().all(|kind| self.is_founded(*kind)),
            },
            unreadable: self.unreadable(),
            has_workloads: false,
            objects: self.kinds.values().map(|kind| kind.in_force).sum(),
            doubts: Vec::new(),
            findings: self.broken.iter().map(finding).collect(),
            held: held
                .map(|object| Held {
                    object: object.clone(),
                    file: None,
                })
                .collect(),
        }
    }

    /// Why nothing at all can be followed.
    fn unreadable(&self) -> Option<String> {
        let mut reason = None;
        for kind in self.kinds.values() {
            if matches!(kind.state, KindState::Watched | KindState::NotServed) {
                return None;
            }
            reason = reason.or(kind.trouble.as_ref().map(|trouble| trouble.reason.clone()));
        }
        reason.or_else(|| Some("the API server has not answered yet".to_owned()))
    }

    /// Whether it is known what there is of a kind, now or in an earlier life.
    fn is_founded(&self, kind: ObjectKind) -> bool {
        self.kinds.get(&kind).is_some_and(|of| {
            of.was_listed || of.state == KindState::NotServed || !of.known.is_empty()
        })
    }

    /// Whether there is something new to say.
    pub fn is_report_new(&mut self) -> bool {
        if !self.pending.report {
            return false;
        }
        let is_new = self.reported.as_deref() != Some(&self.report());
        self.pending.report = is_new;
        is_new
    }
}
