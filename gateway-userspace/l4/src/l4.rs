//! The packet path as a value: [`L4::start`] and what can be done with it afterwards.
//!
//! The order of things is here: what is written before what, so that packets and connections always
//! meet a whole revision and a live process.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::l4_plan::{L4Plan, Transport};
use tokio::sync::watch;

use crate::addresses::{Shared, Watch};
use crate::attach::Attachments;
use crate::error::chain;
use crate::loader::{self, Programs};
use crate::maps::Maps;
use crate::netlink::Netlink;
use crate::object::object;
use crate::pins::Pins;
use crate::publish::Publisher;
use crate::routes::Refused;
use crate::status::{Counters, FrontendStatus, Status};
use crate::tables::{self, Tables};
use crate::trace::{TraceFilter, TraceLines, Tracer};
use crate::{L4Error, Mode, Settings, SteeringSocket, sys};

/// What [`L4::start`] found.
#[derive(Debug)]
pub enum Outcome {
    /// The programs are loaded and attached.
    Bpf(Box<L4>),
    /// There is no BPF to be had (or none was asked for): bind ordinary sockets, and tell why.
    Unavailable {
        /// Why, with the fix where there is one.
        reason: String,
    },
}

/// The loaded, attached and pinned packet path.
///
/// Dropping it leaves everything as it is in the kernel, for a successor. What a process leaves behind when
/// it is killed does no harm: its sockets leave the map with it, so `steer` lets connections go the ordinary
/// way and `front` applies no policy; the next start takes it all over.
#[derive(Debug)]
pub struct L4 {
    pins: Arc<Pins>,
    programs: Programs,
    shared: Shared,
    attachments: Attachments,
    publisher: Publisher,
    /// Whether this process has been live.
    taken_over: bool,
    tracer: Tracer,
    watch: Watch,
    notes: Vec<String>,
}

impl L4 {
    /// Loads and attaches the programs. With a predecessor's pins there, its maps are shared and
    /// nothing of what it serves changes before [`L4::take_over`]. Must run within a tokio runtime whose
    /// threads are in the network namespace that is meant.
    ///
    /// # Errors
    /// In [`Mode::Bpf`], whatever prevents it; in [`Mode::Auto`] that is [`Outcome::Unavailable`]. An interface that
    /// was named and is not there is an error in both.
    pub async fn start(settings: Settings) -> Result<Outcome, L4Error> {
        if settings.mode == Mode::Sockets {
            return Ok(Outcome::Unavailable {
                reason: "sockets mode was asked for".to_owned(),
            });
        }
        match Self::load(&settings).await {
            Ok(l4) => Ok(Outcome::Bpf(Box::new(l4))),
            Err(error @ L4Error::NoInterface { .. }) => Err(error),
            Err(error) if settings.mode == Mode::Bpf => Err(error),
            Err(error) => Ok(Outcome::Unavailable {
                reason: chain(&error),
            }),
        }
    }

    async fn load(settings: &Settings) -> Result<Self, L4Error> {
        let object = object().ok_or_else(|| L4Error::Unavailable {
            reason: "this build has no eBPF object; run `cargo xtask build-ebpf` and build again"
                .to_owned(),
        })?;
        loader::missing_privilege()?;
        let mut notes = Vec::new();
        let pins = Pins::open(settings, &loader::layout(), &mut notes)?;
        let pins = Arc::new(pins);
        let _locked = pins.lock().await?;
        let loaded = Self::attach(settings, object, &pins, notes).await;
        if loaded.is_err() && !pins.another_is_live() {
            // What could not be set up whole is not left in part; the cause is told, not this.
            let _ = pins.empty().and_then(|()| pins.remove());
        }
        loaded
    }

    async fn attach(
        settings: &Settings,
        object: &[u8],
        pins: &Arc<Pins>,
        mut notes: Vec<String>,
    ) -> Result<Self, L4Error> {
        let mut programs = Programs::load(object, pins, &mut notes)?;
        let shared = Shared::new(Maps::take(programs.ebpf())?);
        let tracer = Tracer::start(programs.ebpf())?;
        let netlink = Netlink::open()?;
        let attachments =
            Attachments::establish(settings, &programs, pins, &netlink, &mut notes).await?;
        let publisher = Publisher::new(shared.clone(), pins.clone(), netlink);
        let watch = Watch::start(publisher.clone())?;
        for note in &notes {
            tracing::info!(note, "packet path");
        }
        Ok(Self {
            pins: pins.clone(),
            programs,
            shared,
            attachments,
            publisher,
            taken_over: false,
            tracer,
            watch,
            notes,
        })
    }

    /// Makes a plan live: fills the idle half of the tables and flips the control word, unless the live half
    /// says the same; routes addresses that no interface has to this node. An address that the kernel refuses is
    /// [named](L4::refused) and left out. Before [`L4::take_over`] the plan is only kept, and goes live with it.
    ///
    /// # Errors
    /// The tables that are live stay as they are.
    pub async fn apply(&mut self, plan: &L4Plan) -> Result<(), L4Error> {
        let plan = Arc::new(plan.clone());
        if !self.taken_over {
            let dials = sys::local_ports();
            Tables::build(&plan, &BTreeSet::new(), &dials, &Tables::default())?;
            self.shared.lock().plan = plan;
            return Ok(());
        }
        let locked = self.pins.lock_as_owner().await?;
        self.publisher.publish(plan, None).await?;
        drop(locked);
        Ok(())
    }

