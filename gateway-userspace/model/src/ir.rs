//! The intermediate representation: what every dialect is translated to, and all that is compiled.
//!
//! One meaning for two dialects: the rules that apply to a request are those of the listener's
//! routes whose hostname matches, most specific hostname first, and within one hostname in the
//! order of [`MatchOrder`]; *first match wins*, and when no rule of a hostname matches the next
//! less specific hostname of the same listener is asked. Whoever translates chooses the order.
//!
//! The collections are persistent: a translator that changes one object shares all others with
//! the previous [`Ir`], and the compiler finds what changed by [`imbl::OrdMap::diff`] and pointer
//! equality, so that cost follows the size of the change.

mod filter;
mod listener;
mod rule;
mod upstream;

use std::sync::Arc;

use imbl::OrdMap;

use crate::names::{ListenerKey, ObjectRef, UpstreamKey};

pub use filter::{
    Cors, CorsOrigin, Filter, HeaderEdits, HeaderLine, HeaderName, Mirror, PathRewrite, Redirect,
    Rewrite, Scheme,
};
pub use listener::{
    Certificate, CertificateKey, ClientValidation, ClientValidationMode, Fit, Listener,
    ListenerProtocol, PortKind, PrivateKey, SourcePolicy, TlsTermination, TrustAnchors,
};
pub use rule::{
    Action, BackendTarget, Fraction, HeaderMatch, HttpMatch, MatchOrder, PathMatch, QueryMatch,
    Retry, Route, RouteAttachment, Rule, RuleMatch, Timeouts, ValueMatch, WeightedBackend,
};
pub use upstream::{
    Authorities, Endpoint, Endpoints, SubjectAltName, Upstream, UpstreamProtocol, UpstreamTls,
};

/// A whole configuration. Cloning shares everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ir {
    /// Every listener that is to be served.
    pub listeners: OrdMap<ListenerKey, Arc<Listener>>,
    /// Every route with at least one attachment, by the object that declares it.
    pub routes: OrdMap<ObjectRef, Arc<Route>>,
    /// Every upstream that a rule names.
    pub upstreams: OrdMap<UpstreamKey, Arc<Upstream>>,
    /// Every certificate that a listener names, for its clients or for its backends.
    pub certificates: OrdMap<CertificateKey, Arc<Certificate>>,
}

/// Every second one of these, then the others: a tree's nodes stay half empty when it is filled in
/// ascending order, and are full when it is filled in this one.
pub fn spread<T>(ascending: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let numbered = ascending.into_iter().enumerate();
    let (first, then): (Vec<_>, Vec<_>) = numbered.partition(|(at, _)| at % 2 == 0);
    first.into_iter().chain(then).map(|(_, each)| each)
}
