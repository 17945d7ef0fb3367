//! HTTP/2 on a client's connection: the h2 crate keeps frames, windows and streams in order, each
//! stream is a task of the same worker that drives its upstream's socket itself, and one flush of the
//! connection carries what all of them have to say.

mod answer;
mod body;
mod frames;
mod guard;
mod io;
mod outbox;
mod ping;
mod stream;
mod upload;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection, Handshake};

use super::client::Client;
use crate::buffer::Buffer;
use crate::downstream::Downstream;
use crate::head::Violation;
use crate::limits::Limits;
use crate::timers::Deadline;
pub(crate) use guard::IdleTasks;
use guard::StreamState;
use io::{Reads, WatchedIo};
use outbox::Outbox;
use ping::Pings;

/// What the streams of one connection share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) downstream: Downstream,
    /// Streams being served.
    active: Cell<usize>,
    streams: Cell<u64>,
    /// Streams that the client reset before their answer was complete, and soon after their start.
    resets: Cell<u64>,
    /// Bytes of heads on their way to backends.
    held_bytes: Cell<usize>,
    outbox: Rc<Outbox>,
    farewell: Cell<Farewell>,
    /// When an idle connection ends, or the grace of one that has been told to go.
    idle: Deadline,
}

/// Serves a connection to its end. `first` is what has been read already.
pub(super) async fn serve(client: Box<Client>, first: Option<Buffer>) {
    let Client {
        downstream,
        stream,
        deadline,
    } = *client;
    let worker = Rc::clone(&downstream.worker);
    let limits = worker.limits();
    deadline.set(limits.time.first_byte);
    let stall = worker.timers.deadline();
    let io = WatchedIo::new(stream, first, stall, limits.time.write_stall);
    let session = Rc::new(Session {
        downstream,
        active: Cell::new(0),
        streams: Cell::new(0),
        resets: Cell::new(0),
        held_bytes: Cell::new(0),
        outbox: io.outbox(),
        farewell: Cell::new(Farewell::NotDue),
        idle: deadline,
    });
    let mut serving = Serving {
        reads: io.reads(),
        stage: Stage::Opening(builder(limits).handshake(io)),
        session,
        accepted: 0,
        refused: 0,
        head: None,
    };
    poll_fn(|cx| serving.poll(cx)).await;
}

fn builder(limits: &Limits) -> Builder {
    let http2 = &limits.http2;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(http2.concurrent_streams)
        .initial_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_frame_size(http2.frame_bytes)
        .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
        .header_table_size(http2.header_table_bytes)
        .max_send_buffer_size(http2.send_buffer)
        .max_pending_accept_reset_streams(http2.pending_accept_resets)
        .max_local_error_reset_streams(Some(http2.local_error_resets));
    builder
}

/// A connection being served.
struct Serving {
    stage: Stage,
    session: Rc<Session>,
    /// What is known of the reads from the client.
    reads: Rc<Reads>,
    /// Requests' heads that the h2 crate has handed on, and that it has refused itself.
    accepted: u64,
    refused: u64,
    /// The header block that is under way, by its number, and until when it may be.
    head: Option<(u64, Deadline)>,
}

enum Stage {
    /// The client's preface is awaited.
    Opening(Handshake<WatchedIo, Bytes>),
    Open(Connection<WatchedIo, Bytes>, Option<Pings>),
}

/// The GOAWAY of a connection that is to end while its streams are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    NotDue,
    /// The client has only come, and has a grace for its first request: many take a request for failed
    /// that they were about to send when the GOAWAY came.
    WithFirstStream,
    /// In a grace that follows it: the client may not have heard. The h2 crate ends it as soon as the client
    /// confirms, and waits for that without limit.
    Said,
    /// That grace is over: new streams are refused.
    Over,
    /// The last word has been said, and is to be written.
    Last,
}

/// What is to be done with a connection.
enum Fate {
    Lives,
    /// GOAWAY, now.
    Ends,
    /// GOAWAY with this reason, and the end whatever is under way.
    CutOff(Reason),
}

