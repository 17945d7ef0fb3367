//! The allocator, and how what a process does not need any more is given back to the system.
#![allow(unsafe_code, reason = "mimalloc's own functions are not in its crate")]

mod huge;

use std::time::{Duration, Instant};

pub use huge::{collapse, collapse_aside};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// mimalloc 3 `include/mimalloc.h`.
// SAFETY: linked with the allocator above; it may be called at any time, from any thread.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Gives back what this thread has freed, after it has done something that it will not do again.
pub fn give_back() {
    mi_collect(true);
}

/// After so many changes there is something to give back.
const MANY: usize = 256;
/// But not before nothing has changed for so long.
const QUIET: Duration = Duration::from_secs(1);

/// What changes have left in the heap of one thread. Of a process that has nothing to do mimalloc gives nothing back: it
/// looks for what was free for long enough when something is allocated or freed.
#[derive(Debug)]
pub struct Garbage {
    changes: usize,
    last: Option<Instant>,
}

impl Default for Garbage {
    /// As after many changes: a start has read more than it keeps.
    fn default() -> Self {
        Self {
            changes: MANY,
            last: None,
        }
    }
}

impl Garbage {
    /// So much has changed.
    pub fn grow(&mut self, changes: usize, now: Instant) {
        if changes > 0 {
            self.changes = self.changes.saturating_add(changes);
            self.last = Some(now);
        }
    }

    /// When it is to be given back, unless something changes before.
    pub fn due(&self) -> Option<Instant> {
        let last = self.last.filter(|_| self.changes >= MANY)?;
        Some(last + QUIET)
    }

    /// Gives it back if that is due. Takes a few milliseconds after very many changes.
    pub fn give_back(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.changes = 0;
            give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;

    use super::*;

    /// How many of these pages are in memory. Not what the process has in all, for other tests run in it.
    fn present(pages: &BTreeSet<usize>) -> usize {
        let map = File::open("/proc/self/pagemap").expect("a process has one");
        let present = |page: &usize| huge::present(&map, *page..page + 1);
        pages
            .iter()
            .map(|page| present(page).expect("readable"))
            .sum()
    }

    #[test]
    fn what_was_freed_is_given_back() {
        const MIB: usize = 1 << 20;
        let _alone = huge::alone();
        let page = huge::page_size();
        let many: Vec<Box<[u8; 512]>> = (0..256 * MIB / 512).map(|_| Box::new([1; 512])).collect();
        let pages: BTreeSet<usize> = many.iter().map(|b| b.as_ptr().addr() / page).collect();
        let held = present(&pages);
        assert!(held >= 256 * MIB / page, "only {held} pages");
        drop(many);
        let (mut garbage, now) = (Garbage::default(), Instant::now());
        assert_eq!(garbage.due(), None, "nothing has changed yet");
        garbage.grow(1, now);
        garbage.give_back(now);
        assert_eq!(garbage.due(), Some(now + QUIET));
        garbage.give_back(now + QUIET);
        assert_eq!(garbage.due(), None);
        // mimalloc lets one thread at a time give back, and passes over what others ask for meanwhile.
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let left = present(&pages);
            if left < held / 8 {
                break;
            }
            assert!(Instant::now() < patience, "{left} of {held} pages are left");
            std::thread::yield_now();
            give_back();
        }
    }
}
