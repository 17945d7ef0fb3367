//! HTTP/2 on a client's connection: hyper speaks it, each stream is a task of the same worker that
//! drives its upstream's socket itself, and one flush of the connection carries what all of them
//! have to say.

mod body;
mod guard;
mod io;
mod stream;
mod upload;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::client::Client;
use crate::buffer::Buffer;
use crate::downstream::Downstream;
use crate::limits::Limits;
use crate::timers::Deadline;
use guard::{LocalExecutor, StreamState};
use io::WatchedIo;

/// What the streams of one connection share.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) downstream: Downstream,
    /// Streams being served.
    active: Cell<usize>,
    streams: Cell<u64>,
    /// Streams that the client reset before their answer was complete.
    resets: Cell<u64>,
    /// Bytes of heads on their way to backends.
    held_bytes: Cell<usize>,
    /// The stream whose task is about to be spawned.
    starting: RefCell<Option<Rc<StreamState>>>,
    /// When an idle connection ends.
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
    deadline.set(limits.time.keep_alive);
    let session = Rc::new(Session {
        downstream,
        active: Cell::new(0),
        streams: Cell::new(0),
        resets: Cell::new(0),
        held_bytes: Cell::new(0),
        starting: RefCell::default(),
        idle: deadline,
    });
    let stall = worker.timers.deadline();
    let io = TokioIo::new(WatchedIo::new(
        stream,
        first,
        stall,
        limits.time.write_stall,
    ));
    let service = {
        let session = Rc::clone(&session);
        // Boxed: hyper and the executor move it several times before its first poll.
        service_fn(move |request| Box::pin(stream::serve(session.begin(), request)))
    };
    let executor = LocalExecutor::new(&session);
    let mut connection = pin!(builder(executor, limits).serve_connection(io, service));
    let mut told_to_end = false;
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(peer = %session.downstream.peer, %error, "http/2 connection failed");
            }
            return Poll::Ready(());
        }
        match session.poll_end(cx, &mut told_to_end) {
            Fate::Lives => Poll::Pending,
            Fate::Ends => {
                connection.as_mut().graceful_shutdown();
                // The shutdown writes its GOAWAY when polled.
                connection.as_mut().poll(cx).map(drop)
            }
            Fate::CutOff => Poll::Ready(()),
        }
    })
    .await;
}

fn builder(executor: LocalExecutor, limits: &Limits) -> Builder<LocalExecutor> {
    let http2 = &limits.http2;
    let mut builder = Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(http2.concurrent_streams)
        .initial_stream_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_frame_size(http2.frame_bytes)
        .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
        .header_table_size(http2.header_table_bytes)
        .max_send_buf_size(http2.send_buffer)
        .max_pending_accept_reset_streams(http2.pending_accept_resets)
        .max_local_error_reset_streams(http2.local_error_resets)
        .keep_alive_interval(http2.ping_interval)
        .keep_alive_timeout(http2.ping_timeout);
    builder
}

/// What is to be done with a connection.
enum Fate {
    Lives,
    /// GOAWAY, now.
    Ends,
    CutOff,
}

impl Session {
    /// A new stream.
    fn begin(self: &Rc<Self>) -> Rc<StreamState> {
        self.downstream.count_request();
        self.downstream.worker.counters.requests_http2.up();
        self.streams.set(self.streams.get() + 1);
        self.active.set(self.active.get() + 1);
        let state = Rc::new(StreamState::new(self));
        *self.starting.borrow_mut() = Some(Rc::clone(&state));
        state
    }

    /// A stream has ended.
    fn end(&self, complete: bool) {
        self.active.set(self.active.get() - 1);
        if !complete {
            self.resets.set(self.resets.get() + 1);
        }
        if self.active.get() == 0 {
            self.idle
                .set(self.downstream.worker.limits().time.keep_alive);
        }
    }

    fn poll_end(&self, cx: &mut Context<'_>, told_to_end: &mut bool) -> Fate {
        self.idle.register(cx);
        let worker = &self.downstream.worker;
        let sample = worker.limits().http2.reset_sample;
        if self.streams.get() >= sample && self.resets.get() * 2 > self.streams.get() {
            worker.counters.http2_abuse.up();
            return Fate::CutOff;
        }
        let idle = self.active.get() == 0 && self.idle.is_expired();
        if *told_to_end {
            return if idle { Fate::CutOff } else { Fate::Lives };
        }
        if idle || self.downstream.is_ending() {
            *told_to_end = true;
            self.idle.set(worker.limits().time.keep_alive);
            return Fate::Ends;
        }
        Fate::Lives
    }
}
