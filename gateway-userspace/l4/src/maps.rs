//! The maps as typed handles: halves of tables and sockets, counters, the control word.
//!
//! Knows how entries are written, not when: the order of things is `start`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues, SockMap};
use gateway_common::frontend::Address;
use gateway_common::maps as abi;
use gateway_common::{
    Control, FrontendCounters, FrontendKey, FrontendValue, PolicyKey, Reason, TraceFilter,
};

use crate::status::MapStatus;
use crate::tables::{self, Tables};
use crate::{L4Error, SteeringSocket, sys};

/// A program runs for microseconds; after this long, none can still be reading a half that was live before.
const GRACE: Duration = Duration::from_millis(100);

/// The maps that processes share.
pub struct Maps {
    frontends: HashMap<MapData, FrontendKey, FrontendValue>,
    policies: LpmTrie<MapData, PolicyKey, u32>,
    node_addresses: HashMap<MapData, Address, u32>,
    sockets: SockMap<MapData>,
    control: Array<MapData, u64>,
    reasons: PerCpuArray<MapData, u64>,
    counters: PerCpuArray<MapData, FrontendCounters>,
    trace: Array<MapData, TraceFilter>,
    /// What both halves of the tables hold; none until read, and after a write that failed midway.
    halves: Option<[Tables; 2]>,
    flipped: Option<Instant>,
    maps: Vec<MapStatus>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, L4Error> {
        let maps = abi::PINNED
            .iter()
            .filter_map(|name| described(ebpf, name))
            .collect();
        Ok(Self {
            frontends: taken(ebpf, abi::FRONTENDS)?,
            policies: taken(ebpf, abi::POLICIES)?,
            node_addresses: taken(ebpf, abi::NODE_ADDRESSES)?,
            sockets: taken(ebpf, abi::SOCKETS)?,
            control: taken(ebpf, abi::CONTROL)?,
            reasons: taken(ebpf, abi::REASONS)?,
            counters: taken(ebpf, abi::FRONTEND_COUNTERS)?,
            trace: taken(ebpf, abi::TRACE)?,
            halves: None,
            flipped: None,
            maps,
        })
    }

    /// The control word.
    pub fn control(&self) -> Result<Control, L4Error> {
        self.control
            .get(&0, 0)
            .map(Control)
            .map_err(failed("read", abi::CONTROL))
    }

    /// Writes the control word: the flip.
    pub fn set_control(&mut self, word: Control) -> Result<(), L4Error> {
        self.control
            .set(0, word.0, 0)
            .map_err(failed("write", abi::CONTROL))?;
        self.flipped = Some(Instant::now());
        Ok(())
    }

    /// Writes the control word with the same halves live.
    pub fn set_control_flag(&mut self, word: Control) -> Result<(), L4Error> {
        self.control
            .set(0, word.0, 0)
            .map_err(failed("write", abi::CONTROL))
    }

    /// What the live half of the tables holds.
    pub fn live_tables(&self) -> Result<Tables, L4Error> {
        let half = self.control()?.tables();
        if let Some(halves) = &self.halves {
            return Ok(halves[usize::from(half)].clone());
        }
        Ok(self.read_halves()?[usize::from(half)].clone())
    }

    /// Forgets what the tables were known to hold: another process may have written them.
    pub fn forget(&mut self) {
        self.halves = None;
    }

    /// Writes the half of the tables that is not live; returns which one that is.
    pub fn write_idle_tables(&mut self, tables: &Tables) -> Result<u8, L4Error> {
        self.wait_for_readers()?;
        let idle = 1 - self.control()?.tables();
        let mut halves = match self.halves.take() {
            Some(halves) => halves,
            None => self.read_halves()?,
        };
        let live = &halves[usize::from(1 - idle)];
        self.zero_new_slots(tables, live)?;
        self.write_half(idle, &halves[usize::from(idle)], tables)?;
        halves[usize::from(idle)] = tables.clone();
        self.halves = Some(halves);
        Ok(idle)
    }

