//! `filters` of a rule or of a backend.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use gateway_model::ir::{
    Cors, CorsOrigin, Filter, Fraction, HeaderEdits, HeaderLine, HeaderName, Mirror, PathRewrite,
    Redirect, Rewrite, Scheme,
};

use super::backend::Resolver;
use super::{Finding, group_name};
use crate::objects::{
    CorsFilter, HeaderFilter, HttpRouteFilter, Known, MirrorFilter, PathModifier, RedirectFilter,
    RewriteFilter,
};
use crate::status::Reason;

/// The filters of a rule or a backend, sorted by what is done with them.
#[derive(Default)]
pub(super) struct Filters {
    /// Steps on the way, in the order written.
    pub(super) steps: Vec<Filter>,
    /// An answer instead of a backend.
    pub(super) redirect: Option<Redirect>,
    /// Preflights.
    pub(super) cors: Option<Cors>,
    /// A filter that cannot be found, so that every request must fail.
    pub(super) missing: Option<Arc<str>>,
}

/// Headers that frame a message or belong to one hop; to edit them would break, or smuggle.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// The filters of a rule.
///
/// # Errors
/// A value that is not supported, in words.
pub(super) fn of_rule(
    filters: &[HttpRouteFilter],
    resolver: &mut Resolver<'_>,
) -> Result<Filters, String> {
    let mut translated = Filters::default();
    for filter in filters {
        translated.add(filter, resolver)?;
    }
    Ok(translated)
}

/// The filters of one backend.
///
/// # Errors
/// A value that is not supported, or a filter that only makes sense for a whole rule.
pub(super) fn of_backend(
    filters: &[HttpRouteFilter],
    resolver: &mut Resolver<'_>,
) -> Result<Filters, String> {
    let of_whole_rule = filters.iter().find_map(|filter| match filter {
        HttpRouteFilter::RequestRedirect(_) => Some("RequestRedirect"),
        HttpRouteFilter::Cors(_) => Some("CORS"),
        _ => None,
    });
    match of_whole_rule {
        Some(kind) => Err(format!(
            "filter type {kind} is supported on a rule, not on a single backend"
        )),
        None => of_rule(filters, resolver),
    }
}

impl Filters {
    fn add(&mut self, filter: &HttpRouteFilter, resolver: &mut Resolver<'_>) -> Result<(), String> {
        match filter {
            HttpRouteFilter::RequestHeaderModifier(edits) => self.request_headers(edits)?,
            HttpRouteFilter::ResponseHeaderModifier(edits) => {
                self.steps
                    .push(Filter::ResponseHeaders(header_edits(edits)?));
            }
            HttpRouteFilter::RequestMirror(filter) => {
                self.steps.push(Filter::Mirror(mirror(filter, resolver)));
            }
            HttpRouteFilter::UrlRewrite(filter) => {
                self.steps.push(Filter::Rewrite(rewrite(filter)?));
            }
            HttpRouteFilter::RequestRedirect(filter) => self.redirect = Some(redirect(filter)?),
            HttpRouteFilter::Cors(filter) => self.cors = Some(cors(filter)?),
            HttpRouteFilter::ExtensionRef(reference) => {
                let message = format!(
                    "filter ExtensionRef refers to {} {} of group {}, which is not supported",
                    reference.kind,
                    reference.name,
                    group_name(&reference.group)
                );
                self.missing = Some(message.as_str().into());
                resolver.finding(Finding::new(Reason::InvalidKind, message));
            }
            HttpRouteFilter::Unknown(kind) => {
                return Err(format!("filter type {kind:?} is not supported"));
            }
        }
        Ok(())
    }

    /// To set `Host` is to rewrite the host, whichever filter it stands in.
    fn request_headers(&mut self, filter: &HeaderFilter) -> Result<(), String> {
        let is_host = |(name, _): &&(Arc<str>, Arc<str>)| name.eq_ignore_ascii_case("host");
        let Some((_, host)) = filter.set.iter().find(is_host) else {
            self.steps
                .push(Filter::RequestHeaders(header_edits(filter)?));
            return Ok(());
        };
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if !host.bytes().all(valid) {
            return Err(format!("header host cannot be set to {host:?}"));
        }
        let mut others = filter.clone();
        let kept = filter.set.iter().filter(|header| !is_host(header));
        others.set = kept.cloned().collect();
        self.steps.push(Filter::Rewrite(Rewrite {
            hostname: Some(host.clone()),
            path: None,
        }));
        self.steps
            .push(Filter::RequestHeaders(header_edits(&others)?));
        Ok(())
    }
}

/// "Only one action for a given header name is permitted"; of equal names the first entry counts.
fn header_edits(filter: &HeaderFilter) -> Result<HeaderEdits, String> {
    Ok(HeaderEdits {
        set: header_lines(&filter.set)?,
        add: header_lines(&filter.add)?,
        remove: filter
            .remove
            .iter()
            .map(header_name)
            .collect::<Result<BTreeSet<_>, _>>()?
            .into_iter()
            .collect(),
    })
}

