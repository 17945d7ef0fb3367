//! `GRPCRoute.spec.rules.matches`: a gRPC method is the path `/service/method`.
//!
//! A listener can serve GRPCRoutes and HTTPRoutes of one hostname. "Merging MUST not be done between
//! GRPCRoutes and HTTPRoutes", so a GRPCRoute sees gRPC requests alone, which are known by their
//! content type, and among the routes of one hostname it sees them first.

use std::sync::Arc;

use gateway_model::ir::{HeaderMatch, HeaderName, HttpMatch, PathMatch, ValueMatch};

use super::matching::{self, Rank};
use crate::objects::{GrpcMethodMatch, GrpcRouteMatch, Known, ValueMatchType};

/// How the content type of every gRPC request begins.
const CONTENT_TYPE: &str = "application/grpc";

/// What a match says of the method: the first of these comes first. Where both the service and the
/// method of a request are given exactly nothing can be longer; a regular expression stands behind
/// that, as among paths.
#[derive(Clone, Copy)]
enum Kind {
    ServiceAndMethod,
    Regex,
    Service,
    Method,
    Every,
}

/// Gateway API v1 `GRPCRouteMatch`, and its place in the order of Gateway API v1
/// `GRPCRouteRule.matches`: "characters in a matching service", "characters in a matching method",
/// "header matches".
///
/// # Errors
/// A value that is not supported, in words.
pub(super) fn conditions(matched: &GrpcRouteMatch) -> Result<(Rank, HttpMatch), String> {
    let (kind, path) = match &matched.method {
        None => (Kind::Every, PathMatch::Prefix(Arc::default())),
        Some(method) => path(method)?,
    };
    let length = match &path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Regex(text) => text.len(),
    };
    let mut headers = matching::headers(&matched.headers)?;
    let complement = |count: usize| !u32::try_from(count).unwrap_or(u32::MAX);
    let rank = [
        0,
        kind as u32,
        complement(length),
        complement(headers.len()),
        0,
    ];
    if let Some(name) = HeaderName::parse("content-type") {
        let value = ValueMatch::Prefix(CONTENT_TYPE.into());
        headers.push(HeaderMatch { name, value });
    }
    let conditions = HttpMatch {
        path,
        method: None,
        headers,
        query: Vec::new(),
    };
    Ok((rank, conditions))
}

fn path(matched: &GrpcMethodMatch) -> Result<(Kind, PathMatch), String> {
    let (service, method) = (matched.service.as_deref(), matched.method.as_deref());
    match &matched.kind {
        Known::Known(ValueMatchType::Exact) => Ok(match (service, method) {
            (Some(service), Some(method)) => {
                let path = format!("/{service}/{method}");
                (Kind::ServiceAndMethod, PathMatch::Exact(path.into()))
            }
            (Some(service), None) => {
                let path = format!("/{service}");
                (Kind::Service, PathMatch::Prefix(path.into()))
            }
            (None, Some(method)) => {
                let path = format!("/[^/]+/{method}");
                (Kind::Method, PathMatch::Regex(path.into()))
            }
            (None, None) => (Kind::Every, PathMatch::Prefix(Arc::default())),
        }),
        Known::Known(ValueMatchType::RegularExpression) => {
            let service = part("service", service)?;
            let path: Arc<str> = format!("/{service}/{}", part("method", method)?).into();
            Ok((
                Kind::Regex,
                PathMatch::Regex(matching::regex("method", &path)?),
            ))
        }
        Known::Unknown(kind) => Err(format!("method.type {kind:?} is not known")),
    }
}

/// One of both parts as a group of its own, so that no alternative in it reaches the other part.
fn part(field: &str, pattern: Option<&str>) -> Result<String, String> {
    let Some(pattern) = pattern else {
        return Ok("[^/]+".to_owned());
    };
    matching::regex(&format!("method.{field}"), &pattern.into())?;
    Ok(format!("(?:{pattern})"))
}