    /// Fills the half of the socket map that is not live; returns which one and for how many workers.
    pub fn write_idle_sockets(
        &mut self,
        sockets: &[SteeringSocket<'_>],
    ) -> Result<(u32, u16), L4Error> {
        self.wait_for_readers()?;
        let idle = 1 - self.control()?.sockets();
        let mut workers = 0;
        let mut filled = BTreeSet::new();
        for socket in sockets {
            if socket.worker >= abi::WORKERS_MAX {
                let limit = abi::WORKERS_MAX;
                return Err(L4Error::TooManyWorkers {
                    worker: socket.worker,
                    limit,
                });
            }
            let index = abi::socket_index(idle, socket.v6, socket.worker);
            let refused = |source| L4Error::Socket {
                worker: socket.worker,
                family: if socket.v6 { "IPv6" } else { "IPv4" },
                source,
            };
            sys::check_listening_tcp(socket.fd).map_err(refused)?;
            self.sockets
                .set(index, &socket.fd, 0)
                .map_err(|error| refused(std::io::Error::other(error)))?;
            filled.insert(index);
            workers = workers.max(socket.worker + 1);
        }
        for index in half_of_sockets(idle).filter(|index| !filled.contains(index)) {
            ignore_absent(self.sockets.clear_index(&index))
                .map_err(failed("clear a slot of", abi::SOCKETS))?;
        }
        Ok((idle, workers as u16))
    }

    /// Makes the set of the node's addresses this one. What does not fit is left out.
    pub fn set_node_addresses(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), L4Error> {
        let wanted: BTreeSet<Address> = wanted.iter().map(|ip| tables::address(*ip)).collect();
        let present: BTreeSet<Address> = self
            .node_addresses
            .keys()
            .collect::<Result<_, _>>()
            .map_err(failed("read", abi::NODE_ADDRESSES))?;
        for address in present.difference(&wanted) {
            ignore_absent(self.node_addresses.remove(address))
                .map_err(failed("write", abi::NODE_ADDRESSES))?;
        }
        for address in wanted.difference(&present) {
            match self.node_addresses.insert(address, 1, 0) {
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::E2BIG) =>
                {
                    tracing::warn!(
                        limit = abi::NODE_ADDRESSES_MAX,
                        "the node has more addresses than front can know"
                    );
                    return Ok(());
                }
                result => result.map_err(failed("write", abi::NODE_ADDRESSES))?,
            }
        }
        Ok(())
    }

