//! Writes a request head for an HTTP/1.1 upstream.

use gateway_model::ir::Rewrite;
use gateway_model::snapshot::CompiledEdits;

use super::BodyKind;
use super::fields::{DROP, FORWARDING, Fields, HOST, RESPELL};
use super::request::RequestView;
use crate::cors;
use crate::forwarded::Forwarding;
use crate::head::{Known, Source, bytes};
use crate::rewrite;

/// What is changed on the way to the upstream.
#[derive(Clone, Copy, Debug)]
pub struct RequestPlan<'a> {
    /// Header edits of the rule and its backend; they win over what the proxy adds.
    pub edits: &'a CompiledEdits,
    /// Path and host that the backend sees.
    pub rewrite: &'a Rewrite,
    /// What of the path the matching prefix covers.
    pub prefix_len: usize,
    /// What the backend is told of the client.
    pub forwarding: &'a Forwarding,
    /// `X-Request-Id`; none passes nothing on.
    pub request_id: Option<&'a [u8]>,
}

/// Appends the whole head, its empty line included. The body is framed as [`Source::body`] says:
/// by length as it is, otherwise chunked.
pub fn encode_request(out: &mut Vec<u8>, head: &impl Source, plan: &RequestPlan<'_>) {
    let rewritten = plan.rewrite.path.is_some() || plan.rewrite.hostname.is_some();
    let untouched = !rewritten && plan.edits.dropped().is_empty() && head.push_untouched(out);
    if !untouched {
        push_request_line(out, head, plan);
        let host = plan.rewrite.hostname.as_deref();
        push_line(
            out,
            "Host",
            host.map_or(head.authority_bytes(), str::as_bytes),
        );
        head.push_fields(out, plan.edits);
    }
    push_framing(out, head);
    plan.forwarding.push(out, head, plan.edits);
    if let Some(id) = plan.request_id
        && !plan.edits.drops(b"x-request-id")
    {
        push_line(out, "X-Request-Id", id);
    }
    out.extend_from_slice(plan.edits.wire());
    out.extend_from_slice(b"\r\n");
}

fn push_request_line(out: &mut Vec<u8>, head: &impl Source, plan: &RequestPlan<'_>) {
    out.extend_from_slice(head.method().as_bytes());
    out.push(b' ');
    match &plan.rewrite.path {
        Some(path) if head.path() != "*" => {
            rewrite::push_path(out, path, head.path(), plan.prefix_len);
        }
        _ => out.extend_from_slice(head.path().as_bytes()),
    }
    if let Some(query) = head.query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

#[inline]
fn push_framing(out: &mut Vec<u8>, head: &impl Source) {
    match head.body() {
        BodyKind::None if head.is_websocket() => {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        BodyKind::None => {
            // RFC 9110 §8.6: "SHOULD send Content-Length [..] when the method defines a meaning for enclosed content"
            let enclosing = matches!(head.method(), "POST" | "PUT" | "PATCH");
            if enclosing && !head.has_length_line() {
                out.extend_from_slice(b"Content-Length: 0\r\n");
            }
        }
        BodyKind::Length(_) if head.has_length_line() => {}
        BodyKind::Length(length) => push_length(out, length),
        BodyKind::Chunked | BodyKind::UntilClose => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
    }
}

pub(crate) fn push_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    bytes::push_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Appends one header line.
pub(crate) fn push_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Which lines of a parsed head are not copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skip<'a> {
    /// Where copying begins: at the first line, or at the start line if that is copied too.
    pub from: usize,
    /// Lines that carry one of these flags.
    pub flags: u8,
    /// Lines that a route's filters drop; none drops nothing.
    pub edits: Option<&'a CompiledEdits>,
    /// `Access-Control-*`, for the gateway writes its own.
    pub cors: bool,
}

impl Skip<'_> {
    /// Whether names have to be looked at.
    fn by_name(&self) -> bool {
        self.cors || self.edits.is_some_and(|edits| !edits.dropped().is_empty())
    }

    fn name(&self, name: &[u8]) -> bool {
        self.cors && cors::is_cors_name(name) || self.edits.is_some_and(|edits| edits.drops(name))
    }
}

/// Copies the lines of a parsed head in runs, without those to skip; lines with odd white space
/// are written anew.
pub(crate) fn push_runs(out: &mut Vec<u8>, fields: &Fields, buf: &[u8], skip: Skip<'_>) {
    let block = |from: usize, to: usize| buf.get(from..to).unwrap_or_default();
    let by_name = skip.by_name();
    if fields.flags & (skip.flags | RESPELL) == 0 && !by_name {
        out.extend_from_slice(block(skip.from, fields.end));
        return;
    }
    let mut run = skip.from;
    for (index, field) in fields.list.iter().enumerate() {
        let dropped = field.flags & skip.flags != 0 || by_name && skip.name(field.name.of(buf));
        if !dropped && field.flags & RESPELL == 0 {
            continue;
        }
        out.extend_from_slice(block(run, field.name.start()));
        if !dropped {
            out.extend_from_slice(field.name.of(buf));
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value.of(buf));
            out.extend_from_slice(b"\r\n");
        }
        run = fields.line_end(index);
    }
    out.extend_from_slice(block(run, fields.end));
}

impl Source for RequestView<'_> {
    fn authority(&self) -> &str {
        RequestView::authority(self)
    }

    fn authority_bytes(&self) -> &[u8] {
        RequestView::authority_bytes(self)
    }

    fn body(&self) -> BodyKind {
        self.head.body()
    }

    fn is_websocket(&self) -> bool {
        self.head.is_websocket()
    }

    fn known_values(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let fields = &self.head.fields.list;
        fields
            .iter()
            .filter(move |field| field.known == known)
            .map(|field| field.value.of(self.buf))
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.head.fields.values(self.buf, name.as_bytes()).next()
    }

    fn push_fields(&self, out: &mut Vec<u8>, edits: &CompiledEdits) {
        let skip = Skip {
            from: self.head.fields.start,
            flags: DROP | FORWARDING | HOST,
            edits: Some(edits),
            cors: false,
        };
        push_runs(out, &self.head.fields, self.buf, skip);
    }

    fn has_length_line(&self) -> bool {
        self.head.fields.length.is_some() && !self.head.fields.own_length
    }

    fn push_untouched(&self, out: &mut Vec<u8>) -> bool {
        let head = self.head;
        if !head.line_is_normal() || !head.host_is_normal() {
            return false;
        }
        let skip = Skip {
            from: head.start(),
            flags: DROP | FORWARDING,
            edits: None,
            cors: false,
        };
        push_runs(out, &head.fields, self.buf, skip);
        true
    }
}