impl Serving {
    /// Ready at the connection's end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reads.may_have_come();
        loop {
            if let Poll::Ready(ended) = self.poll_stage(cx) {
                if let Err(error) = ended {
                    // What came after it in the same read was not judged.
                    if !error.is_io() {
                        self.count_refused(1);
                    }
                    let peer = self.session.downstream.peer;
                    tracing::debug!(%peer, %error, "http/2 connection failed");
                }
                return Poll::Ready(());
            }
            if self.session.outbox.call() {
                cx.waker().wake_by_ref();
            }
            let fate = match self.session.poll_end(cx) {
                Fate::Lives if self.is_head_late(cx) => self.give_up_head(),
                fate => fate,
            };
            match (fate, &mut self.stage) {
                (Fate::Lives, _) => return Poll::Pending,
                // Its GOAWAY is written when it is polled.
                (Fate::Ends, Stage::Open(connection, _)) => connection.graceful_shutdown(),
                (Fate::CutOff(reason), Stage::Open(connection, _)) => {
                    connection.abrupt_shutdown(reason);
                }
                (_, Stage::Opening(_)) => return Poll::Ready(()),
            }
        }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if let Stage::Opening(handshake) = &mut self.stage {
            let mut connection = ready!(Pin::new(handshake).poll(cx))?;
            let worker = &self.session.downstream.worker;
            let pings = connection
                .ping_pong()
                .map(|pings| Pings::new(pings, worker, Rc::clone(&self.reads)));
            self.stage = Stage::Open(connection, pings);
            self.session.restart_idle();
        }
        let Stage::Open(connection, pings) = &mut self.stage else {
            return Poll::Pending;
        };
        if pings.as_mut().is_some_and(|pings| !pings.poll(cx)) {
            tracing::debug!(peer = %self.session.downstream.peer, "http/2 client answers no ping");
            return Poll::Ready(Ok(()));
        }
        // What one read has brought has come at one time.
        let mut began = None;
        loop {
            let accepted = match connection.poll_accept(cx) {
                Poll::Ready(Some(accepted)) => accepted,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if self.reads.is_dry() {
                        self.count_refused(u64::MAX);
                    }
                    return Poll::Pending;
                }
            };
            let (request, mut respond) = accepted?;
            self.accepted += 1;
            if self.session.takes_no_more() {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            let began = *began.get_or_insert_with(Instant::now);
            guard::spawn(&self.session, request, respond, began);
        }
    }

    /// Whether the client takes too long for a header block, before whose end no other frame may come (RFC 9113 §4.3).
    /// While nothing is read, for nothing can be written, what is missing may be this side's to read.
    fn is_head_late(&mut self, cx: &Context<'_>) -> bool {
        let Some(block) = self.reads.open_block() else {
            self.head = None;
            return false;
        };
        let worker = &self.session.downstream.worker;
        if self.head.as_ref().is_none_or(|(known, _)| *known != block) {
            let deadline = worker.timers.deadline();
            deadline.set(worker.limits().time.head);
            self.head = Some((block, deadline));
        }
        let Some((_, deadline)) = &self.head else {
            return false;
        };
        deadline.register(cx);
        deadline.is_expired()
            && self.reads.is_dry()
            && self.session.farewell.get() != Farewell::Last
    }

    fn give_up_head(&self) -> Fate {
        let downstream = &self.session.downstream;
        tracing::debug!(peer = %downstream.peer, "http/2 header block takes too long");
        downstream.worker.counters.timeouts_downstream.up();
        self.session.cut_off(Reason::ENHANCE_YOUR_CALM)
    }

    /// Counts the heads that the h2 crate has refused itself, once it has judged all that came, or `most` of them.
    fn count_refused(&mut self, most: u64) {
        let refused = self.reads.heads().saturating_sub(self.accepted);
        let new = refused.saturating_sub(self.refused).min(most);
        self.refused += new;
        // Streams that come after a GOAWAY are passed over, and may be sent again elsewhere.
        let stays = matches!(
            self.session.farewell.get(),
            Farewell::NotDue | Farewell::WithFirstStream
        );
        if stays && new > 0 {
            let downstream = &self.session.downstream;
            tracing::debug!(peer = %downstream.peer, "http/2 head refused below");
            downstream.worker.counters.refusals[Violation::Http2Head].add(new);
        }
    }
}

impl Session {
    /// A new stream, served under this deadline.
    fn begin(self: &Rc<Self>, deadline: &Rc<Deadline>, began: Instant) -> StreamState {
        self.downstream.count_request();
        self.downstream.worker.counters.requests_http2.up();
        self.streams.set(self.streams.get() + 1);
        self.active.set(self.active.get() + 1);
        StreamState::new(self, deadline, began)
    }

    /// A stream has ended, maybe because the client `reset` it early.
    fn end(&self, reset: bool) {
        self.active.set(self.active.get() - 1);
        self.resets.set(self.resets.get() + u64::from(reset));
        if self.active.get() == 0 {
            self.restart_idle();
        }
    }

    /// No stream is being served.
    fn restart_idle(&self) {
        match self.farewell.get() {
            Farewell::NotDue => {
                let limit = self.downstream.worker.limits().time.keep_alive;
                self.idle.set(limit);
            }
            // The connection looks at once whether it can end.
            Farewell::Over => self.idle.set(Duration::ZERO),
            Farewell::WithFirstStream | Farewell::Said | Farewell::Last => {}
        }
    }

    /// Whether a stream that comes now has come too late.
    fn takes_no_more(&self) -> bool {
        matches!(self.farewell.get(), Farewell::Over | Farewell::Last)
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Fate {
        self.idle.register(cx);
        if self.farewell.get() == Farewell::Last {
            return Fate::Lives;
        }
        if self.is_abused() {
            self.downstream.worker.counters.http2_abuse.up();
            return self.cut_off(Reason::ENHANCE_YOUR_CALM);
        }
        let is_unused = self.active.get() == 0;
        let is_ending = self.downstream.is_ending();
        let grace = self.downstream.worker.limits().time.drain_grace;
        match self.farewell.get() {
            Farewell::NotDue | Farewell::WithFirstStream
                if (is_unused && self.idle.is_expired())
                    || (is_ending && self.streams.get() > 0) =>
            {
                self.farewell.set(Farewell::Said);
                self.idle.set(grace);
                return Fate::Ends;
            }
            Farewell::NotDue if is_ending => {
                self.farewell.set(Farewell::WithFirstStream);
                self.idle.set(grace);
            }
            Farewell::Said if self.idle.is_expired() => self.farewell.set(Farewell::Over),
            _ => {}
        }
        if self.farewell.get() == Farewell::Over && is_unused && self.outbox.is_written() {
            return self.cut_off(Reason::NO_ERROR);
        }
        Fate::Lives
    }

    fn cut_off(&self, reason: Reason) -> Fate {
        self.farewell.set(Farewell::Last);
        Fate::CutOff(reason)
    }

    /// Whether most of its streams were reset as soon as they had come.
    fn is_abused(&self) -> bool {
        let sample = self.downstream.worker.limits().http2.reset_sample;
        self.streams.get() >= sample && self.resets.get() * 2 > self.streams.get()
    }
}
