//! The view of a request that matching works on, the same for HTTP/1.1, HTTP/2 and `sluice explain`.

use crate::ir::HeaderName;

/// A request head after the head policy: valid, normalised once, and forwarded as it is seen here.
pub trait Head {
    /// The method, case kept.
    fn method(&self) -> &str;

    /// The normalised path without query; starts with `/`.
    fn path(&self) -> &str;

    /// The query without `?`, as sent.
    fn query(&self) -> Option<&str>;

    /// The host without port and trailing dot, in lower case; empty if the request has none.
    fn host(&self) -> &str;

    /// The values of the lines of that name, in order, without outer white space.
    fn header_values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]>;
}
