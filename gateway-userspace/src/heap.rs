//! The allocator, and how what a process does not need any more is given back to the system.
#![allow(
    unsafe_code,
    reason = "madvise(2), and mimalloc's own functions are not in its crate"
)]

use std::ops::Range;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// mimalloc 3 `include/mimalloc.h`.
// SAFETY: linked with the allocator above; it may be called at any time, from any thread.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
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
            mi_collect(true);
            unmap_program();
        }
    }
}

/// Lets go of the program's own pages, most of which only a start or a list needs: what is still needed comes back, a
/// few pages at a time, from the system's cache.
fn unmap_program() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let here = unmap_program as *const () as usize;
    let Some(program) = program(&maps, here) else {
        return;
    };
    // SAFETY: the range is a private mapping of a file that can be executed and not written, so that every page of it is
    // as it is in the file, and comes back from there when it is touched.
    unsafe {
        libc::madvise(
            program.start as *mut libc::c_void,
            program.len(),
            libc::MADV_DONTNEED,
        );
    }
}

/// The mapping around an address in `/proc/self/maps`, if it is of a file's code that nobody can have changed.
fn program(maps: &str, address: usize) -> Option<Range<usize>> {
    let mut mappings = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        (rest.starts_with("r-xp ") && rest.contains('/')).then_some(number(start)?..number(end)?)
    });
    mappings.find(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("a process");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let text = line.map(|line| line.trim().trim_end_matches(" kB"));
        text.and_then(|text| text.parse().ok()).expect("a number")
    }

    #[test]
    fn only_code_of_a_file_is_let_go_of() {
        let maps = "10000-20000 r--p 00000000 fe:00 1 /sluice\n\
                    20000-50000 r-xp 00010000 fe:00 1 /sluice\n\
                    50000-60000 rw-p 00040000 fe:00 1 /sluice\n\
                    60000-70000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(program(maps, 0x30000), Some(0x20000..0x50000));
        for elsewhere in [0x10000, 0x50000, 0x60000, 0x70000] {
            assert_eq!(program(maps, elsewhere), None);
        }
        let own = std::fs::read_to_string("/proc/self/maps").expect("a process");
        assert!(program(&own, unmap_program as *const () as usize).is_some());
    }

    #[test]
    fn what_was_freed_is_given_back() {
        const MIB: usize = 1 << 20;
        let before = anonymous_kib();
        let many: Vec<Box<[u8; 512]>> = (0..256 * MIB / 512).map(|_| Box::new([1; 512])).collect();
        let held = anonymous_kib();
        assert!(held > before + 200 * 1024, "{before} KiB, then {held}");
        drop(many);
        let (mut garbage, now) = (Garbage::default(), Instant::now());
        assert_eq!(garbage.due(), None, "nothing has changed yet");
        garbage.grow(1, now);
        garbage.give_back(now);
        assert_eq!(garbage.due(), Some(now + QUIET));
        garbage.give_back(now + QUIET);
        assert_eq!(garbage.due(), None);
        let left = anonymous_kib();
        assert!(left < held - 200 * 1024, "{held} KiB, then {left}");
    }
}
