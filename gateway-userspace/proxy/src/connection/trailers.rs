//! What trailers of HTTP/2 are held to, from clients and backends alike. Those of HTTP/1.1 are held to the
//! same where chunks are decoded.

use http::HeaderMap;

use crate::head::Violation;
use crate::limits::HeadLimits;

/// What a line takes in HTTP/1.1 besides its name and its value.
const LINE_BYTES: usize = ": \r\n".len();

/// Refuses trailers that are more than a head may be. The h2 crate bounds their length alone, and by
/// another measure.
pub(super) fn check(trailers: &HeaderMap, limits: &HeadLimits) -> Result<(), Violation> {
    let line_bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + LINE_BYTES
    };
    let bytes: usize = trailers.iter().map(line_bytes).sum();
    if trailers.len() > limits.lines || bytes > limits.bytes {
        return Err(Violation::Trailer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_bounded_in_number_and_in_length() {
        let mut trailers = HeaderMap::new();
        trailers.append("a", http::HeaderValue::from_static("1"));
        trailers.append("a", http::HeaderValue::from_static("2"));
        for (bytes, lines, passes) in [(12, 2, true), (11, 2, false), (12, 1, false)] {
            let limits = HeadLimits {
                bytes,
                lines,
                target_bytes: 0,
            };
            assert_eq!(check(&trailers, &limits).is_ok(), passes, "{bytes} {lines}");
        }
    }
}
