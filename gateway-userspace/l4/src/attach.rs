//! Where the programs hang: `front` on interfaces, `steer` on the network namespace.
//!
//! Everything hangs on links. A link that a predecessor pinned is kept, and gets this process's program when it
//! takes over, so that no packet meets no program. A foreign program is never replaced.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::programs::loaded_programs;

use crate::loader::Programs;
use crate::netlink::{Interface, Netlink};
use crate::pins::{self, PinnedLink, Pins};
use crate::status::{Attachment, Hook};
use crate::sys::{self, Place, Target};
use crate::{Attach, L4Error, Settings};

/// The links of this process.
#[derive(Debug, Default)]
pub struct Attachments {
    steer: Option<Held>,
    fronts: BTreeMap<u32, Front>,
}

/// A pinned link.
#[derive(Debug)]
struct Held {
    fd: OwnedFd,
    /// Where it is pinned until the take-over; then it moves to this layout's directory.
    path: std::path::PathBuf,
    /// Whether it still carries the program of another process: a predecessor, or a successor that died.
    inherited: bool,
}

#[derive(Debug)]
struct Front {
    interface: String,
    held: Option<Held>,
    /// Native or generic, if it is XDP: the link does not say.
    xdp: Hook,
    note: Option<String>,
}

impl Attachments {
    /// Keeps what is pinned and usable, attaches and pins the rest. With a predecessor there, its programs
    /// stay until [`Attachments::take_over`].
    pub async fn establish(
        settings: &Settings,
        programs: &Programs,
        pins: &Pins,
        netlink: &Netlink,
        notes: &mut Vec<String>,
    ) -> Result<Self, L4Error> {
        let mut attachments = Self::default();
        let interfaces = choose(settings, netlink.interfaces().await?, notes)?;
        let mut inherited = usable_fronts(pins)?;
        for interface in interfaces {
            let front = match inherited.remove(&interface.index) {
                Some(link) => Front::inherited(&interface, link),
                None => Front::attach(settings.attach, &interface, programs, pins, netlink).await?,
            };
            attachments.fronts.insert(interface.index, front);
        }
        attachments.steer = Some(match usable_steer(pins)? {
            Some(link) => Held::inherited(link),
            None => attach_steer(programs, pins)?,
        });
        Ok(attachments)
    }

    /// Gives every inherited link this process's program, and drops links to interfaces that it does not want.
    pub fn take_over(&mut self, programs: &Programs, pins: &Pins) -> Result<(), L4Error> {
        if let Some(steer) = &mut self.steer {
            steer.take_over(
                programs.steer()?,
                pins.steer_path(),
                "sluice_steer",
                "the network namespace",
            )?;
        }
        for (index, front) in &mut self.fronts {
            if let Err(error) = front.take_over(*index, programs, pins) {
                let source: &dyn std::error::Error = &error;
                tracing::warn!(
                    interface = front.interface,
                    error = source,
                    "front is lost here"
                );
                front.note = Some(format!("lost at the take-over: {error}"));
                front.held = None;
            }
        }
        for link in pins.front_links()? {
            if !self
                .fronts
                .values()
                .filter_map(|front| front.held.as_ref())
                .any(|held| held.path == link.path)
            {
                pins::unpin(&link.path)?;
            }
        }
        pins.remove_other_layouts()
    }

    /// Takes every link for one that carries another process's program.
    pub fn inherit(&mut self) {
        let fronts = self.fronts.values_mut();
        let fronts = fronts.filter_map(|front| front.held.as_mut());
        for held in self.steer.iter_mut().chain(fronts) {
            held.inherited = true;
        }
    }

    /// Every attachment, as the kernel has it now.
    pub fn status(&self) -> Vec<Attachment> {
        let steer = self
            .steer
            .iter()
            .map(|held| held.status("the network namespace", 0, Hook::SkLookup, None));
        let front = |(index, front): (&u32, &Front)| match &front.held {
            Some(held) => held.status(&front.interface, *index, front.xdp, front.note.clone()),
            None => Attachment {
                interface: front.interface.clone(),
                ifindex: *index,
                hook: Hook::None,
                program_id: 0,
                note: front.note.clone(),
            },
        };
        steer.chain(self.fronts.iter().map(front)).collect()
    }

    /// Lets go of what this process attached and never made live.
    pub fn abandon(self) -> Result<(), L4Error> {
        let held = self
            .steer
            .into_iter()
            .chain(self.fronts.into_values().filter_map(|front| front.held));
        for held in held.filter(|held| !held.inherited) {
            pins::unpin(&held.path)?;
        }
        Ok(())
    }
}

