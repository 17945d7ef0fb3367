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
use crate::connection::trailers;
use crate::error::{Kind, ProxyError, Side};
use crate::h1::{BodyKind, CHUNK_END, push_chunk_head, push_last_chunk, push_line};
use crate::head::{Violation, bytes, is_trailer_allowed};
use crate::limits::HeadLimits;
use crate::upstream::{Http2Stream, UpstreamStream};

/// A head longer than this is not kept until the response comes.
const LARGE_HEAD_BYTES: usize = 2 * 1024;

/// A head and the body that follows it.
pub(super) struct Upload {
    head: Vec<u8>,
    written: usize,
    /// Whether the end of the body has been produced.
    ended: bool,
    moved: bool,
    /// Whether something was written since the stream was last flushed.
    unflushed: bool,
    /// What most requests have none of; the many that wait for a response stay small without it.
    more: Option<Box<More>>,
}

/// A body, and what is to be done with it besides.
#[derive(Default)]
struct More {
    data: Bytes,
    tail: &'static [u8],
    trailers: Option<HeaderMap>,
    /// What trailers are held to, and the rule that they have broken.
    limits: HeadLimits,
    refused: Option<Violation>,
    /// What is still to come from the client.
    body: Option<RecvStream>,
    has_body: bool,
    chunked: bool,
    /// How long the client said that the body is.
    length: Option<u64>,
    /// Whether the head has gone, and with it the chance to send it again.
    begun_body: bool,
    received: u64,
    /// What has been sent, as long as it is to be kept.
    kept: Option<Kept>,
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
    /// The client has broken a rule.
    Malformed(Violation),
    /// The upstream's connection.
    Upstream,
}

impl UploadError {
    /// Why there is no response to wait for; an endpoint that takes no more may still answer.
    pub(super) fn fault(self) -> Option<ProxyError> {
        match self {
            Self::Client(error) => {
                Some(ProxyError::new(Side::Downstream, Kind::Closed).because(error))
            }
            Self::Malformed(violation) => Some(ProxyError::downstream(violation)),
            Self::Upstream => None,
        }
    }
}

impl From<h2::Error> for UploadError {
    fn from(error: h2::Error) -> Self {
        Self::Client(error)
    }
}

impl Upload {
    /// An upload of `head` and, unless `kind` says that there is none, of `body`.
    pub(super) fn new(
        head: Vec<u8>,
        kind: BodyKind,
        body: RecvStream,
        limits: &HeadLimits,
    ) -> Self {
        Self {
            head,
            written: 0,
            ended: kind == BodyKind::None,
            moved: false,
            unflushed: false,
            more: More::new(kind, body, limits),
        }
    }

    /// Sends these too, once the client's body is known.
    pub(super) fn copy_to(&mut self, copies: Option<Box<Copies>>) {
        if copies.is_some() {
            self.more.get_or_insert_default().copies = copies;
        }
    }

    /// Goes on to read the body for the copies alone, when the answer was complete before it.
    pub(super) fn finish_copies(&mut self) {
        if let Some(more) = &mut self.more
            && let (Some(copies), Some(body)) = (more.copies.take(), more.body.take())
        {
            tokio::task::spawn_local(follow(body, more.left(), copies));
        }
    }

    /// Body bytes so far.
    pub(super) fn received(&self) -> u64 {
        self.more.as_ref().map_or(0, |more| more.received)
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
        if let Some(left) = limit.checked_sub(self.head.len()) {
            self.more.get_or_insert_default().kept = Some(Kept {
                head: self.head.clone(),
                data: Vec::new(),
                left,
            });
        }
    }

    /// Whether everything that has been sent is still in hand.
    pub(super) fn is_replayable(&self) -> bool {
        match &self.more {
            Some(more) if more.kept.is_some() => true,
            Some(more) if more.has_body => false,
            _ => !self.head.is_empty(),
        }
    }

    /// Gives up a large head that has been written, for the client decides how long it is kept.
    pub(super) fn forget_large_head(&mut self) -> bool {
        let kept = self.more.as_ref().is_some_and(|more| more.kept.is_some());
        let large = !kept && self.is_done() && self.head.len() > LARGE_HEAD_BYTES;
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
        if let Some(more) = &mut self.more
            && let Some(kept) = &more.kept
        {
            self.head.clone_from(&kept.head);
            self.ended = !more.has_body;
            more.data = Bytes::new();
            more.tail = b"";
            more.again = kept.data.iter().cloned().collect();
            more.begun_body = false;
        }
    }

    /// The storage of the head.
    pub(super) fn into_storage(self) -> Vec<u8> {
        self.head
    }

    /// How much there is to write of what is in hand.
    fn len(&self) -> usize {
        let more = self.more.as_ref();
        self.head.len() + more.map_or(0, |more| more.data.len() + more.tail.len())
    }

    fn is_written(&self) -> bool {
        self.written == self.len() && !self.unflushed
    }

