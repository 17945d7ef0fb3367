//! `cargo xtask bench xdp`: nanoseconds per packet and connection, by `BPF_PROG_TEST_RUN` of the verified programs
//! on the maps of a live packet path, less the same for a program that does nothing.
//!
//! The kernel repeats a program on one frame: caches are warm, so this is what the code costs, and what a real
//! flood adds is its cache misses. Rounds are interleaved; the least and the median of each are printed.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use gateway_common::maps::{PROGRAM_STEER, PROGRAM_TC, PROGRAM_XDP, PROGRAM_XDP_FRAGS};
use gateway_model::ir::SourcePolicy;
use gateway_model::l4_plan::{L4Plan, Transport};
use gateway_tests::bed::{Bed, plan};
use gateway_tests::bpf::{self, Noop};
use gateway_tests::frame::{Ipv4, Ipv6, ethernet, ethertype, extension, protocol, syn, tag, tcp};

const ROUNDS: usize = 7;
const REPEAT: u32 = 1 << 20;
const VIP: &str = "198.51.100.1";
const VIP6: &str = "2001:db8:100::1";
const GOOD: &str = "192.0.2.7";
const BAD: &str = "203.0.113.9";

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 3 } else { ROUNDS };
    let repeat = if quick { REPEAT / 8 } else { REPEAT };
    let bed = Bed::new(&["192.0.2.1", "2001:db8::1"], &the_plan())?;
    let cases = cases(&bed)?;
    let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (index, case) in cases.iter().enumerate() {
            let (_, duration) = bpf::test_run(&case.program, &case.data, &case.context, repeat)
                .with_context(|| format!("{}: {}", case.hook, case.name))?;
            // The kernel tells whole nanoseconds per run.
            times
                .entry(index)
                .or_default()
                .push(duration.as_nanos() as f64);
        }
    }
    report(&cases, &mut times, rounds, repeat);
    Ok(())
}

/// One thing that is measured.
struct Case {
    hook: &'static str,
    name: &'static str,
    program: OwnedFd,
    data: Vec<u8>,
    context: Vec<u8>,
}

fn report(cases: &[Case], times: &mut BTreeMap<usize, Vec<f64>>, rounds: usize, repeat: u32) {
    println!("{rounds} rounds of {repeat} runs; ns per run, net of a program that does nothing\n");
    println!(
        "{:<10} {:<44} {:>7} {:>7} {:>7}",
        "HOOK", "PACKET", "LEAST", "MEDIAN", "NET"
    );
    let mut idle = 0.0;
    for (index, case) in cases.iter().enumerate() {
        let runs = times.entry(index).or_default();
        runs.sort_by(f64::total_cmp);
        let (least, median) = (runs[0], runs[runs.len() / 2]);
        if case.name == IDLE {
            idle = median;
        }
        println!(
            "{:<10} {:<44} {least:>7.0} {median:>7.0} {:>7.0}",
            case.hook,
            case.name,
            median - idle
        );
    }
}

const IDLE: &str = "nothing";

fn cases(bed: &Bed) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (hook, name, idle) in [
        ("xdp", PROGRAM_XDP, Noop::Xdp),
        ("xdp.frags", PROGRAM_XDP_FRAGS, Noop::Xdp),
        ("tc", PROGRAM_TC, Noop::Tc),
    ] {
        let mut add = |name, program: OwnedFd, data| {
            cases.push(Case {
                hook,
                name,
                program,
                data,
                context: Vec::new(),
            });
        };
        add(IDLE, bpf::noop(idle, "idle")?, syn(GOOD, VIP, 80));
        for (what, frame) in frames() {
            add(what, fd(bed, name)?, frame);
        }
    }
    let mut add = |name, program, context| {
        cases.push(Case {
            hook: "sk_lookup",
            name,
            program,
            data: Vec::new(),
            context,
        });
    };
    add(IDLE, bpf::noop(Noop::SkLookup, "idle")?, lookup(443));
    add("miss", fd(bed, PROGRAM_STEER)?, lookup(444));
    add(
        "hit: steered to the CPU's worker",
        fd(bed, PROGRAM_STEER)?,
        lookup(443),
    );
    Ok(cases)
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let tagged = tag(
        5,
        ethertype::IPV4,
        &Ipv4 {
            options: vec![1; 12],
            ..Ipv4::new(GOOD, VIP, protocol::TCP)
        }
        .with(&tcp(1, 80, &[])),
    );
    let extended = Ipv6::new("2001:db8:5::7", VIP6, protocol::DESTINATION).with(&extension(
        protocol::DESTINATION,
        protocol::TCP,
        2,
        &tcp(1, 80, &[]),
    ));
    vec![
        ("not IP (ARP)", ethernet(ethertype::ARP, &[0; 28])),
        ("miss: no frontend", syn(GOOD, "10.0.0.1", 443)),
        (
            "miss: no frontend, IPv6",
            syn("2001:db8:5::7", "2001:db8:ffff::1", 443),
        ),
        ("hit: open", syn(GOOD, VIP, 80)),
        ("hit: open, IPv6", syn("2001:db8:5::7", VIP6, 80)),
        (
            "hit: open, VLAN and IPv4 options",
            ethernet(ethertype::VLAN, &tagged),
        ),
        (
            "hit: open, IPv6 destination options",
            ethernet(ethertype::IPV6, &extended),
        ),
        (
            "hit: every address of the node",
            syn(GOOD, "192.0.2.1", 8080),
        ),
        ("hit: permitted, one prefix", syn(GOOD, VIP, 443)),
        ("hit: permitted, 10000 prefixes", syn(GOOD, VIP, 8443)),
        ("denied, one prefix", syn(BAD, VIP, 443)),
        ("denied, 10000 prefixes", syn("100.64.7.9", VIP, 8443)),
    ]
}

fn the_plan() -> L4Plan {
    let mut plan = plan(
        &[
            (Some(VIP), 80, &[], &[]),
            (Some(VIP6), 80, &[], &[]),
            (Some(VIP), 443, &[], &["203.0.113.0/24"]),
            (None, 8080, &[], &[]),
        ],
        &[VIP, VIP6],
    );
    let many = (0..10_000_u32).map(|i| {
        let base = u32::from(std::net::Ipv4Addr::new(100, 64, 0, 0)) + (i << 8);
        ipnet::Ipv4Net::new_assert(base.into(), 24).into()
    });
    let restricted = SourcePolicy {
        allow: Vec::new(),
        deny: many.collect(),
    };
    let address = Some(VIP.parse().expect("an address"));
    let frontend = gateway_model::l4_plan::Frontend {
        address,
        port: 8443,
        transport: Transport::Tcp,
    };
    plan.frontends.insert(frontend, vec![restricted]);
    plan
}

fn fd(bed: &Bed, name: &'static str) -> Result<OwnedFd> {
    let program = bed.ebpf.program(name).context(name)?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// `struct bpf_sk_lookup` for a connection from the client to the VIP (linux v6.6 include/uapi/linux/bpf.h).
fn lookup(port: u32) -> Vec<u8> {
    let v4 = |text: &str| {
        u32::from_ne_bytes(
            text.parse::<std::net::Ipv4Addr>()
                .expect("an address")
                .octets(),
        )
    };
    let words: [u32; 18] = [
        0,
        0, // cookie
        2, // AF_INET
        6, // TCP
        v4(GOOD),
        0,
        0,
        0,
        0, // remote addresses
        u32::from(40_000_u16.to_be()),
        v4(VIP),
        0,
        0,
        0,
        0, // local addresses
        port,
        0, // ingress interface
        0,
    ];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
