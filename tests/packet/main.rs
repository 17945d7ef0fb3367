//! Packets through the real, verified programs: verdict, packet out, counters; and the programs at work in
//! network namespaces. Needs root and an eBPF object; says so when either is missing.

mod attach;
mod fixtures;
mod flip;
mod lifecycle;
mod mutated;
mod routes;
mod steer;
mod trace;
mod verifier;
mod wire;
