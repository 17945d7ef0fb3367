//! How a request asks to be answered.
//!
//! | word | effect |
//! |---|---|
//! | `status=N` | that status code |
//! | `delay-ms=N` | waits so long before the head |
//! | `bytes=N` | answers with a pattern of that length instead of JSON |
//! | `chunked` | chunked coding instead of a length |
//! | `chunks=N`, `pause-ms=M` | the body N times over, in chunks with pauses between them |
//! | `trailer=NAME:VALUE` | a trailer line after a chunked body |
//! | `header=NAME:VALUE` | a header line of the answer; may be repeated |
//! | `interim=N` | first an interim response of that status |
//! | `close` | `Connection: close`, and closes |
//! | `http10` | answers as HTTP/1.0, ended by the close |
//! | `early` | answers before it has read the body, and with `close` never reads it |
//! | `cut=N` | closes after N bytes of the body |
//! | `reset` | resets the connection instead of answering |
//! | `silent` | never answers |
//! | `extra` | sends garbage after the answer |
//! | `raw=HEX` | sends exactly these bytes |
//! | `slow-read-ms=N` | waits before it reads the body |

use std::time::Duration;

use crate::http1::Head;

/// A parsed list of the words above.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    words: Vec<(String, String)>,
}

impl Behaviour {
    /// Takes the words from the target's query and from `x-echo` headers.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        let query = head.word(1).split_once('?').map_or("", |(_, query)| query);
        let words = std::iter::once(query)
            .chain(head.all("x-echo"))
            .flat_map(|text| text.split('&'))
            .filter(|word| !word.is_empty())
            .map(|word| word.split_once('=').unwrap_or((word, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { words }
    }

    /// Whether the word is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// The word's first value.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.words
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The word's first value as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<usize> {
        self.text(name)?.parse().ok()
    }

    /// The word's first value as milliseconds; zero if it is not there.
    #[must_use]
    pub fn pause(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name).unwrap_or(0) as u64)
    }

    /// The word's values as header lines.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.words
            .iter()
            .filter(move |(n, _)| n == name)
            .filter_map(|(_, value)| value.split_once(':'))
    }

    /// The bytes of `raw=HEX`.
    #[must_use]
    pub fn raw(&self) -> Option<Vec<u8>> {
        let hex = self.text("raw")?;
        let byte = |i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok();
        (0..hex.len()).step_by(2).map(byte).collect()
    }
}

/// Writes bytes the way `raw=` reads them.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
