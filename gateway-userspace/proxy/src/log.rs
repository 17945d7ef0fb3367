//! Access log lines on their way out: gathered by each worker, written by one thread. A writer that
//! falls behind costs lines, which are counted, and never a request's time.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use crate::access_log::{AccessRecord, push_line};
use crate::settings::{AccessLogFormat, AccessLogOutput, Settings};
use crate::stats::Counters;

/// Lines are handed over when they reach this size, and at every tick.
const BATCH_BYTES: usize = 16 * 1024;

/// Batches that may wait for the writer: 4 MiB.
const WAITING_BATCHES: usize = 256;

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct LogSink(Option<SyncSender<Parcel>>);

#[derive(Debug)]
enum Parcel {
    Lines(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
}

impl LogSink {
    /// Starts the writer, if there is anything to write.
    pub(crate) fn start(settings: &Settings) -> io::Result<Self> {
        if settings.access_log == AccessLogFormat::Off {
            return Ok(Self(None));
        }
        let output: Box<dyn Write + Send> = match &settings.access_log_output {
            AccessLogOutput::Stdout => Box::new(io::stdout()),
            AccessLogOutput::File(path) => {
                let file: File = OpenOptions::new().create(true).append(true).open(path)?;
                Box::new(file)
            }
        };
        let (sender, parcels) = sync_channel(WAITING_BATCHES);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(output, &parcels))?;
        Ok(Self(Some(sender)))
    }

    /// Returns when everything handed over so far is written.
    pub(crate) async fn flush(&self) {
        if let Some(sender) = &self.0 {
            let (done, written) = oneshot::channel();
            if sender.try_send(Parcel::Flush(done)).is_ok() {
                let _ = written.await;
            }
        }
    }
}

fn write(mut output: Box<dyn Write + Send>, parcels: &Receiver<Parcel>) {
    while let Ok(parcel) = parcels.recv() {
        match parcel {
            Parcel::Lines(lines) => {
                if let Err(error) = output.write_all(&lines).and_then(|()| output.flush()) {
                    tracing::warn!(%error, "cannot write the access log");
                }
            }
            Parcel::Flush(done) => drop(done.send(())),
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
        let Some(sink) = self.sink.0.as_ref().filter(|_| !lines.is_empty()) else {
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
