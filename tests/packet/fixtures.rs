//! Fixtures: a sentence, a frame, and the reason that `front` must give, with its verdict. Each goes through
//! every form of `front`; no frame may come out changed, and exactly one counter may move, by one.
//!
//! The node has 192.0.2.1 and 2001:db8::1 on an interface. The frontends:
//!
//! | address | port | policy |
//! |---|---|---|
//! | 198.51.100.1, 2001:db8:100::1 | 80 | none |
//! | the same | 443, also UDP | denies 203.0.113.0/24 and 2001:db8:bad::/48 |
//! | the same | 8443 | allows 192.0.2.0/24 and 2001:db8:5::/48 without 192.0.2.66 and 2001:db8:5::66 |
//! | 198.51.100.2, 2001:db8:100::2 | 443 | denies 203.0.113.0/24 and 2001:db8:bad::/48 |
//! | the same | 8080 | none |
//! | 198.51.100.3, 2001:db8:100::3 | 443 | denies 203.0.113.0/24 and 2001:db8:bad::/48 |
//! | every address | 8080, 40000 | denies 203.0.113.0/24 and 2001:db8:bad::/48 |
#![allow(
    clippy::too_many_lines,
    reason = "a table has as many lines as it has rows"
)]

mod icmp;
mod ipv4;
mod ipv6;
mod link;
mod policy;
mod truncated;

use gateway_common::Reason;
use gateway_model::l4_plan::{Frontend, L4Plan, Transport};
use gateway_tests::bed::{Bed, FRONTS, plan};
use gateway_tests::frame::{Ipv4, Ipv6, ethernet, ethertype, protocol, syn, tcp};

pub const GOOD: &str = "192.0.2.7";
pub const BAD: &str = "203.0.113.9";
pub const GOOD6: &str = "2001:db8:5::7";
pub const BAD6: &str = "2001:db8:bad::9";
pub const VIP: &str = "198.51.100.1";
pub const VIP6: &str = "2001:db8:100::1";
/// Has an open port besides the restricted one.
pub const MIXED: &str = "198.51.100.2";
/// All of its frontends deny the same.
pub const CLOSED: &str = "198.51.100.3";
pub const CLOSED6: &str = "2001:db8:100::3";
pub const NODE: &str = "192.0.2.1";
pub const NODE6: &str = "2001:db8::1";
/// A port that the kernel may choose for the node's own connections.
pub const DIALLED_FROM: u16 = 40_000;

/// One fixture.
pub struct Fixture {
    says: String,
    frame: Vec<u8>,
    reason: Reason,
}

/// A fixture.
pub fn fixture(says: &str, reason: Reason, frame: Vec<u8>) -> Fixture {
    Fixture {
        says: says.to_owned(),
        frame,
        reason,
    }
}

/// The bed that the table above describes.
pub fn bed() -> Bed {
    Bed::new(&[NODE, NODE6], &the_plan()).expect("a bed")
}

pub fn the_plan() -> L4Plan {
    const DENY: &[&str] = &["203.0.113.0/24", "2001:db8:bad::/48"];
    const ALLOW: &[&str] = &["192.0.2.0/24", "2001:db8:5::/48"];
    const BUT: &[&str] = &["192.0.2.66/32", "2001:db8:5::66/128"];
    let vips = [VIP, VIP6, MIXED, "2001:db8:100::2", CLOSED, CLOSED6];
    let mut frontends = vec![
        (None, 8080, &[] as &[&str], DENY),
        (None, DIALLED_FROM, &[], DENY),
    ];
    for vip in &vips[..2] {
        frontends.push((Some(*vip), 80, &[], &[]));
        frontends.push((Some(*vip), 443, &[], DENY));
        frontends.push((Some(*vip), 8443, ALLOW, BUT));
    }
    for vip in &vips[2..4] {
        frontends.push((Some(*vip), 443, &[], DENY));
        frontends.push((Some(*vip), 8080, &[], &[]));
    }
    for vip in &vips[4..] {
        frontends.push((Some(*vip), 443, &[], DENY));
    }
    let mut plan = plan(&frontends, &vips);
    for vip in &vips[..2] {
        let address = Some(vip.parse().expect("an address"));
        let tcp = Frontend {
            address,
            port: 443,
            transport: Transport::Tcp,
        };
        let policy = plan.frontends[&tcp].clone();
        plan.frontends.insert(
            Frontend {
                transport: Transport::Udp,
                ..tcp
            },
            policy,
        );
    }
    plan
}

