//! Gateway API `HTTPRouteFilter`, and `GRPCRouteFilter`, which is a part of it.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::sync::Arc;

use super::reader::Node;
use super::{BackendRef, Known, ParametersRef, check};

/// Gateway API v1 `HTTPRouteFilter`: the member that `type` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpRouteFilter {
    /// `RequestHeaderModifier`.
    RequestHeaderModifier(HeaderFilter),
    /// `ResponseHeaderModifier`.
    ResponseHeaderModifier(HeaderFilter),
    /// `RequestMirror`.
    RequestMirror(Box<MirrorFilter>),
    /// `RequestRedirect`.
    RequestRedirect(Box<RedirectFilter>),
    /// `URLRewrite`.
    UrlRewrite(Box<RewriteFilter>),
    /// `CORS`.
    Cors(Box<CorsFilter>),
    /// `ExtensionRef`.
    ExtensionRef(ParametersRef),
    /// A type that is not known.
    Unknown(Arc<str>),
}

/// Gateway API v1 `HTTPHeaderFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFilter {
    /// Names and values, up to 16.
    pub set: Box<[(Arc<str>, Arc<str>)]>,
    /// Names and values, up to 16.
    pub add: Box<[(Arc<str>, Arc<str>)]>,
    /// Names, up to 16.
    pub remove: Box<[Arc<str>]>,
}

/// Gateway API v1 `HTTPPathModifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// `replaceFullPath`.
    Full(Arc<str>),
    /// `replacePrefixMatch`.
    Prefix(Arc<str>),
}

/// Gateway API v1 `HTTPRequestRedirectFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectFilter {
    /// `http` or `https`.
    pub scheme: Option<Known<&'static str>>,
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<Known<PathModifier>>,
    /// The port.
    pub port: Option<u16>,
    /// Default 302; 301, 302, 303, 307 and 308 are known.
    pub status_code: i64,
}

/// Gateway API v1 `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteFilter {
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<Known<PathModifier>>,
}

/// Gateway API v1 `HTTPRequestMirrorFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFilter {
    /// Where the copies go.
    pub backend: BackendRef,
    /// Numerator and denominator, from `percent` or `fraction`; none means all.
    pub fraction: Option<(u32, u32)>,
}

/// Gateway API v1 `HTTPCORSFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsFilter {
    /// `allowOrigins`, up to 64.
    pub allow_origins: Vec<Arc<str>>,
    /// `allowCredentials`.
    pub allow_credentials: bool,
    /// `allowMethods`, up to 9.
    pub allow_methods: Vec<Arc<str>>,
    /// `allowHeaders`, up to 64.
    pub allow_headers: Vec<Arc<str>>,
    /// `exposeHeaders`, up to 64.
    pub expose_headers: Vec<Arc<str>>,
    /// `maxAge` in seconds; default 5.
    pub max_age_s: u32,
}

/// The members of the union and the types that name them.
const MEMBERS: [(&str, &str); 7] = [
    ("requestHeaderModifier", "RequestHeaderModifier"),
    ("responseHeaderModifier", "ResponseHeaderModifier"),
    ("requestMirror", "RequestMirror"),
    ("requestRedirect", "RequestRedirect"),
    ("urlRewrite", "URLRewrite"),
    ("cors", "CORS"),
    ("extensionRef", "ExtensionRef"),
];

/// Gateway API v1 `GRPCRouteFilter`: the types that a GRPCRoute knows.
const GRPC_TYPES: [&str; 4] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "ExtensionRef",
];

/// The `filters` of a rule or a backend of an HTTPRoute.
pub(super) fn list(parent: &Node<'_>) -> Box<[HttpRouteFilter]> {
    list_of(parent, |_| true)
}

/// The `filters` of a rule or a backend of a GRPCRoute.
pub(super) fn grpc_list(parent: &Node<'_>) -> Box<[HttpRouteFilter]> {
    list_of(parent, |kind| GRPC_TYPES.contains(&kind))
}

