//! Paths and locations that a route's filters make: `URLRewrite` and `RequestRedirect`.

use gateway_model::ir::{PathRewrite, Redirect, Scheme};

use crate::head::{Violation, bytes};

/// Appends the path that Gateway API v1 `HTTPPathModifier` makes of a matched one, query excluded.
/// `prefix_len` is what the matching prefix covers, without a trailing slash.
pub fn push_path(out: &mut Vec<u8>, rewrite: &PathRewrite, path: &str, prefix_len: usize) {
    let start = out.len();
    match rewrite {
        PathRewrite::Full(full) => out.extend_from_slice(full.as_bytes()),
        PathRewrite::Prefix(prefix) => {
            let rest = path.get(prefix_len..).unwrap_or_default();
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            out.extend_from_slice(prefix.as_bytes());
            if !rest.is_empty() && !rest.starts_with('/') {
                out.push(b'/');
            }
            out.extend_from_slice(rest.as_bytes());
        }
    }
    if out.get(start) != Some(&b'/') {
        out.insert(start, b'/');
    }
}

/// What of a request a redirect keeps.
#[derive(Clone, Copy, Debug)]
pub struct RedirectFrom<'a> {
    /// The scheme the client used.
    pub scheme: Scheme,
    /// The host in normal form, without port; empty if an HTTP/1.0 request has none.
    pub host: &'a str,
    /// The port of the listener that took the request.
    pub port: u16,
    /// The normalised path.
    pub path: &'a str,
    /// The query without `?`.
    pub query: Option<&'a str>,
    /// What of the path the matching prefix covers.
    pub prefix_len: usize,
}

/// Appends the `Location` of Gateway API v1 `HTTPRequestRedirectFilter`.
///
/// The port, as the specification has it: the filter's; else, with a scheme in the filter, that
/// scheme's well-known port; else the listener's. It is left out if it is 80 with `http` or 443
/// with `https`: "Implementations SHOULD NOT add the port number in the 'Location' header".
///
/// Where nobody says a host, the location is relative to the one that the client has asked.
///
/// # Errors
/// The client would have to go to another scheme or port of a host that nobody says.
pub fn push_location(
    out: &mut Vec<u8>,
    redirect: &Redirect,
    from: &RedirectFrom<'_>,
) -> Result<(), Violation> {
    let scheme = redirect.scheme.unwrap_or(from.scheme);
    let well_known = match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => from.port,
    };
    let host = redirect.hostname.as_deref().unwrap_or(from.host);
    if !host.is_empty() {
        out.extend_from_slice(scheme.as_str().as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(host.as_bytes());
        if port != well_known {
            out.push(b':');
            bytes::push_decimal(out, port.into());
        }
    } else if (scheme, port) != (from.scheme, from.port) {
        return Err(Violation::HostMissing);
    }
    match &redirect.path {
        Some(rewrite) => push_path(out, rewrite, from.path, from.prefix_len),
        None => out.extend_from_slice(from.path.as_bytes()),
    }
    if let Some(query) = from.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gateway API v1 `HTTPPathModifier.replacePrefixMatch`: request, prefix, replacement, result.
    const TABLE: [(&str, &str, &str, &str); 13] = [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ("/", "/", "/xyz", "/xyz/"),
    ];

    #[test]
    fn prefixes_are_replaced_as_the_specification_lists() {
        for (path, prefix, replacement, expected) in TABLE {
            let covered = prefix.trim_end_matches('/').len();
            let rewrite = PathRewrite::Prefix(replacement.into());
            let mut out = b"GET ".to_vec();
            push_path(&mut out, &rewrite, path, covered);
            assert_eq!(
                bytes::ascii(&out[4..]),
                expected,
                "{path} {prefix} {replacement}"
            );
        }
    }

    fn location(redirect: &Redirect, scheme: Scheme, port: u16) -> String {
        let from = RedirectFrom {
            scheme,
            host: "shop.example.com",
            port,
            path: "/cart/1",
            query: Some("a=b"),
            prefix_len: 5,
        };
        let mut out = Vec::new();
        push_location(&mut out, redirect, &from).expect("a host");
        bytes::ascii(&out).to_owned()
    }

    fn redirect() -> Redirect {
        Redirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: 302,
        }
    }

    #[test]
    fn the_port_is_left_out_when_it_is_well_known() {
        let https = Redirect {
            scheme: Some(Scheme::Https),
            ..redirect()
        };
        let port = |port| Redirect {
            port: Some(port),
            ..redirect()
        };
        for (filter, scheme, listener, expected) in [
            (redirect(), Scheme::Http, 80, "http://shop.example.com"),
            (
                redirect(),
                Scheme::Http,
                8080,
                "http://shop.example.com:8080",
            ),
            (redirect(), Scheme::Https, 443, "https://shop.example.com"),
            (
                redirect(),
                Scheme::Https,
                8443,
                "https://shop.example.com:8443",
            ),
            (
                https.clone(),
                Scheme::Http,
                8080,
                "https://shop.example.com",
            ),
            (port(80), Scheme::Http, 8080, "http://shop.example.com"),
            (port(8083), Scheme::Http, 80, "http://shop.example.com:8083"),
            (port(443), Scheme::Http, 80, "http://shop.example.com:443"),
            (
                Redirect {
                    port: Some(8443),
                    ..https.clone()
                },
                Scheme::Http,
                80,
                "https://shop.example.com:8443",
            ),
            (
                Redirect {
                    port: Some(443),
                    ..https
                },
                Scheme::Http,
                80,
                "https://shop.example.com",
            ),
        ] {
            let expected = format!("{expected}/cart/1?a=b");
            assert_eq!(location(&filter, scheme, listener), expected, "{filter:?}");
        }
    }

    #[test]
    fn without_a_host_a_location_is_relative_or_none() {
        let from = RedirectFrom {
            scheme: Scheme::Http,
            host: "",
            port: 8080,
            path: "/cart/1",
            query: Some("a=b"),
            prefix_len: 5,
        };
        let to = Redirect {
            path: Some(PathRewrite::Full("/to".into())),
            ..redirect()
        };
        let (scheme, hostname) = (Some(Scheme::Http), Some("a.example".into()));
        for (port, scheme, hostname, expected) in [
            (None, None, None, Some("/to?a=b")),
            (Some(8080), scheme, None, Some("/to?a=b")),
            (None, None, hostname, Some("http://a.example:8080/to?a=b")),
            (Some(80), None, None, None),
            (None, scheme, None, None),
            (Some(8080), Some(Scheme::Https), None, None),
        ] {
            let redirect = Redirect {
                port,
                scheme,
                hostname,
                ..to.clone()
            };
            let mut out = Vec::new();
            let made = push_location(&mut out, &redirect, &from);
            let made = made.ok().map(|()| bytes::ascii(&out));
            assert_eq!(made, expected, "{redirect:?}");
        }
    }

    #[test]
    fn host_and_path_are_replaced_and_the_query_stays() {
        let filter = Redirect {
            hostname: Some("www.example.org".into()),
            path: Some(PathRewrite::Prefix("/basket".into())),
            ..redirect()
        };
        let made = location(&filter, Scheme::Https, 443);
        assert_eq!(made, "https://www.example.org/basket/1?a=b");
    }
}
