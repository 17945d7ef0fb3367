//! From an [`Ir`] to a [`Snapshot`]: pure, and at a cost that follows what changed since the previous one.

mod ports;
mod route;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use crate::ir::{Ir, Route, spread};
use crate::names::{Hostname, ListenerKey, ObjectRef, Revision};
use crate::route_index::RouteTable;
use crate::route_index::matcher::CompiledMatch;
use crate::snapshot::{Compiled, Rejected, Snapshot};

pub(crate) use route::CompiledRoute;

/// Compiles an IR; what did not change since `previous` is shared with it.
///
/// A route that does not compile keeps the form it has in `previous`, backends and hostnames
/// included, or is left out if it has none; it stays in [`Compiled::rejected`] until it changes.
#[must_use]
pub fn compile(ir: &Ir, revision: Revision, previous: Option<&Snapshot>) -> Compiled {
    let empty;
    let previous = if let Some(previous) = previous {
        previous
    } else {
        empty = Snapshot::default();
        &empty
    };
    let mut compilation = Compilation {
        next: Snapshot {
            revision,
            ir: ir.clone(),
            ..previous.clone()
        },
        touched: BTreeSet::new(),
        unsealed: BTreeSet::new(),
    };
    compilation.upstreams(previous);
    compilation.routes(previous);
    compilation.seal();
    compilation.release_removed_upstreams(previous);
    ports::update(&mut compilation.next, previous, &compilation.touched);
    Compiled {
        rejected: compilation.next.rejected.values().cloned().collect(),
        snapshot: Arc::new(compilation.next),
    }
}

struct Compilation {
    next: Snapshot,
    /// The listeners whose route table is another one now.
    touched: BTreeSet<ListenerKey>,
    /// Hostnames whose list of regular expressions is another one now.
    unsealed: BTreeSet<(ListenerKey, Option<Hostname>)>,
}

impl Compilation {
    fn upstreams(&mut self, previous: &Snapshot) {
        let next = &mut self.next;
        for change in previous.ir.upstreams.diff(&next.ir.upstreams) {
            match change {
                DiffItem::Add(key, upstream) => {
                    next.upstreams.acquire(key, next.revision);
                    next.upstreams.set(key, Some(upstream));
                }
                DiffItem::Update { new, .. } => next.upstreams.set(new.0, Some(new.1)),
                DiffItem::Remove(key, _) => next.upstreams.set(key, None),
            }
        }
    }

    /// Last, so that an upstream that a route begins to name keeps its number.
    fn release_removed_upstreams(&mut self, previous: &Snapshot) {
        let next = &mut self.next;
        for change in previous.ir.upstreams.diff(&next.ir.upstreams) {
            if let DiffItem::Remove(key, _) = change {
                next.upstreams.release(key);
            }
        }
    }

    fn routes(&mut self, previous: &Snapshot) {
        let routes = self.next.ir.routes.clone();
        for change in spread(previous.ir.routes.diff(&routes)) {
            match change {
                DiffItem::Add(object, route)
                | DiffItem::Update {
                    new: (object, route),
                    ..
                } => self.route(object, route),
                DiffItem::Remove(object, _) => {
                    self.next.rejected.remove(object);
                    if let Some(old) = self.next.routes.remove(object) {
                        self.retire(&old);
                    }
                }
            }
        }
    }

    fn route(&mut self, object: &ObjectRef, route: &Arc<Route>) {
        let old = self.next.routes.get(object).cloned();
        match CompiledRoute::new(route, old.as_deref(), &mut self.next) {
            Ok(new) => {
                self.next.rejected.remove(object);
                self.place(&new, old.as_deref());
                if let Some(old) = old {
                    old.release(Some(&new), &mut self.next.upstreams);
                }
                self.next.routes.insert(object.clone(), Arc::new(new));
            }
            Err(why) => {
                let instead = match old {
                    Some(_) => "its last good form is still served",
                    None => "nothing of it is served",
                };
                let object = object.clone();
                let rejected = Rejected {
                    object: object.clone(),
                    reason: format!("{why}; {instead}"),
                };
                self.next.rejected.insert(object, rejected);
            }
        }
    }

    fn place(&mut self, new: &CompiledRoute, old: Option<&CompiledRoute>) {
        if let Some(old) = old
            && new.is_placed_like(old)
        {
            for ((listener, host, new), (_, _, old)) in placements(new).zip(placements(old)) {
                if !Arc::ptr_eq(new, old) {
                    self.touch(listener, host, new).replace(host, old, new);
                }
            }
            return;
        }
        // First out, then in: a match may be in both.
        if let Some(old) = old {
            self.displace(old);
        }
        for (listener, host, each) in placements(new) {
            self.touch(listener, host, each).insert(host, each);
        }
    }

    fn displace(&mut self, old: &CompiledRoute) {
        for (listener, host, each) in placements(old) {
            let table = self.touch(listener, host, each);
            table.remove(host, each);
            if table.is_empty() {
                self.next.tables.remove(listener);
            }
        }
    }

    fn retire(&mut self, old: &CompiledRoute) {
        self.displace(old);
        old.release(None, &mut self.next.upstreams);
    }

    fn seal(&self) {
        for (listener, host) in &self.unsealed {
            if let Some(table) = self.next.tables.get(listener) {
                table.seal(host.as_ref());
            }
        }
    }

    fn touch(
        &mut self,
        listener: &ListenerKey,
        host: Option<&Hostname>,
        each: &CompiledMatch,
    ) -> &mut RouteTable {
        if !self.touched.contains(listener) {
            self.touched.insert(listener.clone());
        }
        if each.has_path_regex() {
            self.unsealed.insert((listener.clone(), host.cloned()));
        }
        self.next.tables.entry(listener.clone()).or_default()
    }
}

/// Every place in a route table that a route takes.
fn placements(
    route: &CompiledRoute,
) -> impl Iterator<Item = (&ListenerKey, Option<&Hostname>, &Arc<CompiledMatch>)> {
    route.attachments().iter().flat_map(move |attachment| {
        let every_host = attachment.hostnames.is_empty().then_some(None);
        let hosts = every_host
            .into_iter()
            .chain(attachment.hostnames.iter().map(Some));
        hosts.flat_map(move |host| {
            route
                .matches()
                .iter()
                .map(move |each| (&attachment.listener, host, each))
        })
    })
}
