//! An upstream's HTTP/1.1 response head as HTTP/2 carries it.

use bytes::Bytes;
use gateway_model::snapshot::CompiledEdits;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::encode_response::adds_date;
use super::fields::{DATE, DROP};
use super::response::ResponseView;
use crate::cors::{self, CorsLine};
use crate::head::{Known, is_trailer_allowed};

/// The head for an HTTP/2 client: no line that concerns a connection, edits applied, `date` if the
/// upstream wrote none. A line that HTTP/2 cannot carry is left out; the strict parse lets none through.
#[must_use]
pub fn to_http(
    view: &ResponseView<'_>,
    edits: &CompiledEdits,
    cors: &[CorsLine<'_>],
    date: &HeaderValue,
) -> http::Response<()> {
    let fields = &view.head.fields;
    let mut response = http::Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(view.head.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.reserve(fields.list.len() + 1 + edits.appended().len() + cors.len());
    // One copy for all values; each is a slice of it.
    let head = Bytes::copy_from_slice(view.buf.get(..fields.end).unwrap_or_default());
    for field in &fields.list {
        let name = field.name.of(view.buf);
        let dropped = field.flags & (view.skip() | DROP) != 0
            || edits.drops(name)
            || !cors.is_empty() && cors::is_cors_name(name);
        let value = field.value.start()..field.value.end();
        if dropped || value.end > head.len() {
            continue;
        }
        let value = HeaderValue::from_maybe_shared(head.slice(value));
        if let (Some(name), Ok(value)) = (header_name(field.known, name), value) {
            headers.append(name, value);
        }
    }
    if fields.own_length
        && !view.forbids_framing()
        && let Some(length) = fields.length
    {
        headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    if fields.flags & DATE == 0 && !adds_date(edits) {
        headers.insert(http::header::DATE, date.clone());
    }
    for (name, value) in cors {
        append(headers, name.as_bytes(), Bytes::copy_from_slice(value));
    }
    for line in edits.appended() {
        let value = Bytes::copy_from_slice(line.value.as_bytes());
        append(headers, line.name.as_str().as_bytes(), value);
    }
    response
}

/// The head of an informational response for an HTTP/2 client: its lines alone.
pub(crate) fn to_http_informational(view: &ResponseView<'_>) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(view.head.status()).unwrap_or(StatusCode::PROCESSING);
    for field in &view.head.fields.list {
        let (name, value) = (field.name.of(view.buf), field.value.of(view.buf));
        if field.flags & (view.skip() | DROP) == 0 {
            append(response.headers_mut(), name, Bytes::copy_from_slice(value));
        }
    }
    response
}

/// Trailer lines, each with its CR LF, as HTTP/2 carries them: those that may pass; none without any.
pub(crate) fn trailer_map(lines: &[u8]) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            && is_trailer_allowed(name.as_str())
        {
            trailers.append(name, value);
        }
    }
    (!trailers.is_empty()).then_some(trailers)
}

/// The names that nearly every response has need no parsing.
#[inline]
fn header_name(known: Known, name: &[u8]) -> Option<HeaderName> {
    match known {
        Known::ContentLength => Some(http::header::CONTENT_LENGTH),
        Known::ContentType => Some(http::header::CONTENT_TYPE),
        Known::Date => Some(http::header::DATE),
        _ => HeaderName::from_bytes(name).ok(),
    }
}

fn append(headers: &mut HeaderMap, name: &[u8], value: Bytes) {
    if let (Ok(name), Ok(value)) = (
        HeaderName::from_bytes(name),
        HeaderValue::from_maybe_shared(value),
    ) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::http_date;
    use crate::h1::{Asked, Progress, ResponseHead};
    use crate::limits::Limits;

    #[test]
    fn row7_connection_fields_and_framing_stay_behind() {
        let wire = b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\n\
            Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
            Access-Control-Allow-Origin: *\r\n\r\n";
        let mut head = ResponseHead::default();
        let progress = head.parse(wire, &Limits::default().head, Asked::default());
        assert_eq!(progress, Ok(Progress::Complete(wire.len())));
        let cors: [CorsLine<'_>; 1] = [("access-control-allow-origin", b"https://a"[..].into())];
        let response = to_http(
            &head.view(wire),
            &CompiledEdits::default(),
            &cors,
            &HeaderValue::from_bytes(&http_date(0)).expect("text"),
        );
        let lines = response
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect::<Vec<_>>();
        assert_eq!(
            lines,
            [
                "server: x",
                "set-cookie: a",
                "set-cookie: b",
                "date: Thu, 01 Jan 1970 00:00:00 GMT",
                "access-control-allow-origin: https://a"
            ]
        );
    }
}
