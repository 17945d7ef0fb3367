//! Small text work that several commands share.

pub use gateway_translate::nearest;

/// The text, cut at a character's boundary so that it takes no more than so many bytes.
pub fn shortened(text: &str, bytes: usize) -> String {
    const MARK: &str = "...";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end])
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
