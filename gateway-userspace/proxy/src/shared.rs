//! What all workers of one proxy share: settings, figures, and the counts that limits are about.
//! Touched once for each connection, never for a request.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::admission::Admission;
use crate::log::LogSink;
use crate::overload::Overload;
use crate::settings::Settings;
use crate::stats::{Counters, Stats};
use crate::worker::{Command, WorkerHandle};

/// Shared by the workers and the proxy's owner.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) admission: Arc<Admission>,
    pub(crate) log: LogSink,
    pub(crate) overload: Arc<Overload>,
    counters: Vec<Arc<Counters>>,
    /// How the workers reach each other, once all have started.
    inboxes: OnceLock<Vec<mpsc::WeakUnboundedSender<Command>>>,
}

impl Shared {
    pub(crate) fn new(mut settings: Settings) -> io::Result<Self> {
        let workers = settings.workers.get();
        let limits = &mut settings.limits;
        // Each connection may need a second descriptor towards a backend.
        let total = &mut limits.connections.total;
        *total = (*total).min(percent_of_descriptors(45));
        let sessions = &mut limits.datagram.sessions;
        *sessions = (*sessions).min(percent_of_descriptors(5));
        Ok(Self {
            log: LogSink::start(&settings)?,
            overload: Overload::watch(&settings.limits.memory),
            admission: Admission::new(settings.limits.connections.clone()),
            settings,
            counters: (0..workers).map(|_| Arc::default()).collect(),
            inboxes: OnceLock::new(),
        })
    }

    /// Lets the workers reach each other.
    pub(crate) fn introduce(&self, workers: &[WorkerHandle]) {
        let inboxes = workers.iter().map(WorkerHandle::inbox).collect();
        let _ = self.inboxes.set(inboxes);
    }

    /// Sends a command to one of the workers, if it is still there.
    pub(crate) fn tell(&self, worker: u16, command: Command) {
        let inbox = self
            .inboxes
            .get()
            .and_then(|all| all.get(usize::from(worker)));
        if let Some(inbox) = inbox.and_then(mpsc::WeakUnboundedSender::upgrade) {
            let _ = inbox.send(command);
        }
    }

    /// The figures of one worker, which alone writes them.
    pub(crate) fn counters(&self, worker: usize) -> Arc<Counters> {
        Arc::clone(&self.counters[worker])
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.counters.iter().for_each(|c| stats.include(c));
        stats.access_log_dropped += self.log.unwritten();
        stats
    }
}

/// Some of the file descriptors this process may open; never less than 16.
fn percent_of_descriptors(percent: usize) -> usize {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let open_files = open_files.and_then(|limit| usize::try_from(limit).ok());
    open_files.map_or(usize::MAX, |limit| (limit / 100 * percent).max(16))
}
