//! The body of a response, read from its upstream as fast as the client's window lets it go.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_model::snapshot::CompiledRule;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::guard::StreamState;
use super::upload::Upload;
use crate::buffer::Buffer;
use crate::connection::attempt::Attempt;
use crate::connection::budget::Budget;
use crate::connection::inbound::download_error;
use crate::connection::record::Record;
use crate::connection::relay::RelayError;
use crate::error::{Kind, ProxyError, Side};
use crate::h1::{BodyDecoder, BodyKind, ResponseHead};
use crate::head::is_trailer_allowed;
use crate::limits::HeadLimits;
use crate::worker::Worker;

/// A response's body.
pub(super) enum ResponseBody {
    /// In hand.
    Whole(Bytes),
    /// On its way.
    Streamed(Box<Streamed>),
}

/// A body on its way, and everything that ends with it.
pub(super) struct Streamed {
    state: Rc<StreamState>,
    /// None once the response is over.
    download: Option<Download>,
    /// What is still to be sent of the request.
    upload: Option<Upload>,
    budget: Budget,
    rule: Option<Arc<CompiledRule>>,
    record: Option<Record>,
}

impl ResponseBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }

    pub(super) fn streamed(
        state: Rc<StreamState>,
        download: Download,
        upload: Option<Upload>,
        budget: Budget,
        rule: Option<Arc<CompiledRule>>,
        record: Record,
    ) -> Self {
        Self::Streamed(Box::new(Streamed {
            state,
            download: Some(download),
            upload,
            budget,
            rule,
            record: Some(record),
        }))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(streamed) => streamed.download.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(_) => SizeHint::default(),
        }
    }
}

impl Streamed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(download) = &mut self.download else {
            return Poll::Ready(None);
        };
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(_) = upload.poll(cx, &mut download.attempt.connection.stream)
        {
            // A client that stops sending, or an endpoint that takes no more, ends only this half.
            if upload.is_done() {
                self.upload = None;
            }
        }
        let worker = Rc::clone(&self.state.session.downstream.worker);
        match download.poll(cx, &worker) {
            Poll::Pending => self.poll_over(cx),
            Poll::Ready(Ok(Some(data))) => {
                if let Some(record) = &mut self.record {
                    record.bytes_sent += data.len() as u64;
                }
                self.budget
                    .arm(&self.state.deadline, Some(worker.limits().time.write_stall));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Ok(None)) => {
                Poll::Ready(self.finish(&worker).map(|t| Ok(Frame::trailers(t))))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(self.fail(download_error(error))))),
        }
    }

    fn poll_over(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let limit = self.state.session.downstream.worker.limits().time.body_idle;
        let moved = self.upload.as_mut().is_some_and(Upload::take_moved);
        let waits = self.download.as_mut().is_some_and(Download::begins_waiting);
        if moved || waits {
            self.budget.arm(&self.state.deadline, Some(limit));
        }
        let stalled = (Side::Upstream, Kind::BodyTimeout);
        let error = ready!(self.budget.poll_over(cx, &self.state.deadline, stalled));
        Poll::Ready(Some(Err(self.fail(error))))
    }

    /// The body is complete; gives its trailers.
    fn finish(&mut self, worker: &Worker) -> Option<HeaderMap> {
        let download = self.download.take()?;
        let trailers = download.trailers();
        self.state.complete.set(true);
        if self.upload.is_none() {
            download.release(worker);
        }
        self.end();
        trailers
    }

    fn fail(&mut self, error: ProxyError) -> ProxyError {
        let kind = ProxyError::new(error.side, error.kind);
        if let Some(record) = &mut self.record {
            record.error = Some(error);
        }
        self.download = None;
        self.end();
        kind
    }

    fn end(&mut self) {
        if let Some(record) = self.record.take() {
            record.end(&self.state.session.downstream, self.rule.as_deref());
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if let Some(record) = &mut self.record {
            record.error = Some(ProxyError::new(Side::Downstream, Kind::Closed));
            self.end();
        }
    }
}

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

    /// Whether the endpoint is waited for since the last poll only.
    fn begins_waiting(&mut self) -> bool {
        !std::mem::replace(&mut self.waiting, true)
    }

    /// The next bytes of the body; nothing at its end.
    fn poll(
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
    fn decode(&mut self) -> Result<Option<Bytes>, crate::head::Violation> {
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
    fn trailers(&self) -> Option<HeaderMap> {
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
