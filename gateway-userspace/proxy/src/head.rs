//! What a message head may look like, whatever version of HTTP carried it: byte classes, the
//! normal forms of path and host, field names with a meaning, limits, and the name of each fault.

pub(crate) mod authority;
pub(crate) mod bytes;
mod h2;
mod known;
pub(crate) mod path;
mod source;
mod violation;
pub(crate) mod websocket;

pub use h2::{H2Head, is_trailer_allowed};
pub use known::Known;
pub use source::Source;
pub use violation::{ByViolation, Violation};
