//! STATE: the directory of the admin socket, the hand-over socket and the last good configuration.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A state directory that exists and belongs to this user alone.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

/// A socket file that this process made; removing it leaves a successor's alone.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl StateDir {
    /// Makes the directory, mode 0700, if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or belongs to or can be written by another user.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| {
                format!(
                    "cannot make the state directory {}; choose another one with --state-dir",
                    path.display()
                )
            })?;
        let metadata = std::fs::metadata(path)?;
        let user = rustix::process::geteuid().as_raw();
        anyhow::ensure!(
            metadata.uid() == user && metadata.mode() & 0o022 == 0,
            "the state directory {} must belong to this user (id {user}) and be writable by nobody \
             else; choose another one with --state-dir",
            path.display()
        );
        Ok(Self(path.to_owned()))
    }

    /// The admin server's socket.
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.0)
    }

    /// Where a successor asks for this process's sockets.
    pub fn handover_socket(&self) -> PathBuf {
        self.0.join("handover.sock")
    }

    /// The last good configuration.
    pub fn last_good(&self) -> PathBuf {
        self.0.join("last-good")
    }
}

/// The admin server's socket in a state directory.
pub fn admin_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

impl SocketFile {
    /// Binds a listening socket and puts it in the place of whatever is there, at once: whoever
    /// connects meets the old one or the new one.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn replace<L>(
        path: &Path,
        bind: impl FnOnce(&Path) -> io::Result<L>,
    ) -> io::Result<(Self, L)> {
        let temporary = path.with_extension(format!("{}", std::process::id()));
        let _ = std::fs::remove_file(&temporary);
        let listener = bind(&temporary)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&temporary, path)?;
        let inode = std::fs::symlink_metadata(path)?.ino();
        Ok((
            Self {
                path: path.to_owned(),
                inode,
            },
            listener,
        ))
    }

    /// [`SocketFile::replace`] for a stream socket that tokio can take.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn stream(path: &Path) -> io::Result<(Self, UnixListener)> {
        let (file, listener) = Self::replace(path, |at| UnixListener::bind(at))?;
        listener.set_nonblocking(true)?;
        Ok((file, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("state");
        StateDir::open(&path).expect("made");
        assert_eq!(
            std::fs::metadata(&path).expect("stat").mode() & 0o777,
            0o700
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(StateDir::open(&path).is_err());
    }

    #[test]
    fn a_socket_is_replaced_at_once_and_removed_only_by_its_owner() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x.sock");
        let (old, _old_listener) = SocketFile::stream(&path).expect("old");
        let (new, _new_listener) = SocketFile::stream(&path).expect("new");
        assert_eq!(
            std::fs::metadata(&path).expect("stat").mode() & 0o777,
            0o600
        );
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }
}
