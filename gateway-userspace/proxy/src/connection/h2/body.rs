//! A response on its way to a client, read from its upstream as fast as the client's window lets it go.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_model::snapshot::CompiledRule;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;

use super::Session;
use super::guard::StreamState;
use super::upload::Upload;
use crate::connection::budget::Budget;
use crate::connection::download::Download;
use crate::connection::inbound::download_error;
use crate::connection::record::Record;
use crate::error::{Kind, ProxyError, Side};

/// A response's body.
pub(super) enum ResponseBody {
    /// In hand.
    Whole(Bytes),
    /// On its way.
    Streamed(Box<Streamed>),
}

/// What is left of a response that has begun; nothing when all of it has gone.
pub(super) type Begun = Result<Option<Rest>, h2::Error>;

/// A body that is still to be sent.
pub(super) struct Rest {
    out: SendStream<Bytes>,
    body: ResponseBody,
}

/// A body on its way, and everything that ends with it.
pub(super) struct Streamed {
    pub(super) session: Rc<Session>,
    /// None once the response is over.
    pub(super) download: Option<Download>,
    /// What is still to be sent of the request.
    pub(super) upload: Option<Upload>,
    pub(super) budget: Budget,
    pub(super) rule: Option<Arc<CompiledRule>>,
    pub(super) record: Option<Record>,
    /// What waits for the client's window.
    pub(super) data: Bytes,
}

/// Sends a response, as far as nothing has to be waited for.
pub(super) fn begin(
    state: &StreamState,
    respond: &RefCell<SendResponse<Bytes>>,
    head: Response<()>,
    body: ResponseBody,
) -> Begun {
    let mut respond = respond.borrow_mut();
    let data = match body {
        ResponseBody::Whole(data) if data.is_empty() => {
            respond.send_response(head, true)?;
            return Ok(None);
        }
        ResponseBody::Whole(data) => data,
        body @ ResponseBody::Streamed(_) => {
            let out = respond.send_response(head, false)?;
            return Ok(Some(Rest { out, body }));
        }
    };
    let mut out = respond.send_response(head, false)?;
    if state.session.outbox.has_room() {
        out.reserve_capacity(data.len());
        if out.capacity() >= data.len() {
            state.hand_over(data.len());
            out.send_data(data, true)?;
            return Ok(None);
        }
    }
    let body = ResponseBody::Whole(data);
    Ok(Some(Rest { out, body }))
}

impl Rest {
    /// Sends it to its end, or until the client no longer wants it or takes nothing for too long.
    pub(super) async fn send(mut self, state: &StreamState) -> Result<(), h2::Error> {
        poll_fn(|cx| {
            let sent = match &mut self.body {
                ResponseBody::Whole(data) => poll_data(cx, &mut self.out, data, true, state, None),
                ResponseBody::Streamed(body) => body.poll(cx, &mut self.out, state),
            };
            match sent {
                Poll::Ready(sent) => Poll::Ready(sent),
                Poll::Pending => {
                    state.pass_turn();
                    state.poll_stalled(cx).map(Ok)
                }
            }
        })
        .await
    }
}

/// Sends data as the client's window and the other streams allow; ready when all of it has gone, with an end if it
/// is the last.
fn poll_data(
    cx: &mut Context<'_>,
    out: &mut SendStream<Bytes>,
    data: &mut Bytes,
    last: bool,
    state: &StreamState,
    budget: Option<&Budget>,
) -> Poll<Result<(), h2::Error>> {
    while !data.is_empty() {
        ready!(poll_turn(cx, out, state, budget))?;
        state.go_on(budget);
        out.reserve_capacity(data.len());
        match out.capacity() {
            0 => match ready!(out.poll_capacity(cx)) {
                Some(room) => drop(room?),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            },
            room if room < data.len() => {
                state.hand_over(room);
                out.send_data(data.split_to(room), false)?;
                state.wait_anew(budget);
            }
            _ => {
                state.hand_over(data.len());
                out.send_data(std::mem::take(data), last)?;
            }
        }
    }
    Poll::Ready(Ok(()))
}

