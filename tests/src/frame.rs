//! Ethernet frames, built field by field from the inside out, with every field open to be wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol and extension header numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Encrypted payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
}

/// Ethertypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS.
    pub const MPLS: u16 = 0x8847;
    /// PPPoE session.
    pub const PPPOE: u16 = 0x8864;
    /// 802.1ad.
    pub const QINQ: u16 = 0x88a8;
    /// LLDP.
    pub const LLDP: u16 = 0x88cc;
}

/// Don't fragment.
pub const DF: u16 = 0x4000;
/// More fragments.
pub const MF: u16 = 0x2000;

/// An Ethernet header before this payload.
#[must_use]
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A VLAN tag, for the inside of an Ethernet header or another tag of type `VLAN` or `QINQ`.
#[must_use]
pub fn tag(id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// 4.
    pub version: u8,
    /// In words; none is the right one.
    pub header_words: Option<u8>,
    /// None is the right one.
    pub total_length: Option<u16>,
    /// Flags and fragment offset in units of eight bytes.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// What it carries.
    pub protocol: u8,
    /// From.
    pub source: Ipv4Addr,
    /// To.
    pub destination: Ipv4Addr,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
}

impl Ipv4 {
    /// An ordinary header.
    ///
    /// # Panics
    /// When the texts are no addresses.
    #[must_use]
    pub fn new(source: &str, destination: &str, protocol: u8) -> Self {
        Self {
            version: 4,
            header_words: None,
            total_length: None,
            fragment: DF,
            ttl: 64,
            protocol,
            source: source.parse().expect("an IPv4 address"),
            destination: destination.parse().expect("an IPv4 address"),
            options: Vec::new(),
        }
    }

    /// The header with this behind it.
    #[must_use]
    pub fn with(&self, payload: &[u8]) -> Vec<u8> {
        let words = self
            .header_words
            .unwrap_or(5 + (self.options.len() / 4) as u8);
        let length = 20 + self.options.len() + payload.len();
        let mut packet = vec![(self.version << 4) | words, 0];
        packet.extend(self.total_length.unwrap_or(length as u16).to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(&self.options);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    }
}

/// An IPv6 header.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// 6.
    pub version: u8,
    /// None is the right one.
    pub payload_length: Option<u16>,
    /// What follows.
    pub next: u8,
    /// Hop limit.
    pub hops: u8,
    /// From.
    pub source: Ipv6Addr,
    /// To.
    pub destination: Ipv6Addr,
}

impl Ipv6 {
    /// An ordinary header.
    ///
    /// # Panics
    /// When the texts are no addresses.
    #[must_use]
    pub fn new(source: &str, destination: &str, next: u8) -> Self {
        Self {
            version: 6,
            payload_length: None,
            next,
            hops: 64,
            source: source.parse().expect("an IPv6 address"),
            destination: destination.parse().expect("an IPv6 address"),
        }
    }

    /// The header with this behind it.
    #[must_use]
    pub fn with(&self, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![self.version << 4, 0, 0, 0];
        packet.extend(
            self.payload_length
                .unwrap_or(payload.len() as u16)
                .to_be_bytes(),
        );
        packet.extend([self.next, self.hops]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(payload);
        packet
    }
}

/// An IPv6 extension header of `units` times eight bytes (authentication: its own length rule is heeded).
#[must_use]
pub fn extension(kind: u8, next: u8, units: u8, payload: &[u8]) -> Vec<u8> {
    let length = if kind == protocol::AUTHENTICATION {
        units * 2 - 2
    } else {
        units - 1
    };
    let mut packet = vec![next, length];
    packet.resize(usize::from(units) * 8, 0);
    packet.extend(payload);
    packet
}

/// An IPv6 routing header of one unit with so many segments left.
#[must_use]
pub fn routing(next: u8, segments_left: u8, payload: &[u8]) -> Vec<u8> {
    [&[next, 0, 2, segments_left, 0, 0, 0, 0][..], payload].concat()
}

/// An IPv6 fragment header; the offset counts units of eight bytes.
#[must_use]
pub fn fragment(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let word = (offset << 3) | u16::from(more);
    [&[next, 0][..], &word.to_be_bytes(), &[0, 0, 0, 7], payload].concat()
}

/// A TCP header with SYN and this behind it.
#[must_use]
pub fn tcp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

/// A UDP header with this behind it.
#[must_use]
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend((8 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// An ICMP or ICMPv6 header with this behind it.
#[must_use]
pub fn icmp(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0, 0, 0, 0x05, 0xdc][..], payload].concat()
}

/// A whole frame with a TCP SYN.
///
/// # Panics
/// When the texts are no addresses, or of two families.
#[must_use]
pub fn syn(source: &str, destination: &str, port: u16) -> Vec<u8> {
    segment(source, destination, port, 0x02)
}

/// The same with other flags.
///
/// # Panics
/// When the texts are no addresses, or of two families.
#[must_use]
pub fn segment(source: &str, destination: &str, port: u16, flags: u8) -> Vec<u8> {
    let mut segment = tcp(40_000, port, &[]);
    segment[13] = flags;
    match source.parse().expect("an address") {
        IpAddr::V4(_) => ethernet(
            ethertype::IPV4,
            &Ipv4::new(source, destination, protocol::TCP).with(&segment),
        ),
        IpAddr::V6(_) => ethernet(
            ethertype::IPV6,
            &Ipv6::new(source, destination, protocol::TCP).with(&segment),
        ),
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
