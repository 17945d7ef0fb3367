//! What all workers of one proxy share: settings, figures, and the counts that limits are about.
//! Touched once for each connection, never for a request.

use std::io;
use std::sync::Arc;

use crate::settings::Settings;
use crate::stats::{Counters, Stats};

/// Shared by the workers and the proxy's owner.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    counters: Vec<Arc<Counters>>,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        let workers = settings.workers.get();
        Ok(Self {
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