impl Held {
    fn inherited(link: PinnedLink) -> Self {
        Self {
            fd: link.fd,
            path: link.path,
            inherited: true,
        }
    }

    fn take_over(
        &mut self,
        program: std::os::fd::BorrowedFd<'_>,
        path: std::path::PathBuf,
        name: &'static str,
        target: &str,
    ) -> Result<(), L4Error> {
        if self.inherited {
            let target = target.to_owned();
            sys::update_link(self.fd.as_fd(), program).map_err(|source| L4Error::Attach {
                program: name,
                target,
                source,
            })?;
            self.inherited = false;
        }
        // The predecessor's layout may be another, or it has stopped and removed its pins.
        pins::pin_if_absent(self.fd.as_fd(), &path)?;
        if self.path != path {
            pins::unpin(&self.path)?;
            self.path = path;
        }
        Ok(())
    }

    /// `hook` is what it is unless the link says otherwise.
    fn status(
        &self,
        interface: &str,
        ifindex: u32,
        hook: Hook,
        note: Option<String>,
    ) -> Attachment {
        let info = sys::link_info(self.fd.as_fd());
        let (program_id, hook) = match info {
            Ok(info) => match info.place {
                Place::Xdp(0) | Place::Tcx(0) | Place::Netns(0) => (info.program_id, Hook::None),
                Place::Tcx(_) => (info.program_id, Hook::Tcx),
                _ => (info.program_id, hook),
            },
            Err(_) => (0, Hook::None),
        };
        Attachment {
            interface: interface.to_owned(),
            ifindex,
            hook,
            program_id,
            note,
        }
    }
}

impl Front {
    fn take_over(&mut self, index: u32, programs: &Programs, pins: &Pins) -> Result<(), L4Error> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let program = match sys::link_info(held.fd.as_fd()).map(|info| info.place) {
            Ok(Place::Tcx(_)) => programs.tc()?,
            _ => programs.xdp()?,
        };
        held.take_over(
            program,
            pins.front_path(index),
            "sluice_front",
            &self.interface,
        )
    }

    fn inherited(interface: &Interface, link: PinnedLink) -> Self {
        let native = interface.xdp.is_some_and(|(_, native)| native);
        Self {
            interface: interface.name.clone(),
            held: Some(Held::inherited(link)),
            xdp: if native {
                Hook::XdpNative
            } else {
                Hook::XdpGeneric
            },
            note: None,
        }
    }

    /// Attaches to one interface, by the best hook that is free.
    async fn attach(
        wanted: Attach,
        interface: &Interface,
        programs: &Programs,
        pins: &Pins,
        netlink: &Netlink,
    ) -> Result<Self, L4Error> {
        let mut reasons = Vec::new();
        if let Some(note) = clear_leftover(interface, netlink).await? {
            reasons.push(note);
        }
        for target in targets(wanted, interface.index) {
            let (program, hook) = match target {
                Target::XdpNative(_) => (programs.xdp()?, "native XDP"),
                Target::XdpGeneric(_) => (programs.xdp()?, "generic XDP"),
                Target::Tcx(_) => (programs.tc()?, "TC"),
            };
            match sys::link_interface(program, target) {
                Ok(fd) => {
                    let path = pins.front_path(interface.index);
                    pins::unpin(&path)?;
                    pin(&fd, &path)?;
                    let held = Some(Held {
                        fd,
                        path,
                        inherited: false,
                    });
                    let xdp = if let Target::XdpNative(_) = target {
                        Hook::XdpNative
                    } else {
                        Hook::XdpGeneric
                    };
                    return Ok(Self {
                        interface: interface.name.clone(),
                        held,
                        xdp,
                        note: joined(&reasons),
                    });
                }
                Err(error) => reasons.push(format!("no {hook}: {}", explain(&error, interface))),
            }
        }
        Ok(Self {
            interface: interface.name.clone(),
            held: None,
            xdp: Hook::None,
            note: joined(&reasons),
        })
    }
}