fn list_of(parent: &Node<'_>, is_known: impl Fn(&str) -> bool) -> Box<[HttpRouteFilter]> {
    let node = parent.field("filters");
    let items = node.items(16);
    let read = |item: &Node<'_>| match item.field("type").text() {
        Some(kind) if !is_known(kind) => HttpRouteFilter::Unknown(kind.into()),
        _ => HttpRouteFilter::read(item),
    };
    let filters: Box<[_]> = items.iter().map(read).collect();
    let has = |wanted: fn(&HttpRouteFilter) -> bool| filters.iter().any(wanted);
    if has(|f| matches!(f, HttpRouteFilter::RequestRedirect(_)))
        && has(|f| matches!(f, HttpRouteFilter::UrlRewrite(_)))
    {
        node.problem("may hold RequestRedirect or URLRewrite, but not both");
    }
    for (at, filter) in filters.iter().enumerate() {
        let repeated = filters[..at]
            .iter()
            .any(|f| discriminant(f) == discriminant(filter));
        if repeated && !filter.may_repeat() {
            items[at].problem("is of a type that another filter of this list has already");
        }
    }
    filters
}

impl HttpRouteFilter {
    fn may_repeat(&self) -> bool {
        matches!(
            self,
            Self::RequestMirror(_) | Self::ExtensionRef(_) | Self::Unknown(_)
        )
    }

    fn read(node: &Node<'_>) -> Self {
        let kind = node.field("type").required_text();
        for (member, of) in MEMBERS {
            let member = node.field(member);
            match (member.is_absent(), of == kind) {
                (true, true) => member.problem(format!("is required for type {kind}")),
                (false, false) => member.problem(format!("must not be given for type {kind}")),
                _ => {}
            }
        }
        let member = |name: &str| node.field(name).mapping();
        match kind {
            "RequestHeaderModifier" => {
                Self::RequestHeaderModifier(HeaderFilter::read(&member("requestHeaderModifier")))
            }
            "ResponseHeaderModifier" => {
                Self::ResponseHeaderModifier(HeaderFilter::read(&member("responseHeaderModifier")))
            }
            "RequestMirror" => {
                Self::RequestMirror(MirrorFilter::read(&member("requestMirror")).into())
            }
            "RequestRedirect" => {
                Self::RequestRedirect(RedirectFilter::read(&member("requestRedirect")).into())
            }
            "URLRewrite" => Self::UrlRewrite(RewriteFilter::read(&member("urlRewrite")).into()),
            "CORS" => Self::Cors(CorsFilter::read(&member("cors")).into()),
            "ExtensionRef" => Self::ExtensionRef(ParametersRef::read(&member("extensionRef"))),
            other => Self::Unknown(other.into()),
        }
    }
}

impl HeaderFilter {
    fn read(node: &Node<'_>) -> Self {
        let remove = node.field("remove").items(16);
        Self {
            set: headers(&node.field("set")),
            add: headers(&node.field("add")),
            remove: remove
                .iter()
                .map(|n| n.required_checked(check::header_name))
                .collect(),
        }
    }
}

/// A `listType=map` by name.
fn headers(node: &Node<'_>) -> Box<[(Arc<str>, Arc<str>)]> {
    let mut seen = BTreeSet::new();
    let read = |item: &Node<'_>| {
        let name = item.field("name").required_checked(check::header_name);
        if !seen.insert(name.clone()) {
            item.field("name").problem(format!("{name:?} stands twice"));
        }
        (
            name,
            item.field("value").required_checked(check::header_value),
        )
    };
    node.items(16).iter().map(read).collect()
}