/// Ready when the stream may hand something over, or nobody wants it any more.
fn poll_turn(
    cx: &mut Context<'_>,
    out: &mut SendStream<Bytes>,
    state: &StreamState,
    budget: Option<&Budget>,
) -> Poll<Result<(), h2::Error>> {
    if state.poll_turn(cx, budget).is_ready() {
        return Poll::Ready(Ok(()));
    }
    let reset = ready!(out.poll_reset(cx));
    Poll::Ready(reset.and_then(|reason| Err(reason.into())))
}

impl Streamed {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut SendStream<Bytes>,
        state: &StreamState,
    ) -> Poll<Result<(), h2::Error>> {
        if let Poll::Ready(reset) = out.poll_reset(cx) {
            return Poll::Ready(reset.map(drop));
        }
        loop {
            self.poll_upload(cx);
            let Some(download) = &self.download else {
                return Poll::Ready(Ok(()));
            };
            let last = download.is_done() && !download.has_trailers();
            let had_data = !self.data.is_empty();
            let budget = Some(&self.budget);
            ready!(poll_data(cx, out, &mut self.data, last, state, budget))?;
            if last && had_data {
                self.finish(state);
                return Poll::Ready(Ok(()));
            }
            // What could not be handed over is not read.
            ready!(poll_turn(cx, out, state, Some(&self.budget)))?;
            match ready!(self.poll_download(cx, state)) {
                Ok(true) => {}
                Ok(false) => {
                    let trailers = self.download.as_mut().and_then(Download::take_trailers);
                    match trailers {
                        Some(trailers) => out.send_trailers(trailers)?,
                        None => out.send_data(Bytes::new(), true)?,
                    }
                    self.finish(state);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => {
                    self.fail(error);
                    state.ended.set(true);
                    out.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Sends what there is of the request.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let (Some(upload), Some(download)) = (&mut self.upload, &mut self.download)
            && upload.poll(cx, download.stream()).is_ready()
            // A client that stops sending, or an endpoint that takes no more, ends only this half.
            && upload.is_done()
        {
            self.upload = None;
        }
    }

    /// Reads what comes next of the response; false at its end.
    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        state: &StreamState,
    ) -> Poll<Result<bool, ProxyError>> {
        let Some(download) = &mut self.download else {
            return Poll::Ready(Ok(false));
        };
        let worker = &self.session.downstream.worker;
        match download.poll(cx) {
            Poll::Pending => self.poll_over(cx, state).map(Err),
            Poll::Ready(Ok(Some(data))) => {
                if let Some(record) = &mut self.record {
                    record.bytes_sent += data.len() as u64;
                }
                let stall = worker.limits().time.write_stall;
                self.budget.arm(&state.deadline, Some(stall));
                self.data = data;
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(Ok(false)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(download_error(error))),
        }
    }

    fn poll_over(&mut self, cx: &mut Context<'_>, state: &StreamState) -> Poll<ProxyError> {
        let time = &self.session.downstream.worker.limits().time;
        let limit = self.budget.body_idle(time);
        let moved = self.upload.as_mut().is_some_and(Upload::take_moved);
        let waits = self.download.as_mut().is_some_and(Download::begins_waiting);
        if moved || waits || state.goes_on() {
            self.budget.arm(&state.deadline, Some(limit));
        }
        let stalled = (Side::Upstream, Kind::BodyTimeout);
        self.budget.poll_over(cx, &state.deadline, stalled)
    }

    /// The response is complete.
    fn finish(&mut self, state: &StreamState) {
        state.ended.set(true);
        let worker = &self.session.downstream.worker;
        match (self.download.take(), self.upload.take()) {
            (Some(download), None) => download.release(worker),
            (_, Some(mut upload)) => upload.finish_copies(),
            (None, None) => {}
        }
        self.end();
    }

    fn fail(&mut self, error: ProxyError) {
        if let Some(record) = &mut self.record {
            record.error = Some(error);
        }
        self.download = None;
        self.end();
    }

    fn end(&mut self) {
        if let Some(record) = self.record.take() {
            record.end(&self.session.downstream, self.rule.as_deref());
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
