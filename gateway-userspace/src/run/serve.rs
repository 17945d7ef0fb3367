//! One life of a process.

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gateway_proxy::{ListenMode, Proxy};
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;

use super::handover::{Predecessor, Server, TakenOver};
use super::origin::Origin;
use super::packet_path;
use super::signals::{Asked, Signals};
use super::socket_file::SocketFile;
use super::state_dir::StateDir;
use super::successor::{Serving, Successor};
use crate::admin::{Admin, AdminState};
use crate::config::Config;
use crate::controller::{Controller, PacketPath, StageTimes};
use crate::source::Rescan;
use crate::status::Clerks;
use crate::view::process::Life;
use crate::world::World;

/// Serves until a signal or a successor.
///
/// # Errors
/// What prevents a start. A predecessor is untouched then, and nothing is left in the kernel.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let origin = Origin::of(&config).await?;
    let state = StateDir::open(&config.state_dir)?;
    let predecessor = connect(&state).await?;
    if let Some(old) = &predecessor {
        tracing::info!(pid = old.pid, revision = %old.revision, sockets = old.sockets.len(), "taking over from a running sluice");
    }
    let (l4, reason) = packet_path::start(&config, &state).await?;
    let path: PacketPath = Arc::new(Mutex::new(l4));
    let served = live(
        config,
        origin,
        &state,
        predecessor,
        Arc::clone(&path),
        reason,
        signals,
    )
    .await;
    packet_path::leave(&path).await;
    served
}

async fn live(
    config: Config,
    origin: Origin,
    state: &StateDir,
    predecessor: Option<Predecessor>,
    l4: PacketPath,
    l4_reason: Option<String>,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let mut parts = Parts::start(config, &origin, state, predecessor, l4, l4_reason)?;
    tokio::select! {
        ready = parts.get_ready() => ready?,
        () = signals.stop() => {
            tracing::info!("stopped before anything was served");
            return Ok(());
        }
    }
    let mut successor = parts.take_over(state).await?;
    parts.clerks = origin.report(&parts.admin)?;
    let mut is_deaf = false;
    let end = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break End::Signal,
                Asked::Reload => {
                    tracing::info!("looking at all objects again");
                    parts.rescan.request();
                }
            },
            Ok(taken_over) = &mut successor.taken_over => break End::Successor(taken_over),
            ended = &mut parts.controller, if !is_deaf => {
                is_deaf = true;
                let error = ended.err().map(|error| error.to_string());
                tracing::error!(error, "objects are not followed any more; serving the last revision");
            }
        }
    };
    parts.end(end, successor.moving, &mut signals).await;
    Ok(())
}

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Signal,
    Successor(TakenOver),
}

/// What makes up a running process.
struct Parts {
    proxy: Arc<Proxy>,
    l4: PacketPath,
    world: watch::Receiver<Option<Arc<World>>>,
    controller: JoinHandle<()>,
    rescan: Rescan,
    admin: AdminState,
    admin_server: Option<Admin>,
    predecessor: Option<Predecessor>,
    /// Whether connections are steered to sockets of the predecessor's.
    shares: bool,
    handover: Option<SocketFile>,
    clerks: Option<Clerks>,
}

async fn connect(state: &StateDir) -> anyhow::Result<Option<Predecessor>> {
    let path = state.handover_socket();
    tokio::task::spawn_blocking(move || Predecessor::connect(&path)).await?
}