impl PathModifier {
    fn read(node: &Node<'_>) -> Option<Known<Self>> {
        node.present()?;
        let kind = node.field("type").required_text();
        let full = node.field("replaceFullPath");
        let prefix = node.field("replacePrefixMatch");
        let value = |wanted: &Node<'_>, other: &Node<'_>| {
            if !other.is_absent() {
                other.problem(format!("must not be given for type {kind}"));
            }
            wanted.required_checked(check::replacement_path)
        };
        Some(match kind {
            "ReplaceFullPath" => Known::Known(Self::Full(value(&full, &prefix))),
            "ReplacePrefixMatch" => Known::Known(Self::Prefix(value(&prefix, &full))),
            other => Known::Unknown(other.into()),
        })
    }
}

impl RedirectFilter {
    fn read(node: &Node<'_>) -> Self {
        let schemes = [("http", "http"), ("https", "https")];
        Self {
            scheme: node.field("scheme").known(&schemes),
            hostname: node.field("hostname").checked(check::precise_hostname),
            path: PathModifier::read(&node.field("path").mapping()),
            port: node.field("port").port(),
            status_code: node
                .field("statusCode")
                .integer(i64::MIN..=i64::MAX)
                .unwrap_or(302),
        }
    }
}

impl RewriteFilter {
    fn read(node: &Node<'_>) -> Self {
        Self {
            hostname: node.field("hostname").checked(check::precise_hostname),
            path: PathModifier::read(&node.field("path").mapping()),
        }
    }
}

impl MirrorFilter {
    fn read(node: &Node<'_>) -> Self {
        let percent = node.field("percent");
        let fraction = node.field("fraction").mapping();
        if !percent.is_absent() && !fraction.is_absent() {
            node.problem("may hold percent or fraction, but not both");
        }
        let of_percent = percent
            .integer(0..=100)
            .and_then(|n| u32::try_from(n).ok())
            .map(|n| (n, 100));
        Self {
            backend: BackendRef::read(&node.field("backendRef").mapping()),
            fraction: of_percent.or_else(|| read_fraction(fraction.present()?)),
        }
    }
}

fn read_fraction(node: &Node<'_>) -> Option<(u32, u32)> {
    let max = i64::from(i32::MAX);
    let numerator = node.field("numerator").required().integer(0..=max)?;
    let denominator = node.field("denominator").integer(1..=max).unwrap_or(100);
    if numerator > denominator {
        node.problem("numerator must not be greater than denominator");
    }
    Some((
        u32::try_from(numerator).ok()?,
        u32::try_from(denominator).ok()?,
    ))
}

impl CorsFilter {
    fn read(node: &Node<'_>) -> Self {
        let max_age = node.field("maxAge").integer(1..=i64::from(i32::MAX));
        Self {
            allow_origins: star_or_list(&node.field("allowOrigins"), 64, check::cors_origin),
            allow_credentials: node.field("allowCredentials").boolean().unwrap_or(false),
            allow_methods: star_or_list(&node.field("allowMethods"), 9, cors_method),
            allow_headers: star_or_list(&node.field("allowHeaders"), 64, check::header_name),
            expose_headers: checked_list(&node.field("exposeHeaders"), 64, check::header_name),
            max_age_s: max_age.and_then(|n| u32::try_from(n).ok()).unwrap_or(5),
        }
    }
}

fn cors_method(text: &str) -> check::Checked {
    check::header_name(text).map_err(|_| format!("{text:?} must be an HTTP method, as in GET"))
}

fn star_or_list(
    node: &Node<'_>,
    max: usize,
    check: impl Fn(&str) -> check::Checked,
) -> Vec<Arc<str>> {
    let list = checked_list(node, max, check);
    if list.len() > 1 && list.iter().any(|value| &**value == "*") {
        node.problem("must not hold \"*\" beside other values");
    }
    list
}

/// A `listType=set`.
fn checked_list(
    node: &Node<'_>,
    max: usize,
    check: impl Fn(&str) -> check::Checked,
) -> Vec<Arc<str>> {
    let mut seen = BTreeSet::new();
    let read = |item: &Node<'_>| {
        let value = item.required_checked(&check);
        if !seen.insert(value.clone()) {
            item.problem(format!("{value:?} stands twice"));
        }
        value
    };
    node.items(max).iter().map(read).collect()
}
