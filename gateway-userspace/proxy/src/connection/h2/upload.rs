//! A request on its way from an HTTP/2 stream to an upstream.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWrite;

use crate::connection::mirror::Copies;
use crate::h1::{BodyKind, CHUNK_END, push_chunk_head, push_last_chunk, push_line};
use crate::head::{bytes, is_trailer_allowed};
use crate::upstream::{Http2Stream, UpstreamStream};

/// A head longer than this is not kept until the response comes.
const LARGE_HEAD_BYTES: usize = 2 * 1024;

/// A head and the body that follows it.
pub(super) struct Upload {
    head: Vec<u8>,
    data: Bytes,
    tail: &'static [u8],
    written: usize,
    trailers: Option<HeaderMap>,
    /// What is still to come from the client.
    body: Option<RecvStream>,
    has_body: bool,
    chunked: bool,
    /// How long the client said that the body is.
    length: Option<u64>,
    /// Whether the head has gone, and with it the chance to send it again.
    begun_body: bool,
    /// Whether the end of the body has been produced.
    ended: bool,
    received: u64,
    moved: bool,
    /// Whether something was written since the stream was last flushed.
    unflushed: bool,
    /// What has been sent, as long as it is to be kept.
    kept: Option<Box<Kept>>,
    /// What is to be sent again before the client's next.
    again: VecDeque<Bytes>,
    /// Copies to send once the body is known, whatever has become of it upstream.
    copies: Option<Box<Copies>>,
}

/// A head and data that have been sent, up to a limit.
struct Kept {
    head: Vec<u8>,
    data: Vec<Bytes>,
    left: usize,
}

/// What ended an upload.
pub(super) enum UploadError {
    /// The client's stream.
    Client(h2::Error),
    /// The upstream's connection.
    Upstream,
}

impl Upload {
    /// An upload of `head` and, unless `kind` says that there is none, of `body`.
    pub(super) fn new(head: Vec<u8>, kind: BodyKind, body: RecvStream) -> Self {
        Self {
            head,
            data: Bytes::new(),
            tail: b"",
            written: 0,
            trailers: None,
            body: Some(body).filter(|_| kind != BodyKind::None),
            has_body: kind != BodyKind::None,
            chunked: kind == BodyKind::Chunked,
            length: match kind {
                BodyKind::Length(length) => Some(length),
                _ => None,
            },
            begun_body: false,
            ended: kind == BodyKind::None,
            received: 0,
            moved: false,
            unflushed: false,
            kept: None,
            again: VecDeque::new(),
            copies: None,
        }
    }

    /// Sends these too, once the client's body is known.
    pub(super) fn copy_to(&mut self, copies: Option<Box<Copies>>) {
        self.copies = copies;
    }

    /// Goes on to read the body for the copies alone, when the answer was complete before it.
    pub(super) fn finish_copies(&mut self) {
        if let (Some(copies), Some(body)) = (self.copies.take(), self.body.take()) {
            tokio::task::spawn_local(follow(body, self.left(), copies));
        }
    }

