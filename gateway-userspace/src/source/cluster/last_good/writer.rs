//! The thread that writes the log.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use gateway_model::names::{ObjectName, ObjectRef};

use super::super::backoff::random_below;
use super::super::catalog::Records;
use super::{Batch, HEADER, Index, Place};

/// How long to wait before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How much is written at once.
const CHUNK: usize = 64 * 1024;
/// A log that was not written for so long and has no name belongs to nobody.
const LEFT_BEHIND: Duration = Duration::from_mins(10);
/// A log is copied when so much of it, and as much again as what is live, is not live any more.
const SLACK: u64 = 1 << 20;

/// A log that is written.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    /// Where it is until it has its name. The processes of two Pods may have the same id, so it is
    /// random.
    temporary: PathBuf,
    file: File,
    len: u64,
    live: u64,
    index: Index,
    /// The log's inode once it has its name.
    inode: Option<u64>,
}

/// Writes what it is given until nobody gives anything.
pub fn run(path: &Path, batches: &mpsc::Receiver<Batch>) {
    let mut log = None;
    let mut left = Batch::default();
    let mut has_failed = false;
    loop {
        let has_left = left.is_whole || !left.records.is_empty();
        let next = if has_left {
            batches.recv_timeout(RETRY)
        } else {
            batches
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        };
        match next {
            Ok(batch) => {
                left.records.extend(batch.records);
                left.is_whole |= batch.is_whole;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return discard(log),
        }
        match write(&mut log, path, &mut left) {
            Ok(()) => has_failed = false,
            Err(error) => {
                if !has_failed {
                    tracing::warn!(path = %path.display(), error = %error, "cannot keep the last good configuration");
                }
                has_failed = true;
            }
        }
    }
}

/// A log that never got its name is of no use to anybody.
fn discard(log: Option<Log>) {
    if let Some(log) = log.filter(|log| log.inode.is_none()) {
        let _ = std::fs::remove_file(&log.temporary);
    }
}

fn write(log: &mut Option<Log>, path: &Path, left: &mut Batch) -> io::Result<()> {
    if log.is_none() {
        *log = Some(Log::create(path)?);
    }
    let Some(log) = log else { return Ok(()) };
    log.append(&mut left.records)?;
    if left.is_whole {
        log.publish()?;
        left.is_whole = false;
    }
    log.compact()
}

impl Log {
    /// An empty log, without its name.
    ///
    /// # Errors
    /// The directory or the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let temporary = path.with_extension(format!("log.{:x}", random_below(u64::MAX)));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        // Held as long as the process lives; see `is_forsaken`. Without locks a name is not given back.
        drop(file.try_lock());
        file.write_all(HEADER)?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file,
            len: u64::try_from(HEADER.len()).unwrap_or(0),
            live: 0,
            index: Index::default(),
            inode: None,
        })
    }

    /// Writes records at the end, and takes away those that are written.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn append(&mut self, records: &mut Records) -> io::Result<()> {
        let mut text = Vec::new();
        while !records.is_empty() {
            let mut lens = Vec::new();
            text.clear();
            for (name, object) in records.iter() {
                let before = text.len();
                line(name, object.as_deref(), &mut text);
                lens.push(u64::try_from(text.len() - before).unwrap_or(u64::MAX));
                if text.len() >= CHUNK {
                    break;
                }
            }
            self.file.write_all_at(&text, self.len)?;
            for len in lens {
                if let Some((name, object)) = records.pop_first() {
                    self.wrote(name, object.is_some(), len);
                }
            }
        }
        Ok(())
    }

    fn wrote(&mut self, name: ObjectRef, is_there: bool, len: u64) {
        let place = Place { at: self.len, len };
        self.len += len;
        let before = if is_there {
            self.live += len;
            self.index.insert(name, place)
        } else {
            self.index.remove(&name)
        };
        self.live -= before.map_or(0, |before| before.len);
    }

    /// Gives the log its name, in place of an earlier one.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn publish(&mut self) -> io::Result<()> {
        if self.inode.is_none() {
            self.file.sync_data()?;
            std::fs::rename(&self.temporary, &self.path)?;
            self.inode = Some(self.file.metadata()?.ino());
            self.sweep();
        }
        Ok(())
    }

    /// Copies what is live to a new log if most of this one is not, or if the successor that took
    /// the name has ended. Does nothing for a log that has lost its name to a successor that lives.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn compact(&mut self) -> io::Result<()> {
        let dead = self.len - self.live;
        let is_due = match self.has_name() {
            true => dead >= SLACK + self.live,
            false => self.is_forsaken(),
        };
        if !is_due {
            return Ok(());
        }
        let mut new = Self::create(&self.path)?;
        let mut places: Vec<_> = self.index.iter().map(|(n, p)| (n.clone(), *p)).collect();
        places.sort_by_key(|(_, place)| place.at);
        let mut line = Vec::new();
        for (name, place) in places {
            line.resize(usize::try_from(place.len).unwrap_or(0), 0);
            self.file.read_exact_at(&mut line, place.at)?;
            new.file.write_all_at(&line, new.len)?;
            let at = new.len;
            let len = place.len;
            new.index.insert(name, Place { at, len });
            new.len += len;
            new.live += len;
        }
        if !self.has_name() && !self.is_forsaken() {
            return std::fs::remove_file(&new.temporary);
        }
        new.publish()?;
        *self = new;
        Ok(())
    }

    /// Removes logs that processes left behind which were killed before they had listed everything.
    fn sweep(&self) {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let prefix = self.path.with_extension("log.");
        let is_old = |path: &Path| {
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|time| time.elapsed().ok());
            age.is_some_and(|age| age > LEFT_BEHIND)
        };
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.as_os_str().as_encoded_bytes();
            if name.starts_with(prefix.as_os_str().as_encoded_bytes()) && is_old(&path) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// Whether the name went to a process that is gone, as a successor is that never took over:
    /// nobody holds the lock of what has the name.
    fn is_forsaken(&self) -> bool {
        self.inode.is_some()
            && match File::open(&self.path) {
                Ok(other) => other.try_lock().is_ok(),
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            }
    }

    fn has_name(&self) -> bool {
        let there = std::fs::symlink_metadata(&self.path).map(|metadata| metadata.ino());
        self.inode.is_some() && self.inode == there.ok()
    }
}

fn line(name: &ObjectRef, object: Option<&[u8]>, out: &mut Vec<u8>) {
    let sign = if object.is_some() { '+' } else { '-' };
    let ObjectName {
        kind,
        namespace,
        name,
    } = &**name;
    let head = format!("{sign}\t{kind}\t{namespace}\t{name}");
    out.extend_from_slice(head.as_bytes());
    if let Some(object) = object {
        out.push(b'\t');
        out.extend_from_slice(object);
    }
    out.push(b'\n');
}
