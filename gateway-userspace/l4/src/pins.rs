//! The pins: where maps and links stay when a process ends, and who of two processes is live.
//!
//! `PIN_DIR/net-<inode>/` belongs to one network namespace. In it, `v<layout>/` holds the maps and links of one
//! layout of the ABI, and `owner-<lineage>-<token>` is an empty directory that names the process which is live, and
//! that this process keeps locked: the lock goes when it dies. A directory can be made and locked on a BPF file
//! system; a file cannot be written there.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys;
use crate::{L4Error, Settings};

const OWNER: &str = "owner-";
const STEER: &str = "link-steer";
const FRONT: &str = "link-front-";

/// The pins of one network namespace.
#[derive(Debug)]
pub struct Pins {
    base: PathBuf,
    layout: PathBuf,
    lineage: u64,
    /// The name of this process's own directory, while it is live.
    name: String,
    /// The lock on the owner's directory, while this process is live.
    owner: Mutex<Option<File>>,
}

/// A link that somebody pinned.
#[derive(Debug)]
pub struct PinnedLink {
    pub fd: OwnedFd,
    pub path: PathBuf,
    pub info: sys::LinkInfo,
}

/// Holds the lock on the pins until it is dropped.
#[derive(Debug)]
pub struct Locked(#[expect(dead_code, reason = "closing it releases the lock")] File);

impl Pins {
    /// Mounts the BPF file system if it is missing, which is said in `notes`. The directories are made with the
    /// [lock](Pins::lock).
    pub fn open(
        settings: &Settings,
        layout: &str,
        notes: &mut Vec<String>,
    ) -> Result<Self, L4Error> {
        let pin_dir = &settings.pin_dir;
        ensure_bpffs(pin_dir, notes)?;
        let base = pin_dir.join(format!("net-{}", netns_inode()?));
        let layout = base.join(layout);
        remove_dead_namespaces(pin_dir, &base, notes);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let lineage = settings.lineage;
        let name = format!(
            "{OWNER}{lineage:x}-{:x}-{:x}",
            std::process::id(),
            now.as_nanos()
        );
        Ok(Self {
            base,
            layout,
            lineage,
            name,
            owner: Mutex::new(None),
        })
    }

    /// The directory that the operator chose.
    pub fn pin_dir(&self) -> &Path {
        self.base.parent().unwrap_or(&self.base)
    }

    /// The directory of this layout.
    pub fn directory(&self) -> &Path {
        &self.layout
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.layout.join(name)
    }

    /// Waits for the lock, and makes the directories where they are missing; every write to what processes share
    /// happens under it. It may be held over an await, so nothing that runs on the same thread may wait for it by
    /// blocking.
    pub async fn lock(&self) -> Result<Locked, L4Error> {
        let (base, layout) = (self.base.clone(), self.layout.clone());
        blocking(&self.base, move || lock(&base, &layout)).await
    }

    /// The lock, if this process is live when it gets it. Makes no directory: where there is none, nobody is live, and
    /// whoever is stopped while this waits leaves none behind.
    pub async fn lock_as_owner(&self) -> Result<Locked, L4Error> {
        let base = self.base.clone();
        let locked = blocking(&self.base, move || lock_present(&base)).await?;
        locked
            .filter(|_| self.is_owner())
            .ok_or(L4Error::Superseded)
    }

    /// Whether this process is live.
    pub fn is_owner(&self) -> bool {
        self.base.join(&self.name).is_dir()
    }

    /// Whether another process is live; one that died without a successor is not.
    pub fn another_is_live(&self) -> bool {
        self.live_others().next().is_some()
    }

    /// Whether a process is live that is not of this one's lineage.
    pub fn a_stranger_is_live(&self) -> bool {
        self.live_others()
            .any(|owner| lineage(&owner).is_some_and(|lineage| lineage != self.lineage))
    }

    fn live_others(&self) -> impl Iterator<Item = String> {
        let owners = list(&self.base).unwrap_or_default().into_iter();
        owners
            .filter(|path| name(path).starts_with(OWNER) && name(path) != self.name)
            .filter(|path| File::open(path).is_ok_and(|file| sys::is_locked(&file)))
            .map(|path| name(&path))
    }

    /// Makes this process the live one.
    pub fn become_owner(&self) -> Result<(), L4Error> {
        let mine = self.base.join(&self.name);
        if !mine.is_dir() {
            fs::create_dir(&mine).map_err(failed("create", &mine))?;
            let directory = File::open(&mine).map_err(failed("open", &mine))?;
            sys::lock(&directory).map_err(failed("lock", &mine))?;
            *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
        }
        for other in self
            .entries()?
            .filter(|path| name(path).starts_with(OWNER) && *path != mine)
        {
            fs::remove_dir(&other).map_err(failed("remove", &other))?;
        }
        Ok(())
    }

    /// Every pinned link to the namespace's socket lookup, of whatever layout, this layout's first.
    pub fn steer_links(&self) -> Result<Vec<PinnedLink>, L4Error> {
        self.links(|name| name == STEER)
    }

    /// Every pinned link to an interface, of whatever layout, this layout's first.
    pub fn front_links(&self) -> Result<Vec<PinnedLink>, L4Error> {
        self.links(|name| name.starts_with(FRONT))
    }

    /// Where the link of the socket lookup is pinned.
    pub fn steer_path(&self) -> PathBuf {
        self.layout.join(STEER)
    }

    /// Where the link of an interface is pinned.
    pub fn front_path(&self, ifindex: u32) -> PathBuf {
        self.layout.join(format!("{FRONT}{ifindex}"))
    }

    /// Removes the directories of other layouts; what is pinned there and open nowhere is gone then.
    pub fn remove_other_layouts(&self) -> Result<(), L4Error> {
        for other in self
            .layouts()?
            .into_iter()
            .filter(|path| *path != self.layout)
        {
            remove_directory(&other).map_err(failed("remove", &other))?;
        }
        Ok(())
    }

    /// Removes every pin.
    pub fn empty(&self) -> Result<(), L4Error> {
        for entry in self.entries()? {
            remove_directory(&entry).map_err(failed("remove", &entry))?;
        }
        Ok(())
    }

    /// Removes the directory, empty by now. It carries the lock, which binds nobody from here on.
    pub fn remove(&self) -> Result<(), L4Error> {
        fs::remove_dir(&self.base).map_err(failed("remove", &self.base))?;
        // Another namespace may have its pins there.
        let _ = fs::remove_dir(self.pin_dir());
        Ok(())
    }

    fn links(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<PinnedLink>, L4Error> {
        let mut found = Vec::new();
        for directory in self.layouts()? {
            for path in list(&directory).map_err(failed("list", &directory))? {
                if !wanted(&name(&path)) {
                    continue;
                }
                let fd = sys::open_pin(&path).map_err(failed("open", &path))?;
                let info = sys::link_info(fd.as_fd()).map_err(failed("inspect", &path))?;
                found.push(PinnedLink { fd, path, info });
            }
        }
        Ok(found)
    }

    fn layouts(&self) -> Result<Vec<PathBuf>, L4Error> {
        let mut layouts: Vec<_> = self
            .entries()?
            .filter(|path| name(path).starts_with('v'))
            .collect();
        layouts.sort_by_key(|path| *path != self.layout);
        Ok(layouts)
    }

    fn entries(&self) -> Result<impl Iterator<Item = PathBuf>, L4Error> {
        list(&self.base)
            .map(Vec::into_iter)
            .map_err(failed("list", &self.base))
    }
}

/// The lineage in the name of an owner's directory, if it tells.
fn lineage(owner: &str) -> Option<u64> {
    let mut parts = owner.strip_prefix(OWNER)?.rsplitn(3, '-');
    let lineage = parts.nth(2)?;
    u64::from_str_radix(lineage, 16).ok()
}

/// Waits for a lock on a thread where that may block.
async fn blocking<T: Send + 'static>(
    base: &Path,
    lock: impl FnOnce() -> Result<T, L4Error> + Send + 'static,
) -> Result<T, L4Error> {
    let waiting = tokio::task::spawn_blocking(lock).await;
    waiting.map_err(|error| failed("lock", base)(io::Error::other(error)))?
}

fn lock(base: &Path, layout: &Path) -> Result<Locked, L4Error> {
    loop {
        match fs::create_dir_all(base) {
            // The directory above was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            made => made.map_err(failed("create", base))?,
        }
        if let Some(locked) = lock_present(base)? {
            fs::create_dir_all(layout).map_err(failed("create", layout))?;
            return Ok(locked);
        }
    }
}

/// None if there is no directory, or it was removed by who had the lock: another one is in its place by now, or none.
fn lock_present(base: &Path) -> Result<Option<Locked>, L4Error> {
    let directory = match File::open(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", base))?,
    };
    sys::lock(&directory).map_err(failed("lock", base))?;
    let locked = directory.metadata().map_err(failed("inspect", base))?;
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    let is_there = fs::metadata(base).is_ok_and(|there| identity(&there) == identity(&locked));
    Ok(is_there.then_some(Locked(directory)))
}

/// The inode of this process's network namespace.
pub fn netns_inode() -> Result<u64, L4Error> {
    let path = Path::new("/proc/thread-self/ns/net");
    Ok(fs::metadata(path).map_err(failed("inspect", path))?.ino())
}

/// Pins an object, unless there is a pin already.
pub fn pin_if_absent(object: BorrowedFd<'_>, path: &Path) -> Result<(), L4Error> {
    if path.exists() {
        return Ok(());
    }
    sys::pin(object, path).map_err(failed("pin", path))
}

/// Removes a pin that may be gone already.
pub fn unpin(path: &Path) -> Result<(), L4Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("unpin", path)(error)),
        _ => Ok(()),
    }
}

