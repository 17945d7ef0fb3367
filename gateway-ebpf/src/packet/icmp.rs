//! ICMP and ICMPv6 errors, and the packet that they are about (RFC 792, RFC 4443 §2.4).

use gateway_common::Reason;

use super::{Flow, Fragment, ICMP, ICMPV6, Kind, Packet, TCP, UDP, ipv4, ipv6, transport};

const HEADER: usize = 8;

/// Whether this is an error; other ICMP is an [`Err`], as is a header that is cut.
#[inline(always)]
pub fn is_error(packet: &Packet, offset: usize, protocol: u8) -> Result<bool, Reason> {
    if protocol != ICMP && protocol != ICMPV6 {
        return Ok(false);
    }
    let [kind, ..]: [u8; HEADER] = packet.read(offset)?;
    match (protocol, kind) {
        // Unreachable (with "fragmentation needed"), time exceeded, parameter problem.
        (ICMP, 3 | 11 | 12) => Ok(true),
        // The same with "packet too big".
        (ICMPV6, 1..=4) => Ok(true),
        _ => Err(Reason::ICMP),
    }
}

/// Reads the packet that the error is about into `flow`. It went the other way: its source is us.
#[inline(always)]
pub fn parse_inner(packet: &Packet, offset: usize, flow: &mut Flow) -> Result<Kind, Reason> {
    let inner = offset + HEADER;
    let (fragment, at) = match flow.protocol {
        ICMP => ipv4::parse(packet, inner, flow)?,
        // What we send has no extension headers.
        _ => (Fragment::Whole, ipv6::parse_fixed(packet, inner, flow)?),
    };
    if fragment == Fragment::Later || (flow.protocol != TCP && flow.protocol != UDP) {
        return Err(Reason::ICMP);
    }
    transport::ports(packet, at, flow)?;
    Ok(Kind::IcmpError)
}
