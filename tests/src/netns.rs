//! One network namespace as a value: threads and processes inside it.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::cleanup::{self, Guard, Leftover, NETNS_DIR};
use crate::sys;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, or the one this process is in. Clones share it; the last one removes it.
#[derive(Clone, Debug)]
pub struct Netns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    fd: Option<OwnedFd>,
    keeper: mpsc::Sender<Job>,
    _guard: Option<Guard>,
}

impl Netns {
    /// Makes an empty namespace with a loopback interface that is up. It is visible to
    /// `ip netns exec NAME` as long as it lives.
    ///
    /// # Errors
    /// When this process may not make namespaces (it has to be root).
    pub fn create(name: &str) -> Result<Self> {
        anyhow::ensure!(
            sys::is_root(),
            "network namespaces need root: run this as root, or in a container with --privileged"
        );
        std::fs::create_dir_all(NETNS_DIR).context(NETNS_DIR)?;
        let path = PathBuf::from(NETNS_DIR).join(name);
        let guard = cleanup::register(Leftover::Namespace(path.clone()));
        let fd = std::thread::scope(|scope| scope.spawn(|| pin_new_namespace(&path)).join())
            .map_err(|_| anyhow!("panic while making namespace {name}"))?
            .with_context(|| format!("network namespace {name}"))?;
        let namespace = Self::with(name, Some(fd), Some(guard))?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// A namespace that somebody else has made and named, and will remove.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn open(name: &str) -> Result<Self> {
        let path = PathBuf::from(NETNS_DIR).join(name);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        Self::with(name, Some(file.into()), None)
    }

    /// The namespace that this process is in.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn current() -> Result<Self> {
        Self::with("current", None, None)
    }

    fn with(name: &str, fd: Option<OwnedFd>, guard: Option<Guard>) -> Result<Self> {
        let (keeper, jobs) = mpsc::channel::<Job>();
        let inside = fd.as_ref().map(OwnedFd::try_clone).transpose()?;
        std::thread::Builder::new()
            .name(format!("{name}-keeper"))
            .spawn(move || {
                if let Some(fd) = inside {
                    sys::enter_network_namespace(&fd).expect("an open namespace can be entered");
                }
                jobs.into_iter().for_each(|job| job());
            })?;
        let inner = Inner {
            name: name.to_owned(),
            fd,
            keeper,
            _guard: guard,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it is the namespace that this process is in.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.inner.fd.is_none()
    }

    /// Moves the calling thread into this namespace.
    ///
    /// # Errors
    /// What `setns(2)` says.
    pub fn enter(&self) -> Result<()> {
        match &self.inner.fd {
            Some(fd) => sys::enter_network_namespace(fd).with_context(|| self.inner.name.clone()),
            None => Ok(()),
        }
    }

    /// Runs a function on a thread inside and waits for it.
    ///
    /// # Panics
    /// With the function's panic.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter().expect("an open namespace can be entered");
            function()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a thread inside.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        name: &str,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> Result<std::thread::JoinHandle<T>> {
        let namespace = self.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                namespace.enter().expect("an open namespace can be entered");
                drop(namespace);
                function()
            })?;
        Ok(thread)
    }

    /// Runs a future on a single-threaded tokio runtime inside and waits for it.
    ///
    /// # Panics
    /// With the future's panic, or when no runtime can be made.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.run(|| runtime().expect("a runtime can be made").block_on(future))
    }

    /// Starts a process inside. It is killed when this namespace's last clone is dropped, or when
    /// this process ends, however that happens.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Child> {
        self.spawn_by(Command::spawn, command)
    }

    /// As [`Netns::spawn`], in a PID namespace of its own, as in a container.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn_apart(&self, command: Command) -> Result<Child> {
        self.spawn_by(sys::spawn_apart, command)
    }

    fn spawn_by(
        &self,
        spawn: fn(&mut Command) -> std::io::Result<Child>,
        mut command: Command,
    ) -> Result<Child> {
        sys::die_with_parent(&mut command);
        let (sender, receiver) = mpsc::sync_channel(1);
        let job = move || {
            let child = spawn(&mut command);
            let named =
                child.with_context(|| format!("cannot start {}", command.get_program().display()));
            drop(sender.send(named));
        };
        let sent = self.inner.keeper.send(Box::new(job));
        sent.map_err(|_| anyhow!("namespace {} has no keeper thread", self.inner.name))?;
        receiver.recv()?
    }

    /// Connects from inside; the socket can then be used by any thread.
    ///
    /// # Errors
    /// What `connect(2)` says.
    pub fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)))
    }

    /// Runs lines of `ip -batch` inside.
    ///
    /// # Errors
    /// With what `ip` printed.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        self.run(|| ip_batch(lines))
            .with_context(|| format!("in namespace {}", self.inner.name))
    }

    /// Writes a value below `/proc/sys/net`, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// When there is no such setting.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(name);
        self.run(|| std::fs::write(&path, value))
            .with_context(|| path.display().to_string())
    }
}

/// A single-threaded tokio runtime with everything enabled.
///
/// # Errors
/// When the system has no descriptors left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Runs lines of `ip -batch` in the calling thread's namespace.
///
/// # Errors
/// With what `ip` printed.
pub fn ip_batch(lines: &[&str]) -> Result<()> {
    use std::io::Write;
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .context("cannot start ip: install iproute2")?;
    let mut input = child.stdin.take().context("no pipe to ip")?;
    input.write_all(lines.join("\n").as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    anyhow::ensure!(
        output.status.success(),
        "ip failed: {}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

fn pin_new_namespace(path: &Path) -> Result<OwnedFd> {
    sys::unshare_network().context("unshare")?;
    let fd = sys::this_network_namespace()?;
    File::create(path)?;
    sys::mount(
        Path::new("/proc/thread-self/ns/net"),
        path,
        "none",
        libc::MS_BIND,
    )
    .with_context(|| format!("bind mount at {}", path.display()))?;
    Ok(fd)
}
