//! Who may reach a frontend: the source policy. Budgets for new connections and the SYN valve belong here.

use gateway_common::frontend::{NO_POLICY, is_mapped};
use gateway_common::{Control, FrontendValue, Reason};

use crate::packet::Flow;
use crate::{maps, sockets};

/// What the frontend's policy says about the source of a packet.
///
/// A policy binds only while a process that serves it lives: its sockets leave the map with it, and what
/// it left behind must not shut off whoever has the port then. Nor must it shut off answers to this node: at a port
/// that the node may dial from, it binds what opens a connection alone.
#[inline(always)]
pub fn source_policy(control: Control, frontend: &FrontendValue, flow: &Flow) -> Reason {
    if frontend.policy == NO_POLICY {
        return Reason(frontend.default_reason);
    }
    let said = maps::policy(control.tables(), frontend.policy, flow.source);
    let reason = said.unwrap_or(Reason(frontend.default_reason));
    if reason.drops() && frontend.dials != 0 && flow.opens_nothing != 0 {
        return Reason::MAY_BE_ANSWER;
    }
    if reason.drops() && !sockets::any_alive(control, !is_mapped(flow.destination)) {
        return Reason::NO_OWNER;
    }
    reason
}
