//! What forwarding needs of a request head, whichever version of HTTP it came by.

use gateway_model::head::Head;
use gateway_model::snapshot::CompiledEdits;

use super::Known;
use crate::h1::BodyKind;

/// A request head that has passed the head policy and can be written to an HTTP/1.1 upstream.
pub trait Source: Head {
    /// `host [":" port]` in normal form; empty if an HTTP/1.0 request has none.
    fn authority(&self) -> &str;

    /// [`Source::authority`] for who only copies it.
    fn authority_bytes(&self) -> &[u8] {
        self.authority().as_bytes()
    }

    /// What follows the head.
    fn body(&self) -> BodyKind;

    /// Whether it is a valid WebSocket handshake.
    fn is_websocket(&self) -> bool;

    /// The values of a field with a meaning, in order.
    fn known_values(&self, known: Known) -> impl Iterator<Item = &[u8]>;

    /// The first value of a field, named in lower case.
    fn first(&self, name: &str) -> Option<&[u8]>;

    /// Appends every line that goes through as it is: no `Host`, nothing hop-by-hop, nothing that
    /// says where the request came from, nothing in `edits.dropped()`. `Content-Length` only if it
    /// agrees with [`Source::body`] to the byte.
    fn push_fields(&self, out: &mut Vec<u8>, edits: &CompiledEdits);

    /// Whether [`Source::push_fields`] writes `Content-Length` itself.
    fn has_length_line(&self) -> bool;

    /// Appends request line, `Host` and fields at once if nothing has to be changed in them; false
    /// if it wrote nothing.
    fn push_untouched(&self, out: &mut Vec<u8>) -> bool {
        let _ = out;
        false
    }
}
