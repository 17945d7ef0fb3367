//! Huge pages below a heap of many routes.
//!
//! A request to one of 100 000 hosts touches a dozen lines of memory that no cache holds, each in a page of its own that no
//! TLB holds either, and in a virtual machine looking that up takes longer than the line itself. The allocator keeps huge
//! pages off, for they would make a small process large; here they are put below what is full anyway.
#![allow(unsafe_code, reason = "madvise(2) and prctl(2) are not in std")]

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::thread;

/// linux v6.1 include/uapi/asm-generic/mman-common.h; older kernels say EINVAL.
const MADV_COLLAPSE: libc::c_int = 25;
/// Bytes of a page, and of a huge one, on x86-64 and where arm64 is set up in the same way.
const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;
/// So many pages of a huge one have to be in memory: the others are added.
const FULL: usize = HUGE / PAGE / 16 * 15;
/// So many huge pages make a difference: what small ones are below it, the second-level TLB of a core nearly holds.
const MANY: usize = 16;

/// Held while a heap is collapsed: one that began meanwhile would take for granted what is changed for the while.
static COLLAPSING: Mutex<()> = Mutex::new(());

/// Collapses the heap, unless that is under way, in a thread that ends with it: the kernel copies what it collapses, a
/// tenth of a second for 300 MB.
pub fn collapse_aside() {
    let collapse = || {
        let Ok(_alone) = COLLAPSING.try_lock() else {
            return;
        };
        match collapse() {
            Ok(0) => {}
            Ok(bytes) => tracing::debug!(bytes, "the heap is in huge pages"),
            Err(error) => tracing::debug!(%error, "the heap stays in small pages"),
        }
    };
    let thread = thread::Builder::new().name("huge-pages".to_owned());
    if let Err(error) = thread.spawn(collapse) {
        tracing::debug!(%error, "no thread to collapse the heap");
    }
}

/// Puts huge pages below the parts of the heap that are full; how many bytes they are, or 0 if they are too few.
///
/// # Errors
/// The kernel's last one, if nothing was collapsed: EINVAL before Linux 6.1, ENOMEM or EAGAIN where memory is too
/// scattered.
pub fn collapse() -> io::Result<usize> {
    if page_size() != PAGE {
        return Ok(0);
    }
    let full = full_ranges()?;
    if full.iter().map(Range::len).sum::<usize>() < MANY * HUGE {
        return Ok(0);
    }
    let kept_off = keep_off(None)?;
    keep_off(Some(false))?;
    let (mut bytes, mut failed) = (0, None);
    for range in full {
        // SAFETY: changes how the memory is mapped, not what is in it; an address that is mapped no more is an error.
        match unsafe { libc::madvise(range.start as *mut _, range.len(), MADV_COLLAPSE) } {
            0 => bytes += range.len(),
            _ => failed = Some(io::Error::last_os_error()),
        }
    }
    keep_off(Some(kept_off))?;
    match failed {
        Some(error) if bytes == 0 => Err(error),
        _ => Ok(bytes),
    }
}

/// Whether the kernel keeps huge pages off this process; it does from now on, or no more, if `whether` says so.
fn keep_off(whether: Option<bool>) -> io::Result<bool> {
    const NONE: libc::c_ulong = 0;
    let (what, value) = match whether {
        None => (libc::PR_GET_THP_DISABLE, NONE),
        Some(whether) => (libc::PR_SET_THP_DISABLE, libc::c_ulong::from(whether)),
    };
    // SAFETY: neither takes a pointer.
    match unsafe { libc::prctl(what, value, NONE, NONE, NONE) } {
        -1 => Err(io::Error::last_os_error()),
        said => Ok(said != 0),
    }
}

