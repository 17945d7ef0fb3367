//! What all workers of one proxy share: settings, figures, and the counts that limits are about.
//! Touched once for each connection, never for a request.

use std::io;
use std::sync::Arc;

use crate::admission::Admission;
use crate::log::LogSink;
use crate::overload::Overload;
use crate::settings::Settings;
use crate::stats::{Counters, Stats};

/// Shared by the workers and the proxy's owner.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) admission: Arc<Admission>,
    pub(crate) log: LogSink,
    pub(crate) overload: Arc<Overload>,
    counters: Vec<Arc<Counters>>,
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
        })
    }

    /// The figures of one worker, which alone writes them.
    pub(crate) fn counters(&self, worker: usize) -> Arc<Counters> {
        Arc::clone(&self.counters[worker])
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.counters.iter().for_each(|c| stats.include(c));
        stats
    }
}

/// Some of the file descriptors this process may open; never less than 16.
fn percent_of_descriptors(percent: usize) -> usize {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let open_files = open_files.and_then(|limit| usize::try_from(limit).ok());
    open_files.map_or(usize::MAX, |limit| (limit / 100 * percent).max(16))
}
