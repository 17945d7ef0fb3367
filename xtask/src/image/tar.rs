//! Files in memory, written as a tar archive whose bytes depend on nothing else: no dates, owners or order of a disk.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, ensure};

const BLOCK: usize = 512;

/// A file system to be: paths without the leading slash, in order.
#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<String, Entry>);

#[derive(Clone, Debug)]
enum Entry {
    Directory,
    File { mode: u32, content: Vec<u8> },
}

impl Tree {
    /// Adds a directory and those above it.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.0.insert(path[..at].to_owned(), Entry::Directory);
        }
        self.0.insert(path.to_owned(), Entry::Directory);
    }

    /// Adds a file in a directory that was added before, or at the top.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        let path = path.trim_start_matches('/').to_owned();
        self.0.insert(path, Entry::File { mode, content });
    }

    /// Writes the archive, owned by root.
    ///
    /// # Errors
    /// A path of more than 100 bytes, or what the writer says.
    pub fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        for (path, entry) in &self.0 {
            let (path, mode, kind, content): (_, _, _, &[u8]) = match entry {
                Entry::Directory => (format!("{path}/"), 0o755, b'5', &[]),
                Entry::File { mode, content } => (path.clone(), *mode, b'0', content),
            };
            out.write_all(&header(&path, mode, kind, content.len())?)?;
            out.write_all(content)?;
            let padding = content.len().next_multiple_of(BLOCK) - content.len();
            out.write_all(&[0; BLOCK][..padding])?;
        }
        out.write_all(&[0; 2 * BLOCK])?;
        Ok(())
    }

    /// Writes the files below a directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn unpack(&self, directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory)?;
        for (path, entry) in &self.0 {
            let path = directory.join(path);
            match entry {
                Entry::Directory => std::fs::create_dir_all(&path),
                Entry::File { mode, content } => write_file(&path, *mode, content),
            }
            .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn write_file(path: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(mode);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    // The mask of the process does not decide what is in an image.
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// A header of POSIX.1-1988 `ustar`.
fn header(path: &str, mode: u32, kind: u8, size: usize) -> anyhow::Result<[u8; BLOCK]> {
    ensure!(path.len() <= 100, "{path} is too long for a tar header");
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(257, "ustar\u{0}00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.file("/program", 0o755, vec![7; 700]);
        tree.directory("/etc/ssl");
        tree.file("/etc/ssl/empty", 0o644, Vec::new());
        tree
    }

    #[test]
    fn the_system_s_tar_reads_what_is_written() {
        let directory = std::env::temp_dir().join(format!("xtask-tar-{}", std::process::id()));
        tree().unpack(&directory).expect("unpacked");
        let archive = directory.join("archive.tar");
        let mut file = std::fs::File::create(&archive).expect("file");
        tree().write(&mut file).expect("written");
        let list = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&archive)
            .output()
            .expect("tar");
        let text = String::from_utf8(list.stdout).expect("text");
        assert!(list.status.success(), "{text}");
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect();
        let seen: Vec<_> = lines
            .iter()
            .map(|line| (line[0], line[1], line[2], line[5]))
            .collect();
        let expected = [
            ("drwxr-xr-x", "0/0", "0", "etc/"),
            ("drwxr-xr-x", "0/0", "0", "etc/ssl/"),
            ("-rw-r--r--", "0/0", "0", "etc/ssl/empty"),
            ("-rwxr-xr-x", "0/0", "700", "program"),
        ];
        assert_eq!(seen, expected);
        let mode = std::fs::metadata(directory.join("program"))
            .expect("program")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        std::fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        let mut tree = Tree::default();
        tree.file(&"x".repeat(101), 0o644, Vec::new());
        assert!(tree.write(&mut Vec::new()).is_err());
    }
}
