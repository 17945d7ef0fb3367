//! What is changed on the way: header edits, rewrites, redirects, mirrors, CORS.

use std::sync::Arc;

use super::{BackendTarget, Fraction};

/// One step applied to a request or its response, in the order written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Gateway API v1 `RequestHeaderModifier`.
    RequestHeaders(HeaderEdits),
    /// Gateway API v1 `ResponseHeaderModifier`.
    ResponseHeaders(HeaderEdits),
    /// Gateway API v1 `URLRewrite`.
    Rewrite(Rewrite),
    /// Gateway API v1 `RequestMirror`.
    Mirror(Mirror),
}

/// A header name that is a token (RFC 9110 §5.1), kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// Parses a field name; nothing if it is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_token(text).then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// The same of a text that stands elsewhere too, and is shared if it is in lower case.
    #[must_use]
    pub fn sharing(text: &Arc<str>) -> Option<Self> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Self::parse(text);
        }
        is_token(text).then(|| Self(Arc::clone(text)))
    }

    /// The name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A header line to write. The value holds no CR, LF or NUL and no outer white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLine {
    /// The name.
    pub name: HeaderName,
    /// The value.
    pub value: Arc<str>,
}

/// Gateway API v1 `HTTPHeaderFilter`: first `remove`, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaces every line of that name.
    pub set: Box<[HeaderLine]>,
    /// Adds a line and leaves the others.
    pub add: Box<[HeaderLine]>,
    /// Drops every line of that name.
    pub remove: Box<[HeaderName]>,
}

/// Gateway API v1 `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The `Host` the backend sees.
    pub hostname: Option<Arc<str>>,
    /// The path the backend sees.
    pub path: Option<PathRewrite>,
}

/// Gateway API v1 `HTTPPathModifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path; the query stays.
    Full(Arc<str>),
    /// The prefix that the match covered.
    Prefix(Arc<str>),
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Default port 80.
    Http,
    /// Default port 443.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Gateway API v1 `HTTPRequestRedirectFilter`. What is none is taken from the request; how the
/// port is chosen when it is none is the specification's rule, applied when a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The scheme of `Location`.
    pub scheme: Option<Scheme>,
    /// The host of `Location`.
    pub hostname: Option<Arc<str>>,
    /// The path of `Location`.
    pub path: Option<PathRewrite>,
    /// The port of `Location`.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Gateway API v1 `HTTPRequestMirrorFilter`: a copy whose answer is thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where the copy goes; nothing is sent to what is unavailable.
    pub target: BackendTarget,
    /// Which share of requests is copied; none means all.
    pub fraction: Option<Fraction>,
}

/// Gateway API v1 `HTTPCORSFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `allowOrigins`.
    pub allow_origins: Vec<CorsOrigin>,
    /// `allowCredentials`.
    pub allow_credentials: bool,
    /// `allowMethods`; `*` stands for every one.
    pub allow_methods: Vec<Arc<str>>,
    /// `allowHeaders`; `*` stands for every one.
    pub allow_headers: Vec<Arc<str>>,
    /// `exposeHeaders`; `*` stands for every one.
    pub expose_headers: Vec<Arc<str>>,
    /// `maxAge` in seconds; the field's default is 5.
    pub max_age_s: u32,
}

/// One allowed origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`.
    Any,
    /// `scheme://host[:port]`, compared without case.
    Exact(Arc<str>),
    /// `scheme://*.suffix[:port]`: text before and after the star.
    Wildcard {
        /// Up to the star.
        before: Arc<str>,
        /// After the star.
        after: Arc<str>,
    },
}
