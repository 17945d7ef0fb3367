//! Regular expressions of conditions: what is one, and the one form in which it is compiled.

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::util::syntax;

/// Largest compiled size of one regular expression.
pub(crate) const SIZE_LIMIT: usize = 256 * 1024;

/// Largest cache of one regular expression and thread. Beyond it matching is slower, not wrong.
pub(crate) const CACHE_LIMIT: usize = 1 << 20;

/// Why a text is no regular expression that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// It is none of the RE2 family; with what is wrong.
    Invalid(String),
    /// It is larger than any may be once it is compiled.
    TooLarge,
}

/// Whether a text is a regular expression that compiles where it is asked.
///
/// # Errors
/// Why it is not.
pub fn check(pattern: &str) -> Result<(), PatternError> {
    compile(pattern).map(|_| ())
}

/// The regular expression for a whole value.
pub(crate) fn compile(pattern: &str) -> Result<Regex, PatternError> {
    // By itself first: `a)|(b` must not become valid by what is put around it.
    let bytes = syntax::Config::new().utf8(false);
    syntax::parse_with(pattern, &bytes).map_err(|e| invalid(&e.to_string()))?;
    RegexBuilder::new(&whole(pattern))
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(CACHE_LIMIT)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
            other => invalid(&other.to_string()),
        })
}

/// The text of the regular expression for a whole value. What is valid by itself need not be so here:
/// a comment, as `(?x)` begins them, swallows what ends it.
pub(crate) fn whole(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

/// The last line of the error; those before it show the place.
fn invalid(error: &str) -> PatternError {
    PatternError::Invalid(error.lines().last().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid_by_itself_must_be_so_inside_the_anchors() {
        assert_eq!(check("(?x) /b # c\n"), Ok(()));
        let nested = format!("{}a{}", "(".repeat(249), ")".repeat(249));
        for pattern in ["(?x) /b # c", "a)|(b", "/(", &nested] {
            let checked = check(pattern);
            assert!(
                matches!(checked, Err(PatternError::Invalid(_))),
                "{checked:?}"
            );
        }
        assert_eq!(check(r"\w{1000}\w{1000}"), Err(PatternError::TooLarge));
    }

    #[test]
    fn what_is_no_text_is_matched_as_bytes() {
        assert!(compile(r"(?-u:\xff)").is_ok_and(|regex| regex.is_match(b"\xff")));
    }
}
