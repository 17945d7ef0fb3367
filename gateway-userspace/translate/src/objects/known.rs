//! Enums that the specification may extend.

use std::sync::Arc;

/// A value of an enum that later versions of the API may extend. "Implementations must ensure that
/// unknown values will not cause a crash" (Gateway API v1): they become conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// A value of this version of the API.
    Known(T),
    /// Anything else, as written.
    Unknown(Arc<str>),
}
