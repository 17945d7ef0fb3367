//! A request on its way from an HTTP/2 stream to an HTTP/1.1 upstream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::connection::mirror::Copies;
use crate::h1::{BodyKind, CHUNK_END, LAST_CHUNK, push_chunk_head};

/// A head longer than this is not kept until the response comes.
const LARGE_HEAD_BYTES: usize = 2 * 1024;

/// A head and the body that follows it.
pub(super) struct Upload {
    head: Vec<u8>,
    data: Bytes,
    tail: &'static [u8],
    written: usize,
    body: Option<Incoming>,
    chunked: bool,
    /// Whether the head has gone, and with it the chance to send it again.
    begun_body: bool,
    received: u64,
    moved: bool,
    /// Copies to send once the body is known.
    pub(super) copies: Option<Box<Copies>>,
}

/// What ended an upload.
pub(super) enum UploadError {
    /// The client's stream.
    Client(hyper::Error),
    /// The upstream's connection.
    Upstream,
}

impl Upload {
    /// An upload of `head` and, unless `kind` says that there is none, of `body`.
    pub(super) fn new(head: Vec<u8>, kind: BodyKind, body: Incoming) -> Self {
        Self {
            head,
            data: Bytes::new(),
            tail: b"",
            written: 0,
            body: Some(body).filter(|_| kind != BodyKind::None),
            chunked: kind == BodyKind::Chunked,
            begun_body: false,
            received: 0,
            moved: false,
            copies: None,
        }
    }

    /// Body bytes so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether everything has been written.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.is_written()
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

    /// Whether all of it is still in hand.
    pub(super) fn is_replayable(&self) -> bool {
        !self.begun_body && self.body.is_none() && !self.head.is_empty()
    }

    /// Gives up a large head that has been written, for the client decides how long it is kept.
    pub(super) fn forget_large_head(&mut self) -> bool {
        let large = self.is_done() && self.head.len() > LARGE_HEAD_BYTES;
        if large {
            self.head = Vec::new();
            self.written = 0;
        }
        large
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
    }

    /// The storage of the head.
    pub(super) fn into_storage(self) -> Vec<u8> {
        self.head
    }

    fn is_written(&self) -> bool {
        self.written == self.head.len() + self.data.len() + self.tail.len()
    }

    /// Moves what can be moved; ready when all is written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut TcpStream,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            while !self.is_written() {
                let written = ready!(self.poll_write(cx, upstream));
                written.map_err(|_| UploadError::Upstream)?;
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(Ok(()));
            };
            let frame = ready!(Pin::new(body).poll_frame(cx));
            self.moved = true;
            match frame {
                Some(Ok(frame)) => self.take(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Poll::Ready(Err(UploadError::Client(error))),
                None => {
                    self.body = None;
                    self.take(Bytes::new());
                    self.tail = if self.chunked { LAST_CHUNK } else { b"" };
                }
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        self.begun_body = true;
        self.received += data.len() as u64;
        if let Some(copies) = &mut self.copies {
            copies.take(&data);
        }
        self.head.clear();
        self.tail = b"";
        self.written = 0;
        if self.chunked && !data.is_empty() {
            push_chunk_head(&mut self.head, data.len());
            self.tail = CHUNK_END;
        }
        self.data = data;
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut TcpStream,
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
        Poll::Ready(Ok(()))
    }
}
