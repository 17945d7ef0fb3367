//! What was measured, as a table and as JSON.

use gateway_tests::numbered::Spread;
use serde::Serialize;

use crate::attached::{Attached, Counted};
use crate::meter::Memory;
use crate::propagation::Propagation;
use crate::traffic::Traffic;
use crate::world::Settled;

/// The goal for the p99 of propagation beyond the watch, and the number of routes at which it holds.
const GOAL_MS: f64 = 10.0;
const GOAL_ROUTES: usize = 3_000;
/// The goal for memory, and the number of routes at which it holds.
const GOAL_MB: f64 = 40.0;
const GOAL_MEMORY_ROUTES: usize = 5_000;

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where: in a cluster, or processes beside an API server.
    pub site: &'static str,
    /// Nodes, or processes.
    pub nodes: usize,
    /// Attached routes.
    pub attached: Option<Attached>,
    /// Routes made, and how soon all had a status.
    pub settled: Vec<Settled>,
    /// Propagation, idle and under churn.
    pub propagation: Vec<Propagation>,
    /// Changes under traffic.
    pub traffic: Option<Traffic>,
    /// Memory by number of routes.
    pub memory: Vec<Memory>,
}

impl Report {
    /// Prints it for people.
    pub fn print(&self) {
        self.print_attached();
        self.print_settled();
        self.print_propagation();
        self.print_traffic();
        self.print_memory();
    }

    fn print_attached(&self) {
        let Some(attached) = &self.attached else {
            return;
        };
        println!(
            "\nattached routes: {} routes come and go; when the Gateway's number is right",
            attached.routes
        );
        let line = |what: &str, counted: &Counted| {
            println!(
                "  {what:<8} written in {:>6.2} s, right {:>6.2} s later, {:>4} status writes of the Gateway, {} wrong turns",
                counted.written_s,
                counted.right_after_s,
                counted.gateway_writes,
                counted.wrong_turns
            );
        };
        line("coming", &attached.coming);
        line("going", &attached.going);
    }

    fn print_settled(&self) {
        println!("\nroutes made at once: when every route has its status");
        for settled in self.settled.iter().filter(|settled| settled.made > 0) {
            println!(
                "  {:>6} more to {:>6}: written in {:>6.2} s, settled {:>6.2} s later, {:.2} status writes per route, {} of the Gateway",
                settled.made,
                settled.routes,
                settled.written_s,
                settled.settled_s,
                per(settled.status_writes[0], settled.made as u64),
                settled.status_writes[1]
            );
        }
    }

    fn print_propagation(&self) {
        println!(
            "\nroute propagation to {} nodes ({}): milliseconds after the write has returned, p50 / p99\n  {:<8}{:<7}{:>15}{:>17}{:>17}{:>19}{:>9}  status writes",
            self.nodes,
            self.site,
            "routes",
            "load",
            "own watch",
            "every node",
            "beyond watch",
            "status",
            "ratio"
        );
        for p in &self.propagation {
            let pair = |spread: &Spread| format!("{:.1} / {:.1}", spread.p50, spread.p99);
            let load = if p.churn > 0 { "churn" } else { "idle" };
            let ratio = p.every_node.p99 / p.watch.p99.max(0.001);
            let goal = match (p.routes == GOAL_ROUTES, p.beyond_watch.p99 < GOAL_MS) {
                (false, _) => "",
                (true, true) => "  pass: p99 within 10 ms beyond the watch",
                (true, false) => "  SHORT: p99 over 10 ms beyond the watch",
            };
            println!(
                "  {:<8}{load:<7}{:>15}{:>17}{:>17}{:>19}{ratio:>8.1}x  {:.2} per change, {} of the Gateway, {} refused{goal}",
                p.routes,
                pair(&p.watch),
                pair(&p.every_node),
                pair(&p.beyond_watch),
                pair(&p.status),
                per(p.writes.routes, p.changes),
                p.writes.gateways,
                p.writes.refused
            );
            let nodes: Vec<String> = p
                .nodes
                .iter()
                .enumerate()
                .map(|(n, spread)| format!("node{n} {}", pair(spread)))
                .collect();
            println!(
                "  {:<15}{}; max beyond watch {:.1}",
                "",
                nodes.join(", "),
                p.beyond_watch.max
            );
        }
    }

    fn print_traffic(&self) {
        let Some(traffic) = &self.traffic else {
            return;
        };
        let verdict = if traffic.failed == 0 {
            "pass: no request failed"
        } else {
            "SHORT"
        };
        println!(
            "\nroute change under traffic: {} changes in {:.1} s, {} requests answered, {} failed  {verdict}",
            traffic.changes, traffic.seconds, traffic.answered, traffic.failed
        );
        for example in &traffic.examples {
            println!("  {example}");
        }
    }

    fn print_memory(&self) {
        println!(
            "\nmemory of Sluice: the node with the most, MB; the goal is for all that is resident\n  {:>6}{:>10}{:>12}{:>8}{:>8}{:>13}",
            "routes", "resident", "anonymous", "binary", "peak", "working set"
        );
        let anonymous = |memory: &Memory| memory.most_mb(|m| m.anonymous);
        let empty = self.memory.first().map_or(0.0, anonymous);
        for memory in &self.memory {
            let resident = memory.most_mb(|m| m.resident);
            let grown = anonymous(memory) - empty;
            let per_thousand = match memory.routes {
                0 => String::new(),
                routes => format!("  {:.2} MB per 1 000 routes", grown / (routes as f64 / 1e3)),
            };
            let goal = match (memory.routes == GOAL_MEMORY_ROUTES, resident < GOAL_MB) {
                (false, _) => "",
                (true, true) => "  pass: less than 40 MB",
                (true, false) => "  SHORT: more than 40 MB",
            };
            let working_set = match memory.most_mb(|m| m.working_set.unwrap_or(0)) {
                0.0 => "-".to_owned(),
                some => format!("{some:.1}"),
            };
            println!(
                "  {:>6}{resident:>10.1}{:>12.1}{:>8.1}{:>8.1}{working_set:>13}{per_thousand}{goal}",
                memory.routes,
                anonymous(memory),
                memory.most_mb(|m| m.file),
                memory.most_mb(|m| m.peak)
            );
        }
    }
}

fn per(count: u64, of: u64) -> f64 {
    count as f64 / of.max(1) as f64
}
