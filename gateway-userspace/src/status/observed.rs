//! What an object of the API server was last seen to say, as far as the status writer needs it.
//!
//! Every node keeps this for every object with a status, so that a node which becomes the writer
//! knows what stands without reading anything; it is therefore small.

use std::fmt;

use gateway_model::ir::spread;
use gateway_model::names::{ObjectKind, ObjectRef};
use imbl::OrdMap;
use serde_json::Value;

use super::ours::{self, Digest, Division};

/// What was seen of every object with a status.
pub type Observations = OrdMap<ObjectRef, Observed>;

/// Takes what a source saw, each object once; kinds whose status is nobody's concern here are not kept.
pub fn absorb(all: &mut Observations, seen: Vec<(ObjectRef, Option<Observed>)>) {
    for (object, seen) in spread(seen) {
        match seen.filter(|_| Division::of(object.kind).is_some()) {
            Some(seen) => all.insert(object, seen),
            None => all.remove(&object),
        };
    }
}

/// What a raw object says about itself and in our part of its status. 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`; of one kind a greater one is newer.
    pub resource_version: u64,
    /// `metadata.generation`; 0 if the kind has none.
    pub generation: i64,
    /// Our part of the status.
    pub ours: Digest,
    /// Whether nobody has written a status yet: what stands is what the CRD sets by default.
    pub is_vacant: bool,
}

/// Reads a raw object of the API server, before it is decoded. `controller` is the controller name
/// whose entries are ours. None if it has no identity, which no API server does.
pub fn observe(kind: ObjectKind, object: &Value, controller: &str) -> Option<Observed> {
    let metadata = object.get("metadata")?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str);
    let status = object.get("status").unwrap_or(&Value::Null);
    Some(Observed {
        uid: Uid::parse(text("uid")?),
        resource_version: text("resourceVersion")?.parse().ok()?,
        generation: metadata
            .get("generation")
            .and_then(Value::as_i64)
            .unwrap_or(0),
        ours: ours::digest(kind, status, controller),
        is_vacant: is_vacant(kind, status),
    })
}

/// A status that holds nothing but conditions of our types with the status `Unknown` tells nobody
/// anything: Gateway API v1 sets such ones by default in `GatewayClass.status.conditions` and
/// `Gateway.status.conditions`.
fn is_vacant(kind: ObjectKind, status: &Value) -> bool {
    let Value::Object(fields) = status else {
        return true;
    };
    Division::of(kind).is_some()
        && fields.iter().all(|(name, field)| match field {
            Value::Array(list) if name == "conditions" => list
                .iter()
                .all(|c| ours::is_our_type(c) && c["status"] == "Unknown"),
            Value::Array(list) => list.is_empty(),
            _ => false,
        })
}

/// `metadata.uid`: which of the objects that had a name, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u128);

impl Uid {
    /// Reads a UUID, which is what API servers give. Any other text is told apart from others, but
    /// is not kept.
    pub fn parse(text: &str) -> Self {
        let digits = text.bytes().filter(|byte| *byte != b'-').count();
        let mut number = 0_u128;
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            match char::from(byte).to_digit(16) {
                Some(digit) if digits == 32 => number = number << 4 | u128::from(digit),
                _ => return Self(u128::from(ours::digest_of_text(text))),
            }
        }
        Self(number)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const US: &str = "sluice.dev/gateway-controller";

    fn object(status: &Value) -> Value {
        json!({
            "metadata": {"name": "x", "uid": "7f8a2f3e-0c1d-4f0e-9a54-1d2c3b4a5f60", "resourceVersion": "812", "generation": 3},
            "status": status,
        })
    }

    #[test]
    fn what_identifies_an_object_is_read() {
        let seen = observe(ObjectKind::HttpRoute, &object(&json!({})), US).expect("observed");
        assert_eq!(seen.uid.to_string(), "7f8a2f3e-0c1d-4f0e-9a54-1d2c3b4a5f60");
        assert_eq!((seen.resource_version, seen.generation), (812, 3));
        assert_eq!(seen.ours, ours::NOTHING);
        let nameless = json!({"metadata": {"name": "x"}});
        assert_eq!(observe(ObjectKind::HttpRoute, &nameless, US), None);
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Observed>(), 48);
        assert_eq!(size_of::<Option<Observed>>(), 48);
    }

    #[test]
    fn uids_that_are_no_uuids_are_told_apart() {
        assert_eq!(Uid::parse("one"), Uid::parse("one"));
        assert_ne!(Uid::parse("one"), Uid::parse("two"));
        assert_ne!(Uid::parse(""), Uid::parse("é"));
    }

    #[test]
    fn a_status_that_the_crd_set_by_default_is_vacant() {
        let vacant = |kind, status| {
            let seen = observe(kind, &object(&status), US).expect("observed");
            seen.is_vacant
        };
        let pending = json!({"conditions": [
            {"type": "Accepted", "status": "Unknown", "reason": "Pending"},
            {"type": "Programmed", "status": "Unknown", "reason": "Pending"},
        ]});
        assert!(vacant(ObjectKind::Gateway, pending));
        assert!(vacant(ObjectKind::HttpRoute, json!({"parents": []})));
        assert!(vacant(ObjectKind::HttpRoute, Value::Null));
        let foreign = json!({"conditions": [{"type": "example.org/X", "status": "Unknown"}]});
        assert!(!vacant(ObjectKind::Gateway, foreign));
        let written = json!({"conditions": [{"type": "Accepted", "status": "True"}]});
        assert!(!vacant(ObjectKind::Gateway, written));
        let entries = json!({"parents": [{"controllerName": "example.org/other"}]});
        assert!(!vacant(ObjectKind::HttpRoute, entries));
    }
}