    /// Packets by reason, summed over the CPUs.
    pub fn reasons(&self) -> Result<BTreeMap<&'static str, u64>, L4Error> {
        let sum = |reason: &Reason| {
            let values = self
                .reasons
                .get(&reason.0, 0)
                .map_err(failed("read", abi::REASONS))?;
            Ok((reason.name(), values.iter().sum()))
        };
        Reason::ALL.iter().map(sum).collect()
    }

    /// The counters of a slot, summed over the CPUs.
    pub fn frontend_counters(&self, slot: u32) -> Result<FrontendCounters, L4Error> {
        let values = self
            .counters
            .get(&slot, 0)
            .map_err(failed("read", abi::FRONTEND_COUNTERS))?;
        Ok(values
            .iter()
            .fold(FrontendCounters::default(), |sum, cpu| FrontendCounters {
                passed_packets: sum.passed_packets + cpu.passed_packets,
                passed_bytes: sum.passed_bytes + cpu.passed_bytes,
                dropped_packets: sum.dropped_packets + cpu.dropped_packets,
                steered: sum.steered + cpu.steered,
            }))
    }

    /// Sets the trace filter.
    pub fn set_trace(&mut self, filter: TraceFilter) -> Result<(), L4Error> {
        self.trace
            .set(0, filter, 0)
            .map_err(failed("write", abi::TRACE))
    }

    /// The maps and how full they are.
    pub fn status(&self) -> Result<Vec<MapStatus>, L4Error> {
        let halves = self.read_halves()?;
        let in_both =
            |count: fn(&Tables) -> usize| Some(halves.iter().map(count).sum::<usize>() as u32);
        let mut maps = self.maps.clone();
        for map in &mut maps {
            map.entries = match map.name.as_str() {
                abi::FRONTENDS => in_both(|tables| tables.frontends.len()),
                abi::POLICIES => in_both(|tables| tables.policies.len()),
                abi::NODE_ADDRESSES => Some(self.node_addresses.keys().count() as u32),
                // A socket map does not tell which of its slots are filled.
                _ => None,
            };
        }
        Ok(maps)
    }

    fn read_halves(&self) -> Result<[Tables; 2], L4Error> {
        let mut halves = [Tables::default(), Tables::default()];
        for entry in self.frontends.iter() {
            let (key, value) = entry.map_err(failed("read", abi::FRONTENDS))?;
            halves[usize::from(key.half & 1)]
                .frontends
                .insert(FrontendKey { half: 0, ..key }, value);
        }
        for entry in self.policies.iter() {
            let (key, value) = entry.map_err(failed("read", abi::POLICIES))?;
            let (bits, data) = (key.prefix_len(), key.data());
            let half = (data.half & 1) as usize;
            halves[half]
                .policies
                .insert((bits, PolicyKey { half: 0, ..data }), value);
        }
        Ok(halves)
    }

    /// Changes a half from what it holds to what it shall hold.
    fn write_half(&mut self, half: u8, present: &Tables, wanted: &Tables) -> Result<(), L4Error> {
        let policy = |(bits, key): &(u32, PolicyKey)| {
            Key::new(
                *bits,
                PolicyKey {
                    half: u32::from(half),
                    ..*key
                },
            )
        };
        for key in present
            .policies
            .keys()
            .filter(|key| !wanted.policies.contains_key(key))
        {
            ignore_absent(self.policies.remove(&policy(key)))
                .map_err(failed("write", abi::POLICIES))?;
        }
        for (key, value) in wanted
            .policies
            .iter()
            .filter(|(key, value)| present.policies.get(key) != Some(value))
        {
            self.policies
                .insert(&policy(key), value, 0)
                .map_err(failed("write", abi::POLICIES))?;
        }
        let frontend = |key: &FrontendKey| FrontendKey { half, ..*key };
        for key in present
            .frontends
            .keys()
            .filter(|key| !wanted.frontends.contains_key(key))
        {
            ignore_absent(self.frontends.remove(&frontend(key)))
                .map_err(failed("write", abi::FRONTENDS))?;
        }
        for (key, value) in wanted
            .frontends
            .iter()
            .filter(|(key, value)| present.frontends.get(key) != Some(value))
        {
            self.frontends
                .insert(frontend(key), value, 0)
                .map_err(failed("write", abi::FRONTENDS))?;
        }
        Ok(())
    }

    /// A slot that goes to another frontend starts at zero.
    fn zero_new_slots(&mut self, tables: &Tables, live: &Tables) -> Result<(), L4Error> {
        let fresh = tables
            .frontends
            .iter()
            .filter(|(key, _)| !live.frontends.contains_key(key));
        for (_, value) in fresh {
            let cpus = aya::util::nr_cpus().map_err(|(_, source)| L4Error::System {
                operation: "count the CPUs",
                source,
            })?;
            let zeros = PerCpuValues::try_from(vec![FrontendCounters::default(); cpus]).map_err(
                |source| L4Error::System {
                    operation: "count the CPUs",
                    source,
                },
            )?;
            self.counters
                .set(value.slot, zeros, 0)
                .map_err(failed("write", abi::FRONTEND_COUNTERS))?;
        }
        Ok(())
    }

    /// Waits, if a half was live a moment ago, until no program can be reading it.
    fn wait_for_readers(&mut self) -> Result<(), L4Error> {
        if self.flipped.is_some_and(|at| at.elapsed() < GRACE) {
            sys::wait_for_running_programs().map_err(|source| L4Error::System {
                operation: "wait for running BPF programs",
                source,
            })?;
        }
        self.flipped = None;
        Ok(())
    }
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

fn half_of_sockets(half: u32) -> impl Iterator<Item = u32> {
    let start = abi::socket_index(half, false, 0);
    start..start + 2 * abi::WORKERS_MAX
}

fn described(ebpf: &Ebpf, name: &str) -> Option<MapStatus> {
    let data = match ebpf.map(name)? {
        aya::maps::Map::Array(data)
        | aya::maps::Map::HashMap(data)
        | aya::maps::Map::LpmTrie(data)
        | aya::maps::Map::PerCpuArray(data)
        | aya::maps::Map::SockMap(data) => data,
        _ => return None,
    };
    let info = data.info().ok()?;
    Some(MapStatus {
        name: name.to_owned(),
        id: info.id(),
        entries: None,
        limit: info.max_entries(),
    })
}

fn taken<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, L4Error>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| L4Error::Unavailable {
        reason: format!(
            "the eBPF object has no map {name}; build it again with `cargo xtask build-ebpf`"
        ),
    })?;
    T::try_from(map).map_err(failed("use", name))
}

fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if matches!(
                error.io_error.raw_os_error(),
                Some(libc::ENOENT | libc::EINVAL)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn failed(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> L4Error {
    move |source| L4Error::Map {
        operation,
        map,
        source,
    }
}
