//! Where access log lines go. A file that is renamed away or removed is opened anew under its name, so that rotating
//! it takes no signal; lines that cannot be written are counted.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::settings::AccessLogOutput;

/// An open access log.
#[derive(Debug)]
pub(super) enum Output {
    Stdout,
    File(Followed),
}

/// A file that is followed by its name.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    file: File,
}

/// What became of some lines.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: io::Error,
    /// Lines that are not in the log, or not whole.
    pub(super) lost: u64,
}

impl Output {
    pub(super) fn open(output: &AccessLogOutput) -> io::Result<Self> {
        Ok(match output {
            AccessLogOutput::Stdout => Self::Stdout,
            AccessLogOutput::File(path) => Self::File(Followed {
                path: path.clone(),
                file: open(path)?,
            }),
        })
    }

    /// Writes whole lines, as many as can be.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failed> {
        match self {
            Self::Stdout => write(&mut io::stdout(), lines),
            Self::File(followed) => {
                followed.follow();
                write(&mut followed.file, lines)
            }
        }
    }
}

impl Followed {
    /// Opens the file anew if its name no longer leads to it. As long as that fails the old one is written on.
    fn follow(&mut self) {
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let named = std::fs::metadata(&self.path);
        let is_there = matches!((named, self.file.metadata()), (Ok(a), Ok(b)) if same(&a, &b));
        if !is_there && let Ok(file) = open(&self.path) {
            self.file = file;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn write(output: &mut impl Write, lines: &[u8]) -> Result<(), Failed> {
    let mut written = 0;
    let result = loop {
        match output.write(&lines[written..]) {
            Ok(0) if written < lines.len() => break Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
        if written == lines.len() {
            break output.flush();
        }
    };
    result.map_err(|error| {
        let rest = &lines[written..];
        let is_torn = written > 0 && lines[written - 1] != b'\n';
        if is_torn {
            // What comes next begins a line of its own, if there is room for as much as that.
            let _ = output.write(b"\n");
        }
        let lost = memchr::memchr_iter(b'\n', rest).count() as u64;
        Failed { error, lost }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then one at a time only when asked for a single one.
    struct Full {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            self.room -= n;
            if n == 0 && bytes != b"\n" {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.extend(&bytes[..n.max(1)]);
            Ok(n.max(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_the_torn_one_is_ended() {
        let mut full = Full {
            room: 6,
            taken: Vec::new(),
        };
        let failed = write(&mut full, b"one\ntwo\nthree\n").expect_err("full");
        assert_eq!(failed.lost, 2);
        assert_eq!(full.taken, b"one\ntw\n");
        full.room = 100;
        write(&mut full, b"four\n").expect("room");
        assert_eq!(full.taken, b"one\ntw\nfour\n");
    }

    #[test]
    fn a_file_that_is_moved_away_is_opened_anew() {
        let directory = std::env::temp_dir().join(format!("sluice-output-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        let (path, old) = (directory.join("log"), directory.join("log.1"));
        let mut output = Output::open(&AccessLogOutput::File(path.clone())).expect("opens");
        let read = |path: &Path| std::fs::read_to_string(path).expect("reads");
        output.write(b"one\n").expect("writes");
        std::fs::rename(&path, &old).expect("renames");
        output.write(b"two\n").expect("writes");
        std::fs::remove_file(&path).expect("removes");
        output.write(b"three\n").expect("writes");
        output.write(b"four\n").expect("writes");
        assert_eq!(
            (read(&old), read(&path)),
            ("one\n".into(), "three\nfour\n".into())
        );
        std::fs::remove_dir_all(&directory).expect("removes");
        // Nobody can open it there any more.
        output.write(b"five\n").expect("writes on");
    }
}
