//! What a request says of its origin, and what the response says to it.

use std::borrow::Cow;
use std::sync::LazyLock;

use gateway_model::ir::HeaderName;
use gateway_model::snapshot::CompiledRule;

use crate::cors::{self, CorsLine, CorsRequest};
use crate::head::Source;

/// Names that CORS asks for.
struct Names {
    origin: HeaderName,
    request_method: HeaderName,
    request_headers: HeaderName,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let name = |text| HeaderName::parse(text).expect("a token");
    Names {
        origin: name("origin"),
        request_method: name("access-control-request-method"),
        request_headers: name("access-control-request-headers"),
    }
});

/// What CORS depends on in a request.
pub(crate) fn asked(head: &impl Source) -> CorsRequest<'_> {
    CorsRequest {
        method: head.method(),
        origin: head.header_values(&NAMES.origin).next(),
        request_method: head.header_values(&NAMES.request_method).next(),
        request_headers: head.header_values(&NAMES.request_headers).next(),
    }
}

/// The lines that a rule's policy adds to the response; none, at no cost, without a policy.
pub(crate) fn response_lines(
    rule: Option<&CompiledRule>,
    head: &impl Source,
) -> Vec<CorsLine<'static>> {
    let Some(policy) = rule.and_then(|rule| rule.cors.as_ref()) else {
        return Vec::new();
    };
    let lines = cors::response(policy, &asked(head));
    lines
        .into_iter()
        .map(|(name, value)| (name, Cow::Owned(value.into_owned())))
        .collect()
}
