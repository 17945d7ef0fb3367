//! The body of a response, read from its upstream as fast as the client's window lets it go.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_model::snapshot::CompiledRule;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::guard::StreamState;
use super::upload::Upload;
use crate::connection::budget::Budget;
use crate::connection::download::Download;
use crate::connection::inbound::download_error;
use crate::connection::record::Record;
use crate::error::{Kind, ProxyError, Side};
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
            && let Poll::Ready(_) = upload.poll(cx, download.stream())
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
        let time = &self.state.session.downstream.worker.limits().time;
        let limit = self.budget.body_idle(time);
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
        let mut download = self.download.take()?;
        let trailers = download.take_trailers();
        self.state.complete.set(true);
        match self.upload.take() {
            None => download.release(worker),
            Some(mut upload) => upload.finish_copies(),
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
