//! One request on an HTTP/2 connection: takes the engine's HTTP/1.1 and gives HTTP/1.1 back.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Place;
use super::head::{self, Delimited};
use crate::h1::{BodyDecoder, BodyKind, CHUNK_END, push_chunk_head, push_last_chunk};
use crate::limits::HeadLimits;

/// Where a request's head ends.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// One request and its response.
pub(crate) struct Http2Stream {
    sending: Sending,
    receiving: Receiving,
    /// Bytes of our own on their way to the reader, and how many of them have gone.
    out: Vec<u8>,
    out_at: usize,
    /// Whether the response ended with its head.
    bodyless: bool,
    /// Who reads before anything was asked.
    reader: Option<Waker>,
    place: Place,
}

enum Sending {
    /// The head, as far as it has been written.
    Head(Vec<u8>),
    Body(Box<Outgoing>),
    Done,
}

struct Outgoing {
    stream: SendStream<Bytes>,
    decoder: BodyDecoder,
    /// What waits for the peer's window.
    pending: Bytes,
    /// Whether the end of the body has been sent.
    ended: bool,
}

enum Receiving {
    Nothing,
    Head(ResponseFuture),
    Body {
        stream: RecvStream,
        delimited: Delimited,
        data: Bytes,
    },
    Done,
    Failed(Option<io::Error>),
}

/// The endpoint has not processed the request: it says so itself, or went away before it.
#[derive(Debug)]
pub(crate) struct Declined(h2::Error);

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "declined before it was processed: {}", self.0)
    }
}

impl std::error::Error for Declined {}

