//! A directory of manifests, read once and then followed.
//!
//! Files have no `metadata.creationTimestamp` unless somebody wrote one. An object without it counts
//! as older than every object with one, so among files all ties of precedence end by namespace and
//! name; the time of a file is never taken for it, for a copy of a directory must mean the same.

mod claims;
mod document;
mod follow;
mod last_good;
mod links;
mod scan;
mod wake;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Update;

pub use follow::Follower;
pub use wake::Wake;

/// Starts following a directory on a thread of its own.
///
/// # Errors
/// The thread or its event descriptor cannot be made.
pub fn start(
    directory: &Path,
    last_good: Option<PathBuf>,
) -> std::io::Result<(mpsc::Receiver<Update>, Arc<Wake>)> {
    let (updates, receiver) = mpsc::channel(1);
    let wake = Arc::new(Wake::new()?);
    let directory = directory.to_owned();
    let theirs = Arc::clone(&wake);
    std::thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || follow::run(&directory, last_good, &updates, &theirs))?;
    Ok((receiver, wake))
}
