//! HTTP/1.1 without I/O: heads as spans over a read buffer, bodies as ranges of what is read,
//! and heads to write.
//!
//! One exchange, as a connection drives it. `inbound` and `upstream_in` are the read buffers; the
//! head's bytes stay in them until the exchange is over, for the views borrow from them.
//!
//! ```text
//! // 1. the request
//! request.reset();
//! loop read more into inbound {
//!     match request.parse(&inbound[..filled], &limits) {
//!         Ok(Progress::Partial) => continue,
//!         Ok(Progress::Complete(len)) => break len,
//!         Err(violation) => respond with violation.status(), then close,
//!     }
//! }
//! let view = request.view(&inbound);                  // implements gateway_model::head::Head
//! let found = listener.find(&view);                   // route
//! let asked = Asked { head: request.method() == Method::Head, websocket: request.is_websocket() };
//! out.clear();
//! encode_request(&mut out, &view, &RequestPlan { .. });   // head for the upstream
//! // 2. the body, if request.body() is one
//! let mut body = BodyDecoder::new(request.body(), &limits);
//! loop over bytes read after the head {
//!     let step = body.step(input)?;                   // Err: abort the upstream, never end it
//!     forward &input[step.data];                      // as it is, or push_chunk(&mut out, ..)
//!     input = &input[step.consumed..];
//!     if step.end { break }                           // the rest is the next, pipelined request
//! }
//! // 3. the response
//! response.reset();
//! match response.parse(&upstream_in[..filled], &limits, asked) { .. }   // Err: 502
//! if response.is_informational() { skip its bytes, reset, parse on }
//! out.clear();
//! encode_response(&mut out, &response.view(&upstream_in), &ResponsePlan { .. });
//! let mut body = BodyDecoder::of_response(response.body(), &limits);    // as in 2
//! // 4. reuse the upstream connection only if response.keep_alive(), body.is_done() and nothing is left over
//! ```

mod body;
mod chunked;
mod encode_request;
mod encode_response;
mod fields;
mod lines;
mod request;
mod response;
mod span;
mod target;
mod to_http;

pub use body::{BodyDecoder, BodyKind};
pub use chunked::{
    CHUNK_END, ChunkedDecoder, LAST_CHUNK, Step, push_chunk, push_chunk_head, push_last_chunk,
};
pub(crate) use encode_request::push_line;
pub use encode_request::{RequestPlan, encode_request};
pub use encode_response::{
    BodyOut, CONTINUE, EncodedResponse, ResponsePlan, encode_informational, encode_response,
};
pub use request::{Method, RequestHead, RequestView};
pub use response::{Asked, ResponseHead, ResponseView};
pub use to_http::to_http;
pub(crate) use to_http::{to_http_informational, trailer_map};

/// How far the parse of a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The head is complete; so many bytes are its own, and what follows is the body's.
    Complete(usize),
}

/// The bytes with which a client begins HTTP/2 with prior knowledge (RFC 9113 §3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection's first bytes are the HTTP/2 preface; nothing while they may become it.
#[must_use]
pub fn is_http2_preface(first: &[u8]) -> Option<bool> {
    let len = first.len().min(HTTP2_PREFACE.len());
    if first[..len] != HTTP2_PREFACE[..len] {
        return Some(false);
    }
    (len == HTTP2_PREFACE.len()).then_some(true)
}

#[cfg(test)]
mod tests;
