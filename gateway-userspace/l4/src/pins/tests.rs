//! Locks, on an ordinary file system.

use super::*;

/// Whether somebody waits for a lock on this inode.
fn is_waited_for(inode: u64) -> bool {
    let locks = fs::read_to_string("/proc/locks").expect("the kernel's locks");
    let inode = format!(":{inode} ");
    locks
        .lines()
        .any(|line| line.contains("->") && line.contains(&inode))
}

#[test]
fn who_waits_for_a_directory_that_is_removed_locks_the_one_in_its_place() {
    let pin_dir = tempfile::tempdir().expect("a directory");
    let base = pin_dir.path().join("net-1");
    let layout = base.join("v1");
    let first = lock(&base, &layout).expect("the lock");
    let inode = fs::metadata(&base).expect("the directory").ino();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lock(&base, &layout));
        while !is_waited_for(inode) {
            std::thread::yield_now();
        }
        remove_directory(&base).expect("removed");
        drop(first);
        let _second = waiting.join().expect("no panic").expect("the lock");
        assert!(layout.is_dir());
        let there = File::open(&base).expect("the directory");
        assert!(sys::is_locked(&there));
    });
}

#[test]
fn who_waits_as_the_live_process_while_it_is_stopped_leaves_no_directory() {
    let pin_dir = tempfile::tempdir().expect("a directory");
    let base = pin_dir.path().join("net-1");
    let pins = Pins {
        layout: base.join("v1"),
        lineage: 1,
        name: format!("{OWNER}1-1-1"),
        owner: Mutex::default(),
        base,
    };
    let stopping = lock(&pins.base, &pins.layout).expect("the lock");
    pins.become_owner().expect("live");
    let inode = fs::metadata(&pins.base).expect("the directory").ino();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| runtime.expect("a runtime").block_on(pins.lock_as_owner()));
        while !is_waited_for(inode) {
            std::thread::yield_now();
        }
        pins.empty().expect("emptied");
        pins.remove().expect("removed");
        drop(stopping);
        let refused = waiting.join().expect("no panic");
        assert!(matches!(refused, Err(L4Error::Superseded)), "{refused:?}");
        assert!(!pins.base.exists());
    });
}