impl Parts {
    fn start(
        config: Config,
        origin: &Origin,
        state: &StateDir,
        mut predecessor: Option<Predecessor>,
        l4: PacketPath,
        l4_reason: Option<String>,
    ) -> anyhow::Result<Self> {
        let (inherited, steering) = predecessor
            .as_mut()
            .map(|old| (take(&mut old.sockets), take(&mut old.steering)))
            .unwrap_or_default();
        let shares = l4_reason.is_none() && !steering.is_empty();
        let mode = match &l4_reason {
            None => ListenMode::Steered {
                inherited,
                steering,
            },
            Some(_) => ListenMode::Sockets { inherited },
        };
        let config = Arc::new(config);
        let proxy = Arc::new(Proxy::start(config.proxy_settings(), mode)?);
        tracing::info!(workers = config.workers, "workers started");
        let source = origin.open(&config, state)?;
        let (world, published) = watch::channel(None);
        let times = Arc::new(StageTimes::default());
        let controller = Controller::new(
            config.translate_settings(),
            predecessor
                .as_ref()
                .map(|old| old.revision)
                .unwrap_or_default(),
            Arc::clone(&proxy),
            Arc::clone(&l4),
            world,
            Arc::clone(&times),
        );
        let rescan = source.rescan();
        let health = source.health();
        let admin = AdminState {
            world: published.clone(),
            proxy: Arc::clone(&proxy),
            l4: Arc::clone(&l4),
            times,
            config: Arc::clone(&config),
            health,
            statuses: origin.stats(),
            l4_reason,
            pod: std::env::var("POD_NAME").ok(),
            started_at: Timestamp::now(),
            life: watch::channel(Life::Starting).0,
        };
        let mut parts = Self {
            proxy,
            l4,
            world: published,
            controller: tokio::spawn(controller.run(source)),
            rescan,
            admin,
            admin_server: None,
            predecessor,
            shares,
            handover: None,
            clerks: None,
        };
        if parts.predecessor.is_none() {
            let admin = parts.open_admin(state)?;
            admin
                .publish()
                .context("cannot take the name of the admin socket")?;
        }
        Ok(parts)
    }

    fn open_admin(&mut self, state: &StateDir) -> anyhow::Result<&mut Admin> {
        let path = state.admin_socket();
        let admin = Admin::start(&path, self.admin.clone())
            .with_context(|| format!("cannot open the admin socket {}", path.display()))?;
        Ok(self.admin_server.insert(admin))
    }

    /// Waits for the first revision.
    async fn get_ready(&mut self) -> anyhow::Result<()> {
        let world = self
            .world
            .wait_for(Option::is_some)
            .await
            .context("nothing can be applied")?;
        let is_founded = world.as_ref().is_some_and(|world| world.is_founded());
        anyhow::ensure!(
            is_founded || self.predecessor.is_none(),
            "the objects cannot be read and there is no last good configuration; the running \
             sluice serves on"
        );
        Ok(())
    }

    /// Takes the place of the predecessor, if there is one, and waits for a successor.
    async fn take_over(&mut self, state: &StateDir) -> anyhow::Result<Successor> {
        self.look_again(state).await?;
        if self.admin_server.is_none() {
            self.open_admin(state)?;
        }
        let (server, file) =
            Server::bind(&state.handover_socket()).context("cannot open the hand-over socket")?;
        let is_steered = packet_path::take_over(&self.l4, &self.proxy).await?;
        self.proxy.accept_connections().await;
        let predecessor = self.tell_predecessor(is_steered).await?;
        self.publish(file)
            .context("cannot take the names of the sockets")?;
        drop(predecessor);
        // The old process has answered what the sockets held, or is gone.
        self.proxy.receive_datagrams().await;
        self.admin.life.send_replace(Life::Serving);
        tracing::info!(state = %self.admin.config.state_dir.display(), "serving");
        self.open_admin_address().await;
        Ok(self.await_successor(server))
    }

    /// Without a predecessor, or when it has ended, another process may have begun to serve while this one got ready.
    /// What that one listens on would be missed here, and it would not drain.
    async fn look_again(&self, state: &StateDir) -> anyhow::Result<()> {
        if self.predecessor.as_ref().is_some_and(|old| !old.is_gone()) {
            return Ok(());
        }
        if let Some(other) = connect(state).await? {
            anyhow::bail!(
                "process {} has begun to serve meanwhile; start again to take over from it",
                other.pid
            );
        }
        Ok(())
    }

