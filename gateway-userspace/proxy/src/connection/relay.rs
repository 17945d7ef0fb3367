//! One direction of an exchange: a head, then a body from one peer's stream to the other's, with
//! backpressure: nothing more is read before what was read is written.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::mirror::Copies;
use crate::buffer::{BUFFER_BYTES, Buffer};
use crate::h1::{BodyDecoder, CHUNK_END, push_chunk, push_chunk_head, push_last_chunk};
use crate::head::Violation;

/// Up to this much is copied together for one `send`; above, `sendmsg` gathers.
const COPIED_BYTES: usize = BUFFER_BYTES;

/// The end of a chunk's data and the last chunk.
const DATA_END_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What ended a relay.
#[derive(Debug)]
pub(super) enum RelayError {
    /// The sender's connection failed.
    Source(io::Error),
    /// The sender broke the body's framing, or ended in the middle of it.
    Malformed(Violation),
    /// The receiver's connection failed.
    Sink(io::Error),
}

/// One direction.
#[derive(Debug)]
pub(super) struct Relay {
    /// The sender's buffer. Its first `keep` bytes stay where they are.
    pub(super) buffer: Buffer,
    keep: usize,
    /// Where in the buffer the bytes begin that the decoder has not seen.
    at: usize,
    decoder: BodyDecoder,
    framing: Framing,
    out: Outgoing,
    /// Whether everything has been produced, if not yet written.
    sealed: bool,
    /// Whether the buffer has been read into, so that what was sent first is lost.
    refilled: bool,
    /// Whether something was written since the receiver's stream was last flushed.
    unflushed: bool,
    /// Whether something was read or written since this was last asked.
    moved: bool,
    /// Whether anything has ever been written.
    begun: bool,
    /// What is wrong with the body, behind what is still to be written.
    fault: Option<Violation>,
    body_bytes: u64,
    /// What has been written, as long as it is to be kept.
    log: Option<Log>,
    /// Copies to send once the body is known, whatever has become of it at the receiver.
    pub(super) copies: Option<Box<Copies>>,
}

/// What has been written, up to a limit.
#[derive(Debug)]
struct Log {
    bytes: Vec<u8>,
    limit: usize,
}

/// How the receiver is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length, or by closing the connection.
    AsIs,
    /// Chunked.
    Chunked,
}

/// Bytes on their way out: some of our own, then some of the sender's buffer, then some of our own.
#[derive(Debug, Default)]
struct Outgoing {
    head: Vec<u8>,
    /// Where the borrowed bytes begin in the buffer, and how many they are.
    data_at: usize,
    data_len: usize,
    tail: &'static [u8],
    written: usize,
}

impl Relay {
    /// A relay of `head`, then of the body that begins in `buffer` after `keep` bytes which stay there.
    pub(super) fn new(
        head: Vec<u8>,
        buffer: Buffer,
        keep: usize,
        decoder: BodyDecoder,
        framing: Framing,
    ) -> Self {
        let mut relay = Self {
            buffer,
            keep,
            at: keep,
            sealed: decoder.is_done(),
            decoder,
            framing,
            out: Outgoing {
                head,
                ..Outgoing::default()
            },
            refilled: false,
            unflushed: false,
            moved: false,
            begun: false,
            fault: None,
            body_bytes: 0,
            log: None,
            copies: None,
        };
        if relay.sealed && framing == Framing::Chunked {
            push_last_chunk(&mut relay.out.head, b"");
        }
        relay
    }

    /// Whether all is written.
    pub(super) fn is_done(&self) -> bool {
        self.sealed && self.out.is_empty() && !self.unflushed
    }

