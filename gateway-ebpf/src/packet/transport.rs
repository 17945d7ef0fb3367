//! TCP and UDP: the ports.

use gateway_common::Reason;

use super::{Flow, Fragment, Kind, Packet, TCP, UDP};

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// RFC 9293 §3.1.
const TCP_FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Reads the ports at `offset`. A whole datagram must hold the whole header; a first fragment must
/// hold eight bytes, which is the least there can be.
#[inline(always)]
pub fn parse(
    packet: &Packet,
    offset: usize,
    fragment: Fragment,
    flow: &mut Flow,
) -> Result<Kind, Reason> {
    let header = match (flow.protocol, fragment) {
        (TCP, Fragment::Whole) => TCP_HEADER,
        (TCP | UDP, _) => UDP_HEADER,
        _ => return Err(Reason::OTHER_PROTOCOL),
    };
    let _: u8 = packet.read(offset + header - 1)?;
    ports(packet, offset, flow)?;
    if header == TCP_HEADER {
        let flags: u8 = packet.read(offset + TCP_FLAGS)?;
        flow.opens_nothing = u8::from(flags & (SYN | ACK) != SYN);
    }
    Ok(Kind::Transport)
}

/// Reads the two ports that both protocols begin with.
#[inline(always)]
pub fn ports(packet: &Packet, offset: usize, flow: &mut Flow) -> Result<(), Reason> {
    [flow.source_port, flow.destination_port] = packet.read(offset)?;
    Ok(())
}