impl fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Stream")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Http2Stream {
    pub(super) fn new(place: Place) -> Self {
        Self {
            sending: Sending::Head(Vec::new()),
            receiving: Receiving::Nothing,
            out: Vec::new(),
            out_at: 0,
            bodyless: false,
            reader: None,
            place,
        }
    }

    /// Whether the response that has begun ended with its head.
    pub(in crate::upstream) fn ended_with_head(&self) -> bool {
        self.bodyless
    }

    /// The next bytes of the response's body, once its head has been read; nothing at its end.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Receiving::Body { stream, data, .. } = &mut self.receiving else {
            return Poll::Ready(None);
        };
        let next = match std::mem::take(data) {
            next if next.is_empty() => ready!(stream.poll_data(cx)),
            next => Some(Ok(next)),
        };
        Poll::Ready(next.map(|next| {
            let next = next.map_err(failure)?;
            // The window opens as fast as the client takes what comes.
            let released = stream.flow_control().release_capacity(next.len());
            released.map_err(failure).map(|()| next)
        }))
    }

    /// The trailers behind the body's end.
    pub(crate) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<HeaderMap>>> {
        let Receiving::Body { stream, .. } = &mut self.receiving else {
            return Poll::Ready(Ok(None));
        };
        let trailers = ready!(stream.poll_trailers(cx)).map_err(failure)?;
        self.receiving = Receiving::Done;
        Poll::Ready(Ok(trailers))
    }

    /// Sends some of the request's body, once its head has been written, as it is; `ends` says that
    /// nothing follows it.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        ends: bool,
    ) -> Poll<io::Result<()>> {
        let Sending::Body(body) = &mut self.sending else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        ready!(body.poll_pending(cx))?;
        ready!(body.poll_send(cx, data, ends))?;
        if ends && data.is_empty() {
            self.sending = Sending::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the request's body, unless it has ended.
    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        let Sending::Body(mut body) = std::mem::replace(&mut self.sending, Sending::Done) else {
            return Ok(());
        };
        let ended = match trailers {
            Some(trailers) => body.stream.send_trailers(trailers),
            None => body.stream.send_data(Bytes::new(), true),
        };
        ended.map_err(failure)
    }

    /// Sends the request's head.
    fn start(&mut self, head: Vec<u8>) -> io::Result<()> {
        let connection = self.place.connection();
        let (request, kind) = head::request(head, connection.https).map_err(io::Error::other)?;
        let ends = kind == BodyKind::None;
        let mut sender = connection.sender.clone();
        let (response, stream) = sender
            .send_request(request, ends)
            .map_err(|error| io::Error::other(Declined(error)))?;
        self.sending = match ends {
            true => Sending::Done,
            false => Sending::Body(Box::new(Outgoing::new(stream, kind))),
        };
        self.receiving = Receiving::Head(response);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    /// Takes what belongs to the head; gives how much that is.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Sending::Head(head) = &mut self.sending else {
            return Ok(0);
        };
        let before = head.len();
        let from = before.saturating_sub(HEAD_END.len() - 1);
        head.extend_from_slice(bytes);
        let Some(at) = memchr::memmem::find(&head[from..], HEAD_END) else {
            return Ok(bytes.len());
        };
        let end = from + at + HEAD_END.len();
        head.truncate(end);
        let head = std::mem::take(head);
        if let Err(error) = self.start(head) {
            // Who writes does not say why it failed; who reads does.
            self.sending = Sending::Done;
            self.receiving = Receiving::Failed(Some(error));
        }
        Ok(end - before)
    }

    /// Reads until there is something for the reader; ready without anything at the end.
    fn poll_produce(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out_at < self.out.len() {
                return Poll::Ready(Ok(()));
            }
            self.out.clear();
            self.out_at = 0;
            match &mut self.receiving {
                Receiving::Nothing => {
                    self.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Receiving::Head(_) => ready!(self.poll_response(cx))?,
                Receiving::Body { data, .. } if !data.is_empty() => return Poll::Ready(Ok(())),
                Receiving::Body { .. } => ready!(self.poll_body(cx))?,
                Receiving::Done => return Poll::Ready(Ok(())),
                Receiving::Failed(error) => {
                    let error = error.take();
                    return Poll::Ready(error.map_or(Ok(()), Err));
                }
            }
        }
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Receiving::Head(response) = &mut self.receiving else {
            return Poll::Ready(Ok(()));
        };
        if let Poll::Ready(Some(informational)) = response.poll_informational(cx) {
            let (head, ()) = informational.map_err(failure)?.into_parts();
            head::push_response(&mut self.out, &head, true);
            return Poll::Ready(Ok(()));
        }
        let response = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response,
            // A connection that ended before the answer, as HTTP/1.1 shows it.
            Err(error) if error.is_io() => {
                self.receiving = Receiving::Done;
                return Poll::Ready(Ok(()));
            }
            Err(error) => return Poll::Ready(Err(failure(error))),
        };
        let (head, stream) = response.into_parts();
        self.bodyless = head::is_bodyless(&head, stream.is_end_stream());
        let delimited = head::push_response(&mut self.out, &head, self.bodyless);
        self.receiving = Receiving::Body {
            stream,
            delimited,
            data: Bytes::new(),
        };
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Receiving::Body {
            stream,
            delimited,
            data,
        } = &mut self.receiving
        else {
            return Poll::Ready(Ok(()));
        };
        let chunked = *delimited == Delimited::Chunked;
        match ready!(stream.poll_data(cx)) {
            Some(next) => {
                *data = next.map_err(failure)?;
                if chunked && !data.is_empty() {
                    push_chunk_head(&mut self.out, data.len());
                }
            }
            None => {
                let trailers = ready!(stream.poll_trailers(cx)).map_err(failure)?;
                self.receiving = Receiving::Done;
                if chunked {
                    let mut lines = Vec::new();
                    if let Some(trailers) = &trailers {
                        head::push_trailers(&mut lines, trailers);
                    }
                    push_last_chunk(&mut self.out, &lines);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the reader what there is of the body's data.
    fn give_data(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let Receiving::Body {
            stream,
            delimited,
            data,
        } = &mut self.receiving
        else {
            return Ok(());
        };
        let n = data.len().min(buf.remaining());
        if n == 0 {
            return Ok(());
        }
        buf.put_slice(&data.split_to(n));
        if data.is_empty() && *delimited == Delimited::Chunked {
            self.out.extend_from_slice(CHUNK_END);
        }
        stream.flow_control().release_capacity(n).map_err(failure)
    }
}

impl Outgoing {
    fn new(stream: SendStream<Bytes>, kind: BodyKind) -> Self {
        // The bytes are the engine's own: they have passed the limits already.
        let limits = HeadLimits {
            bytes: usize::MAX,
            lines: usize::MAX,
            target_bytes: 0,
        };
        let mut decoder = BodyDecoder::new(kind, &limits);
        if let BodyDecoder::Chunked(chunked) = &mut decoder {
            chunked.keep_trailers();
        }
        Self {
            stream,
            decoder,
            pending: Bytes::new(),
            ended: false,
        }
    }

    /// Sends what waits, as far as the peer's window lets it go.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ends = matches!(self.decoder, BodyDecoder::Length(0));
        let mut pending = std::mem::take(&mut self.pending);
        let mut sent = Poll::Ready(Ok(()));
        while !pending.is_empty() && matches!(sent, Poll::Ready(Ok(()))) {
            sent = self.poll_send(cx, &mut pending, ends);
        }
        self.pending = pending;
        if matches!(sent, Poll::Ready(Ok(()))) && self.decoder.is_done() && !self.ended {
            self.ended = true;
            return Poll::Ready(self.end_chunked());
        }
        sent
    }

    /// Sends as much as the peer's window lets go.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        ends: bool,
    ) -> Poll<io::Result<()>> {
        self.stream.reserve_capacity(data.len());
        let room = match ready!(self.stream.poll_capacity(cx)) {
            Some(Ok(room)) => room.min(data.len()),
            Some(Err(error)) => return Poll::Ready(Err(failure(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        if room > 0 {
            let ends = ends && room == data.len();
            let sent = self.stream.send_data(data.split_to(room), ends);
            sent.map_err(failure)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes some of the body; gives how much. Chunks are many and small: their data goes as one.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        let mut data = BytesMut::new();
        let mut ends = false;
        while taken < bytes.len() && !ends {
            let rest = &bytes[taken..];
            let step = self.decoder.step(rest);
            let step = step.map_err(|violation| io::Error::other(violation.to_string()))?;
            data.extend_from_slice(&rest[step.data]);
            taken += step.consumed;
            ends = step.end;
        }
        self.pending = data.freeze();
        Ok(taken)
    }

    /// Ends a chunked body once all of it has been sent; the other ends with its last byte.
    fn end_chunked(&mut self) -> io::Result<()> {
        let BodyDecoder::Chunked(decoder) = &self.decoder else {
            return Ok(());
        };
        let trailers = crate::h1::trailer_map(decoder.trailers());
        match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        }
        .map_err(failure)
    }

    fn is_done(&self) -> bool {
        self.ended
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let taken = match &mut this.sending {
            Sending::Head(_) => return Poll::Ready(this.take_head(buf)),
            Sending::Done => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Sending::Body(body) => {
                ready!(body.poll_pending(cx))?;
                let taken = body.take(buf)?;
                // What finds no room now is sent with the next write or flush.
                if let Poll::Ready(sent) = body.poll_pending(cx) {
                    sent?;
                    if body.is_done() {
                        this.sending = Sending::Done;
                    }
                }
                taken
            }
        };
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Sending::Body(body) = &mut this.sending {
            ready!(body.poll_pending(cx))?;
            if body.is_done() {
                this.sending = Sending::Done;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_produce(cx))?;
        let n = (self.out.len() - self.out_at).min(buf.remaining());
        buf.put_slice(&self.out[self.out_at..self.out_at + n]);
        self.out_at += n;
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
            self.give_data(buf)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream's failure as the engine knows it.
fn failure(error: h2::Error) -> io::Error {
    let declined = error.is_remote()
        && (error.is_go_away()
            || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM));
    if declined {
        return io::Error::other(Declined(error));
    }
    match error.into_io_or_self() {
        Ok(io) => io,
        Err(error) => io::Error::other(error),
    }
}

trait IntoIo: Sized {
    fn into_io_or_self(self) -> Result<io::Error, Self>;
}

impl IntoIo for h2::Error {
    fn into_io_or_self(self) -> Result<io::Error, Self> {
        match self.is_io() {
            true => Ok(self
                .into_io()
                .unwrap_or_else(|| io::ErrorKind::Other.into())),
            false => Err(self),
        }
    }
}