    /// Puts this process's sockets, one per worker and family, and its plan in the place of a
    /// predecessor's, by one store. Connections that the predecessor has taken, or has queued, stay with it.
    /// Called again, it puts other sockets of this process in place, or takes the place of a successor that died.
    ///
    /// # Errors
    /// What was live stays live; so does a process of another [lineage](Settings::lineage).
    pub async fn take_over(&mut self, sockets: &[SteeringSocket<'_>]) -> Result<(), L4Error> {
        let locked = self.pins.lock().await?;
        if self.taken_over && !self.pins.is_owner() {
            if self.pins.another_is_live() {
                return Err(L4Error::Superseded);
            }
            self.attachments.inherit();
        }
        if self.pins.a_stranger_is_live() {
            let pin_dir = self.pins.pin_dir().to_owned();
            return Err(L4Error::Occupied { pin_dir });
        }
        self.programs.repin_maps(&self.pins)?;
        self.shared.lock().maps.forget();
        let plan = Arc::clone(&self.shared.lock().plan);
        self.publisher.publish(plan, Some(sockets)).await?;
        self.taken_over = true;
        self.attachments.take_over(&self.programs, &self.pins)?;
        drop(locked);
        Ok(())
    }

    /// The addresses that the kernel does not route to this node, whenever they change; their frontends are not
    /// served.
    #[must_use]
    pub fn refused(&self) -> watch::Receiver<Refused> {
        self.publisher.refused()
    }

    /// Whether this process is the one that is live; false before [`L4::take_over`] and after a successor's.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.taken_over && self.pins.is_owner()
    }

    /// Whether a successor has taken over and died, and nobody is live.
    #[must_use]
    pub fn is_forsaken(&self) -> bool {
        self.taken_over && !self.pins.is_owner() && !self.pins.another_is_live()
    }

    /// Detaches everything, unpins it and removes the local routes, also what a killed process left; unless another
    /// process is live: then only what this one attached for itself goes. Routes of processes with other pins stay.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub async fn detach(self) -> Result<(), L4Error> {
        self.leave(false).await
    }

    /// As [`L4::detach`], but the local routes stay: a successor serves these addresses on ordinary sockets. The
    /// next start with these pins takes them over.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub async fn detach_for_sockets(self) -> Result<(), L4Error> {
        self.leave(true).await
    }

    async fn leave(self, keeps_routes: bool) -> Result<(), L4Error> {
        drop(self.watch);
        let is_superseded = || self.taken_over && !self.pins.is_owner();
        if is_superseded() {
            return Ok(());
        }
        let locked = self.pins.lock().await?;
        if is_superseded() {
            return Ok(());
        }
        if !self.taken_over && self.pins.another_is_live() {
            return self.attachments.abandon();
        }
        let cleared = if keeps_routes {
            Ok(())
        } else {
            self.publisher.routes.clear().await
        };
        let emptied = self.pins.empty();
        drop(self.attachments);
        // Last: who comes now begins at once.
        let removed = self.pins.remove();
        drop(locked);
        cleared.and(emptied).and(removed)
    }

    /// The packet path as it stands.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn status(&self) -> Result<Status, L4Error> {
        let inner = self.shared.lock();
        let control = inner.maps.control()?;
        Ok(Status {
            pin_dir: self.pins.directory().to_owned(),
            live: self.is_live(),
            another_is_live: self.pins.another_is_live(),
            tables_half: control.tables(),
            sockets_half: control.sockets(),
            workers: control.workers(control.sockets()),
            tracing: control.tracing(),
            attachments: self.attachments.status(),
            programs: self.programs.status(),
            maps: inner.maps.status()?,
            frontends: frontends(&inner.maps)?,
            local_routes: inner.routed.iter().copied().collect(),
            notes: self.notes.clone(),
        })
    }

    /// What was counted.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn counters(&self) -> Result<Counters, L4Error> {
        let inner = self.shared.lock();
        Ok(Counters {
            reasons: inner.maps.reasons()?,
            frontends: frontends(&inner.maps)?,
        })
    }

    /// Switches the packet trace on; it goes off when the returned lines are dropped.
    ///
    /// # Errors
    /// [`L4Error::Superseded`] if this process is not live; or a map cannot be written.
    pub async fn trace(&mut self, filter: TraceFilter) -> Result<TraceLines, L4Error> {
        self.tracer.trace(filter, &self.shared, &self.pins).await
    }
}

fn frontends(maps: &Maps) -> Result<Vec<FrontendStatus>, L4Error> {
    let mut found = Vec::new();
    for (key, value) in maps.live_tables()?.frontends {
        let Some(frontend) = tables::frontend(&key) else {
            continue;
        };
        let counters = maps.frontend_counters(value.slot)?;
        found.push(FrontendStatus {
            address: frontend.address,
            port: frontend.port,
            protocol: match frontend.transport {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
            },
            restricted: value.policy != gateway_common::frontend::NO_POLICY,
            passed_packets: counters.passed_packets,
            passed_bytes: counters.passed_bytes,
            dropped_packets: counters.dropped_packets,
            steered: counters.steered,
        });
    }
    Ok(found)
}
