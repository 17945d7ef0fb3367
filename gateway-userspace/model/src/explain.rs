//! Why a request goes where it goes: the same walk as a lookup, but everything is asked and written down.

mod reason;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

use serde::{Deserialize, Serialize};

use crate::names::{ObjectRef, Revision};

pub(crate) use stream::explain_stream;
pub(crate) use walk::explain;

/// Everything that decided about one request. Texts are for people; `outcome`, `matched` and
/// the names are for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The snapshot that was asked.
    pub revision: Revision,
    /// The request as matching saw it.
    pub request: ExplainedRequest,
    /// How it ends.
    pub outcome: ExplainedOutcome,
    /// The outcome in one sentence.
    pub summary: String,
    /// Every listener of the port, most specific hostname first.
    pub listeners: Vec<ExplainedListener>,
    /// The hostnames of the chosen listener's routes that cover the request's host, in the order they are asked.
    pub hosts: Vec<ExplainedHost>,
    /// The rule that takes the request.
    pub winner: Option<ExplainedWinner>,
}

/// A request as matching sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRequest {
    /// The address and port that the connection was made to.
    pub local: String,
    /// The name in the ClientHello; none in clear text or if the client sent none.
    pub sni: Option<String>,
    /// The method; `TCP`, `TLS` or `UDP` of what has none.
    pub method: String,
    /// The host without port; the address of what names none.
    pub host: String,
    /// The normalised path.
    pub path: String,
    /// The query without `?`.
    pub query: Option<String>,
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainedOutcome {
    /// No listener has this address and port: the connection is refused.
    NotServed,
    /// No listener takes the host: 404, or no handshake where TLS is terminated.
    NoListener,
    /// The connection was made for another listener's name: 421.
    Misdirected,
    /// The listener has no rule that matches: 404.
    NoRule,
    /// A rule takes it.
    Matched,
}

/// One listener of the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedListener {
    /// `namespace/name` of the Gateway.
    pub gateway: String,
    /// The listener's name.
    pub listener: String,
    /// Its hostname; none means every host.
    pub hostname: Option<String>,
    /// Whether it takes the request.
    pub chosen: bool,
    /// Why, or why not.
    pub reason: String,
}

/// One hostname that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedHost {
    /// The hostname as the routes wrote it; `*` for routes without one.
    pub hostname: String,
    /// Its matches in the order they are asked.
    pub candidates: Vec<ExplainedCandidate>,
    /// Matches that are not listed because there are too many; none of them matches the request.
    pub omitted: usize,
}

/// One alternative of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedCandidate {
    /// The route.
    pub route: ObjectRef,
    /// The rule's name, or its position.
    pub rule: String,
    /// Which of the rule's matches, from 0.
    pub alternative: u32,
    /// Its conditions in words.
    pub conditions: String,
    /// Whether all of them hold.
    pub matched: bool,
    /// Whether this is the one that takes the request.
    pub won: bool,
    /// The first condition that does not hold, or why another match came first, or why this one wins.
    pub reason: String,
}

/// The rule that takes the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedWinner {
    /// The route.
    pub route: ObjectRef,
    /// The rule's name, or its position.
    pub rule: String,
    /// The rule's position in the route, from 0.
    pub rule_index: u32,
    /// Which of the rule's matches, from 0.
    pub alternative: u32,
    /// What is done, in words.
    pub action: String,
    /// Where it is sent; empty if it is not forwarded.
    pub backends: Vec<ExplainedBackend>,
    /// What is changed on the way, in words.
    pub filters: Vec<String>,
    /// Limits of time and retries, in words.
    pub limits: Vec<String>,
}

/// One backend of the winner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedBackend {
    /// `namespace/name:port`, or what is answered instead.
    pub backend: String,
    /// Its weight.
    pub weight: u32,
    /// The sum of all weights of the rule.
    pub of: u64,
    /// Addresses, or the DNS name, that requests go to.
    pub endpoints: Vec<String>,
    /// Filters of this backend alone, in words.
    pub filters: Vec<String>,
}
