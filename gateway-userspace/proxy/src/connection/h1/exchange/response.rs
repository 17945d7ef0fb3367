//! The second half of an exchange: the response on its way to the client, and what is left when it is over.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::super::{Next, tunnel};
use super::{End, Exchange, Failed, Switched};
use crate::connection::attempt::Attempt;
use crate::connection::inbound::{Inbound, client_io, download_error};
use crate::connection::relay::{Framing, Relay, RelayError};
use crate::error::{Kind, ProxyError, Side};
use crate::h1::{BodyDecoder, BodyOut, EncodedResponse, ResponsePlan, encode_response};

/// A response on its way to the client.
pub(super) struct Answering {
    attempt: Attempt,
    download: Relay,
    encoded: EncodedResponse,
}

impl Exchange<'_> {
    /// Sends a response, its body as it comes.
    pub(super) async fn respond(
        &mut self,
        attempt: Attempt,
        mut inbound: Inbound,
    ) -> Result<End, ProxyError> {
        if !self.work.response.is_upgrade() {
            let answering = self.answer(attempt, inbound);
            return self.stream(answering).await;
        }
        let (head, _) = self.encode_head(&mut inbound);
        self.client.send(&head).await.map_err(client_io)?;
        let early = inbound.buffer;
        Ok(End::Tunnel(Box::new(Switched { attempt, early })))
    }

    /// The response's head as the client is to see it. What remains inbound is the body.
    fn encode_head(&mut self, inbound: &mut Inbound) -> (Vec<u8>, EncodedResponse) {
        self.budget.response_began();
        let head = &self.work.response;
        let downstream = &self.client.downstream;
        let wants_more = self.work.request.keep_alive() && !downstream.is_ending();
        let plan = ResponsePlan {
            edits: &self.filters.response_headers,
            cors: &self.cors,
            date: &downstream.worker.date(),
            http10: self.work.request.is_http10(),
            // A response that comes before the end of the request ends the connection.
            keep_alive: wants_more && !self.uploading && self.upload.is_done(),
        };
        let mut out = std::mem::take(&mut self.work.to_client);
        out.clear();
        let encoded = encode_response(&mut out, &head.view(inbound.buffer.filled()), &plan);
        self.record.answered(head.status());
        inbound.buffer.consume(inbound.head_len);
        (out, encoded)
    }

    /// Begins a response. Once any of it has been sent, the client cannot be told anything else.
    pub(super) fn answer(&mut self, attempt: Attempt, mut inbound: Inbound) -> Answering {
        let (out, encoded) = self.encode_head(&mut inbound);
        let framing = match encoded.body {
            BodyOut::Chunked => Framing::Chunked,
            BodyOut::None | BodyOut::Length | BodyOut::UntilClose => Framing::AsIs,
        };
        let limits = &self.client.downstream.worker.limits().head;
        let decoder = BodyDecoder::of_response(self.work.response.body(), limits);
        self.answerable = false;
        Answering {
            attempt,
            download: Relay::new(out, inbound.buffer, 0, decoder, framing),
            encoded,
        }
    }

    /// Sends what can be sent only as it comes, or as the client takes it.
    pub(super) async fn stream(&mut self, mut answering: Answering) -> Result<End, ProxyError> {
        let streamed = poll_fn(|cx| self.poll_stream(cx, &mut answering)).await;
        let end = self.end(answering, streamed)?;
        if let Some(copies) = &self.upload.copies {
            let limit = copies.time_limit();
            Box::pin(self.finish_copies(limit)).await;
        }
        Ok(end)
    }

    /// All of a response has been sent, or no more can be.
    pub(super) fn end(
        &mut self,
        answering: Answering,
        streamed: Result<(), ProxyError>,
    ) -> Result<End, ProxyError> {
        let Answering {
            attempt,
            download,
            encoded,
        } = answering;
        self.record.bytes_sent = download.body_bytes();
        let begun = download.has_begun();
        let (out, rest) = download.into_parts();
        self.work.to_client = out;
        if let Err(error) = streamed {
            self.cut_off(begun, encoded.body);
            return Err(error);
        }
        if self.upload.is_done() && self.work.response.keep_alive() && rest.is_empty() {
            attempt.keep(&self.client.downstream.worker);
        }
        Ok(End::Response {
            keep: encoded.keep_alive,
        })
    }

    /// A response has failed; `begun` says whether the client has seen any of it.
    #[cold]
    fn cut_off(&mut self, begun: bool, body: BodyOut) {
        if !begun {
            self.answerable = true;
            self.record.status = 0;
            self.record.bytes_sent = 0;
        } else if body == BodyOut::UntilClose {
            // An orderly close would tell this client that the body is complete.
            self.client.stream.reset_on_drop();
        }
    }

    /// Goes on to read the body for its copies alone, when the response was complete before it. Such a response
    /// ends both connections, and the client is told so at once.
    #[cold]
    async fn finish_copies(&mut self, limit: Duration) {
        let (stream, upload) = (&mut self.client.stream, &mut self.upload);
        let mut nowhere = tokio::io::sink();
        let read = async {
            stream.shutdown().await.map_err(RelayError::Source)?;
            let wanted = |upload: &Relay| upload.copies.as_ref().is_some_and(|c| c.are_wanted());
            poll_fn(|cx| match wanted(upload) {
                true => upload.poll(cx, stream, &mut nowhere),
                false => Poll::Ready(Ok(())),
            })
            .await
        };
        // What comes of it shows in the counters of mirrors.
        let _ = tokio::time::timeout(limit, read).await;
    }

    pub(super) fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
        answering: &mut Answering,
    ) -> Poll<Result<(), ProxyError>> {
        let Answering {
            attempt, download, ..
        } = answering;
        let client = &mut *self.client;
        match download.poll(cx, &mut attempt.connection.stream, &mut client.stream) {
            Poll::Ready(result) => return Poll::Ready(result.map_err(download_error)),
            Poll::Pending => {}
        }
        if let Poll::Ready(Err(error)) = self.poll_upload(cx, attempt) {
            return Poll::Ready(Err(error));
        }
        if !self.uploading
            && self
                .client
                .poll_left(cx, &mut self.upload.buffer)
                .is_ready()
        {
            return Poll::Ready(Err(ProxyError::new(Side::Downstream, Kind::Closed)));
        }
        let time = &self.client.downstream.worker.limits().time;
        let (limit, stalled) = match download.is_writing() {
            true => (time.write_stall, (Side::Downstream, Kind::WriteTimeout)),
            false => (time.body_idle, (Side::Upstream, Kind::BodyTimeout)),
        };
        // One's progress is enough: either body may pause while the other moves.
        let moved = download.take_moved() | self.upload.take_moved();
        if moved || self.stall_ms == u64::MAX {
            self.stall_ms = self.client.deadline.timers().at(limit);
            self.budget.arm_at(&self.client.deadline, self.stall_ms);
        }
        let over = self.budget.poll_over(cx, &self.client.deadline, stalled);
        over.map(Err)
    }

    /// The exchange has ended in order.
    pub(in super::super) fn finish(self, keep: bool) -> Next {
        self.record.bytes_received = self.upload.body_bytes();
        let (out, rest) = self.upload.into_parts();
        self.work.to_upstream = out;
        match keep {
            true => Next::Request(Some(rest).filter(|rest| !rest.is_empty())),
            false => Next::Close,
        }
    }

    /// Copies bytes from now on, until either side ends.
    pub(in super::super) async fn tunnel(self, switched: Box<Switched>) -> Next {
        let Switched { attempt, early } = *switched;
        let (_, late) = self.upload.into_parts();
        let upstream = attempt.connection.stream;
        tunnel::run(self.client, upstream, late, early, self.record).await
    }

    /// No response came, or not all of one.
    pub(in super::super) fn fail(self, error: ProxyError) -> Failed {
        self.record.bytes_received = self.upload.body_bytes();
        let body_end = self.upload.is_sealed().then(|| self.upload.rest_at());
        let (out, buffer) = self.upload.into_storage();
        self.work.to_upstream = out;
        Failed {
            error,
            buffer,
            body_end,
            answerable: self.answerable,
        }
    }
}
