//! A response's body as bytes of its own, for those who do not write it to a socket themselves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::attempt::Attempt;
use super::inbound::Inbound;
use super::relay::RelayError;
use super::trailers;
use crate::buffer::Buffer;
use crate::h1::{BodyDecoder, BodyKind, ResponseHead, trailer_map};
use crate::head::{Known, Violation};
use crate::limits::HeadLimits;
use crate::upstream::UpstreamStream;
use crate::worker::Worker;

/// How long a body is, if its head says so.
fn whole_len(head: &ResponseHead) -> Option<u64> {
    match head.body() {
        BodyKind::None => Some(0),
        BodyKind::Length(length) => Some(length),
        BodyKind::Chunked | BodyKind::UntilClose => None,
    }
}

/// The whole body, if `buffer` holds it and nothing besides.
pub(super) fn whole(head: &ResponseHead, buffer: &mut Buffer) -> Option<Bytes> {
    let len = buffer.len();
    let whole = whole_len(head) == Some(len as u64);
    whole.then(|| buffer.take(0..len, len))
}

/// A response's body as its upstream sends it.
pub(super) struct Download {
    attempt: Attempt,
    /// Kept only while there is something in it.
    held: Option<Buffer>,
    decoder: BodyDecoder,
    limits: HeadLimits,
    done: bool,
    keep_alive: bool,
    trailers: Option<HeaderMap>,
    waiting: bool,
}

impl Download {
    pub(super) fn new(
        attempt: Attempt,
        buffer: Buffer,
        head: &ResponseHead,
        limits: &HeadLimits,
    ) -> Self {
        let mut decoder = BodyDecoder::of_response(head.body(), limits);
        if let BodyDecoder::Chunked(chunked) = &mut decoder {
            chunked.keep_trailers();
        }
        Self {
            attempt,
            held: Some(buffer),
            done: head.body() == BodyKind::None,
            decoder,
            limits: *limits,
            keep_alive: head.keep_alive(),
            trailers: None,
            waiting: false,
        }
    }

    /// Throws a response away whose head has been read; keeps the connection if nothing more of it is to
    /// come and the request was sent to its end.
    pub(super) fn discard(
        attempt: Attempt,
        mut inbound: Inbound,
        head: &ResponseHead,
        worker: &Worker,
        uploaded: bool,
    ) {
        inbound.buffer.consume(inbound.head_len);
        let whole = whole_len(head) == Some(inbound.buffer.len() as u64);
        if uploaded && whole && head.keep_alive() {
            attempt.keep(worker);
        }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether trailers have come.
    pub(super) fn has_trailers(&self) -> bool {
        let chunked = matches!(&self.decoder, BodyDecoder::Chunked(decoder) if !decoder.trailers().is_empty());
        chunked || self.trailers.is_some()
    }

    /// Gives the connection back, if the response ended in order.
    pub(super) fn release(self, worker: &Worker) {
        let extra = self.held.is_some_and(|held| !held.is_empty());
        if self.keep_alive && self.done && !extra {
            self.attempt.keep(worker);
        }
    }

    /// The endpoint's stream, to send the rest of the request on.
    pub(super) fn stream(&mut self) -> &mut UpstreamStream {
        &mut self.attempt.connection.stream
    }

    /// Whether the endpoint is waited for since the last poll only.
    pub(super) fn begins_waiting(&mut self) -> bool {
        !std::mem::replace(&mut self.waiting, true)
    }

    /// The next bytes of the body; nothing at its end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RelayError>> {
        if !self.done && self.attempt.connection.stream.http2().is_some() {
            return self.poll_http2(cx);
        }
        while !self.done {
            if let Some(bytes) = self.decode().map_err(RelayError::Malformed)? {
                self.waiting = false;
                return Poll::Ready(Ok(Some(bytes)));
            }
            if self.done {
                break;
            }
            let mut buffer = Buffer::lend_large();
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

    /// The same from a stream that gives the body as it is.
    fn poll_http2(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RelayError>> {
        self.held = None;
        let Some(stream) = self.attempt.connection.stream.http2() else {
            return Poll::Ready(Ok(None));
        };
        if let Some(data) = ready!(stream.poll_data(cx)) {
            self.waiting = false;
            return Poll::Ready(data.map(Some).map_err(RelayError::Source));
        }
        let trailers = ready!(stream.poll_trailers(cx)).map_err(RelayError::Source)?;
        if let Some(trailers) = &trailers {
            trailers::check(trailers, &self.limits).map_err(RelayError::Malformed)?;
        }
        self.trailers = trailers.map(backend_trailers);
        self.done = true;
        Poll::Ready(Ok(None))
    }

    /// The next run of data of what is held.
    fn decode(&mut self) -> Result<Option<Bytes>, Violation> {
        while let Some(buffer) = &mut self.held {
            let step = self.decoder.step(buffer.filled())?;
            let data = buffer.take(step.data, step.consumed);
            self.done = step.end;
            if buffer.is_empty() {
                self.held = None;
            }
            if !data.is_empty() || self.done {
                return Ok(Some(data).filter(|data| !data.is_empty()));
            }
        }
        Ok(None)
    }

    /// The trailers that may pass.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        if let Some(trailers) = self.trailers.take() {
            return Some(trailers);
        }
        let BodyDecoder::Chunked(decoder) = &self.decoder else {
            return None;
        };
        trailer_map(decoder.trailers())
    }
}

/// Trailers of HTTP/2 that may pass. Their names are the backend's own, metadata of gRPC for one, and
/// held only to what HTTP allows.
fn backend_trailers(trailers: HeaderMap) -> HeaderMap {
    let allowed = |name: &HeaderName| {
        let known = Known::of(name.as_str().as_bytes());
        !known.is_end_to_end() && !known.is_hop_by_hop()
    };
    if trailers.keys().all(allowed) {
        return trailers;
    }
    let mut passing = HeaderMap::new();
    for (name, value) in trailers.iter().filter(|(name, _)| allowed(name)) {
        passing.append(name.clone(), value.clone());
    }
    passing
}