/// The interfaces that `front` is to hang on.
fn choose(
    settings: &Settings,
    all: Vec<Interface>,
    notes: &mut Vec<String>,
) -> Result<Vec<Interface>, L4Error> {
    if settings.interfaces.is_empty() {
        let usable = |i: &Interface| i.up && !i.loopback && i.ethernet && !i.is_port;
        let (chosen, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(usable);
        for interface in rest.iter().filter(|i| i.up && !i.loopback && !i.ethernet) {
            notes.push(format!(
                "{} carries no Ethernet frames: packets there are steered but not filtered early",
                interface.name
            ));
        }
        return Ok(chosen);
    }
    let find = |name: &String| {
        all.iter()
            .find(|interface| interface.name == *name)
            .cloned()
            .ok_or_else(|| L4Error::NoInterface { name: name.clone() })
    };
    settings.interfaces.iter().map(find).collect()
}

fn targets(wanted: Attach, ifindex: u32) -> Vec<Target> {
    let (native, generic, tc) = (
        Target::XdpNative(ifindex),
        Target::XdpGeneric(ifindex),
        Target::Tcx(ifindex),
    );
    match wanted {
        Attach::Auto => vec![native, generic, tc],
        Attach::Native => vec![native],
        Attach::Generic => vec![generic],
        Attach::Tc => vec![tc],
    }
}

/// Pinned links that still hang on their interface. Others are removed: their interface is gone.
fn usable_fronts(pins: &Pins) -> Result<BTreeMap<u32, PinnedLink>, L4Error> {
    let mut usable = BTreeMap::new();
    for link in pins.front_links()? {
        match link.info.place {
            Place::Xdp(index) | Place::Tcx(index) if index != 0 && !usable.contains_key(&index) => {
                usable.insert(index, link);
            }
            _ => pins::unpin(&link.path)?,
        }
    }
    Ok(usable)
}

/// The pinned link to this namespace's socket lookup, if there is one.
fn usable_steer(pins: &Pins) -> Result<Option<PinnedLink>, L4Error> {
    let inode = pins::netns_inode()?;
    let mut usable = None;
    for link in pins.steer_links()? {
        match link.info.place {
            Place::Netns(netns) if u64::from(netns) == inode && usable.is_none() => {
                usable = Some(link);
            }
            _ => pins::unpin(&link.path)?,
        }
    }
    Ok(usable)
}

fn attach_steer(programs: &Programs, pins: &Pins) -> Result<Held, L4Error> {
    let program = programs.steer()?;
    let attached = File::open("/proc/thread-self/ns/net")
        .and_then(|netns| sys::link_netns(program, netns.as_fd()));
    let fd = attached.map_err(|source| L4Error::Attach {
        program: "sluice_steer",
        target: "the network namespace".to_owned(),
        source,
    })?;
    let path = pins.steer_path();
    pin(&fd, &path)?;
    Ok(Held {
        fd,
        path,
        inherited: false,
    })
}

/// Removes our program where an older loader attached it by netlink, which outlives its process.
async fn clear_leftover(
    interface: &Interface,
    netlink: &Netlink,
) -> Result<Option<String>, L4Error> {
    let Some((program, native)) = interface.xdp else {
        return Ok(None);
    };
    if !program_name(program).is_some_and(|name| name.starts_with("sluice_front")) {
        return Ok(None);
    }
    Ok(match netlink.detach_xdp(interface.index, native).await {
        Ok(()) => {
            Some("removed a program of ours that a dead process had left by netlink".to_owned())
        }
        Err(_) => Some(
            "another Sluice holds XDP here, with pins elsewhere: give both the same --pin-dir"
                .to_owned(),
        ),
    })
}

fn explain(error: &io::Error, interface: &Interface) -> String {
    let program = interface.xdp.and_then(|(id, _)| program_name(id));
    match (error.raw_os_error(), program) {
        (Some(libc::EBUSY), Some(name)) => format!("{name}, which is not ours, is attached"),
        (Some(libc::EBUSY | libc::EEXIST), None) => "another program is attached".to_owned(),
        (Some(libc::EOPNOTSUPP), _) => "the driver does not support it".to_owned(),
        _ => error.to_string(),
    }
}

fn program_name(id: u32) -> Option<String> {
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)?;
    info.name_as_str().map(ToOwned::to_owned)
}

fn pin(fd: &OwnedFd, path: &std::path::Path) -> Result<(), L4Error> {
    sys::pin(fd.as_fd(), path).map_err(|source| L4Error::Pin {
        operation: "pin",
        path: path.to_owned(),
        source,
    })
}

fn joined(reasons: &[String]) -> Option<String> {
    (!reasons.is_empty()).then(|| reasons.join("; "))
}