/// Runs fixtures; all of them, and then says which were wrong.
pub fn check(fixtures: &[Fixture]) {
    let bed = bed();
    let mut wrong = Vec::new();
    for fixture in fixtures {
        for program in FRONTS
            .into_iter()
            .filter(|program| Bed::accepts(program, &fixture.frame))
        {
            if let Err(error) = check_one(&bed, program, fixture) {
                wrong.push(format!("{program}: {}: {error:#}", fixture.says));
            }
        }
    }
    println!(
        "{} fixtures through {} programs",
        fixtures.len(),
        FRONTS.len()
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn check_one(bed: &Bed, program: &str, fixture: &Fixture) -> anyhow::Result<()> {
    let before = bed.reasons()?;
    let answer = bed.run(program, &fixture.frame)?;
    let after = bed.reasons()?;
    let moved: Vec<(&str, u64)> = after
        .iter()
        .filter(|(name, count)| **count != before[*name])
        .map(|(name, count)| (*name, count - before[name]))
        .collect();
    let wanted = fixture.reason;
    anyhow::ensure!(
        moved == [(wanted.name(), 1)],
        "wanted {} by 1, moved {moved:?}",
        wanted.name()
    );
    anyhow::ensure!(
        answer.passes != wanted.drops(),
        "the verdict is not the reason's"
    );
    anyhow::ensure!(answer.frame == fixture.frame, "the frame was changed");
    Ok(())
}

/// A frame with an IPv4 packet.
pub fn v4(header: &Ipv4, payload: &[u8]) -> Vec<u8> {
    ethernet(ethertype::IPV4, &header.with(payload))
}

/// A frame with an IPv6 packet.
pub fn v6(header: &Ipv6, payload: &[u8]) -> Vec<u8> {
    ethernet(ethertype::IPV6, &header.with(payload))
}

/// A SYN for port 443.
pub fn https() -> Vec<u8> {
    tcp(40_000, 443, &[])
}

/// The frames of all fixtures.
pub fn all_frames() -> Vec<Vec<u8>> {
    let groups = [
        link::fixtures(),
        ipv4::fixtures(),
        ipv6::fixtures(),
        icmp::fixtures(),
        policy::fixtures(),
        truncated::fixtures(),
    ];
    groups
        .into_iter()
        .flatten()
        .map(|fixture| fixture.frame)
        .collect()
}

#[test]
fn the_fixtures_are_enough() {
    let count = all_frames().len();
    println!("{count} fixtures");
    assert!(count >= 100, "{count}");
}

#[test]
fn without_a_worker_no_policy_binds() {
    let mut bed = bed();
    let denied = syn(BAD, VIP, 443);
    assert!(!bed.run(FRONTS[0], &denied).expect("an answer").passes);
    bed.close_sockets();
    for (program, frame) in FRONTS.iter().flat_map(|program| {
        let frames = [
            syn(BAD, VIP, 443),
            syn(BAD6, VIP6, 443),
            syn("192.0.2.66", VIP, 8443),
        ];
        frames.into_iter().map(move |frame| (*program, frame))
    }) {
        let fixture = fixture(
            "a denied source, with all sockets closed",
            Reason::NO_OWNER,
            frame,
        );
        check_one(&bed, program, &fixture).expect(program);
    }
    let permitted = fixture("a permitted source", Reason::PERMITTED, syn(GOOD, VIP, 443));
    check_one(&bed, FRONTS[0], &permitted).expect("unchanged");
}

#[test]
fn a_frontends_own_counters_move() {
    let bed = bed();
    let denied = syn(BAD, VIP, 443);
    let passed = v4(
        &Ipv4::new(GOOD, VIP, protocol::TCP),
        &tcp(40_000, 443, &[0; 100]),
    );
    for program in FRONTS {
        let before = frontend(&bed);
        for frame in [&denied, &passed, &passed] {
            bed.run(program, frame).expect("an answer");
        }
        let after = frontend(&bed);
        assert_eq!(
            after.dropped_packets - before.dropped_packets,
            1,
            "{program}"
        );
        assert_eq!(after.passed_packets - before.passed_packets, 2, "{program}");
        assert_eq!(
            after.passed_bytes - before.passed_bytes,
            2 * passed.len() as u64,
            "{program}"
        );
    }
}

fn frontend(bed: &Bed) -> gateway_l4::FrontendStatus {
    let counters = bed.l4.counters().expect("counters");
    let wanted = |f: &gateway_l4::FrontendStatus| {
        f.address == Some(VIP.parse().expect("an address")) && f.port == 443 && f.protocol == "tcp"
    };
    counters
        .frontends
        .into_iter()
        .find(wanted)
        .expect("the frontend")
}
