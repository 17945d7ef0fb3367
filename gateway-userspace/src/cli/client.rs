//! Asking a running sluice over its admin socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use crate::run::state_dir::admin_socket;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running sluice, by its state directory.
#[derive(Clone, Debug)]
pub struct Client {
    state_dir: PathBuf,
}

impl Client {
    /// Whoever serves with this state directory.
    pub fn new(state_dir: Option<&Path>) -> Self {
        let state_dir = state_dir.map_or_else(crate::config::default_state_dir, Path::to_owned);
        Self { state_dir }
    }

    /// The answer to a question, decoded.
    ///
    /// # Errors
    /// Nobody is there, or the answer is no answer.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let text = self.text(path)?;
        serde_json::from_str(&text).context("the running sluice is of another version")
    }

    /// The answer to a question, as it is.
    ///
    /// # Errors
    /// Nobody is there, or the answer is no answer.
    pub fn text(&self, path: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        let mut answer = self.open(path)?;
        let read = answer.read_to_string(&mut text);
        read.map_err(|error| self.silent(&error))?;
        Ok(text)
    }

    /// The lines of an endless answer.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn lines(&self, path: &str) -> anyhow::Result<impl Iterator<Item = io::Result<String>>> {
        let body = self.open(path)?;
        body.get_ref().set_read_timeout(None)?;
        Ok(body.lines())
    }

    fn open(&self, path: &str) -> anyhow::Result<BufReader<UnixStream>> {
        let socket = admin_socket(&self.state_dir);
        let mut stream =
            UnixStream::connect(&socket).map_err(|error| self.nobody(&socket, &error))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0, so that the body ends where the connection does.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        let mut line = String::new();
        let head = (|| {
            reader.read_line(&mut status)?;
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            Ok(())
        })();
        head.map_err(|error| self.silent(&error))?;
        if status.split(' ').nth(1) == Some("200") {
            return Ok(reader);
        }
        let mut reason = String::new();
        reader.read_to_string(&mut reason)?;
        anyhow::bail!("the running sluice says: {}", reason.trim())
    }

    fn silent(&self, error: &io::Error) -> anyhow::Error {
        let directory = self.state_dir.display();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => anyhow::anyhow!(
                "the sluice with state directory {directory} does not answer within {} s: is the process stopped, \
                 or out of CPU?",
                PATIENCE.as_secs()
            ),
            _ => anyhow::anyhow!("the sluice with state directory {directory} broke off: {error}"),
        }
    }

    fn nobody(&self, socket: &Path, error: &io::Error) -> anyhow::Error {
        let directory = self.state_dir.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow::anyhow!(
                "no sluice is running with state directory {directory}: start `sluice run --manifests DIR`, \
                 or give --manifests DIR to ask offline"
            ),
            io::ErrorKind::PermissionDenied => anyhow::anyhow!(
                "{} belongs to another user: ask as the user who runs sluice, or give --state-dir DIR",
                socket.display()
            ),
            _ => anyhow::anyhow!("cannot ask {}: {error}", socket.display()),
        }
    }
}
