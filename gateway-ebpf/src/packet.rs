//! Packets: the only place with pointers into them. Parsing fills a [`Flow`] and says what kind of
//! packet it is; what is not understood is an [`Err`] with the reason, and passes.
//!
//! Judges nothing and reads no map.

mod eth;
mod icmp;
mod ipv4;
mod ipv6;
mod transport;

use core::mem::MaybeUninit;

use gateway_common::Reason;
use gateway_common::frontend::Address;

use crate::zero::Zero;

/// The bytes of a packet that a program may read.
#[derive(Clone, Copy)]
pub struct Packet {
    start: usize,
    end: usize,
    zero: Zero,
}

impl Packet {
    /// From a context's `data` and `data_end`.
    #[inline(always)]
    pub fn new((start, end): (usize, usize), zero: Zero) -> Self {
        Self { start, end, zero }
    }

    /// Reads a value at an offset; multi-byte values stay in network byte order.
    #[inline(always)]
    fn read<T: Wire>(&self, offset: usize) -> Result<T, Reason> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return Err(Reason::TRUNCATED);
        }
        // SAFETY: the bytes lie within the packet, as the verifier checks again; every byte pattern
        // is a T.
        Ok(unsafe { (at as *const T).read_unaligned() })
    }
}

/// Types that any bytes are a value of.
trait Wire: Copy {}
impl Wire for u8 {}
impl Wire for u16 {}
impl Wire for u32 {}
impl<const N: usize> Wire for [u8; N] {}
impl<const N: usize> Wire for [u16; N] {}
impl<const N: usize> Wire for [u32; N] {}

/// Who talks to whom. Unset parts are zero.
///
/// Aligned because the compiler may read its words in pairs, which packets allow and the stack does not.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Flow {
    /// Where the packet comes from.
    pub source: Address,
    /// Where it goes to.
    pub destination: Address,
    /// Network byte order.
    pub source_port: u16,
    /// Network byte order.
    pub destination_port: u16,
    /// The IP protocol of what the IP header (or its last extension) carries.
    pub protocol: u8,
    /// 1 for a TCP segment that opens no connection: anything but a SYN without ACK, as far as its flags are known.
    pub opens_nothing: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl Flow {
    /// Nobody talks to nobody, written in place and word by word: the compiler makes a zeroed struct, or a copy of
    /// one, a call of memset, which clears byte by byte and costs more than all the parsing.
    #[inline(always)]
    pub fn unknown(place: &mut MaybeUninit<Self>, zero: Zero) -> &mut Self {
        let first: *mut u64 = place.as_mut_ptr().cast();
        for i in 0..size_of::<Self>() / size_of::<u64>() {
            // SAFETY: within the flow, which is aligned for it.
            unsafe { first.add(i).write_volatile(zero.get()) };
        }
        // SAFETY: every word is written, and a flow is plain numbers without padding.
        unsafe { place.assume_init_mut() }
    }
}

/// What kind of packet it is.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Whole, or a first fragment: ports are known.
    Transport,
    /// A later fragment: addresses and protocol are known.
    LaterFragment,
    /// An error about a packet, which is what the flow describes.
    IcmpError,
}

/// Reads a frame's headers into `flow`. `bounds` asks the context where the frame begins and ends: asked anew for
/// each layer, the verifier has nothing to remember about how far the layer before was read.
#[inline(always)]
pub fn parse(
    bounds: impl Fn() -> (usize, usize),
    zero: Zero,
    flow: &mut Flow,
) -> Result<Kind, Reason> {
    let (layer, offset) = eth::network_layer(&Packet::new(bounds(), zero))?;
    let packet = &Packet::new(bounds(), zero);
    let (fragment, offset) = match layer {
        eth::Layer::Ipv4 => ipv4::parse(packet, offset, flow)?,
        eth::Layer::Ipv6 => ipv6::parse(packet, offset, flow)?,
    };
    let offset = zero.blur(offset, ipv6::REACH);
    let packet = &Packet::new(bounds(), zero);
    if let Fragment::Later = fragment {
        return Ok(Kind::LaterFragment);
    }
    if icmp::is_error(packet, offset, flow.protocol)? {
        return icmp::parse_inner(packet, offset, flow);
    }
    transport::parse(packet, offset, fragment, flow)
}

/// What part of a datagram a packet carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragment {
    /// All of it.
    Whole,
    /// The beginning.
    First,
    /// Something after the beginning.
    Later,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
