//! IPv4 with options and fragments (RFC 791).

use gateway_common::Reason;
use gateway_common::frontend::mapped;

use super::{Flow, Fragment, Packet};

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Reads the header at `offset`; returns what part of a datagram this is and where its payload begins.
#[inline(always)]
pub fn parse(packet: &Packet, offset: usize, flow: &mut Flow) -> Result<(Fragment, usize), Reason> {
    let header: [u32; 5] = packet.read(offset)?;
    let first = u32::from_be(header[0]);
    let second = u32::from_be(header[1]);
    let length = ((first >> 24) & 0xf) as usize * 4;
    let total = (first & 0xffff) as usize;
    if first >> 28 != 4 || length < HEADER || total < length {
        return Err(Reason::MALFORMED);
    }
    flow.protocol = (u32::from_be(header[2]) >> 16) as u8;
    flow.source = mapped(header[3]);
    flow.destination = mapped(header[4]);
    let fragment = match second as u16 {
        word if word & OFFSET != 0 => Fragment::Later,
        word if word & MORE_FRAGMENTS != 0 => Fragment::First,
        _ => Fragment::Whole,
    };
    Ok((fragment, offset + length))
}
