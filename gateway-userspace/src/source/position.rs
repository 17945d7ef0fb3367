//! How far a source has come.

use std::collections::BTreeMap;

use gateway_model::names::ObjectKind;
use serde::{Deserialize, Serialize};

/// For each kind the highest `metadata.resourceVersion` that has been seen; nothing from files.
///
/// Kubernetes API "Resource versions": those of one kind are numbers that grow, and can be compared.
/// Serializes as `{"Gateway": 1234}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(BTreeMap<ObjectKind, u64>);

impl Position {
    /// How far it is in one kind; 0 if nothing was seen.
    pub fn of(&self, kind: ObjectKind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// Has seen this version of a kind. Says whether that was new.
    pub fn advance(&mut self, kind: ObjectKind, resource_version: u64) -> bool {
        let at = self.0.entry(kind).or_default();
        let is_new = *at < resource_version;
        *at = resource_version.max(*at);
        is_new
    }

    /// Whether it is, in every kind, as far as the other one.
    pub fn reaches(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|(kind, version)| self.of(*kind) >= *version)
    }

    /// Whether nothing was seen.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(pairs: &[(ObjectKind, u64)]) -> Position {
        Position(pairs.iter().copied().collect())
    }

    #[test]
    fn a_position_only_grows() {
        let mut at = Position::default();
        assert!(at.advance(ObjectKind::Gateway, 7));
        assert!(!at.advance(ObjectKind::Gateway, 7));
        assert!(!at.advance(ObjectKind::Gateway, 3));
        assert_eq!(at.of(ObjectKind::Gateway), 7);
        assert_eq!(at.of(ObjectKind::Service), 0);
    }

    #[test]
    fn every_kind_must_be_reached() {
        let at = position(&[(ObjectKind::Gateway, 7), (ObjectKind::Service, 9)]);
        assert!(at.reaches(&position(&[(ObjectKind::Gateway, 7)])));
        assert!(at.reaches(&Position::default()));
        assert!(!at.reaches(&position(&[
            (ObjectKind::Gateway, 7),
            (ObjectKind::Service, 10)
        ])));
        assert!(!Position::default().reaches(&at));
    }

    #[test]
    fn it_is_a_small_map_in_json() {
        let at = position(&[(ObjectKind::HttpRoute, 12)]);
        let text = serde_json::to_string(&at).expect("serializes");
        assert_eq!(text, r#"{"HTTPRoute":12}"#);
        assert_eq!(serde_json::from_str::<Position>(&text).expect("parses"), at);
    }
}
