//! Small text work that several commands share.

use jiff::Timestamp;

pub use gateway_translate::nearest;

/// What is wrong with a YAML text, without the parser's own idea of the position, which counts from the document,
/// and without its advice to programmers.
pub fn yaml_reason(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let ends = [
        " at line ",
        ", set DuplicateKeyPolicy",
        "; use from_str_multiple",
        ", use from_str_multiple",
    ];
    let end = ends.iter().filter_map(|end| first.find(end)).min();
    let reason = &first[..end.unwrap_or(first.len())];
    reason.trim_start_matches("error: ").to_owned()
}

/// The text, cut at a character's boundary so that it takes no more than so many bytes.
pub fn shortened(text: &str, bytes: usize) -> String {
    const MARK: &str = "...";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end])
}

/// The time between two moments in its largest unit or two: `3m 12s`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (d, h, m, s) = (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) => format!("{m}m {s}s"),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("äöüäöü", 8), "äö...");
        assert_eq!(shortened("longer", 5), "lo...");
    }
}
