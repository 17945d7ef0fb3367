//! Writes a response head for an HTTP/1.x client.

use gateway_model::snapshot::CompiledEdits;

use super::BodyKind;
use super::encode_request::{Skip, push_length, push_line, push_runs};
use super::fields::{Coding, DATE};
use super::response::ResponseView;
use crate::clock::HTTP_DATE_LEN;
use crate::cors::CorsLine;
use crate::head::{Known, bytes};

/// What is changed on the way to the client.
#[derive(Clone, Copy, Debug)]
pub struct ResponsePlan<'a> {
    /// Header edits of the rule and its backend.
    pub edits: &'a CompiledEdits,
    /// What [`crate::cors::response`] says; if it says something, the backend's own
    /// `Access-Control-*` lines are dropped.
    pub cors: &'a [CorsLine<'a>],
    /// [`crate::clock::http_date`] of now, for a response that has none (RFC 9110 §6.6.1: "MUST
    /// record the time it was received and append a corresponding Date header field").
    pub date: &'a [u8; HTTP_DATE_LEN],
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// Whether the connection may be kept.
    pub keep_alive: bool,
}

/// How the body is to be written behind the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyOut {
    /// There is none.
    None,
    /// The data as it is; the head holds its length.
    Length,
    /// Each run of data as a chunk, then the last chunk.
    Chunked,
    /// The data as it is, then the connection is closed.
    UntilClose,
}

/// What became of a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedResponse {
    /// How the body is to be written.
    pub body: BodyOut,
    /// Whether the client has been told that the connection stays.
    pub keep_alive: bool,
}

/// Appends a final response head (not 1xx, but 101), its empty line included.
pub fn encode_response(
    out: &mut Vec<u8>,
    view: &ResponseView<'_>,
    plan: &ResponsePlan<'_>,
) -> EncodedResponse {
    let head = view.head;
    let body = body_out(head.body(), plan.http10);
    let keep_alive = plan.keep_alive && body != BodyOut::UntilClose && !head.is_upgrade();
    let skip = Skip {
        from: push_status_line(out, view),
        flags: view.skip(),
        edits: Some(plan.edits),
        cors: !plan.cors.is_empty(),
    };
    push_runs(out, &head.fields, view.buf, skip);
    if head.fields.flags & DATE == 0 && !head.is_upgrade() && !adds_date(plan.edits) {
        push_line(out, "Date", plan.date);
    }
    push_framing(out, view, plan, body);
    if head.is_upgrade() {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if !keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if plan.http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    for (name, value) in plan.cors {
        push_line(out, name, value);
    }
    out.extend_from_slice(plan.edits.wire());
    out.extend_from_slice(b"\r\n");
    EncodedResponse { body, keep_alive }
}

/// Appends an informational response (1xx but 101) for an HTTP/1.1 client; one of HTTP/1.0 gets none.
pub fn encode_informational(out: &mut Vec<u8>, view: &ResponseView<'_>) {
    let skip = Skip {
        from: push_status_line(out, view),
        flags: view.skip(),
        edits: None,
        cors: false,
    };
    push_runs(out, &view.head.fields, view.buf, skip);
    out.extend_from_slice(b"\r\n");
}

/// Whether edits bring a `Date` of their own.
pub(super) fn adds_date(edits: &CompiledEdits) -> bool {
    let mut added = edits.appended().iter();
    added.any(|line| Known::of(line.name.as_str().as_bytes()) == Known::Date)
}

/// What a gateway that reads a request's body itself answers to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn body_out(kind: BodyKind, http10: bool) -> BodyOut {
    match kind {
        BodyKind::None => BodyOut::None,
        BodyKind::Length(_) => BodyOut::Length,
        BodyKind::Chunked | BodyKind::UntilClose if http10 => BodyOut::UntilClose,
        BodyKind::Chunked | BodyKind::UntilClose => BodyOut::Chunked,
    }
}

/// Appends the status line, unless it can be copied along with what follows it; gives where
/// copying begins.
fn push_status_line(out: &mut Vec<u8>, view: &ResponseView<'_>) -> usize {
    if view.line_is_normal() {
        return 0;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    bytes::push_decimal(out, view.head.status().into());
    out.push(b' ');
    out.extend_from_slice(view.reason());
    out.extend_from_slice(b"\r\n");
    view.head.fields.start
}

fn push_framing(
    out: &mut Vec<u8>,
    view: &ResponseView<'_>,
    plan: &ResponsePlan<'_>,
    body: BodyOut,
) {
    let head = view.head;
    let fields = &head.fields;
    match (body, fields.length) {
        (BodyOut::Chunked, _) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        (BodyOut::None, _) if view.forbids_framing() => {}
        (BodyOut::Length | BodyOut::None, Some(length)) if fields.own_length => {
            push_length(out, length);
        }
        (BodyOut::None, None) if head.ended => push_length(out, 0),
        // RFC 9112 §6.1: the answer to HEAD may say how the body would have been coded.
        (BodyOut::None, None) if fields.coding == Coding::Chunked && !plan.http10 => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        _ => {}
    }
}
