//! The patterns of the CRDs' schemas, each with a message that says what would be right.

use std::time::Duration;

/// What is wrong with a text, or nothing.
pub(super) type Checked = Result<(), String>;

fn alphanumeric_at_both_ends(text: &str, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let ends = |at: Option<&u8>| at.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || inner(b))
}

fn is_label(text: &str) -> bool {
    alphanumeric_at_both_ends(text, |b| b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// An RFC 1123 label: a namespace.
pub(super) fn label(text: &str) -> Checked {
    if text.len() <= 63 && is_label(text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be at most 63 lower-case letters, digits and inner hyphens"
    ))
}

/// The value of a label: empty, or letters, digits and inner `-`, `_` and `.`.
pub(super) fn label_value(text: &str) -> Checked {
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let valid = bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    if valid {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be at most 63 letters, digits and inner hyphens, underscores and dots"
    ))
}

/// The name of a label or annotation: a value that is not empty, with or without a subdomain and
/// a slash in front.
pub(super) fn qualified_name(text: &str) -> Checked {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let valid = !name.is_empty()
        && label_value(name).is_ok()
        && prefix.is_none_or(|p| subdomain(p).is_ok());
    if valid {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be the name of a label, as in team or example.com/team"
    ))
}

/// An RFC 1123 subdomain: a section name, most object names.
pub(super) fn subdomain(text: &str) -> Checked {
    if text.len() <= 253 && is_subdomain(text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be at most 253 lower-case letters, digits, inner hyphens and dots"
    ))
}

/// Gateway API v1 `ObjectName`.
pub(super) fn object_name(text: &str) -> Checked {
    length(text, 1, 253)
}

/// Gateway API v1 `Group`: empty, or a subdomain.
pub(super) fn group(text: &str) -> Checked {
    if text.is_empty() {
        return Ok(());
    }
    subdomain(text).map_err(|_| {
        format!("{text:?} must be an API group, as in gateway.networking.k8s.io, without version")
    })
}

/// Gateway API v1 `Kind`.
pub(super) fn kind(text: &str) -> Checked {
    let bytes = text.as_bytes();
    let valid = bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    if valid {
        return Ok(());
    }
    Err(format!("{text:?} must be a kind, as in Service"))
}

/// Gateway API v1 `Hostname`, as the schema has it: an IPv4 address passes, and is found later.
pub(super) fn hostname(text: &str) -> Checked {
    precise_hostname(text.strip_prefix("*.").unwrap_or(text)).map_err(|_| {
        format!("{text:?} must be a lower-case DNS name, as in shop.example.com or *.example.com")
    })
}

/// Gateway API v1 `PreciseHostname`.
pub(super) fn precise_hostname(text: &str) -> Checked {
    if text.len() <= 253 && is_subdomain(text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be a lower-case DNS name, as in shop.example.com"
    ))
}

/// Gateway API v1 `HeaderName`.
pub(super) fn header_name(text: &str) -> Checked {
    let valid = (1..=256).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if valid {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be a header name: 1 to 256 letters, digits and !#$%&'*+-.^_`|~"
    ))
}

/// Gateway API v1 `GRPCMethodMatch.service` for `Exact`.
pub(super) fn grpc_service(text: &str) -> Checked {
    if text
        .strip_prefix('.')
        .unwrap_or(text)
        .split('.')
        .all(is_identifier)
    {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be a gRPC service with its package, as in shop.v1.Cart"
    ))
}

/// Gateway API v1 `GRPCMethodMatch.method` for `Exact`.
pub(super) fn grpc_method(text: &str) -> Checked {
    if is_identifier(text) {
        return Ok(());
    }
    Err(format!("{text:?} must be a gRPC method, as in AddItem"))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Gateway API v1 `AbsoluteURI`.
pub(super) fn absolute_uri(text: &str) -> Checked {
    length(text, 1, 253)?;
    let valid = text
        .split_once("://")
        .is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains(['/', '?', '#', ':']));
    if valid {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be a URI with its scheme, as in spiffe://example.com/ns/shop/sa/cart"
    ))
}

