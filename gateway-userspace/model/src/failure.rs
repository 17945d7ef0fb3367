//! What keeps a listener from being served, as the data plane found it.

use std::fmt;
use std::net::IpAddr;

/// Why a listener is not served, or not on each of its addresses. Displays as `served on 127.0.0.5;
/// cannot listen on …`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Where it is served all the same.
    pub served: Vec<IpAddr>,
    /// Addresses of it that no interface of the node has.
    pub unusable: Vec<IpAddr>,
    /// Whether anything stands in its way besides those.
    pub is_refused: bool,
    /// All of it in words.
    pub reason: String,
}

impl Failure {
    /// A listener that is served nowhere.
    pub fn of_all(reason: impl Into<String>) -> Self {
        Self {
            is_refused: true,
            reason: reason.into(),
            ..Self::default()
        }
    }

    /// Whether it is served wherever its addresses let it be.
    #[must_use]
    pub fn is_of_addresses(&self) -> bool {
        !self.served.is_empty() && !self.is_refused
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.served.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "served on " } else { ", " })?;
        }
        let separator = if self.served.is_empty() { "" } else { "; " };
        write!(f, "{separator}{}", self.reason)
    }
}
