//! Cross-origin requests: Gateway API v1 `HTTPCORSFilter`, which follows the Fetch standard.

use std::borrow::Cow;

use gateway_model::snapshot::CompiledCors;

use crate::head::bytes;

/// A header line to add: a name in lower case and its value.
pub type CorsLine<'a> = (&'static str, Cow<'a, [u8]>);

/// What of a request CORS depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct CorsRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// `Origin`.
    pub origin: Option<&'a [u8]>,
    /// `Access-Control-Request-Method`.
    pub request_method: Option<&'a [u8]>,
    /// `Access-Control-Request-Headers`.
    pub request_headers: Option<&'a [u8]>,
}

impl CorsRequest<'_> {
    /// Whether this is a preflight, which Sluice answers itself.
    #[must_use]
    pub fn is_preflight(&self) -> bool {
        self.method == "OPTIONS" && self.origin.is_some() && self.request_method.is_some()
    }
}

/// The header of the answer to a preflight; its status is 204 and it has no body. Without a line
/// that allows it the browser refuses the request that was to follow.
#[must_use]
pub fn preflight<'a>(cors: &'a CompiledCors, request: &CorsRequest<'a>) -> Vec<CorsLine<'a>> {
    let Some(origin) = allowed_origin(cors, request) else {
        return vec![VARY_ORIGIN];
    };
    let mut lines = origin_lines(cors, origin);
    let methods = granted(&cors.allow_methods, request.request_method, cors);
    if !methods.is_empty() {
        lines.push(("access-control-allow-methods", methods));
    }
    let headers = granted(&cors.allow_headers, request.request_headers, cors);
    if !headers.is_empty() {
        lines.push(("access-control-allow-headers", headers));
    }
    push_exposed(&mut lines, cors);
    lines.push((
        "access-control-max-age",
        Cow::Borrowed(cors.max_age.as_bytes()),
    ));
    lines
}

/// The lines that an actual request's response gets; they replace those of the same name that the
/// backend wrote, see [`is_cors_name`]. None without an `Origin`.
#[must_use]
pub fn response<'a>(cors: &'a CompiledCors, request: &CorsRequest<'a>) -> Vec<CorsLine<'a>> {
    if request.origin.is_none() {
        return Vec::new();
    }
    let Some(origin) = allowed_origin(cors, request) else {
        return vec![VARY_ORIGIN];
    };
    let mut lines = origin_lines(cors, origin);
    push_exposed(&mut lines, cors);
    lines
}

/// Whether a backend's line of that name gives way to the filter's.
#[must_use]
pub fn is_cors_name(name: &[u8]) -> bool {
    name.get(..15)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"access-control-"))
}

const VARY_ORIGIN: CorsLine<'static> = ("vary", Cow::Borrowed(b"origin"));

fn allowed_origin<'a>(cors: &CompiledCors, request: &CorsRequest<'a>) -> Option<&'a [u8]> {
    let origin = request.origin?;
    let plain = origin.iter().all(u8::is_ascii_graphic);
    (plain && cors.allows_origin(origin)).then_some(origin)
}

fn origin_lines<'a>(cors: &CompiledCors, origin: &'a [u8]) -> Vec<CorsLine<'a>> {
    let credentials = cors.policy.allow_credentials;
    if cors.allows_any_origin() && !credentials {
        return vec![("access-control-allow-origin", Cow::Borrowed(b"*"))];
    }
    let mut lines = vec![
        ("access-control-allow-origin", Cow::Borrowed(origin)),
        VARY_ORIGIN,
    ];
    if credentials {
        lines.push(("access-control-allow-credentials", Cow::Borrowed(b"true")));
    }
    lines
}

/// The Fetch standard takes `*` by the letter when credentials are included, and then there is no
/// list to answer with instead.
fn push_exposed<'a>(lines: &mut Vec<CorsLine<'a>>, cors: &'a CompiledCors) {
    let literal_star = &*cors.expose_headers == "*" && cors.policy.allow_credentials;
    if !cors.expose_headers.is_empty() && !literal_star {
        let names = Cow::Borrowed(cors.expose_headers.as_bytes());
        lines.push(("access-control-expose-headers", names));
    }
}

