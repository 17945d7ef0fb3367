//! Conditions: the one place where a finding becomes what a user reads.

use std::borrow::Cow;

use serde::de::value::StrDeserializer;
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use super::text::bounded;

/// `status` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

/// The condition types that Sluice writes, in the order it writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionType {
    /// The object is understood and allowed.
    Accepted,
    /// A listener is not distinct from another one.
    Conflicted,
    /// Clients without a valid certificate are let in.
    InsecureFrontendValidationMode,
    /// TLS listeners of one port share hostnames.
    #[serde(rename = "OverlappingTLSConfig")]
    OverlappingTlsConfig,
    /// Some rules of a route are left out.
    PartiallyInvalid,
    /// The data plane serves it.
    Programmed,
    /// Every reference leads somewhere and is permitted.
    ResolvedRefs,
    /// The CRDs are of a version that Sluice knows.
    SupportedVersion,
}

impl ConditionType {
    /// The type of that name; none if Sluice writes no such condition.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = StrDeserializer::<serde::de::value::Error>::new(name);
        Self::deserialize(name).ok()
    }
}

/// Why a condition is what it is: the words of Gateway API v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[allow(missing_docs, reason = "each name is the specification's own")]
pub enum Reason {
    Accepted,
    AddressNotAssigned,
    AddressNotUsable,
    BackendNotFound,
    Conflicted,
    ConfigurationChanged,
    HostnameConflict,
    Invalid,
    #[serde(rename = "InvalidCACertificateKind")]
    InvalidCaCertificateKind,
    #[serde(rename = "InvalidCACertificateRef")]
    InvalidCaCertificateRef,
    InvalidCertificateRef,
    InvalidClientCertificateRef,
    InvalidKind,
    InvalidParameters,
    InvalidRouteKinds,
    ListenersNotResolved,
    ListenersNotValid,
    NoConflicts,
    NoMatchingListenerHostname,
    NoMatchingParent,
    #[serde(rename = "NoValidCACertificate")]
    NoValidCaCertificate,
    NotAllowed,
    NotAllowedByListeners,
    OverlappingHostnames,
    ParentNotAccepted,
    ParentNotProgrammed,
    Pending,
    PortUnavailable,
    Programmed,
    ProtocolConflict,
    RefNotPermitted,
    ResolvedRefs,
    SupportedVersion,
    TargetNotFound,
    UnsupportedAddress,
    UnsupportedProtocol,
    UnsupportedValue,
    UnsupportedVersion,
}

/// One condition, without the time it last changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one word.
    pub reason: Reason,
    /// Why, in plain words that name the object and the fix; at most 32 768 bytes.
    pub message: Cow<'static, str>,
    /// `metadata.generation` of the object that this was found on.
    pub observed_generation: i64,
}

/// The conditions of one object or listener: one of each type, sorted by type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    observed_generation: i64,
    list: Vec<Condition>,
}

const WAITING: &str = "waiting for the data plane to confirm";

impl Conditions {
    /// No condition yet, for an object of that generation.
    #[must_use]
    pub(crate) fn new(observed_generation: i64) -> Self {
        Self {
            observed_generation,
            list: Vec::new(),
        }
    }

    /// Every condition.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.list.iter()
    }

    /// The condition of that type.
    #[must_use]
    pub fn get(&self, kind: ConditionType) -> Option<&Condition> {
        self.list.iter().find(|c| c.kind == kind)
    }

    /// Sets one condition and replaces the one of the same type.
    pub(crate) fn set(
        &mut self,
        kind: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<Cow<'static, str>>,
    ) {
        let condition = Condition {
            kind,
            status,
            reason,
            message: bounded(message.into()),
            observed_generation: self.observed_generation,
        };
        match self.list.binary_search_by_key(&kind, |c| c.kind) {
            Ok(at) => self.list[at] = condition,
            Err(at) => self.list.insert(at, condition),
        }
    }

    /// `True`.
    pub(crate) fn hold(
        &mut self,
        kind: ConditionType,
        reason: Reason,
        message: impl Into<Cow<'static, str>>,
    ) {
        self.set(kind, ConditionStatus::True, reason, message);
    }

    /// `False`.
    pub(crate) fn fail(
        &mut self,
        kind: ConditionType,
        reason: Reason,
        message: impl Into<Cow<'static, str>>,
    ) {
        self.set(kind, ConditionStatus::False, reason, message);
    }

    /// `Programmed=Unknown` until [`super::Status::finish`] knows better.
    pub(crate) fn wait_for_data_plane(&mut self) {
        self.set(
            ConditionType::Programmed,
            ConditionStatus::Unknown,
            Reason::Pending,
            WAITING,
        );
    }

    /// Whether `Programmed` is for the data plane to say.
    #[must_use]
    pub fn waits_for_data_plane(&self) -> bool {
        self.get(ConditionType::Programmed)
            .is_some_and(|c| c.status == ConditionStatus::Unknown)
    }

    pub(super) fn programmed(&mut self) {
        self.hold(
            ConditionType::Programmed,
            Reason::Programmed,
            "served by the data plane",
        );
    }

    pub(super) fn not_programmed(&mut self, why: &str) {
        self.fail(ConditionType::Programmed, Reason::Invalid, why.to_owned());
    }

    pub(super) fn address_not_usable(&mut self, why: String) {
        let kind = ConditionType::Programmed;
        self.fail(kind, Reason::AddressNotUsable, why);
    }

    pub(super) fn still_waiting(&mut self, why: &str) {
        self.fail(ConditionType::Programmed, Reason::Pending, why.to_owned());
    }

    pub(super) fn rejected(&mut self, why: &str) {
        let accepted = self
            .get(ConditionType::Accepted)
            .is_some_and(|c| c.status == ConditionStatus::True);
        if accepted {
            self.fail(
                ConditionType::Accepted,
                Reason::UnsupportedValue,
                why.to_owned(),
            );
        }
    }
}

impl Serialize for Conditions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.list.len()))?;
        for condition in &self.list {
            seq.serialize_element(condition)?;
        }
        seq.end()
    }
}
