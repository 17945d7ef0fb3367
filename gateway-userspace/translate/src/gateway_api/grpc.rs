//! `GRPCRoute.spec.rules.matches`: a gRPC method is the path `/service/method`.

use std::sync::Arc;

use gateway_model::ir::{HttpMatch, PathMatch};

use super::matching::{self, PathSpecificity, Specificity};
use crate::objects::{GrpcMethodMatch, GrpcRouteMatch, Known, ValueMatchType};

/// Gateway API v1 `GRPCRouteMatch`, and its place in the order of Gateway API v1
/// `GRPCRouteRule.matches`: "characters in a matching service", then in a matching method, then
/// header matches. Of exact conditions that hold for one request, those with service and method
/// come first, then those with a service, then those with a method; regular expressions stand
/// behind the first of these, as among paths.
///
/// # Errors
/// A value that is not supported, in words.
pub(super) fn conditions(matched: &GrpcRouteMatch) -> Result<(Specificity, HttpMatch), String> {
    let (path, specificity) = match &matched.method {
        None => (PathMatch::Prefix("".into()), PathSpecificity::Prefix(0)),
        Some(method) => path(method)?,
    };
    let has_method = matched.method.as_ref().is_some_and(|m| m.method.is_some());
    let conditions = HttpMatch {
        path,
        method: None,
        headers: matching::headers(&matched.headers)?,
        query: Vec::new(),
    };
    let specificity = Specificity {
        path: specificity,
        method: has_method,
        headers: u32::try_from(conditions.headers.len()).unwrap_or(u32::MAX),
        query_params: 0,
    };
    Ok((specificity, conditions))
}

fn path(matched: &GrpcMethodMatch) -> Result<(PathMatch, PathSpecificity), String> {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
    let (service, method) = (matched.service.as_deref(), matched.method.as_deref());
    match &matched.kind {
        Known::Known(ValueMatchType::Exact) => Ok(match (service, method) {
            (Some(service), Some(method)) => {
                let path = format!("/{service}/{method}");
                let specificity = PathSpecificity::Exact(length(&path));
                (PathMatch::Exact(path.into()), specificity)
            }
            (Some(service), None) => {
                let path = format!("/{service}");
                let specificity = PathSpecificity::Prefix(length(&path));
                (PathMatch::Prefix(path.into()), specificity)
            }
            (None, Some(method)) => {
                let path = format!("/[^/]+/{method}");
                (PathMatch::Regex(path.into()), PathSpecificity::Prefix(0))
            }
            (None, None) => (PathMatch::Prefix("".into()), PathSpecificity::Prefix(0)),
        }),
        Known::Known(ValueMatchType::RegularExpression) => {
            let text = format!("/{}/{}", part("service", service)?, part("method", method)?);
            let text: Arc<str> = text.into();
            let specificity = PathSpecificity::Regex(length(&text));
            Ok((
                PathMatch::Regex(matching::regex("method", &text)?),
                specificity,
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
