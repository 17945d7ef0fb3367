//! The admin server: HTTP on STATE/admin.sock and, if wanted, on a loopback address.
//!
//! It runs on a thread of its own, so that no question can delay a request. It only reads.

mod answer;
mod metrics;
mod request;
mod trace;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use gateway_proxy::Proxy;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::controller::{PacketPath, StageTimes};
use crate::run::socket_file::SocketFile;
use crate::source::cluster::Health;
use crate::status::Stats;
use crate::view::process::{Life, ProcessView};
use crate::world::{Stages, World};

pub use request::encode;

/// Everything the server may look at.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The last applied revision.
    pub world: watch::Receiver<Option<Arc<World>>>,
    /// For its figures.
    pub proxy: Arc<Proxy>,
    /// For its status, its counters and its trace.
    pub l4: PacketPath,
    /// The controller's figures.
    pub times: Arc<StageTimes>,
    /// The settings.
    pub config: Arc<Config>,
    /// How well a cluster is followed; none for files.
    pub health: Option<Arc<Health>>,
    /// What is counted of statuses in a cluster.
    pub statuses: Option<Arc<Stats>>,
    /// Why there is no BPF.
    pub l4_reason: Option<String>,
    /// The Pod that this process is of, if it is of one.
    pub pod: Option<String>,
    /// When the process started.
    pub started_at: Timestamp,
    /// What the process is doing.
    pub life: watch::Sender<Life>,
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    state: Arc<AdminState>,
    runtime: Handle,
    address: Option<JoinHandle<()>>,
    file: SocketFile,
    _stop: oneshot::Sender<()>,
}

/// Where a connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Socket,
    Loopback,
}

impl AdminState {
    /// What the process says about itself.
    pub fn process(&self) -> ProcessView {
        let world = self.world.borrow();
        ProcessView {
            version: crate::version::LONG.to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            state: *self.life.borrow(),
            l4: if self.l4_reason.is_none() {
                "bpf"
            } else {
                "sockets"
            }
            .to_owned(),
            l4_reason: self.l4_reason.clone(),
            workers: self.config.workers.get(),
            applied_at: world.as_ref().map(|world| world.applied_at),
            stages: world
                .as_ref()
                .map_or_else(Stages::default, |world| world.stages),
            stale_seconds: self.health.as_ref().map(|health| health.stale().as_secs()),
        }
    }
}

impl Admin {
    /// Opens the socket and serves it; nobody finds it before it is [published](Self::publish).
    ///
    /// # Errors
    /// The socket or the thread cannot be made.
    pub fn start(path: &Path, state: AdminState) -> io::Result<Self> {
        let (file, listener) = SocketFile::stream(path)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let state = Arc::new(state);
        let (stop, stopped) = oneshot::channel::<()>();
        let entered = handle.enter();
        let listener = UnixListener::from_std(listener)?;
        drop(entered);
        handle.spawn(accept_sockets(listener, Arc::clone(&state)));
        std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            state,
            runtime: handle,
            address: None,
            file,
            _stop: stop,
        })
    }

    /// Puts the socket in the place of a predecessor's.
    ///
    /// # Errors
    /// The directory cannot be written any more.
    pub fn publish(&mut self) -> io::Result<()> {
        self.file.publish()
    }

    /// Serves a loopback address too.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<()> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let _entered = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        self.address = Some(
            self.runtime
                .spawn(accept_loopback(listener, Arc::clone(&self.state))),
        );
        Ok(())
    }

    /// Leaves the loopback address to a successor.
    pub fn close_address(&mut self) {
        if let Some(task) = self.address.take() {
            task.abort();
        }
    }
}

async fn accept_sockets(listener: UnixListener, state: Arc<AdminState>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, Door::Socket, &state),
            Err(error) => pause(&error).await,
        }
    }
}

async fn accept_loopback(listener: TcpListener, state: Arc<AdminState>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => serve(stream, Door::Loopback, &state),
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(error = %error, "admin server cannot accept");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}

fn serve<S>(stream: S, door: Door, state: &Arc<AdminState>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move {
                Ok::<_, std::convert::Infallible>(answer::answer(&state, door, &request).await)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away is no event.
        let _ = connection.await;
    });
}

#[cfg(test)]
mod tests;
