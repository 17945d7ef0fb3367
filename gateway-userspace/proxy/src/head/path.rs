//! The one normal form of a path: what is matched is what is forwarded.
//!
//! RFC 3986 §6.2.2: escapes of unreserved characters are decoded, other escapes get upper-case
//! digits, dot segments are removed; then runs of slashes become one. What two servers might read
//! differently is refused instead: an escaped slash or backslash (`%2f`, `%5c`), a raw backslash,
//! escaped controls, overlong UTF-8, and dot segments with parameters (`..;x`). Envoy's edge
//! setting answers an escaped slash with a redirect to the unescaped form; a redirect is no
//! protection for a client that does not follow it to the letter, so Sluice says 400.

use std::ops::Range;

use super::Violation;
use super::bytes::{self, HEX, PATH, UNRESERVED};

/// A path after normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Normal {
    /// It was normal already.
    AsSent,
    /// Written to this range of the scratch buffer.
    Written(Range<usize>),
}

/// Normalises a path that begins with `/` and has no query.
///
/// # Errors
/// What in it two servers might read differently.
#[inline]
pub(crate) fn normalise(raw: &[u8], scratch: &mut Vec<u8>) -> Result<Normal, Violation> {
    if is_normal(raw) {
        return Ok(Normal::AsSent);
    }
    rewrite(raw, scratch).map(Normal::Written)
}

/// Whether a path is certainly normal; a path that is normal but holds an escape or a segment
/// that begins with a dot is not recognised, and written again unchanged.
#[inline]
pub(crate) fn is_normal(raw: &[u8]) -> bool {
    let [b'/', rest @ ..] = raw else {
        return false;
    };
    let mut after_slash = true;
    for &b in rest {
        if bytes::is(b, PATH) {
            after_slash = false;
        } else if b == b'/' && !after_slash {
            after_slash = true;
        } else if b != b'.' || after_slash {
            return false;
        }
    }
    true
}

#[cold]
fn rewrite(raw: &[u8], scratch: &mut Vec<u8>) -> Result<Range<usize>, Violation> {
    let start = scratch.len();
    decode(raw, scratch)?;
    let len = fold_segments(&mut scratch[start..])?;
    scratch.truncate(start + len);
    Ok(start..start + len)
}

fn decode(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match *first {
            b'%' => rest = decode_escape(tail, out)?,
            b'#' => return Err(Violation::TargetFragment),
            b'\\' => return Err(Violation::PathBackslash),
            b if b.is_ascii_graphic() => out.push(b),
            _ => return Err(Violation::TargetByte),
        }
    }
    Ok(())
}

fn decode_escape<'a>(tail: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Violation> {
    let [high, low, rest @ ..] = tail else {
        return Err(Violation::PathEscape);
    };
    if !bytes::is(*high, HEX) || !bytes::is(*low, HEX) {
        return Err(Violation::PathEscape);
    }
    match nibble(*high) << 4 | nibble(*low) {
        b'/' | b'\\' => return Err(Violation::PathEscapedSlash),
        0..=0x1f | 0x7f | 0xc0 | 0xc1 => return Err(Violation::PathEscape),
        0xe0 if matches!(rest, [b'%', b'8' | b'9', ..]) => return Err(Violation::PathEscape),
        0xf0 if matches!(rest, [b'%', b'8', ..]) => return Err(Violation::PathEscape),
        plain if bytes::is(plain, UNRESERVED) => out.push(plain),
        _ => out.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
    }
    Ok(rest)
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Removes empty and dot segments in place; gives the length that is left.
fn fold_segments(path: &mut [u8]) -> Result<usize, Violation> {
    let mut write = 0;
    let mut read = 0;
    while read < path.len() {
        let from = read + 1;
        let to = memchr::memchr(b'/', &path[from..]).map_or(path.len(), |at| from + at);
        let last = to == path.len();
        match &path[from..to] {
            b"" | b"." => {}
            b".." => write = memchr::memrchr(b'/', &path[..write]).unwrap_or(0),
            segment if segment.starts_with(b".;") || segment.starts_with(b"..;") => {
                return Err(Violation::PathDotParameter);
            }
            segment => {
                let len = segment.len();
                path.copy_within(read..to, write);
                write += 1 + len;
                read = to;
                continue;
            }
        }
        if last {
            path[write] = b'/';
            write += 1;
        }
        read = to;
    }
    Ok(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &str) -> Result<String, Violation> {
        let mut scratch = b"before".to_vec();
        Ok(match normalise(raw.as_bytes(), &mut scratch)? {
            Normal::AsSent => raw.to_owned(),
            Normal::Written(range) => bytes::ascii(&scratch[range]).to_owned(),
        })
    }

    #[test]
    fn row10_paths_have_one_form() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//", "/"),
            ("///a////b//", "/a/b/"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/./", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../..", "/"),
            ("/a/b/../c", "/a/c"),
            ("/..", "/"),
            ("/../../etc", "/etc"),
            ("/a//../b", "/b"),
            ("/%2e%2e/a", "/a"),
            ("/a/%2E%2e/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%61dmin", "/admin"),
            ("/%7euser", "/~user"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%252fb", "/a%252fb"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a.b/c..d", "/a.b/c..d"),
            ("/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(normal(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn row10_what_servers_read_differently_is_refused() {
        for (raw, violation) in [
            ("/a%2fb", Violation::PathEscapedSlash),
            ("/a%2Fb", Violation::PathEscapedSlash),
            ("/a%5cb", Violation::PathEscapedSlash),
            ("/a\\b", Violation::PathBackslash),
            ("/a%00", Violation::PathEscape),
            ("/a%0d%0a", Violation::PathEscape),
            ("/a%7f", Violation::PathEscape),
            ("/a%", Violation::PathEscape),
            ("/a%4", Violation::PathEscape),
            ("/a%zz", Violation::PathEscape),
            ("/a%c0%ae", Violation::PathEscape),
            ("/a%e0%80%af", Violation::PathEscape),
            ("/a%f0%80%80%af", Violation::PathEscape),
            ("/a/..;/b", Violation::PathDotParameter),
            ("/a/%2e%2e;x/b", Violation::PathDotParameter),
            ("/a/.;/b", Violation::PathDotParameter),
            ("/a#b", Violation::TargetFragment),
            ("/a\u{1}", Violation::TargetByte),
            ("/é", Violation::TargetByte),
        ] {
            assert_eq!(normal(raw), Err(violation), "{raw}");
        }
    }
}
