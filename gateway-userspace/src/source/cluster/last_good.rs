//! The last good objects on disk: STATE/last-good/cluster.log, mode 0600, for it holds Secrets.
//!
//! A log of lines: `+`, kind, namespace, name and the object as JSON, or `-` with kind, namespace
//! and name, separated by tabs; of one object the last line counts. Every life writes a log of its
//! own and puts it in the place of the old one when it has listed everything. So a line is cut off
//! only at the end of a log, where it does not count; and of two processes on a node, as while one
//! takes over from the other, the newer one has the name, and the other one's log has none, unless the
//! newer one ends: then the older one takes the name back.
//!
//! A thread of its own writes. What is live in a log is copied to a new one when most of it is not.

mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use foldhash::fast::FixedState;
use gateway_model::names::{ObjectKind, ObjectRef};
use serde::Deserialize as _;
use serde::de::value::{Error, StrDeserializer};

use super::catalog::Records;

const HEADER: &[u8] = b"sluice last good objects, 1\n";
const NAME: &str = "cluster.log";

/// Where a line's object stands in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Where the line begins.
    at: u64,
    /// How long it is, its end included.
    len: u64,
}

type Index = HashMap<ObjectRef, Place, FixedState>;

/// Hands what is to be kept to the thread that writes.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
    writer: Option<mpsc::SyncSender<Batch>>,
}

/// What is to be written at once.
#[derive(Debug, Default)]
struct Batch {
    records: Records,
    /// Whether the log is whole with it.
    is_whole: bool,
}

impl LastGood {
    /// Keeps it in this directory, which is made when something is written.
    pub fn new(directory: &Path) -> Self {
        let path = directory.join(NAME);
        let (sender, receiver) = mpsc::sync_channel(1);
        let target = path.clone();
        let thread = std::thread::Builder::new().name("last-good".to_owned());
        let thread = thread.spawn(move || writer::run(&target, &receiver));
        Self {
            path,
            writer: thread.is_ok().then_some(sender),
        }
    }

    /// The objects of the life before this one, each in its last form: nothing if none were kept.
    pub fn read(path: &Path, mut take: impl FnMut(&ObjectRef, &[u8])) {
        if let Err(error) = read(path, &mut take)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), error = %error, "cannot read the last good configuration");
        }
    }

    /// The log's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands over what is to be kept, unless the thread is busy: then it stays, and this is to be
    /// called again. Says whether it was handed over.
    pub fn hand_over(&self, records: &mut Records, is_whole: bool) -> bool {
        let Some(writer) = &self.writer else {
            records.clear();
            return true;
        };
        let batch = Batch {
            records: std::mem::take(records),
            is_whole,
        };
        match writer.try_send(batch) {
            Ok(()) => true,
            Err(mpsc::TrySendError::Disconnected(_)) => true,
            Err(mpsc::TrySendError::Full(batch)) => {
                *records = batch.records;
                false
            }
        }
    }
}

fn read(path: &Path, take: &mut impl FnMut(&ObjectRef, &[u8])) -> io::Result<()> {
    let file = File::open(path)?;
    let index = index(&file)?;
    let mut places: Vec<_> = index.into_iter().collect();
    places.sort_by_key(|(_, place)| place.at);
    let mut line = Vec::new();
    for (name, place) in places {
        line.resize(usize::try_from(place.len).unwrap_or(0), 0);
        file.read_exact_at(&mut line, place.at)?;
        if let Some(text) = line.splitn(5, |byte| *byte == b'\t').nth(4) {
            take(&name, text.trim_ascii_end());
        }
    }
    Ok(())
}

/// Where the last line of every object is that is there.
fn index(file: &File) -> io::Result<Index> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut index = Index::default();
    let mut at = u64::try_from(reader.read_until(b'\n', &mut line)?).unwrap_or(0);
    if line != HEADER {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a log of this version",
        ));
    }
    loop {
        line.clear();
        let len = u64::try_from(reader.read_until(b'\n', &mut line)?).unwrap_or(0);
        if line.last() != Some(&b'\n') {
            return Ok(index);
        }
        match parse(&line) {
            Some((name, true)) => drop(index.insert(name, Place { at, len })),
            Some((name, false)) => drop(index.remove(&name)),
            None => {}
        }
        at += len;
    }
}

/// Whose line it is, and whether the object is there.
fn parse(line: &[u8]) -> Option<(ObjectRef, bool)> {
    let mut fields = line.trim_ascii_end().splitn(5, |byte| *byte == b'\t');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let is_there = match text()? {
        "+" => true,
        "-" => false,
        _ => return None,
    };
    let kind = ObjectKind::deserialize(StrDeserializer::<Error>::new(text()?)).ok()?;
    Some((ObjectRef::new(kind, text()?, text()?), is_there))
}

#[cfg(test)]
mod tests;