    /// Body bytes so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether everything has been written.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.is_written()
    }

    /// Whether the upstream is waited for, rather than the client.
    pub(super) fn is_writing(&self) -> bool {
        !self.is_written()
    }

    /// Whether bytes have moved since this was last asked.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// How long the head is.
    pub(super) fn head_len(&self) -> usize {
        self.head.len()
    }

    /// Keeps what is sent, up to `limit` bytes of head and body, so that it can be sent again.
    pub(super) fn keep_sent(&mut self, limit: usize) {
        self.kept = limit.checked_sub(self.head.len()).map(|left| {
            Box::new(Kept {
                head: self.head.clone(),
                data: Vec::new(),
                left,
            })
        });
    }

    /// Whether everything that has been sent is still in hand.
    pub(super) fn is_replayable(&self) -> bool {
        self.kept.is_some() || !self.has_body && !self.head.is_empty()
    }

    /// Gives up a large head that has been written, for the client decides how long it is kept.
    pub(super) fn forget_large_head(&mut self) -> bool {
        let large = self.kept.is_none() && self.is_done() && self.head.len() > LARGE_HEAD_BYTES;
        if large {
            self.head = Vec::new();
            self.written = 0;
        }
        large
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
        self.unflushed = false;
        if let Some(kept) = &self.kept {
            self.head.clone_from(&kept.head);
            self.data = Bytes::new();
            self.tail = b"";
            self.again = kept.data.iter().cloned().collect();
            self.begun_body = false;
            self.ended = !self.has_body;
        }
    }

    /// The storage of the head.
    pub(super) fn into_storage(self) -> Vec<u8> {
        self.head
    }

    /// How many bytes are still to come, if the client has said so.
    fn left(&self) -> Option<u64> {
        self.length
            .map(|length| length.saturating_sub(self.received))
    }

    /// Whether all data has come from the client. The end of the stream may be told later, and by itself.
    fn is_whole(&self) -> bool {
        self.left() == Some(0) || self.body.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn is_written(&self) -> bool {
        self.written == self.head.len() + self.data.len() + self.tail.len() && !self.unflushed
    }

    /// Moves what can be moved; ready when all is written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut UpstreamStream,
    ) -> Poll<Result<(), UploadError>> {
        let http1 = upstream.http2().is_none();
        loop {
            if self.copies.is_some() && self.is_whole() {
                self.copies
                    .take()
                    .into_iter()
                    .for_each(|copies| copies.send());
            }
            // Frames go from stream to stream as they are; HTTP/1.1 gets them as its own framing.
            let direct = upstream.http2().filter(|_| self.begun_body);
            let framed = direct.is_none();
            let sent = match direct {
                Some(stream) => ready!(self.poll_send(cx, stream)),
                None => ready!(self.poll_write_all(cx, upstream)),
            };
            sent.map_err(|_| UploadError::Upstream)?;
            // To HTTP/1.1 the length says it all; HTTP/2 is told of the end, or of trailers, when they come.
            self.ended |= http1 && self.again.is_empty() && self.left() == Some(0);
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            let framed = framed && http1;
            match ready!(self.poll_next(cx)) {
                Some(Ok(data)) => self.take(data, framed),
                Some(Err(error)) => return Poll::Ready(Err(UploadError::Client(error))),
                None => self.end(framed),
            }
        }
    }

    /// The next data: what is to be sent again, then the client's.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if let Some(data) = self.again.pop_front() {
            return Poll::Ready(Some(Ok(data)));
        }
        if let Some(body) = &mut self.body {
            if let Some(data) = ready!(body.poll_data(cx)).transpose()? {
                self.moved = true;
                // What has been taken is written before more is asked for: the window may open again.
                body.flow_control().release_capacity(data.len())?;
                self.note(&data);
                return Poll::Ready(Some(Ok(data)));
            }
            self.trailers = ready!(body.poll_trailers(cx))?.map(passing);
            self.moved = true;
            self.body = None;
        }
        Poll::Ready(None)
    }

    /// Data has come from the client.
    fn note(&mut self, data: &Bytes) {
        self.received += data.len() as u64;
        if let Some(copies) = &mut self.copies {
            copies.take(data);
        }
        if let Some(kept) = &mut self.kept {
            match kept.left.checked_sub(data.len()) {
                Some(left) => {
                    kept.left = left;
                    kept.data.push(data.clone());
                }
                None => self.kept = None,
            }
        }
    }

    /// Sends what there is to a stream that takes it as it is.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Http2Stream,
    ) -> Poll<io::Result<()>> {
        let last = self.body.as_ref().is_none_or(RecvStream::is_end_stream);
        let ends = self.ended || last && self.again.is_empty() && self.trailers.is_none();
        while !self.data.is_empty() {
            ready!(stream.poll_send(cx, &mut self.data, ends))?;
            self.moved = true;
        }
        if ends {
            self.ended = true;
            self.body = None;
            stream.end(self.trailers.clone())?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut UpstreamStream,
    ) -> Poll<io::Result<()>> {
        while self.written < self.head.len() + self.data.len() + self.tail.len() {
            ready!(self.poll_write(cx, upstream))?;
        }
        if self.unflushed {
            ready!(Pin::new(upstream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: Bytes, framed: bool) {
        self.begun_body = true;
        self.head.clear();
        self.tail = b"";
        self.written = 0;
        if framed && self.chunked && !data.is_empty() {
            push_chunk_head(&mut self.head, data.len());
            self.tail = CHUNK_END;
        }
        self.data = data;
    }

    fn end(&mut self, framed: bool) {
        self.ended = true;
        self.take(Bytes::new(), framed);
        if framed && self.chunked {
            let mut lines = Vec::new();
            for (name, value) in self.trailers.iter().flatten() {
                push_line(&mut lines, name.as_str(), value.as_bytes());
            }
            push_last_chunk(&mut self.head, &lines);
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut UpstreamStream,
    ) -> Poll<io::Result<()>> {
        let mut skip = self.written;
        let parts = [&self.head[..], &self.data[..], self.tail].map(|part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            &part[skipped..]
        });
        let upstream = Pin::new(upstream);
        let n = match parts {
            [only, [], []] => ready!(upstream.poll_write(cx, only))?,
            parts => ready!(upstream.poll_write_vectored(cx, &parts.map(IoSlice::new)))?,
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += n;
        self.moved = true;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }
}

/// Reads a body to its end, or for as long as a copy may take, and sends the copies.
async fn follow(mut body: RecvStream, mut left: Option<u64>, mut copies: Box<Copies>) {
    let limit = copies.time_limit();
    let read = async {
        while left != Some(0) && copies.are_wanted() {
            let Some(data) = body.data().await.transpose()? else {
                break;
            };
            body.flow_control().release_capacity(data.len())?;
            left = left.map(|left| left.saturating_sub(data.len() as u64));
            copies.take(&data);
        }
        Ok::<_, h2::Error>(())
    };
    if let Ok(Ok(())) = tokio::time::timeout(limit, read).await {
        copies.send();
    }
}

/// The trailers that may pass, in a form that HTTP/1.1 can carry too.
fn passing(trailers: HeaderMap) -> HeaderMap {
    let allowed = |name: &HeaderName, value: &HeaderValue| {
        is_trailer_allowed(name.as_str()) && bytes::is_value(value.as_bytes())
    };
    if trailers.iter().all(|(name, value)| allowed(name, value)) {
        return trailers;
    }
    let mut passing = HeaderMap::new();
    for (name, value) in &trailers {
        if allowed(name, value) {
            passing.append(name.clone(), value.clone());
        }
    }
    passing
}
