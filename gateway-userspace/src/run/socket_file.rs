//! The file of a listening socket: made under a name of its own, and then given the one that others know.
//!
//! What concerns both names happens under the directory's lock, which a process that dies lets go of.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// A socket file that this process made. Dropping it removes it, and leaves alone what another process
/// has put in its place.
#[derive(Debug)]
pub struct SocketFile {
    /// The name that others know.
    path: PathBuf,
    /// The name that it has.
    name: PathBuf,
    /// The file itself. While it is open no other one has its inode.
    file: File,
}

impl SocketFile {
    /// Binds a listening socket, which nobody finds before it is [published](Self::publish).
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn bind<L>(
        path: &Path,
        bind: impl FnOnce(&Path) -> io::Result<L>,
    ) -> io::Result<(Self, L)> {
        let _locked = lock(path);
        let name = free_name(path)?;
        let listener = bind(&name)?;
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(&name)?;
        let path = path.to_owned();
        let made = Self { path, name, file };
        std::fs::set_permissions(&made.name, Permissions::from_mode(0o600))?;
        Ok((made, listener))
    }

    /// [`SocketFile::bind`] for a stream socket that tokio can take.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn stream(path: &Path) -> io::Result<(Self, UnixListener)> {
        let (file, listener) = Self::bind(path, |at| UnixListener::bind(at))?;
        listener.set_nonblocking(true)?;
        Ok((file, listener))
    }

    /// Puts it in the place of whatever is there, at once: whoever connects meets the old one or this one.
    ///
    /// # Errors
    /// The directory cannot be written any more.
    pub fn publish(&mut self) -> io::Result<()> {
        let _locked = lock(&self.path);
        std::fs::rename(&self.name, &self.path)?;
        self.name.clone_from(&self.path);
        Ok(())
    }

    fn has_name(&self) -> bool {
        let there = std::fs::symlink_metadata(&self.name);
        let own = self.file.metadata();
        there.is_ok_and(|there| own.is_ok_and(|own| own.ino() == there.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _locked = lock(&self.path);
        if self.has_name() {
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

/// Locks the directory until the result is dropped. Without locks it goes without.
fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path.parent()?).ok()?;
    directory.lock().ok()?;
    Some(directory)
}

/// A name beside `path` that no process listens under. What a killed one has left there is removed.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let name = path.with_extension(format!("sock.{number}"));
        if !is_listening(&name)? {
            return match std::fs::remove_file(&name) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(name),
            };
        }
        number += 1;
    }
}

fn is_listening(name: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(name)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(false),
            ErrorKind::WouldBlock => Ok(true),
            // Sequenced packets.
            _ if error.raw_os_error() == Some(libc::EPROTOTYPE) => Ok(true),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("a directory");
        let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries
            .map(|entry| name(entry).into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_socket_is_replaced_when_another_is_published_and_removed_only_by_its_owner() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x.sock");
        let inode = || std::fs::metadata(&path).expect("stat").ino();
        let (mut old, _old_listener) = SocketFile::stream(&path).expect("old");
        old.publish().expect("published");
        let first = inode();
        let (mut new, _new_listener) = SocketFile::stream(&path).expect("new");
        assert_eq!(inode(), first);
        new.publish().expect("published");
        assert_ne!(inode(), first);
        let mode = std::fs::metadata(&path).expect("stat").mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_socket_that_was_never_published_leaves_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x.sock");
        let (mut old, _old_listener) = SocketFile::stream(&path).expect("old");
        old.publish().expect("published");
        drop(SocketFile::stream(&path).expect("new"));
        assert_eq!(names(dir.path()), ["x.sock"]);
    }

    #[test]
    fn what_a_killed_process_left_is_used_again_and_what_a_live_one_has_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x.sock");
        for _ in 0..2 {
            let (file, listener) = SocketFile::stream(&path).expect("made");
            std::mem::forget(file);
            drop(listener);
        }
        assert_eq!(names(dir.path()), ["x.sock.0"]);
        let (mut first, _first_listener) = SocketFile::stream(&path).expect("first");
        let (_second, _second_listener) = SocketFile::bind(&path, |at| {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
            socket.bind(&SockAddr::unix(at)?)?;
            socket.listen(1)?;
            Ok(socket)
        })
        .expect("second");
        let (_third, _third_listener) = SocketFile::stream(&path).expect("third");
        assert_eq!(names(dir.path()), ["x.sock.0", "x.sock.1", "x.sock.2"]);
        first.publish().expect("published");
        assert_eq!(names(dir.path()), ["x.sock", "x.sock.1", "x.sock.2"]);
    }
}
