//! The last good configuration on disk: STATE/last-good/objects.yaml.
//!
//! A file of manifests like any other, with a comment before each document that names the file it
//! was read from. It is written by a thread of its own, at most once a second, and read at start
//! for files that are broken then. It holds Secrets: mode 0600.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::document::{self, Decoded, Syntax};

const MARK: &str = "# sluice: from ";
const PAUSE: Duration = Duration::from_secs(1);

type Objects = Vec<(Arc<Path>, Arc<Decoded>)>;

/// Writes the last good configuration.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
    due: Option<Instant>,
    written: Option<Instant>,
    writer: Option<mpsc::SyncSender<(PathBuf, Objects)>>,
}

impl LastGood {
    /// Keeps it in this directory, which is made when something is written.
    pub fn new(directory: &Path) -> Self {
        let path = directory.join("objects.yaml");
        let (sender, receiver) = mpsc::sync_channel::<(PathBuf, Objects)>(1);
        let target = path.clone();
        let thread = std::thread::Builder::new().name("last-good".to_owned()).spawn(move || {
            for (root, objects) in receiver {
                if let Err(error) = write(&target, &root, &objects) {
                    tracing::warn!(path = %target.display(), error = %error, "cannot keep the last good configuration");
                }
            }
        });
        Self {
            path,
            due: None,
            written: None,
            writer: thread.is_ok().then_some(sender),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// There is something new to keep.
    pub fn touch(&mut self) {
        let earliest = self
            .written
            .map_or_else(Instant::now, |written| written + PAUSE);
        self.due.get_or_insert(earliest);
    }

    /// When [`LastGood::write`] should be called.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether that time has come.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Hands these objects to the writing thread; if it is still busy, they are handed over later.
    pub fn write(&mut self, root: &Path, objects: &[(Arc<Path>, Arc<Decoded>)]) {
        let now = Instant::now();
        let sent = self
            .writer
            .as_ref()
            .map(|w| w.try_send((root.to_owned(), objects.to_vec())));
        self.due = matches!(sent, Some(Err(mpsc::TrySendError::Full(_)))).then(|| now + PAUSE);
        self.written = Some(now);
    }
}

/// The objects of every file of `root` as they were last good. Nothing if there is no such file.
pub fn read(path: &Path, root: &Path) -> BTreeMap<Arc<Path>, Vec<Arc<Decoded>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), error = %error, "cannot read the last good configuration");
            }
            return BTreeMap::new();
        }
    };
    let mut files: BTreeMap<Arc<Path>, Vec<Arc<Decoded>>> = BTreeMap::new();
    for piece in document::split(&text, Syntax::Yaml) {
        let Some((file, body)) = unmark(piece.text) else {
            continue;
        };
        let objects = files.entry(root.join(file).into()).or_default();
        objects.extend(
            document::parse(body, Syntax::Yaml)
                .objects()
                .map(Arc::clone),
        );
    }
    files
}

fn write(path: &Path, root: &Path, objects: &[(Arc<Path>, Arc<Decoded>)]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let mut text = String::new();
    for (file, decoded) in objects {
        let file = file.strip_prefix(root).unwrap_or(file);
        let Some(file) = file.to_str() else { continue };
        let quoted = serde_json::to_string(file).map_err(io::Error::other)?;
        let _ = writeln!(text, "---\n{MARK}{quoted}");
        let body = decoded.text.strip_prefix("---").unwrap_or(&decoded.text);
        text.push_str(
            body.trim_start_matches([' ', '\t', '\r'])
                .trim_start_matches('\n')
                .trim_end(),
        );
        text.push('\n');
    }
    let temporary = path.with_extension(std::process::id().to_string());
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)
}

fn unmark(text: &str) -> Option<(PathBuf, &str)> {
    let rest = text.strip_prefix("---\n")?.strip_prefix(MARK)?;
    let (quoted, body) = rest.split_once('\n')?;
    Some((
        PathBuf::from(serde_json::from_str::<String>(quoted).ok()?),
        body,
    ))
}

#[cfg(test)]
mod tests;