    /// Whether the receiver is waited for, rather than the sender.
    pub(super) fn is_writing(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// Whether the receiver has been sent anything.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether bytes have moved since this was last asked.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Body bytes so far, without framing.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Keeps what is written from now on, up to `limit` bytes, so that it can be written again.
    pub(super) fn keep_written(&mut self, limit: usize) {
        let bytes = Vec::new();
        self.log = Some(Log { bytes, limit });
    }

    /// Whether everything that has been sent is still in hand.
    pub(super) fn is_replayable(&self) -> bool {
        self.log.is_some() || self.sealed && !self.refilled
    }

    /// Begins anew with everything that is in hand.
    pub(super) fn rewind(&mut self) {
        self.unflushed = false;
        let Some(log) = &mut self.log else {
            self.out.written = 0;
            return;
        };
        let mut again = std::mem::take(&mut log.bytes);
        let rest = self.out.written..self.out.len();
        self.out.copy(&mut again, self.buffer.filled(), rest);
        self.out.reset();
        self.out.head = again;
    }

    /// Where in the buffer the bytes begin that are not of this body.
    pub(super) fn rest_at(&self) -> usize {
        self.at
    }

    /// Whether everything there is to send has been read and produced, sent or not.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Takes it apart: the storage of the head, and the whole buffer.
    pub(super) fn into_storage(self) -> (Vec<u8>, Buffer) {
        (self.out.head, self.buffer)
    }

    /// Takes it apart: the storage of the head, and the buffer with what is not of this body.
    pub(super) fn into_parts(mut self) -> (Vec<u8>, Buffer) {
        self.buffer.consume(self.at);
        (self.out.head, self.buffer)
    }

    /// Moves what can be moved; ready when all is written.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
    ) -> Poll<Result<(), RelayError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if let Err(violation) = self.take_ready_data() {
                self.break_off(violation)?;
            }
            if self.sealed && self.copies.is_some() {
                self.copies
                    .take()
                    .into_iter()
                    .for_each(|copies| copies.send());
            }
            while !self.out.is_empty() {
                ready!(self.poll_write(cx, sink)).map_err(RelayError::Sink)?;
            }
            if self.unflushed {
                ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(RelayError::Sink)?;
                self.unflushed = false;
            }
            if let Some(violation) = self.fault {
                return Poll::Ready(Err(RelayError::Malformed(violation)));
            }
            if self.sealed {
                return Poll::Ready(Ok(()));
            }
            self.out.reset();
            if self.at == self.buffer.len() {
                ready!(self.poll_read(cx, source))?;
            }
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
    ) -> Poll<io::Result<()>> {
        let from = self.out.written;
        let n = ready!(self.out.poll_write(cx, sink, self.buffer.filled()))?;
        if let Some(log) = &mut self.log {
            let fits = log.bytes.len() + n <= log.limit;
            self.out
                .copy(&mut log.bytes, self.buffer.filled(), from..from + n);
            if !fits {
                self.log = None;
            }
        }
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.moved = true;
        self.begun = true;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
    ) -> Poll<Result<(), RelayError>> {
        let was_full = self.buffer.is_full();
        self.buffer.truncate(self.keep);
        self.at = self.keep;
        if was_full && self.body_bytes > 0 {
            self.buffer.enlarge();
        }
        let n = ready!(self.buffer.poll_fill(cx, Pin::new(source))).map_err(RelayError::Source)?;
        self.moved = true;
        self.refilled = true;
        if n == 0 {
            self.decoder.end_of_input().map_err(RelayError::Malformed)?;
            self.seal(b"");
        }
        Poll::Ready(Ok(()))
    }

    /// The body is broken. What came before that is still the receiver's, unless it has been sent nothing at
    /// all and may be spared a message that will not be whole.
    #[cold]
    fn break_off(&mut self, violation: Violation) -> Result<(), RelayError> {
        if !self.begun {
            return Err(RelayError::Malformed(violation));
        }
        self.at = self.buffer.len();
        self.fault = Some(violation);
        Ok(())
    }

    /// Produces output from what is in the buffer, unless output is waiting.
    fn take_ready_data(&mut self) -> Result<(), Violation> {
        let fresh = self.out.written == 0 && self.out.data_len == 0;
        if self.sealed || !fresh || self.at == self.buffer.len() {
            return Ok(());
        }
        if matches!(self.decoder, BodyDecoder::Chunked(_)) {
            return self.take_chunks();
        }
        let step = self.decoder.step(&self.buffer.filled()[self.at..])?;
        self.body_bytes += step.data.len() as u64;
        if let Some(copies) = &mut self.copies {
            copies.take(&self.buffer.filled()[self.at..][step.data.clone()]);
        }
        if self.framing == Framing::Chunked && !step.data.is_empty() {
            push_chunk_head(&mut self.out.head, step.data.len());
            self.out.tail = if step.end {
                DATA_END_LAST_CHUNK
            } else {
                CHUNK_END
            };
        }
        self.out
            .borrow(self.buffer.filled(), self.at, step.data.len());
        self.at += step.consumed;
        self.sealed = step.end;
        Ok(())
    }

    /// Chunks are many and small: they are copied together.
    fn take_chunks(&mut self) -> Result<(), Violation> {
        while self.at < self.buffer.len() && !self.sealed {
            let input = &self.buffer.filled()[self.at..];
            let step = self.decoder.step(input)?;
            let data = &input[step.data];
            self.body_bytes += data.len() as u64;
            if let Some(copies) = &mut self.copies {
                copies.take(data);
            }
            match self.framing {
                Framing::AsIs => self.out.head.extend_from_slice(data),
                Framing::Chunked if data.is_empty() => {}
                Framing::Chunked => push_chunk(&mut self.out.head, data),
            }
            self.at += step.consumed;
            if step.end {
                let trailers = match &self.decoder {
                    BodyDecoder::Chunked(decoder) => decoder.trailers().to_vec(),
                    _ => Vec::new(),
                };
                self.seal(&trailers);
            }
        }
        Ok(())
    }

    fn seal(&mut self, trailers: &[u8]) {
        if self.framing == Framing::Chunked {
            push_last_chunk(&mut self.out.head, trailers);
        }
        self.sealed = true;
    }
}

