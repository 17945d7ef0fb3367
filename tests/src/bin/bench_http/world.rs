//! Where a run happens: a network namespace, a directory, a certificate.
#![allow(unsafe_code, reason = "unshare(2) is not in std")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// Moves this process, and so its children, into a network namespace of their own when it may; says where it is.
///
/// The namespace goes when the last of them ends. Its congestion control is reno: pacing costs the
/// proxies unlike shares of CPU, and nothing is congested here.
pub fn enter() -> anyhow::Result<String> {
    // SAFETY: takes no pointer, and no other thread is running yet.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let control =
            fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
        return Ok(format!(
            "on the loopback ({}; as root it would be a namespace with reno)",
            control.trim()
        ));
    }
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("cannot run ip")?;
    ensure!(
        up.success(),
        "cannot raise the loopback of the new namespace"
    );
    fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno").context("cannot choose reno")?;
    Ok("in a network namespace with reno".to_owned())
}

/// The files of one run.
pub struct World {
    dir: TempDir,
}

impl World {
    /// Makes the directory and a P-256 certificate for `bench.test`.
    pub fn make() -> anyhow::Result<World> {
        let world = World {
            dir: tempfile::Builder::new().prefix("sluice-bench-").tempdir()?,
        };
        let certified = rcgen::generate_simple_self_signed(["bench.test".to_owned()])?;
        fs::write(world.certificate(), certified.cert.pem())?;
        fs::write(world.key(), certified.signing_key.serialize_pem())?;
        Ok(world)
    }

    /// Its directory.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// PEM file.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("tls.crt")
    }

    /// PEM file.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("tls.key")
    }
}
