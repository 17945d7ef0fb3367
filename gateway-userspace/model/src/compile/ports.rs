//! Port tables and the packet path's plan, from the listeners and their route tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::ir::Listener;
use crate::l4_plan::{Frontend, L4Plan};
use crate::names::ListenerKey;
use crate::snapshot::{CompiledListener, PortKey, PortTable, Snapshot};

/// Brings ports and plan up to date: all of them if a listener changed, else only the tables that
/// hold a listener whose routes changed.
pub(crate) fn update(next: &mut Snapshot, previous: &Snapshot, touched: &BTreeSet<ListenerKey>) {
    let same = next.ir.listeners.ptr_eq(&previous.ir.listeners)
        || next.ir.listeners == previous.ir.listeners;
    if !same {
        rebuild(next);
        return;
    }
    for key in touched {
        let Some(listener) = next.ir.listeners.get(key) else {
            continue;
        };
        let newer = Arc::new(compiled(next, listener));
        for address in addresses(listener) {
            if let Some(table) = next.ports.get_mut(&place(listener, address)) {
                Arc::make_mut(table).replace(&newer);
            }
        }
    }
}

fn rebuild(next: &mut Snapshot) {
    let mut by_port: BTreeMap<PortKey, Vec<Arc<CompiledListener>>> = BTreeMap::new();
    let mut plan = L4Plan::default();
    for listener in next.ir.listeners.values() {
        let compiled = Arc::new(compiled(next, listener));
        for address in addresses(listener) {
            let listeners = by_port.entry(place(listener, address)).or_default();
            listeners.push(Arc::clone(&compiled));
            plan.addresses.extend(address);
        }
    }
    next.ports = by_port
        .into_iter()
        .filter_map(|(key, listeners)| {
            let table = PortTable::new(key.2, key.1, listeners)?;
            Some((key, Arc::new(table)))
        })
        .collect();
    for (&(transport, port, address), table) in &next.ports {
        let frontend = Frontend {
            address,
            port,
            transport,
        };
        let policies = plan.frontends.entry(frontend).or_default();
        for listener in &table.listeners {
            if !policies.contains(&listener.listener.source_policy) {
                policies.push(listener.listener.source_policy.clone());
            }
        }
    }
    if plan != *next.l4_plan {
        next.l4_plan = Arc::new(plan);
    }
}

fn compiled(next: &Snapshot, listener: &Arc<Listener>) -> CompiledListener {
    let routes = next.tables.get(&listener.key).cloned().unwrap_or_default();
    CompiledListener::new(Arc::clone(listener), routes)
}

fn place(listener: &Listener, address: Option<IpAddr>) -> PortKey {
    let transport = listener.protocol.port_kind().transport();
    (transport, listener.port, address)
}

fn addresses(listener: &Listener) -> BTreeSet<Option<IpAddr>> {
    if listener.addresses.is_empty() {
        return BTreeSet::from([None]);
    }
    let canonical = |address: &IpAddr| Some(address.to_canonical());
    listener.addresses.iter().map(canonical).collect()
}