/// Between `min` and `max` characters.
pub(super) fn length(text: &str, min: usize, max: usize) -> Checked {
    let count = text.chars().count();
    if (min..=max).contains(&count) {
        return Ok(());
    }
    Err(format!("must have {min} to {max} characters, not {count}"))
}

/// A header's value, which must not be able to end its line.
pub(super) fn header_value(text: &str) -> Checked {
    length(text, 1, 4096)?;
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        None => Ok(()),
        Some(c) => Err(format!("must not hold the control character {c:?}")),
    }
}

/// Gateway API v1 `HTTPPathMatch.value` for `Exact` and `PathPrefix`.
pub(super) fn path(text: &str) -> Checked {
    length(text, 0, 1024)?;
    if !text.starts_with('/') {
        return Err(format!("{text:?} must start with '/'"));
    }
    path_form(text)
}

/// What Gateway API v1 `HTTPPathModifier` puts into a path, by the rules of those that are matched: its schema has
/// no more than a length, and what it lets through would be sent. That it starts with `/` is the rule's to say.
pub(super) fn replacement_path(text: &str) -> Checked {
    length(text, 0, 1024)?;
    path_form(text)
}

/// Segments and characters of a normal path.
fn path_form(text: &str) -> Checked {
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if text.contains(part) {
            return Err(format!("{text:?} must not contain {part:?}"));
        }
    }
    for end in ["/.", "/.."] {
        if text.ends_with(end) {
            return Err(format!("{text:?} must not end with {end:?}"));
        }
    }
    path_characters(text)
}

/// `^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`.
fn path_characters(text: &str) -> Checked {
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let valid = match b {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|b| b.is_ascii_hexdigit())),
            _ => b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&b),
        };
        if !valid {
            return Err(format!(
                "{text:?} holds a character that no path may hold; percent-encode it"
            ));
        }
    }
    Ok(())
}

/// A GEP-2257 duration, `^([0-9]{1,5}(h|m|s|ms)){1,4}$`: a strict subset of Go's syntax.
pub(super) fn gep_2257_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, unit_ms) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += Duration::from_millis(number * unit_ms);
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

/// Gateway API v1 `CORSOrigin`.
pub(super) fn cors_origin(text: &str) -> Checked {
    let valid = || {
        length(text, 1, 253).ok()?;
        if text == "*" {
            return Some(());
        }
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"))?;
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        };
        if let Some(port) = port {
            (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().ok()? > 0)
                .then_some(())?;
        }
        let labels = host.strip_prefix("*.").unwrap_or(host);
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        (host == "*" || labels.split('.').all(is_label)).then_some(())
    };
    valid().ok_or_else(|| {
        format!(
            "{text:?} must be an origin, as in https://shop.example.com, https://*.example.com:8443 or *"
        )
    })
}

/// Gateway API v1 `GatewayController`.
pub(super) fn controller_name(text: &str) -> Checked {
    let valid = text.len() <= 253
        && text.split_once('/').is_some_and(|(domain, path)| {
            is_subdomain(domain)
                && !path.is_empty()
                && path
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b))
        });
    if valid {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be a domain and a path, as in sluice.dev/gateway-controller"
    ))
}

/// Gateway API v1 `ProtocolType`.
pub(super) fn protocol(text: &str) -> Checked {
    let plain = |text: &str| {
        let bytes = text.as_bytes();
        let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        ends(bytes.first())
            && ends(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let prefixed = |text: &str| {
        text.split_once('/').is_some_and(|(domain, name)| {
            is_subdomain(domain)
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    };
    if text.len() <= 255 && (plain(text) || prefixed(text)) {
        return Ok(());
    }
    Err(format!(
        "{text:?} must be a protocol, as in HTTP, HTTPS or example.com/name"
    ))
}