    /// From its answer on it drains, and the names are this process's to take. It waits for that until
    /// what this returns is dropped.
    async fn tell_predecessor(&mut self, is_steered: bool) -> anyhow::Result<Option<Predecessor>> {
        let Some(old) = self.predecessor.take() else {
            return Ok(None);
        };
        let shares = self.shares;
        let tell = move || (old.taken_over(is_steered, shares), old);
        let (told, old) = tokio::task::spawn_blocking(tell).await?;
        let pid = old.pid;
        match told {
            Ok(()) => tracing::info!(pid, "took over"),
            Err(error) => {
                tracing::warn!(pid, error = %error, "took over from a process that does not answer");
            }
        }
        Ok(Some(old))
    }

    fn publish(&mut self, mut handover: SocketFile) -> std::io::Result<()> {
        handover.publish()?;
        self.handover = Some(handover);
        self.admin_server.as_mut().map_or(Ok(()), Admin::publish)
    }

    /// Only now, for a predecessor had the same address and lets go of it when it hears.
    async fn open_admin_address(&mut self) {
        let Some(address) = self.admin.config.admin_address else {
            return;
        };
        let Some(server) = &mut self.admin_server else {
            return;
        };
        let mut listening = server.listen(address);
        for _ in 0..100 {
            if !matches!(&listening, Err(error) if error.kind() == std::io::ErrorKind::AddrInUse) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            listening = server.listen(address);
        }
        match listening {
            Ok(()) => tracing::info!(%address, "admin server listens"),
            Err(error) => {
                tracing::error!(%address, error = %error, "admin server cannot listen on this address");
            }
        }
    }

    fn await_successor(&self, server: Server) -> Successor {
        let serving = Serving {
            proxy: Arc::clone(&self.proxy),
            l4: Arc::clone(&self.l4),
            world: self.world.clone(),
            life: self.admin.life.clone(),
            runtime: Handle::current(),
        };
        Successor::wait_for(server, serving)
    }

    /// Drains and cleans up. A second signal cuts the drain short.
    async fn end(mut self, end: End, moving: oneshot::Receiver<()>, signals: &mut Signals) {
        let timeout = self.admin.config.drain_timeout;
        self.controller.abort();
        self.admin.life.send_replace(Life::Draining);
        if let End::Successor(taken_over) = end {
            tracing::info!(
                pid = taken_over.pid,
                timeout_s = timeout.as_secs(),
                "a successor serves; draining"
            );
            if let Some(server) = &mut self.admin_server {
                server.close_address();
            }
            if taken_over.shares {
                self.proxy.leave_connections().await;
            }
            if !taken_over.l4 {
                packet_path::leave_for_sockets(&self.l4).await;
            }
        } else {
            tracing::info!(timeout_s = timeout.as_secs(), "stopping; draining");
            // What drains has nothing to hand over; who starts now starts afresh beside it.
            self.handover = None;
        }
        let clerks = self.clerks.take();
        let farewell = async {
            if let Some(clerks) = clerks {
                clerks.end().await;
            }
        };
        let moved = async {
            if end != End::Signal {
                let _ = moving.await;
            }
        };
        let drained = async { tokio::join!(self.proxy.drain(timeout), farewell, moved) };
        let stops = if end == End::Signal { 1 } else { 2 };
        tokio::select! {
            _ = drained => tracing::info!("drained"),
            () = told_to_stop(signals, stops) => {
                tracing::warn!("told to stop again; open connections are cut");
            }
        }
    }
}

/// After so many signals. The first one after a hand-over is expected: an orchestrator stops the
/// old process as soon as the new one is ready, and long connections are to live on.
async fn told_to_stop(signals: &mut Signals, times: u32) {
    for left in (0..times).rev() {
        signals.stop().await;
        if left > 0 {
            tracing::info!("told to stop while draining for a successor; one more ends it at once");
        }
    }
}
