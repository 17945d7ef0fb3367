//! Ethernet and up to two VLAN tags (802.1Q, 802.1ad).

use gateway_common::Reason;

use super::Packet;

const HEADER: usize = 14;
const TAG: usize = 4;
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const QINQ: u16 = 0x88a8_u16.to_be();

/// The protocol that a frame carries.
pub enum Layer {
    Ipv4,
    Ipv6,
}

/// Which network layer a frame carries, and where its header begins.
#[inline(always)]
pub fn network_layer(packet: &Packet) -> Result<(Layer, usize), Reason> {
    let mut ethertype: u16 = packet.read(HEADER - 2)?;
    let mut offset = HEADER;
    if is_tag(ethertype) {
        ethertype = packet.read(offset + 2)?;
        offset += TAG;
        if is_tag(ethertype) {
            ethertype = packet.read(offset + 2)?;
            offset += TAG;
        }
    }
    let offset = packet.zero.blur(offset, 31);
    match ethertype {
        IPV4 => Ok((Layer::Ipv4, offset)),
        IPV6 => Ok((Layer::Ipv6, offset)),
        VLAN | QINQ => Err(Reason::TOO_MANY_TAGS),
        _ => Err(Reason::NOT_IP),
    }
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == QINQ
}
