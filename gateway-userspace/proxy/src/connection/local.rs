//! Requests that Sluice answers itself, whatever the client speaks.

use gateway_model::snapshot::CompiledRule;

use super::record::Record;
use crate::cors::{self, CorsLine};
use crate::downstream::Downstream;
use crate::error::{ProxyError, Side};
use crate::head::{Known, Source};
use crate::origin;
use crate::respond::{Answer, Asker};
use crate::rewrite::{RedirectFrom, push_location};
use crate::routing::{Act, Decision};

/// The answer that a decision asks for; none when the request is to be forwarded.
pub(super) fn answer(
    downstream: &Downstream,
    head: &impl Source,
    wanted: Wanted,
    decision: &Decision<'_>,
    record: &mut Record,
) -> Option<Answer> {
    let answer = decided(downstream, head, wanted, decision, record);
    match decision.action {
        Act::Redirect(_) | Act::Refuse(..) => {
            let rule = decision.rule.map(|rule| &**rule);
            of_rule(answer, rule, origin::response_lines(rule, head))
        }
        // What a preflight is told is the policy's alone.
        Act::Forward { .. } | Act::Asterisk | Act::Preflight(_) => answer,
    }
}

/// An answer as its rule has every response; `cors` are the lines of its policy.
pub(super) fn of_rule(
    answer: Option<Answer>,
    rule: Option<&CompiledRule>,
    cors: Vec<CorsLine<'_>>,
) -> Option<Answer> {
    let Some(rule) = rule else { return answer };
    Some(answer?.edited(&rule.filters.response_headers, cors))
}

fn decided(
    downstream: &Downstream,
    head: &impl Source,
    wanted: Wanted,
    decision: &Decision<'_>,
    record: &mut Record,
) -> Option<Answer> {
    match decision.action {
        Act::Forward { .. } => None,
        Act::Redirect(redirect) => {
            let mut location = Vec::new();
            let from = RedirectFrom {
                scheme: downstream.scheme(),
                host: head.host(),
                port: downstream.local.port(),
                path: head.path(),
                query: head.query(),
                prefix_len: decision.prefix_len,
            };
            match push_location(&mut location, redirect, &from) {
                Ok(()) => Some(Answer::redirect(redirect.status, location)),
                Err(violation) => wanted.refuse(ProxyError::downstream(violation), record),
            }
        }
        Act::Asterisk => Some(Answer::to_options_asterisk()),
        Act::Preflight(policy) => {
            let lines = cors::preflight(policy, &origin::asked(head));
            let answer = lines
                .into_iter()
                .fold(Answer::empty(204), |answer, (name, value)| {
                    answer.with(name, value.into_owned())
                });
            Some(answer)
        }
        Act::Refuse(kind, reason) => {
            wanted.refuse(ProxyError::new(Side::Gateway, kind).because(reason), record)
        }
    }
}

/// What of a request the answer to a failure depends on, without the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    json: bool,
    grpc: bool,
    head: bool,
}

const JSON: &[u8] = b"application/json";

impl Wanted {
    pub(super) fn of(head: &impl Source) -> Self {
        let accepts_json = |value: &[u8]| {
            // What is too short for it, as `*/*`, needs no searcher.
            value.len() >= JSON.len() && memchr::memmem::find(value, JSON).is_some()
        };
        let content_type = head.known_values(Known::ContentType).next();
        Self {
            json: head.known_values(Known::Accept).any(accepts_json),
            grpc: content_type.is_some_and(crate::respond::is_grpc),
            head: head.method() == "HEAD",
        }
    }

    /// What is known of it when the head was refused.
    pub(super) fn of_refused(method: &str) -> Self {
        Self {
            head: method == "HEAD",
            ..Self::default()
        }
    }

    /// The answer to a failure; none if the client has gone.
    pub(super) fn answer(self, error: &ProxyError) -> Option<Answer> {
        let asker = Asker {
            accept: self.json.then_some(b"application/json"),
            content_type: self.grpc.then_some(b"application/grpc"),
            head: self.head,
        };
        Answer::to_error(error, &asker)
    }

    /// The same, and the record is told why.
    fn refuse(self, error: ProxyError, record: &mut Record) -> Option<Answer> {
        let answer = self.answer(&error);
        record.error = Some(error);
        answer
    }

    /// What it depends on for a client of HTTP/1.x, which cannot have called over gRPC.
    pub(super) fn of_http1(head: &impl Source) -> Self {
        Self {
            grpc: false,
            ..Self::of(head)
        }
    }

    /// Whether it is a call of gRPC.
    pub(super) fn is_grpc(self) -> bool {
        self.grpc
    }

    /// Whether the method was `HEAD`.
    pub(super) fn is_head(self) -> bool {
        self.head
    }
}
