//! Somebody between a process and its successor, who passes on what they say to each other, and keeps some of it.
//! So one of them can be killed at that very moment.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::Sluice;
use gateway_tests::wait::PATIENCE;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

/// Listens under the name of a process's hand-over socket.
pub struct Between {
    name: PathBuf,
    /// Where the process listens meanwhile.
    aside: PathBuf,
    listener: Socket,
    inode: u64,
}

impl Between {
    /// Steps in front of a process.
    pub fn step_in(sluice: &Sluice) -> Result<Self> {
        let name = sluice.state_dir().join("handover.sock");
        let aside = sluice.state_dir().join("aside.sock");
        std::fs::rename(&name, &aside)?;
        let listener = socket()?;
        listener.bind(&SockAddr::unix(&name)?)?;
        listener.listen(1)?;
        Ok(Self {
            inode: inode(&name)?,
            name,
            aside,
            listener,
        })
    }

    /// Passes messages on until the successor says that it has taken over. This is kept: `then` is
    /// called, and the process sees its successor leave.
    ///
    /// Descriptors are not passed on: the successor hears of no sockets.
    pub fn keep_the_last_word(&self, then: impl FnOnce() -> Result<()>) -> Result<()> {
        let (old, new) = self.introduce()?;
        (&new).write_all(&welcome(&old)?)?;
        receive(&new, "taken-over")?;
        then()
    }

    /// Takes the name away, and keeps what the process says to its successor until `then` has been called.
    /// The successor hears no more.
    pub fn keep_the_first_word<T>(self, then: impl FnOnce() -> Result<T>) -> Result<T> {
        let (old, new) = self.introduce()?;
        let welcome = welcome(&old)?;
        std::fs::remove_file(&self.name)?;
        let done = then()?;
        (&new).write_all(&welcome)?;
        Ok(done)
    }

    fn introduce(&self) -> Result<(Socket, Socket)> {
        let old = socket()?;
        old.connect(&SockAddr::unix(&self.aside)?)?;
        let (new, _) = self.listener.accept().context("no successor comes")?;
        new.set_read_timeout(Some(PATIENCE))?;
        pass_on(&new, &old, "hello")?;
        Ok((old, new))
    }

    /// Gives the process its name back, which nobody has taken.
    pub fn step_back(self) -> Result<()> {
        ensure!(
            inode(&self.name)? == self.inode,
            "the successor has the name of the hand-over socket"
        );
        Ok(std::fs::rename(&self.aside, &self.name)?)
    }
}

fn socket() -> Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn inode(path: &Path) -> Result<u64> {
    Ok(std::fs::symlink_metadata(path)?.ino())
}

/// A welcome that tells of no sockets; they are received, and closed by that.
fn welcome(old: &Socket) -> Result<Vec<u8>> {
    let mut message: Value = serde_json::from_slice(&receive(old, "welcome")?)?;
    let welcome = &mut message["welcome"];
    let mut left = welcome["sockets"].as_u64().context("a number of sockets")?;
    for counted in ["sockets", "steering"] {
        welcome[counted] = 0.into();
    }
    while left > 0 {
        let sockets: Value = serde_json::from_slice(&receive(old, "sockets")?)?;
        let addresses = sockets["sockets"]["addresses"].as_array();
        left -= addresses.context("addresses")?.len() as u64;
    }
    Ok(serde_json::to_vec(&message)?)
}

fn pass_on(from: &Socket, mut to: &Socket, kind: &str) -> Result<()> {
    let message = receive(from, kind)?;
    Ok(to.write_all(&message)?)
}

fn receive(mut from: &Socket, kind: &str) -> Result<Vec<u8>> {
    let mut message = vec![0; 16 * 1024];
    let length = from
        .read(&mut message)
        .with_context(|| format!("waiting for {kind}"))?;
    message.truncate(length);
    let text = String::from_utf8_lossy(&message);
    ensure!(text.contains(kind), "not {kind}: {text:?}");
    Ok(message)
}
