//! Gateway API `HTTPRouteMatch`, and what it shares with `GRPCRouteMatch`.

use std::sync::Arc;

use super::reader::{Node, shared};
use super::{Known, check};

/// Gateway API v1 `HTTPRouteMatch`: all of it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteMatch {
    /// `path.type`; default `PathPrefix`.
    pub path_type: Known<PathMatchType>,
    /// `path.value`; default `/`.
    pub path: Arc<str>,
    /// What else must hold; none for most, whose path is the only condition.
    pub more: Option<Box<BeyondPath>>,
}

/// What an `HTTPRouteMatch` asks beyond the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeyondPath {
    /// `method`, one of nine.
    pub method: Option<Known<&'static str>>,
    /// `headers`, up to 16.
    pub headers: Box<[NamedMatch]>,
    /// `queryParams`, up to 16.
    pub query_params: Box<[NamedMatch]>,
}

/// Gateway API v1 `PathMatchType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole path elements from the start.
    PathPrefix,
    /// A regular expression.
    RegularExpression,
}

/// Gateway API v1 `HTTPHeaderMatch`, `HTTPQueryParamMatch` and `GRPCHeaderMatch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMatch {
    /// A token.
    pub name: Arc<str>,
    /// Default `Exact`.
    pub kind: Known<ValueMatchType>,
    /// What the value must be.
    pub value: Arc<str>,
}

/// Gateway API v1 `HeaderMatchType`, `QueryParamMatchType` and their kin of GRPCRoute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueMatchType {
    /// Equal.
    Exact,
    /// A regular expression.
    RegularExpression,
}

const METHODS: [(&str, &str); 9] = [
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

impl HttpRouteMatch {
    /// What a rule without matches has.
    pub(super) fn everything() -> Self {
        Self {
            path_type: Known::Known(PathMatchType::PathPrefix),
            path: shared("/"),
            more: None,
        }
    }

    pub(super) fn read(node: &Node<'_>) -> Self {
        let path = node.field("path").mapping();
        let types = [
            ("Exact", PathMatchType::Exact),
            ("PathPrefix", PathMatchType::PathPrefix),
            ("RegularExpression", PathMatchType::RegularExpression),
        ];
        let path_type = path
            .field("type")
            .known(&types)
            .unwrap_or(Known::Known(PathMatchType::PathPrefix));
        let check_path = |text: &str| match path_type {
            Known::Known(PathMatchType::Exact | PathMatchType::PathPrefix) => check::path(text),
            _ => check::length(text, 0, 1024),
        };
        let value = path.field("value").checked(check_path);
        let more = BeyondPath {
            method: node.field("method").known(&METHODS),
            headers: NamedMatch::list(&node.field("headers"), 4096),
            query_params: NamedMatch::list(&node.field("queryParams"), 1024),
        };
        Self {
            path: value.unwrap_or_else(|| shared("/")),
            path_type,
            more: (more != BeyondPath::default()).then(|| Box::new(more)),
        }
    }
}

impl ValueMatchType {
    pub(super) const NAMES: [(&'static str, Self); 2] = [
        ("Exact", Self::Exact),
        ("RegularExpression", Self::RegularExpression),
    ];
}

impl NamedMatch {
    /// Up to 16, each value of 1 to `max_length` characters.
    pub(super) fn list(node: &Node<'_>, max_length: usize) -> Box<[Self]> {
        let read = |node: &Node<'_>| Self {
            name: node.field("name").required_checked(check::header_name),
            kind: node
                .field("type")
                .known(&ValueMatchType::NAMES)
                .unwrap_or(Known::Known(ValueMatchType::Exact)),
            value: node
                .field("value")
                .required_checked(|text| check::length(text, 1, max_length)),
        };
        node.items(16).iter().map(read).collect()
    }
}