    /// Moves what can be moved; ready when all is written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut UpstreamStream,
    ) -> Poll<Result<(), UploadError>> {
        if self.more.is_some() {
            return self.poll_with_more(cx, upstream);
        }
        let sent = ready!(self.poll_write_all(cx, upstream));
        Poll::Ready(sent.map_err(|_| UploadError::Upstream))
    }

    fn poll_with_more(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut UpstreamStream,
    ) -> Poll<Result<(), UploadError>> {
        if let Some(violation) = self.more.as_ref().and_then(|more| more.refused) {
            return Poll::Ready(Err(UploadError::Malformed(violation)));
        }
        let http1 = upstream.http2().is_none();
        loop {
            self.send_copies();
            // Frames go from stream to stream as they are; HTTP/1.1 gets them as its own framing.
            let begun_body = self.more.as_ref().is_some_and(|more| more.begun_body);
            let direct = upstream.http2().filter(|_| begun_body);
            let framed = direct.is_none();
            let sent = match direct {
                Some(stream) => ready!(self.poll_send(cx, stream)),
                None => ready!(self.poll_write_all(cx, upstream)),
            };
            sent.map_err(|_| UploadError::Upstream)?;
            // To HTTP/1.1 the length says it all; HTTP/2 is told of the end, or of trailers, when they come.
            self.ended |= http1 && self.more.as_ref().is_none_or(|more| more.is_told());
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            let framed = framed && http1;
            match ready!(self.poll_next(cx)) {
                Some(Ok(data)) => self.take(data, framed),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.end(framed),
            }
        }
    }

    fn send_copies(&mut self) {
        if let Some(more) = &mut self.more
            && more.is_whole()
            && let Some(copies) = more.copies.take()
        {
            copies.send();
        }
    }

    /// The next data: what is to be sent again, then the client's.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadError>>> {
        let Some(more) = &mut self.more else {
            return Poll::Ready(None);
        };
        if let Some(data) = more.again.pop_front() {
            return Poll::Ready(Some(Ok(data)));
        }
        if let Some(body) = &mut more.body {
            if let Some(data) = ready!(body.poll_data(cx)).transpose()? {
                self.moved = true;
                // What has been taken is written before more is asked for: the window may open again.
                body.flow_control().release_capacity(data.len())?;
                more.note(&data);
                return Poll::Ready(Some(Ok(data)));
            }
            if let Some(trailers) = ready!(body.poll_trailers(cx))? {
                if let Err(violation) = trailers::check(&trailers, &more.limits) {
                    more.refused = Some(violation);
                    return Poll::Ready(Some(Err(UploadError::Malformed(violation))));
                }
                more.trailers = Some(passing(trailers));
            }
            more.body = None;
            self.moved = true;
        }
        Poll::Ready(None)
    }

    /// Sends what there is to a stream that takes it as it is.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Http2Stream,
    ) -> Poll<io::Result<()>> {
        let Some(more) = &mut self.more else {
            return Poll::Ready(Ok(()));
        };
        let last = more.has_come();
        let ends = self.ended || last && more.again.is_empty() && more.trailers.is_none();
        while !more.data.is_empty() {
            ready!(stream.poll_send(cx, &mut more.data, ends))?;
            self.moved = true;
        }
        if ends {
            self.ended = true;
            more.body = None;
            stream.end(more.trailers.clone())?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut UpstreamStream,
    ) -> Poll<io::Result<()>> {
        while self.written < self.len() {
            ready!(self.poll_write(cx, upstream))?;
        }
        if self.unflushed {
            ready!(Pin::new(upstream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: Bytes, framed: bool) {
        let more = self.more.get_or_insert_default();
        more.begun_body = true;
        more.tail = b"";
        self.head.clear();
        self.written = 0;
        if framed && more.chunked && !data.is_empty() {
            push_chunk_head(&mut self.head, data.len());
            more.tail = CHUNK_END;
        }
        more.data = data;
    }

    fn end(&mut self, framed: bool) {
        self.ended = true;
        self.take(Bytes::new(), framed);
        if let Some(more) = &self.more
            && framed
            && more.chunked
        {
            let mut lines = Vec::new();
            for (name, value) in more.trailers.iter().flatten() {
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
        let upstream = Pin::new(upstream);
        let n = match &self.more {
            None => {
                let left = self.head.get(self.written..).unwrap_or_default();
                ready!(upstream.poll_write(cx, left))?
            }
            Some(more) => {
                let mut skip = self.written;
                let parts = [&self.head[..], &more.data[..], more.tail].map(|part| {
                    let skipped = skip.min(part.len());
                    skip -= skipped;
                    &part[skipped..]
                });
                match parts {
                    [only, [], []] => ready!(upstream.poll_write(cx, only))?,
                    parts => ready!(upstream.poll_write_vectored(cx, &parts.map(IoSlice::new)))?,
                }
            }
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

impl More {
    /// For a body; none for none.
    fn new(kind: BodyKind, body: RecvStream, limits: &HeadLimits) -> Option<Box<Self>> {
        let length = match kind {
            BodyKind::None => return None,
            BodyKind::Length(length) => Some(length),
            BodyKind::Chunked | BodyKind::UntilClose => None,
        };
        Some(Box::new(Self {
            body: Some(body),
            has_body: true,
            chunked: kind == BodyKind::Chunked,
            length,
            limits: *limits,
            ..Self::default()
        }))
    }

    /// How many bytes are still to come, if the client has said so.
    fn left(&self) -> Option<u64> {
        self.length
            .map(|length| length.saturating_sub(self.received))
    }

    /// Whether the client's stream has ended.
    fn has_come(&self) -> bool {
        self.body.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// Whether all data has come from the client. The end of the stream may be told later, and by itself.
    fn is_whole(&self) -> bool {
        self.left() == Some(0) || self.has_come()
    }

    /// Whether as much is in hand as the length says.
    fn is_told(&self) -> bool {
        self.again.is_empty() && self.left() == Some(0)
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