/// A configured list; `*` together with credentials becomes what was asked for, as Gateway API v1
/// has it: "the gateway must return the value(s) in the `Access-Control-Request-*` header".
fn granted<'a>(list: &'a str, asked: Option<&'a [u8]>, cors: &CompiledCors) -> Cow<'a, [u8]> {
    if list != "*" || !cors.policy.allow_credentials {
        return Cow::Borrowed(list.as_bytes());
    }
    let asked = asked.unwrap_or_default();
    let tokens = bytes::list(asked).all(|token| bytes::all(token, bytes::TCHAR));
    Cow::Borrowed(if tokens { asked } else { b"" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gateway_model::ir::{Cors, CorsOrigin};

    use super::*;

    fn cors(
        origins: Vec<CorsOrigin>,
        credentials: bool,
        methods: &[&str],
        headers: &[&str],
    ) -> CompiledCors {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| Arc::from(*name))
                .collect::<Vec<_>>()
        };
        CompiledCors::new(&Cors {
            allow_origins: origins,
            allow_credentials: credentials,
            allow_methods: list(methods),
            allow_headers: list(headers),
            expose_headers: list(&["x-total"]),
            max_age_s: 60,
        })
    }

    fn asked<'a>(method: &'a str, origin: &'a str) -> CorsRequest<'a> {
        CorsRequest {
            method,
            origin: Some(origin.as_bytes()),
            request_method: Some(b"PUT"),
            request_headers: Some(b"x-a, x-b"),
        }
    }

    fn text(lines: &[CorsLine<'_>]) -> Vec<String> {
        lines
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect()
    }

    fn shop() -> CorsOrigin {
        CorsOrigin::Exact("https://shop.example".into())
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_names_what_is_allowed() {
        let cors = cors(vec![shop()], true, &["GET", "PUT"], &["x-a"]);
        let lines = preflight(&cors, &asked("OPTIONS", "https://shop.example"));
        assert_eq!(
            text(&lines),
            [
                "access-control-allow-origin: https://shop.example",
                "vary: origin",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET, PUT",
                "access-control-allow-headers: x-a",
                "access-control-expose-headers: x-total",
                "access-control-max-age: 60",
            ]
        );
    }

    #[test]
    fn another_origin_is_told_nothing() {
        let cors = cors(vec![shop()], true, &["GET"], &[]);
        let request = asked("OPTIONS", "https://evil.example");
        assert_eq!(text(&preflight(&cors, &request)), ["vary: origin"]);
        assert_eq!(text(&response(&cors, &request)), ["vary: origin"]);
        let odd = asked("OPTIONS", "https://shop.example\r\nx: y");
        assert_eq!(text(&response(&cors, &odd)), ["vary: origin"]);
    }

    #[test]
    fn stars_without_credentials_stay_stars() {
        let cors = cors(vec![CorsOrigin::Any], false, &["*"], &["*"]);
        let lines = text(&preflight(&cors, &asked("OPTIONS", "https://x")));
        assert!(
            lines.contains(&"access-control-allow-origin: *".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"access-control-allow-methods: *".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"access-control-allow-headers: *".to_owned()),
            "{lines:?}"
        );
    }

    #[test]
    fn stars_with_credentials_become_what_was_asked_for() {
        let cors = cors(vec![CorsOrigin::Any], true, &["*"], &["*"]);
        let lines = text(&preflight(&cors, &asked("OPTIONS", "https://x")));
        for expected in [
            "access-control-allow-origin: https://x",
            "access-control-allow-methods: PUT",
            "access-control-allow-headers: x-a, x-b",
        ] {
            assert!(lines.contains(&expected.to_owned()), "{lines:?}");
        }
    }

    #[test]
    fn an_actual_response_exposes_headers_and_a_plain_request_gets_nothing() {
        let cors = cors(vec![shop()], false, &["GET"], &[]);
        let lines = text(&response(&cors, &asked("GET", "https://shop.example")));
        assert!(lines.contains(&"access-control-expose-headers: x-total".to_owned()));
        assert!(response(&cors, &CorsRequest::default()).is_empty());
    }

    #[test]
    fn only_options_with_origin_and_method_is_a_preflight() {
        assert!(asked("OPTIONS", "https://x").is_preflight());
        assert!(!asked("GET", "https://x").is_preflight());
        let plain = CorsRequest {
            request_method: None,
            ..asked("OPTIONS", "https://x")
        };
        assert!(!plain.is_preflight());
    }
}
