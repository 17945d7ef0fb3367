//! A running process's part in a hand-over: it waits for a successor on a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gateway_proxy::Proxy;
use socket2::SockRef;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::handover::{Estate, Old, Server, TakenOver};
use super::packet_path;
use crate::controller::PacketPath;
use crate::telemetry::chain;
use crate::view::process::Life;
use crate::world::World;

/// What a successor may get.
#[derive(Debug)]
pub struct Serving {
    /// Its sockets.
    pub proxy: Arc<Proxy>,
    /// What steers connections to it.
    pub l4: PacketPath,
    /// What it serves.
    pub world: watch::Receiver<Option<Arc<World>>>,
    /// Whether it still does.
    pub life: watch::Sender<Life>,
    /// Where all this runs.
    pub runtime: Handle,
}

/// The successor that may come.
#[derive(Debug)]
pub struct Successor {
    /// Told when it serves.
    pub taken_over: oneshot::Receiver<TakenOver>,
    /// Ends after that, when it has the names of the sockets or is gone.
    pub moving: oneshot::Receiver<()>,
}

impl Successor {
    /// Waits for it.
    pub fn wait_for(server: Server, serving: Serving) -> Self {
        let (sender, taken_over) = oneshot::channel();
        let (is_moving, moving) = oneshot::channel();
        let serve = move || {
            let (said, names) = server.serve(&serving);
            let _ = sender.send(said);
            names.wait();
            drop(is_moving);
        };
        let thread = std::thread::Builder::new()
            .name("hand-over".to_owned())
            .spawn(serve);
        if let Err(error) = thread {
            tracing::error!(error = %error, "no successor can take over");
        }
        Self { taken_over, moving }
    }
}

impl Old for Serving {
    fn estate(&self) -> io::Result<Estate> {
        let world = self.world.borrow().clone();
        let steering = self.runtime.block_on(self.proxy.steering_sockets())?;
        let with_address = |fd: OwnedFd| {
            let address = SockRef::from(&fd).local_addr()?;
            let address = address.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
            Ok((address, fd))
        };
        Ok(Estate {
            revision: world.map(|world| world.revision()).unwrap_or_default(),
            sockets: self.runtime.block_on(self.proxy.listening_sockets())?,
            steering: steering
                .into_iter()
                .map(|socket| with_address(socket.fd))
                .collect::<io::Result<_>>()?,
        })
    }

    fn leave(&self) {
        self.runtime.block_on(self.proxy.leave_datagrams());
    }

    fn resume(&self) {
        if *self.life.borrow() != Life::Serving {
            return;
        }
        let resumed = packet_path::resume(&self.l4, &self.proxy);
        if let Err(error) = self.runtime.block_on(resumed) {
            tracing::error!(
                error = chain(error.as_ref()),
                "connections do not come back to this process"
            );
        }
    }
}
