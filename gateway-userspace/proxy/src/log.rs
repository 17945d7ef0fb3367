//! Access log lines on their way out: gathered by each worker, written by one thread. A writer that
//! falls behind costs lines, which are counted, and never a request's time.

mod output;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use crate::access_log::{AccessRecord, push_line};
use crate::settings::{AccessLogFormat, Settings};
use crate::stats::Counters;

use output::Output;

/// Lines are handed over when they reach this size, and at every tick.
const BATCH_BYTES: usize = 16 * 1024;

/// Batches that may wait for the writer: 4 MiB.
const WAITING_BATCHES: usize = 256;

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct LogSink {
    sender: Option<SyncSender<Parcel>>,
    /// Lines that the writer could not write.
    unwritten: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Parcel {
    Lines(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
}

impl LogSink {
    /// Starts the writer, if there is anything to write.
    pub(crate) fn start(settings: &Settings) -> io::Result<Self> {
        let unwritten = Arc::default();
        if settings.access_log == AccessLogFormat::Off {
            let sender = None;
            return Ok(Self { sender, unwritten });
        }
        let output = Output::open(&settings.access_log_output)?;
        let (sender, parcels) = sync_channel(WAITING_BATCHES);
        let lost = Arc::clone(&unwritten);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(output, &parcels, &lost))?;
        let sender = Some(sender);
        Ok(Self { sender, unwritten })
    }

    /// How many lines could not be written so far.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten.load(Relaxed)
    }

    /// Returns when everything handed over so far is written.
    pub(crate) async fn flush(&self) {
        if let Some(sender) = &self.sender {
            let (done, written) = oneshot::channel();
            if sender.try_send(Parcel::Flush(done)).is_ok() {
                let _ = written.await;
            }
        }
    }
}

fn write(mut output: Output, parcels: &Receiver<Parcel>, lost: &AtomicU64) {
    // Since when lines are lost: how many had been before.
    let mut failing = None;
    while let Ok(parcel) = parcels.recv() {
        let lines = match parcel {
            Parcel::Lines(lines) => lines,
            Parcel::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let before = lost.load(Relaxed);
        match (output.write(&lines), failing) {
            (Ok(()), None) => {}
            (Ok(()), Some(since)) => {
                failing = None;
                tracing::info!(lost = before - since, "the access log can be written again");
            }
            (Err(failed), since) => {
                lost.fetch_add(failed.lost, Relaxed);
                if since.is_none() {
                    failing = Some(before);
                    tracing::warn!(error = %failed.error, "cannot write the access log; lines are lost");
                }
            }
        }
    }
}

/// One worker's lines.
#[derive(Debug)]
pub(crate) struct Log {
    format: AccessLogFormat,
    sink: LogSink,
    lines: RefCell<Vec<u8>>,
    counters: Arc<Counters>,
}

impl Log {
    pub(crate) fn new(format: AccessLogFormat, sink: LogSink, counters: Arc<Counters>) -> Self {
        Self {
            format,
            sink,
            lines: RefCell::default(),
            counters,
        }
    }

    /// Whether anything is logged.
    pub(crate) fn is_on(&self) -> bool {
        self.format != AccessLogFormat::Off
    }

    /// Adds a line.
    pub(crate) fn push(&self, record: &AccessRecord<'_>) {
        let mut lines = self.lines.borrow_mut();
        push_line(&mut lines, self.format, record);
        let full = lines.len() >= BATCH_BYTES;
        drop(lines);
        if full {
            self.hand_over();
        }
    }

    /// Hands over what has been gathered.
    pub(crate) fn hand_over(&self) {
        let lines = std::mem::take(&mut *self.lines.borrow_mut());
        let Some(sink) = self.sink.sender.as_ref().filter(|_| !lines.is_empty()) else {
            return;
        };
        if let Err(
            TrySendError::Full(Parcel::Lines(lost))
            | TrySendError::Disconnected(Parcel::Lines(lost)),
        ) = sink.try_send(Parcel::Lines(lines))
        {
            let lost = memchr::memchr_iter(b'\n', &lost).count();
            self.counters.access_log_dropped.add(lost as u64);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.hand_over();
    }
}