fn header_lines(headers: &[(Arc<str>, Arc<str>)]) -> Result<Box<[HeaderLine]>, String> {
    let mut seen = BTreeSet::new();
    let mut lines = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = header_name(name)?;
        if !seen.insert(name.clone()) {
            continue;
        }
        let trimmed = value.trim_matches([' ', '\t']);
        let value = if trimmed.len() == value.len() {
            value.clone()
        } else {
            trimmed.into()
        };
        lines.push(HeaderLine { name, value });
    }
    Ok(lines.into())
}

fn header_name(text: &Arc<str>) -> Result<HeaderName, String> {
    let Some(name) = HeaderName::sharing(text) else {
        return Err(format!("{text:?} is not a header name"));
    };
    match name.as_str() {
        "host" => Err("header host can be set in a request, and not else".to_owned()),
        reserved if RESERVED.contains(&reserved) => Err(format!(
            "header {reserved} cannot be edited, for it frames the message"
        )),
        _ => Ok(name),
    }
}

fn mirror(filter: &MirrorFilter, resolver: &mut Resolver<'_>) -> Mirror {
    let target = resolver.backend(&filter.backend);
    let fraction = filter.fraction.and_then(|(numerator, denominator)| {
        let denominator = NonZeroU32::new(denominator)?;
        Some(Fraction {
            numerator,
            denominator,
        })
    });
    Mirror { target, fraction }
}

fn rewrite(filter: &RewriteFilter) -> Result<Rewrite, String> {
    Ok(Rewrite {
        hostname: filter.hostname.clone(),
        path: path(filter.path.as_ref())?,
    })
}

fn path(modifier: Option<&Known<PathModifier>>) -> Result<Option<PathRewrite>, String> {
    let absolute = |field: &str, text: &Arc<str>| {
        if text.is_empty() || text.starts_with('/') {
            Ok(text.clone())
        } else {
            Err(format!("path.{field} {text:?} must start with '/'"))
        }
    };
    match modifier {
        None => Ok(None),
        Some(Known::Known(PathModifier::Full(text))) => {
            let text = absolute("replaceFullPath", text)?;
            let text = if text.is_empty() { "/".into() } else { text };
            Ok(Some(PathRewrite::Full(text)))
        }
        Some(Known::Known(PathModifier::Prefix(text))) => Ok(Some(PathRewrite::Prefix(absolute(
            "replacePrefixMatch",
            text,
        )?))),
        Some(Known::Unknown(kind)) => Err(format!("path.type {kind:?} is not known")),
    }
}

fn redirect(filter: &RedirectFilter) -> Result<Redirect, String> {
    let scheme = match &filter.scheme {
        None => None,
        Some(Known::Known("http")) => Some(Scheme::Http),
        Some(Known::Known(_)) => Some(Scheme::Https),
        Some(Known::Unknown(scheme)) => {
            return Err(format!("scheme {scheme:?} is not known; use http or https"));
        }
    };
    let status = match filter.status_code {
        301 => 301,
        302 => 302,
        303 => 303,
        307 => 307,
        308 => 308,
        other => {
            return Err(format!(
                "statusCode {other} is not supported; use 301, 302, 303, 307 or 308"
            ));
        }
    };
    Ok(Redirect {
        scheme,
        hostname: filter.hostname.clone(),
        path: path(filter.path.as_ref())?,
        port: filter.port,
        status,
    })
}

fn cors(filter: &CorsFilter) -> Result<Cors, String> {
    const METHODS: [&str; 10] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*",
    ];
    let unknown = |method: &&Arc<str>| !METHODS.contains(&&***method);
    if let Some(method) = filter.allow_methods.iter().find(unknown) {
        return Err(format!("cors.allowMethods {method:?} is not known"));
    }
    Ok(Cors {
        allow_origins: filter
            .allow_origins
            .iter()
            .map(|o| cors_origin(o))
            .collect(),
        allow_credentials: filter.allow_credentials,
        allow_methods: filter.allow_methods.clone(),
        allow_headers: filter.allow_headers.clone(),
        expose_headers: filter.expose_headers.clone(),
        max_age_s: filter.max_age_s,
    })
}

/// Browsers leave out the scheme's own port, so it is left out here.
fn cors_origin(text: &str) -> CorsOrigin {
    if text == "*" {
        return CorsOrigin::Any;
    }
    let text = text.to_ascii_lowercase();
    let text = match text.split_once("://") {
        Some(("http", rest)) => rest
            .strip_suffix(":80")
            .map(|host| format!("http://{host}")),
        Some(("https", rest)) => rest
            .strip_suffix(":443")
            .map(|host| format!("https://{host}")),
        _ => None,
    }
    .unwrap_or(text);
    match text.split_once('*') {
        None => CorsOrigin::Exact(text.into()),
        Some((before, after)) => CorsOrigin::Wildcard {
            before: before.into(),
            after: after.into(),
        },
    }
}
