//! `metadata`, and the selectors that look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};
use jiff::Timestamp;

use super::reader::{Node, shared};
use super::{Known, check};

/// `metadata` of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Kind, namespace and name; the namespace is `default` if the manifest names none.
    pub object: ObjectRef,
    /// `generation`; 1 if the manifest has none.
    pub generation: i64,
    /// `creationTimestamp` in seconds since the Unix epoch; 0, older than everything that has
    /// one, if the manifest has none.
    pub created: i64,
    /// What most objects do not have.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    labels: BTreeMap<Arc<str>, Arc<str>>,
    annotations: BTreeMap<Arc<str>, Arc<str>>,
    uid: Option<Arc<str>>,
}

impl Meta {
    /// Labels; of namespaced objects only those that mean something to Sluice, for nothing selects
    /// the others and tools write many.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<Arc<str>, Arc<str>> {
        static NONE: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        self.rare.as_ref().map_or(&NONE, |rare| &rare.labels)
    }

    /// An annotation by its name, which begins with `sluice.dev/`.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let value = self.rare.as_ref()?.annotations.get(name)?;
        Some(value)
    }

    /// The identity that the API server gave, of Gateways.
    #[must_use]
    pub fn uid(&self) -> Option<&Arc<str>> {
        self.rare.as_ref()?.uid.as_ref()
    }

    pub(super) fn add_labels(&mut self, labels: BTreeMap<Arc<str>, Arc<str>>) {
        self.rare.get_or_insert_default().labels.extend(labels);
    }

    pub(super) fn read(kind: ObjectKind, root: &Node<'_>) -> Self {
        let meta = root.field("metadata").mapping();
        let created = meta.field("creationTimestamp");
        let uid = meta.field("uid");
        let rare = Rare {
            labels: meta
                .field("labels")
                .texts(|name| !kind.is_namespaced() || is_asked_for(name)),
            annotations: meta
                .field("annotations")
                .texts(|name| name.starts_with(OURS)),
            uid: (kind == ObjectKind::Gateway)
                .then(|| uid.text().map(Into::into))
                .flatten(),
        };
        let name = meta.field("name").required_checked(check::subdomain);
        Self {
            object: ObjectRef::of(kind, namespace(kind, &meta), name),
            generation: meta.field("generation").integer(0..=i64::MAX).unwrap_or(1),
            created: created.text().map_or(0, |text| seconds(&created, text)),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        }
    }
}

fn namespace(kind: ObjectKind, meta: &Node<'_>) -> Arc<str> {
    if !kind.is_namespaced() {
        return shared("");
    }
    let namespace = meta.field("namespace").checked(check::label);
    namespace.unwrap_or_else(|| shared("default"))
}

const OURS: &str = "sluice.dev/";

fn is_asked_for(label: &str) -> bool {
    const PREFIXES: [&str; 2] = [OURS, "gateway.networking.k8s.io/"];
    PREFIXES.iter().any(|prefix| label.starts_with(prefix))
}

fn seconds(node: &Node<'_>, text: &str) -> i64 {
    match text.parse::<Timestamp>() {
        Ok(time) => time.as_second(),
        Err(_) => {
            node.problem(format!(
                "{text:?} must be an RFC 3339 time, as in 2026-01-31T12:00:00Z"
            ));
            0
        }
    }
}

/// Kubernetes `LabelSelector`: every requirement must hold; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels that must have these values.
    pub match_labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Further requirements.
    pub match_expressions: Vec<LabelRequirement>,
}

/// Kubernetes `LabelSelectorRequirement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label.
    pub key: Arc<str>,
    /// What is asked of it.
    pub operator: Known<SelectorOperator>,
    /// The values for `In` and `NotIn`.
    pub values: BTreeSet<Arc<str>>,
}

/// Kubernetes `LabelSelectorOperator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorOperator {
    /// The label is there and has one of the values.
    In,
    /// The label is missing or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

impl LabelSelector {
    pub(super) fn read(node: &Node<'_>) -> Self {
        let expressions = node.field("matchExpressions").items(usize::MAX);
        Self {
            match_labels: node.field("matchLabels").texts(|_| true),
            match_expressions: expressions.iter().map(LabelRequirement::read).collect(),
        }
    }

    /// Whether these labels are selected; an operator that is not known selects nothing.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|r| r.holds(labels))
    }
}

impl LabelRequirement {
    fn read(node: &Node<'_>) -> Self {
        let operator = node.field("operator").required();
        let operators = [
            ("In", SelectorOperator::In),
            ("NotIn", SelectorOperator::NotIn),
            ("Exists", SelectorOperator::Exists),
            ("DoesNotExist", SelectorOperator::DoesNotExist),
        ];
        let values = node.field("values").items(usize::MAX);
        let requirement = Self {
            key: node.field("key").required_text().into(),
            operator: operator
                .known(&operators)
                .unwrap_or(Known::Unknown("".into())),
            values: values
                .iter()
                .filter_map(|v| Some(v.text()?.into()))
                .collect(),
        };
        let needs_values = matches!(
            requirement.operator,
            Known::Known(SelectorOperator::In | SelectorOperator::NotIn)
        );
        if needs_values && requirement.values.is_empty() {
            node.field("values")
                .problem("must not be empty for the operators In and NotIn");
        }
        requirement
    }

    fn holds(&self, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Known::Known(SelectorOperator::In) => value.is_some_and(|v| self.values.contains(v)),
            Known::Known(SelectorOperator::NotIn) => value.is_none_or(|v| !self.values.contains(v)),
            Known::Known(SelectorOperator::Exists) => value.is_some(),
            Known::Known(SelectorOperator::DoesNotExist) => value.is_none(),
            Known::Unknown(_) => false,
        }
    }
}
