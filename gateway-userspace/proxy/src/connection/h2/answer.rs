//! What Sluice says on a stream by itself.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use gateway_model::snapshot::CompiledRule;
use h2::Reason;
use h2::server::SendResponse;
use http::Response;
use http::request::Parts;

use super::body::{self, ResponseBody};
use super::guard::StreamState;
use crate::connection::local::Wanted;
use crate::connection::record::{Record, Refused};
use crate::error::{Kind, ProxyError, Side};
use crate::head::{H2Head, Violation};
use crate::respond::Answer;

/// Sends an informational response. One that a client cannot be sent, it does without.
#[cold]
pub(super) fn inform(respond: &RefCell<SendResponse<Bytes>>, head: http::Result<Response<()>>) {
    if let Ok(head) = head
        && let Err(error) = respond.borrow_mut().send_informational(head)
    {
        tracing::debug!(%error, "informational response is not sent");
    }
}

/// The answer to a head that breaks the policy. The connection lives.
#[cold]
pub(super) fn refuse(
    state: &StreamState,
    respond: &RefCell<SendResponse<Bytes>>,
    parts: &Parts,
    violation: Violation,
) -> body::Begun {
    let error = ProxyError::downstream(violation);
    let (method, target) = H2Head::as_sent(parts);
    let wanted = Wanted::of_refused(method);
    let answer = wanted.answer(&error);
    let body_len = |answer: &Answer| answer.body_len(wanted.is_head());
    let refused = Refused {
        method,
        target,
        protocol: "HTTP/2",
        at: state.began,
        status: answer.as_ref().map_or(0, |answer| answer.status),
        bytes_sent: answer.as_ref().map_or(0, body_len),
    };
    refused.end(&state.session.downstream, &error);
    send(state, respond, answer, wanted)
}

/// Ends a request whose head is more than the connection may hold. If there can be room for it another time, the
/// stream is "closed prior to any processing having occurred", and the client may try again (RFC 9113 §8.7).
#[cold]
pub(super) fn turn_away(
    state: &StreamState,
    respond: &RefCell<SendResponse<Bytes>>,
    head_len: usize,
    wanted: Wanted,
    mut record: Record,
    rule: Option<&Arc<CompiledRule>>,
) -> body::Begun {
    let downstream = &state.session.downstream;
    if head_len > downstream.worker.limits().http2.head_budget {
        let error = ProxyError::downstream(Violation::HeadTooLarge);
        let answer = wanted.answer(&error);
        record.error = Some(error);
        return finish(state, respond, answer, wanted, record, rule);
    }
    record.error = Some(ProxyError::new(Side::Gateway, Kind::Overloaded));
    record.end(downstream, rule.map(|rule| &**rule));
    state.ended.set(true);
    respond.borrow_mut().send_reset(Reason::REFUSED_STREAM);
    Ok(None)
}

/// An answer of Sluice's own, counted.
pub(super) fn finish(
    state: &StreamState,
    respond: &RefCell<SendResponse<Bytes>>,
    answer: Option<Answer>,
    wanted: Wanted,
    mut record: Record,
    rule: Option<&Arc<CompiledRule>>,
) -> body::Begun {
    if let Some(answer) = &answer {
        record.status = answer.status;
        record.bytes_sent = answer.body_len(wanted.is_head()) as u64;
    }
    record.end(&state.session.downstream, rule.map(|rule| &**rule));
    send(state, respond, answer, wanted)
}

fn send(
    state: &StreamState,
    respond: &RefCell<SendResponse<Bytes>>,
    answer: Option<Answer>,
    wanted: Wanted,
) -> body::Begun {
    let worker = &state.session.downstream.worker;
    state.ended.set(answer.is_some());
    // A client that has gone reads nothing.
    let answer = answer.unwrap_or_else(|| Answer::empty(502));
    let response = answer.into_http(&worker.date(), wanted.is_head());
    state.begins_sending();
    let (head, body) = response.into_parts();
    let head = Response::from_parts(head, ());
    body::begin(state, respond, head, ResponseBody::Whole(body))
}
