//! Byte classes of HTTP/1.1 and URIs, as tables, and scans over them.

/// `ALPHA / DIGIT / "-"`: what Sluice takes as a request field name.
pub(crate) const NAME: u8 = 1;
/// RFC 9110 §5.6.2 `tchar`.
pub(crate) const TCHAR: u8 = 2;
/// A byte that a normal path is made of and that needs no look: printable ASCII but `/ . % ? # \`.
pub(crate) const PATH: u8 = 4;
/// Printable ASCII but `#`: what may stand in a query.
pub(crate) const QUERY: u8 = 8;
/// `ALPHA / DIGIT / "-" / "_"` in lower case, or `.`: a host that needs no folding.
pub(crate) const HOST: u8 = 16;
/// RFC 3986 §2.3 `unreserved`.
pub(crate) const UNRESERVED: u8 = 32;
/// `HEXDIG` in either case.
pub(crate) const HEX: u8 = 64;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = class_of(at as u8);
        at += 1;
    }
    table
}

const fn class_of(b: u8) -> u8 {
    let mut class = 0;
    if b.is_ascii_alphanumeric() || b == b'-' {
        class |= NAME;
    }
    if b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
    {
        class |= TCHAR;
    }
    if b.is_ascii_graphic() && !matches!(b, b'/' | b'.' | b'%' | b'?' | b'#' | b'\\') {
        class |= PATH;
    }
    if b.is_ascii_graphic() && b != b'#' {
        class |= QUERY;
    }
    if b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.') {
        class |= HOST;
    }
    if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
        class |= UNRESERVED;
    }
    if b.is_ascii_hexdigit() {
        class |= HEX;
    }
    class
}

/// Whether a byte is in a class.
#[inline]
pub(crate) fn is(b: u8, class: u8) -> bool {
    CLASS[usize::from(b)] & class != 0
}

/// Where the leading run of a class ends.
#[inline]
pub(crate) fn run(text: &[u8], class: u8) -> usize {
    text.iter()
        .position(|&b| !is(b, class))
        .unwrap_or(text.len())
}

/// Whether every byte is in a class.
#[inline]
pub(crate) fn all(text: &[u8], class: u8) -> bool {
    text.iter().all(|&b| is(b, class))
}

/// RFC 9110 §5.5 `field-content` with `obs-text`: no control but HTAB.
#[inline]
pub(crate) fn is_value(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let suspicious = words
        .iter()
        .fold(0, |seen, word| seen | suspects(u64::from_le_bytes(*word)));
    let rest_ok = rest.iter().all(|&b| is_value_byte(b));
    rest_ok && (suspicious == 0 || text.iter().all(|&b| is_value_byte(b)))
}

/// How many leading bytes may stand in a value.
#[inline]
pub(crate) fn value_len(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk::<8>() {
        let suspects = suspects(u64::from_le_bytes(*word));
        if suspects == 0 {
            at += 8;
            continue;
        }
        // The lowest mark is exact; borrows only blur those above it.
        let first = at + suspects.trailing_zeros() as usize / 8;
        if text[first] != b'\t' {
            return first;
        }
        at = first + 1;
    }
    let rest = &text[at..];
    at + rest
        .iter()
        .position(|&b| !is_value_byte(b))
        .unwrap_or(rest.len())
}

#[inline]
fn is_value_byte(b: u8) -> bool {
    b >= 0x20 && b != 0x7f || b == b'\t'
}

/// Not zero when a byte of the word may be below 0x20 or 0x7f; the exact answer costs a second look.
fn suspects(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let low = word.wrapping_sub(0x2020_2020_2020_2020) & !word;
    let flipped = word ^ 0x7f7f_7f7f_7f7f_7f7f;
    let delete = flipped.wrapping_sub(ONES) & !flipped;
    (low | delete) & TOPS
}

/// Drops white space (SP, HTAB) at both ends.
#[inline]
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    trim_end(text)
}

/// Drops white space (SP, HTAB) at the end.
#[inline]
pub(crate) fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Text that the policy has already found to be ASCII.
#[inline]
pub(crate) fn ascii(text: &[u8]) -> &str {
    str::from_utf8(text).unwrap_or_default()
}

/// The beginning of what may be anything, for the log: at most 256 bytes, as far as they are UTF-8.
pub(crate) fn shown(text: &[u8]) -> &str {
    let most = &text[..text.len().min(256)];
    most.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

/// The members of a comma-separated list without outer white space, empty ones included.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// A decimal number of at most 18 digits; leading zeros are allowed.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, b| {
        b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0'))
    })
}

/// Writes a number in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_agree_with_the_definition_at_every_place() {
        for b in 0..=255_u8 {
            for at in 0..20 {
                let mut text = [b'a'; 20];
                text[at] = b;
                assert_eq!(is_value(&text), is_value_byte(b), "{b} at {at}");
            }
        }
    }

    #[test]
    fn what_is_shown_ends_before_it_is_long_or_no_text() {
        for (text, expected) in [
            (b"/a\xc3\xa9".as_slice(), "/a\u{e9}"),
            (b"/a\xffb", "/a"),
            (b"\xff", ""),
            (b"", ""),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&[b'a'; 300]), "a".repeat(256));
        let cut = ["a".repeat(255), "\u{e9}".into()].concat();
        assert_eq!(shown(cut.as_bytes()), &cut[..255], "no half of a character");
    }

    #[test]
    fn a_value_ends_at_the_first_byte_that_is_none() {
        for b in 0..=255_u8 {
            for at in 0..20 {
                let mut text = [0xff; 20];
                text[at] = b;
                text[19] = b'\n';
                let expected = text.iter().position(|&b| !is_value_byte(b));
                assert_eq!(Some(value_len(&text)), expected, "{b} at {at}");
            }
        }
    }

    #[test]
    fn decimals_round_trip() {
        for number in [0, 7, 10, 999, 123_456_789_012_345_678] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(decimal(&out), Some(number));
        }
        for text in ["", "+1", "-0", "0x1", "1 ", "1234567890123456789"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }
}
