//! IPv6 with up to four extension headers and fragments (RFC 8200).

use gateway_common::Reason;

use super::{Flow, Fragment, Packet};

const HEADER: usize = 40;
const EXTENSIONS_MAX: usize = 4;

/// How far into a frame extension headers are followed, as a mask.
pub const REACH: usize = 2047;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// Reads the header at `offset`; returns what part of a datagram this is and where its payload begins.
#[inline(always)]
pub fn parse(packet: &Packet, offset: usize, flow: &mut Flow) -> Result<(Fragment, usize), Reason> {
    let mut at = parse_fixed(packet, offset, flow)?;
    let mut next = flow.protocol;
    let mut fragment = Fragment::Whole;
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(next) {
            break;
        }
        let (after, length, part) = extension(packet, at, next)?;
        next = after;
        at += length;
        if at > REACH {
            return Err(Reason::EXTENSION_HEADERS);
        }
        at = packet.zero.blur(at, REACH);
        if part != Fragment::Whole {
            fragment = part;
        }
        if part == Fragment::Later {
            break;
        }
    }
    flow.protocol = next;
    if fragment != Fragment::Later && (is_extension(next) || next == ESP || next == NO_NEXT_HEADER)
    {
        return Err(Reason::EXTENSION_HEADERS);
    }
    Ok((fragment, at))
}

/// Reads the fixed header at `offset` alone; returns where it ends. The protocol is that of what follows, be it
/// an extension header.
#[inline(always)]
pub fn parse_fixed(packet: &Packet, offset: usize, flow: &mut Flow) -> Result<usize, Reason> {
    let head: [u32; 2] = packet.read(offset)?;
    flow.source = packet.read(offset + 8)?;
    flow.destination = packet.read(offset + 24)?;
    if u32::from_be(head[0]) >> 28 != 6 {
        return Err(Reason::MALFORMED);
    }
    flow.protocol = (u32::from_be(head[1]) >> 8) as u8;
    Ok(offset + HEADER)
}

#[inline(always)]
fn is_extension(header: u8) -> bool {
    matches!(
        header,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY
    )
}

/// One extension header: what follows it, how long it is, what part of a datagram it says this is.
#[inline(always)]
fn extension(packet: &Packet, at: usize, kind: u8) -> Result<(u8, usize, Fragment), Reason> {
    let [next, length, flags_high, flags_low]: [u8; 4] = packet.read(at)?;
    let flags = u16::from_be_bytes([flags_high, flags_low]);
    match kind {
        FRAGMENT if flags & !7 != 0 => Ok((next, 8, Fragment::Later)),
        FRAGMENT if flags & 1 != 0 => Ok((next, 8, Fragment::First)),
        FRAGMENT => Ok((next, 8, Fragment::Whole)),
        AUTHENTICATION => Ok((next, (length as usize + 2) * 4, Fragment::Whole)),
        // With segments left, the destination is not the last one: somebody else's to decide.
        ROUTING if flags_low != 0 => Err(Reason::EXTENSION_HEADERS),
        _ => Ok((next, (length as usize + 1) * 8, Fragment::Whole)),
    }
}
