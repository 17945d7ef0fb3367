//! STATE: the directory of the admin socket, the hand-over socket and the last good configuration.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A state directory that exists and belongs to this user alone.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    lineage: u64,
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
        Ok(Self {
            path: path.to_owned(),
            lineage: metadata.dev().rotate_left(32) ^ metadata.ino(),
        })
    }

    /// What processes that follow each other here have in common, by whatever name they know the directory.
    pub fn lineage(&self) -> u64 {
        self.lineage
    }

    /// The admin server's socket.
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.path)
    }

    /// Where a successor asks for this process's sockets.
    pub fn handover_socket(&self) -> PathBuf {
        self.path.join("handover.sock")
    }

    /// The last good configuration.
    pub fn last_good(&self) -> PathBuf {
        self.path.join("last-good")
    }
}

/// The admin server's socket in a state directory.
pub fn admin_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
}