fn ensure_bpffs(pin_dir: &Path, notes: &mut Vec<String>) -> Result<(), L4Error> {
    let present = pin_dir
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    if sys::is_bpffs(present).map_err(failed("inspect", present))? {
        return Ok(());
    }
    let usual = Path::new("/sys/fs/bpf");
    if !pin_dir.starts_with(usual) {
        return Err(L4Error::Unavailable {
            reason: format!(
                "{} is not on a BPF file system; choose a directory below /sys/fs/bpf",
                pin_dir.display()
            ),
        });
    }
    sys::mount_bpffs(usual).map_err(|error| L4Error::Unavailable {
        reason: format!("no BPF file system is mounted at /sys/fs/bpf, and mounting it failed ({error}); run `mount -t bpf bpf /sys/fs/bpf`"),
    })?;
    notes.push("mounted the BPF file system at /sys/fs/bpf".to_owned());
    Ok(())
}

/// Removes pins of network namespaces that no longer are: their socket lookup hangs nowhere.
fn remove_dead_namespaces(pin_dir: &Path, own: &Path, notes: &mut Vec<String>) {
    let Ok(entries) = list(pin_dir) else { return };
    for base in entries
        .into_iter()
        .filter(|path| path != own && name(path).starts_with("net-"))
    {
        let dead = list(&base).unwrap_or_default().iter().any(|layout| {
            let steer = sys::open_pin(&layout.join(STEER));
            steer
                .and_then(|fd| sys::link_info(fd.as_fd()))
                .is_ok_and(|info| info.place == sys::Place::Netns(0))
        });
        if dead && remove_directory(&base).is_ok() {
            notes.push(format!(
                "removed {}, left by a network namespace that is gone",
                base.display()
            ));
        }
    }
}

/// Removes a directory of pins with what is in it.
fn remove_directory(path: &Path) -> io::Result<()> {
    for entry in list(path)? {
        if entry.is_dir() {
            remove_directory(&entry)?;
        } else {
            fs::remove_file(&entry)?;
        }
    }
    fs::remove_dir(path)
}

fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> L4Error {
    let path = path.to_owned();
    move |source| L4Error::Pin {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