/// Where whole huge pages of anonymous memory are full, neighbours joined.
fn full_ranges() -> io::Result<Vec<Range<usize>>> {
    let pages = File::open("/proc/self/pagemap")?;
    let mut full: Vec<Range<usize>> = Vec::new();
    for mapped in fs::read_to_string("/proc/self/maps")?
        .lines()
        .filter_map(anonymous)
    {
        let (first, end) = (
            mapped.start.next_multiple_of(HUGE),
            mapped.end / HUGE * HUGE,
        );
        for start in (first..end).step_by(HUGE) {
            let first = start / PAGE;
            if present(&pages, first..first + HUGE / PAGE)? < FULL {
                continue;
            }
            match full.last_mut() {
                Some(last) if last.end == start => last.end += HUGE,
                _ => full.push(start..start + HUGE),
            }
        }
    }
    Ok(full)
}

/// The addresses of a line of `/proc/self/maps`, if it is private memory of no file.
fn anonymous(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rest: Vec<&str> = words.collect();
    let address = |text| usize::from_str_radix(text, 16).ok();
    (rest == ["rw-p", "00000000", "00:00", "0"]).then_some(address(start)?..address(end)?)
}

/// How many of these pages of this process, by number, are in memory: bit 63 of their entries in `/proc/self/pagemap`
/// (linux Documentation/admin-guide/mm/pagemap.rst).
pub(super) fn present(map: &File, pages: Range<usize>) -> io::Result<usize> {
    let mut entries = vec![0; pages.len() * 8];
    map.read_exact_at(&mut entries, pages.start as u64 * 8)?;
    let (entries, _) = entries.as_chunks::<8>();
    let present = |entry: &&[u8; 8]| u64::from_ne_bytes(**entry) >> 63 == 1;
    Ok(entries.iter().filter(present).count())
}

/// Keeps the heap from being collapsed, which puts memory below what was given back meanwhile.
#[cfg(test)]
pub(super) fn alone() -> std::sync::MutexGuard<'static, ()> {
    COLLAPSING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bytes of a page; 0 if the system does not say.
pub(super) fn page_size() -> usize {
    // SAFETY: takes no pointer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_huge_pages_is_as_full_as_before_and_holds_what_it_held() {
        let _alone = alone();
        let held: Vec<u64> = (0..(64 << 20) / 8).collect();
        keep_off(Some(true)).expect("allowed");
        let before = full_ranges().expect("readable");
        let bytes = before.iter().map(Range::len).sum::<usize>();
        assert!(bytes >= 60 << 20, "{before:?}");
        match collapse() {
            Ok(collapsed) => {
                assert!(collapsed > 0);
                let smaps = fs::read_to_string("/proc/self/smaps_rollup").expect("readable");
                let huge = smaps
                    .lines()
                    .find_map(|line| line.strip_prefix("AnonHugePages:"));
                let kib =
                    huge.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<usize>().ok());
                assert!(kib >= Some(2048), "{smaps}");
            }
            Err(error) => {
                let known = [libc::EINVAL, libc::ENOMEM, libc::EAGAIN, libc::EBUSY];
                assert!(
                    known.contains(&error.raw_os_error().unwrap_or(0)),
                    "{error}"
                );
            }
        }
        assert!(
            held.iter()
                .enumerate()
                .all(|(at, value)| at as u64 == *value)
        );
        assert!(keep_off(None).expect("known"), "as before");
    }

    #[test]
    fn only_private_memory_of_no_file_is_the_heap() {
        let heap = "20000000000-20040000000 rw-p 00000000 00:00 0 ";
        assert_eq!(anonymous(heap), Some(0x200_0000_0000..0x200_4000_0000));
        let others = [
            "7f54909f4000-7f5491b05000 r-xp 003f3000 fe:00 5318922                    /usr/bin/sluice",
            "7ffc0a5f4000-7ffc0a615000 rw-p 00000000 00:00 0                          [stack]",
            "7f5491b05000-7f5491b06000 ---p 00000000 00:00 0 ",
            "7f5491b05000-7f5491b06000 rw-s 00000000 00:01 1024                       /dev/zero",
            "",
        ];
        assert!(others.iter().all(|line| anonymous(line).is_none()));
    }
}
