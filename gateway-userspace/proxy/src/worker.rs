//! A worker: one thread with its own runtime, listeners, pools, timers and figures. Nothing it
//! touches for a request is written by another thread.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gateway_model::snapshot::Snapshot;
use tokio::sync::{mpsc, oneshot};

use crate::shared::Shared;
use crate::tls::TlsTables;

/// What the workers serve: one revision, with what is derived from it off the request path.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) tls: Arc<TlsTables>,
}

/// What the owner asks of a worker. `done` is answered, or dropped, when it has happened.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open these sockets and serve this from now on.
    Apply {
        serving: Arc<Serving>,
        listeners: Vec<(SocketAddr, TcpListener)>,
        done: oneshot::Sender<()>,
    },
    /// Take what the sockets of these addresses hold and close them.
    Close {
        addresses: Vec<SocketAddr>,
        done: oneshot::Sender<()>,
    },
    /// End service.
    Drain {
        deadline: Duration,
        done: oneshot::Sender<()>,
    },
}

/// The owner's side of a worker. The worker ends when it is dropped.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl WorkerHandle {
    /// Starts worker `index` with the sockets that connections are steered to.
    pub(crate) fn start(
        index: usize,
        shared: &Arc<Shared>,
        steered: Vec<TcpListener>,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::clone(shared);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, serve(shared, steered, inbox));
            })?;
        Ok(Self { commands })
    }

    /// Sends a command; the answer comes when the worker has carried it out or is gone.
    pub(crate) fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<()>) -> Command,
    ) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(command(done));
        answer
    }
}

async fn serve(
    _shared: Arc<Shared>,
    steered: Vec<TcpListener>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
) {
    let mut sockets = HashMap::new();
    let mut _serving = None;
    let _steered = steered;
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply {
                serving,
                listeners,
                done,
            } => {
                sockets.extend(listeners);
                _serving = Some(serving);
                let _ = done.send(());
            }
            Command::Close { addresses, done } => {
                for address in addresses {
                    sockets.remove(&address);
                }
                let _ = done.send(());
            }
            Command::Drain { done, .. } => {
                sockets.clear();
                let _ = done.send(());
                return;
            }
        }
    }
}