impl Outgoing {
    fn len(&self) -> usize {
        self.head.len() + self.data_len + self.tail.len()
    }

    fn is_empty(&self) -> bool {
        self.written == self.len()
    }

    /// Appends this range of the bytes.
    fn copy(&self, to: &mut Vec<u8>, buffer: &[u8], range: Range<usize>) {
        let data = &buffer[self.data_at..self.data_at + self.data_len];
        let mut at = 0;
        for part in [&self.head[..], data, self.tail] {
            let from = range.start.saturating_sub(at).min(part.len());
            let end = range.end.saturating_sub(at).min(part.len());
            to.extend_from_slice(&part[from..end]);
            at += part.len();
        }
    }

    fn reset(&mut self) {
        self.head.clear();
        self.data_len = 0;
        self.tail = b"";
        self.written = 0;
    }

    /// Adds bytes of the sender's buffer: copied when few, so that one plain `send` suffices.
    fn borrow(&mut self, buffer: &[u8], at: usize, len: usize) {
        if self.head.is_empty() && self.tail.is_empty() || self.head.len() + len > COPIED_BYTES {
            (self.data_at, self.data_len) = (at, len);
        } else {
            self.head.extend_from_slice(&buffer[at..at + len]);
            self.head.extend_from_slice(self.tail);
            self.tail = b"";
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let data = &buffer[self.data_at..self.data_at + self.data_len];
        let mut skip = self.written;
        let parts = [&self.head[..], data, self.tail].map(|part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            &part[skipped..]
        });
        let mut sink = Pin::new(sink);
        let n = match parts {
            [only, [], []] | [[], only, []] | [[], [], only] => {
                ready!(sink.as_mut().poll_write(cx, only))?
            }
            parts => ready!(
                sink.as_mut()
                    .poll_write_vectored(cx, &parts.map(IoSlice::new))
            )?,
        };
        self.written += n;
        Poll::Ready(Ok(n))
    }
}
