//! A response's body as bytes of its own, for those who do not write it to a socket themselves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::net::TcpStream;

use super::attempt::Attempt;
use super::relay::RelayError;
use crate::buffer::Buffer;
use crate::h1::{BodyDecoder, BodyKind, ResponseHead};
use crate::head::{Violation, is_trailer_allowed};
use crate::limits::HeadLimits;
use crate::worker::Worker;

/// A response's body as its upstream sends it.
pub(super) struct Download {
    attempt: Attempt,
    /// Kept only while there is something in it.
    held: Option<Buffer>,
    decoder: BodyDecoder,
    done: bool,
    keep_alive: bool,
    waiting: bool,
}

impl Download {
    pub(super) fn new(
        attempt: Attempt,
        buffer: Buffer,
        head: &ResponseHead,
        limits: &HeadLimits,
    ) -> Self {
        let mut decoder = BodyDecoder::new(head.body(), limits);
        if let BodyDecoder::Chunked(chunked) = &mut decoder {
            chunked.keep_trailers();
        }
        Self {
            attempt,
            held: Some(buffer),
            done: head.body() == BodyKind::None,
            decoder,
            keep_alive: head.keep_alive(),
            waiting: false,
        }
    }

    /// The whole body, if it has arrived already and its length was told beforehand.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let buffer = self.held.as_mut()?;
        let BodyDecoder::Length(left) = self.decoder else {
            return None;
        };
        if buffer.len() as u64 != left {
            return None;
        }
        let bytes = Bytes::copy_from_slice(buffer.filled());
        self.held = None;
        self.done = true;
        Some(bytes)
    }

    /// Gives the connection back, if the response ended in order.
    pub(super) fn release(self, worker: &Worker) {
        let extra = self.held.is_some_and(|held| !held.is_empty());
        if self.keep_alive && self.done && !extra {
            self.attempt.keep(worker);
        }
    }

    /// The endpoint's stream, to send the rest of the request on.
    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.attempt.connection.stream
    }

    /// Whether the endpoint is waited for since the last poll only.
    pub(super) fn begins_waiting(&mut self) -> bool {
        !std::mem::replace(&mut self.waiting, true)
    }

    /// The next bytes of the body; nothing at its end.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
    ) -> Poll<Result<Option<Bytes>, RelayError>> {
        while !self.done {
            if let Some(bytes) = self.decode().map_err(RelayError::Malformed)? {
                self.waiting = false;
                return Poll::Ready(Ok(Some(bytes)));
            }
            if self.done {
                break;
            }
            let mut buffer = worker.buffers.lend();
            let stream = Pin::new(&mut self.attempt.connection.stream);
            match ready!(buffer.poll_fill(cx, stream)).map_err(RelayError::Source)? {
                0 => {
                    self.decoder.end_of_input().map_err(RelayError::Malformed)?;
                    self.done = true;
                }
                _ => self.held = Some(buffer),
            }
        }
        Poll::Ready(Ok(None))
    }

    /// The next run of data of what is held.
    fn decode(&mut self) -> Result<Option<Bytes>, Violation> {
        while let Some(buffer) = &mut self.held {
            let step = self.decoder.step(buffer.filled())?;
            let data = &buffer.filled()[step.data];
            let data = (!data.is_empty()).then(|| Bytes::copy_from_slice(data));
            buffer.consume(step.consumed);
            self.done = step.end;
            if buffer.is_empty() {
                self.held = None;
            }
            if data.is_some() || self.done {
                return Ok(data);
            }
        }
        Ok(None)
    }

    /// The trailers that may pass.
    pub(super) fn trailers(&self) -> Option<HeaderMap> {
        let BodyDecoder::Chunked(decoder) = &self.decoder else {
            return None;
        };
        let mut trailers = HeaderMap::new();
        for line in decoder.trailers().split(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = memchr::memchr(b':', line) else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
                && is_trailer_allowed(name.as_str())
            {
                trailers.append(name, value);
            }
        }
        (!trailers.is_empty()).then_some(trailers)
    }
}
