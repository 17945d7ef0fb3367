//! The chunked transfer coding (RFC 9112 §7.1): a strict decoder and an encoder.
//!
//! The decoder takes bytes as they come, keeps no copy of them, and says which are data. It knows
//! one spelling: hexadecimal size, extensions behind `;`, CR LF; nothing before the size, no white
//! space behind it, no bare LF.

use std::ops::Range;

use crate::head::bytes::{self, NAME, TCHAR};
use crate::head::{Known, Violation, is_trailer_allowed};
use crate::limits::HeadLimits;

/// What one step of decoding found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input are done with; never less than `data.end`.
    pub consumed: usize,
    /// Which bytes of the input are body.
    pub data: Range<usize>,
    /// Whether the body ends here.
    pub end: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Start,
    /// In the size.
    Size,
    /// In an extension.
    Extension,
    /// CR of the size line seen.
    SizeFeed,
    /// In the data.
    Data,
    /// Data done; CR is due.
    DataReturn,
    /// Data done, CR seen.
    DataFeed,
    /// At the start of a trailer line.
    TrailerStart,
    /// In a trailer's name.
    TrailerName,
    /// In a trailer's value.
    TrailerValue,
    /// CR of a trailer line seen.
    TrailerFeed,
    /// CR of the last, empty line seen.
    LastFeed,
    /// The body is over.
    Done,
}

/// Bytes of extensions over the whole body; more is an attack on whoever counts only data.
const MAX_EXTENSION_BYTES: u32 = 16 * 1024;
/// Hexadecimal digits of a size; 15 keep it below 2^60.
const MAX_SIZE_DIGITS: u8 = 15;

/// A strict decoder. Trailers are checked and, unless [`ChunkedDecoder::keep_trailers`], dropped. Those that may
/// not pass break a request, and are left out of a response.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    size: u64,
    digits: u8,
    extension_bytes: u32,
    trailer_bytes: usize,
    trailer_lines: usize,
    limits: HeadLimits,
    keep: bool,
    of_response: bool,
    line: Vec<u8>,
    trailers: Vec<u8>,
}

impl ChunkedDecoder {
    /// A decoder at the start of a body. Allocates nothing until there are trailers.
    #[must_use]
    pub fn new(limits: &HeadLimits) -> Self {
        Self {
            state: State::Start,
            size: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_lines: 0,
            limits: *limits,
            keep: false,
            of_response: false,
            line: Vec::new(),
            trailers: Vec::new(),
        }
    }

    /// The same for a response: its trailers may have any name, for they bind nobody (RFC 9110 §6.5.1: "a recipient
    /// MAY [..] discard" them), and backends write what concerns only themselves.
    #[must_use]
    pub(super) fn of_response(limits: &HeadLimits) -> Self {
        Self {
            of_response: true,
            ..Self::new(limits)
        }
    }

    /// Keeps the trailer lines that may pass for [`ChunkedDecoder::trailers`].
    pub fn keep_trailers(&mut self) {
        self.keep = true;
    }

    /// The trailer lines, each with its CR LF; complete once a step said `end`.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Whether the last chunk and the trailers have been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes up to the end of one run of data, of the input, or of the body.
    ///
    /// # Errors
    /// [`Violation::Chunk`] or [`Violation::Trailer`]: the body must not be forwarded as complete.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                return Ok(self.data(at, input.len()));
            }
            self.byte(input[at])?;
            at += 1;
        }
        Ok(Step {
            consumed: at,
            data: at..at,
            end: self.state == State::Done,
        })
    }

    fn data(&mut self, at: usize, len: usize) -> Step {
        let room = len - at;
        let take = usize::try_from(self.size).map_or(room, |size| size.min(room));
        self.size -= take as u64;
        if self.size == 0 {
            self.state = State::DataReturn;
        }
        Step {
            consumed: at + take,
            data: at..at + take,
            end: false,
        }
    }

    fn byte(&mut self, b: u8) -> Result<(), Violation> {
        self.state = match (self.state, b) {
            (State::Start | State::Size, _) => self.size_byte(b)?,
            (State::Extension, b'\r') => State::SizeFeed,
            (State::Extension, _) => self.extension_byte(b)?,
            (State::SizeFeed, b'\n') if self.size == 0 => State::TrailerStart,
            (State::SizeFeed, b'\n') => State::Data,
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => self.next_chunk(),
            (State::TrailerStart, b'\r') => State::LastFeed,
            (State::LastFeed, b'\n') => State::Done,
            (
                State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerFeed,
                _,
            ) => self.trailer_byte(b)?,
            _ => return Err(Violation::Chunk),
        };
        Ok(())
    }

    fn next_chunk(&mut self) -> State {
        self.size = 0;
        self.digits = 0;
        State::Start
    }

    fn size_byte(&mut self, b: u8) -> Result<State, Violation> {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            b'A'..=b'F' => b - b'A' + 10,
            b';' if self.digits > 0 => return Ok(State::Extension),
            b'\r' if self.digits > 0 => return Ok(State::SizeFeed),
            _ => return Err(Violation::Chunk),
        };
        self.digits += 1;
        if self.digits > MAX_SIZE_DIGITS {
            return Err(Violation::Chunk);
        }
        self.size = self.size << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn extension_byte(&mut self, b: u8) -> Result<State, Violation> {
        self.extension_bytes += 1;
        if !bytes::is_value(&[b]) || self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(Violation::Chunk);
        }
        Ok(State::Extension)
    }

    fn trailer_byte(&mut self, b: u8) -> Result<State, Violation> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > self.limits.bytes {
            return Err(Violation::Trailer);
        }
        let names = if self.of_response { TCHAR } else { NAME };
        match (self.state, b) {
            (State::TrailerStart | State::TrailerName, _) if bytes::is(b, names) => {
                self.line.push(b);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => {
                let known = Known::of(&self.line);
                if !self.of_response && (known.is_end_to_end() || known.is_hop_by_hop()) {
                    return Err(Violation::Trailer);
                }
                self.line.push(b);
                Ok(State::TrailerValue)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerFeed),
            (State::TrailerValue, _) if bytes::is_value(&[b]) => {
                self.line.push(b);
                Ok(State::TrailerValue)
            }
            (State::TrailerFeed, b'\n') => self.trailer_end(),
            _ => Err(Violation::Trailer),
        }
    }

    fn trailer_end(&mut self) -> Result<State, Violation> {
        self.trailer_lines += 1;
        if self.trailer_lines > self.limits.lines {
            return Err(Violation::Trailer);
        }
        if self.keep && self.passes() {
            self.trailers.extend_from_slice(&self.line);
            self.trailers.extend_from_slice(b"\r\n");
        }
        self.line.clear();
        Ok(State::TrailerStart)
    }

    /// Whether the trailer line may be passed on.
    fn passes(&self) -> bool {
        let name = self.line.split(|&b| b == b':').next();
        is_trailer_allowed(bytes::ascii(name.unwrap_or_default()))
    }
}

/// Appends the line that opens a chunk of `len` bytes; `len` must not be 0, which would end the body.
pub fn push_chunk_head(out: &mut Vec<u8>, len: usize) {
    debug_assert_ne!(len, 0);
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = len;
    while rest > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Appends one whole chunk; nothing if there is no data.
pub fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        push_chunk_head(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
}

/// What closes a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk with no trailers: what ends a body that is complete, and only that.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the last chunk with these trailer lines, each ended by CR LF.
pub fn push_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
