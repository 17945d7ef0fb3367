//! How a message body is delimited, and which bytes of a read belong to it.

use super::chunked::{ChunkedDecoder, Step};
use crate::head::Violation;
use crate::limits::HeadLimits;

/// How a body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyKind {
    /// There is none.
    #[default]
    None,
    /// That many bytes, at least one.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Until the connection is closed; responses only.
    UntilClose,
}

/// Finds the body in what is read after the head. Copies nothing.
#[derive(Clone, Debug)]
pub enum BodyDecoder {
    /// So many bytes are left.
    Length(u64),
    /// Chunked. Boxed, for it is the rare and the large one.
    Chunked(Box<ChunkedDecoder>),
    /// Everything until the end of the connection.
    UntilClose,
}

impl BodyDecoder {
    /// A decoder at the start of a body.
    #[must_use]
    pub fn new(kind: BodyKind, limits: &HeadLimits) -> Self {
        match kind {
            BodyKind::None => Self::Length(0),
            BodyKind::Length(length) => Self::Length(length),
            BodyKind::Chunked => Self::Chunked(Box::new(ChunkedDecoder::new(limits))),
            BodyKind::UntilClose => Self::UntilClose,
        }
    }

    /// The same for a response, which may have trailers that a request may not.
    #[must_use]
    pub fn of_response(kind: BodyKind, limits: &HeadLimits) -> Self {
        match kind {
            BodyKind::Chunked => Self::Chunked(Box::new(ChunkedDecoder::of_response(limits))),
            kind => Self::new(kind, limits),
        }
    }

    /// Looks at the next bytes: gives the first run of data in them. Call again with what was not
    /// consumed until all is, or the step says `end`. What remains after the end is the next message's.
    ///
    /// # Errors
    /// The body is broken and must not be forwarded as complete.
    #[inline]
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        match self {
            Self::Length(left) => {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= take as u64;
                Ok(Step {
                    consumed: take,
                    data: 0..take,
                    end: *left == 0,
                })
            }
            Self::Chunked(decoder) => decoder.step(input),
            Self::UntilClose => Ok(Step {
                consumed: input.len(),
                data: 0..input.len(),
                end: false,
            }),
        }
    }

    /// Whether nothing more is to come.
    #[must_use]
    #[inline]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Says that the connection has ended.
    ///
    /// # Errors
    /// [`Violation::Truncated`] if the body was not complete.
    pub fn end_of_input(&self) -> Result<(), Violation> {
        match self {
            Self::UntilClose => Ok(()),
            body if body.is_done() => Ok(()),
            _ => Err(Violation::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn limits() -> HeadLimits {
        Limits::default().head
    }

    #[test]
    fn a_length_is_counted_to_the_byte() {
        let mut body = BodyDecoder::new(BodyKind::Length(5), &limits());
        let step = body.step(b"hel").expect("data");
        assert_eq!((step.consumed, step.data, step.end), (3, 0..3, false));
        assert_eq!(body.end_of_input(), Err(Violation::Truncated));
        let step = body.step(b"loGET").expect("data");
        assert_eq!((step.consumed, step.data, step.end), (2, 0..2, true));
        assert_eq!(body.end_of_input(), Ok(()));
    }

    #[test]
    fn only_a_close_delimited_body_may_end_with_the_connection() {
        let limits = limits();
        for (kind, ends) in [
            (BodyKind::None, true),
            (BodyKind::Length(1), false),
            (BodyKind::Chunked, false),
            (BodyKind::UntilClose, true),
        ] {
            let body = BodyDecoder::new(kind, &limits);
            assert_eq!(body.end_of_input().is_ok(), ends, "{kind:?}");
        }
    }
}
