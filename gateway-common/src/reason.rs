//! Why a packet or a connection was treated as it was: the one list of reasons, each with its verdict.

/// A reason; the number is its index in [`crate::maps::REASONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Reason(pub u32);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $kind:ident;)+) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name in metrics, traces and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ _ => "unknown" }
            }

            /// What it belongs to.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)+ _ => Kind::Pass }
            }
        }

        const _: () = {
            // The numbers are indices: 0, 1, 2, ...
            let numbers = [$($number),+];
            let mut i = 0;
            while i < numbers.len() {
                assert!(numbers[i] == i);
                i += 1;
            }
        };
    };
}

/// What a reason belongs to. Stands in no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `front` lets the packet through to the stack, untouched.
    Pass,
    /// `front` drops the packet.
    Drop,
    /// `steer` said what becomes of a connection.
    Steer,
    /// Something beside the verdict.
    Note,
}

reasons! {
    /// Not IPv4 or IPv6: ARP, LLDP, and so on.
    NOT_IP = 0, "not_ip", Pass;
    /// More than two VLAN tags.
    TOO_MANY_TAGS = 1, "too_many_tags", Pass;
    /// The packet ends within a header.
    TRUNCATED = 2, "truncated", Pass;
    /// A header contradicts itself or the packet (version, header length, total length).
    MALFORMED = 3, "malformed", Pass;
    /// Neither TCP nor UDP nor an ICMP error.
    OTHER_PROTOCOL = 4, "other_protocol", Pass;
    /// More than four IPv6 extension headers, or one that hides what follows (ESP, unknown).
    EXTENSION_HEADERS = 5, "extension_headers", Pass;
    /// No frontend has this address, port and protocol.
    NOT_OURS = 6, "not_ours", Pass;
    /// A frontend on every address of the node has this port, but the address is not the node's.
    NOT_LOCAL = 7, "not_local", Pass;
    /// A later fragment; it has no ports.
    LATER_FRAGMENT = 8, "later_fragment", Pass;
    /// ICMP or ICMPv6 that is no error about one of our connections: echo, neighbour discovery, and so on.
    ICMP = 9, "icmp", Pass;
    /// An ICMP error about a packet that a frontend sent; never dropped, path-MTU discovery needs it.
    ICMP_ERROR = 10, "icmp_error", Pass;
    /// A frontend that everyone may reach.
    OPEN = 11, "open", Pass;
    /// The frontend's policy permits the source.
    PERMITTED = 12, "permitted", Pass;
    /// The policy would drop it, but no worker of the process that asked for the policy is alive.
    NO_OWNER = 13, "no_owner", Pass;
    /// The source is on a deny list.
    DENIED = 14, "denied", Drop;
    /// There is an allow list and the source is not on it.
    NOT_ALLOWED = 15, "not_allowed", Drop;
    /// A later fragment to an address that is all ours, from a source that every frontend there denies.
    DENIED_FRAGMENT = 16, "denied_fragment", Drop;
    /// A connection given to the worker of the CPU that took it.
    STEERED = 17, "steered", Steer;
    /// That worker had no socket; given to a following one.
    STEERED_NEXT = 18, "steered_next", Steer;
    /// No worker tried had a socket; left to the ordinary lookup.
    STEER_NO_SOCKET = 19, "steer_no_socket", Steer;
    /// Not a frontend's; left to the ordinary lookup.
    STEER_NOT_OURS = 20, "steer_not_ours", Steer;
    /// A traced verdict that was not logged: over the limit of one CPU.
    TRACE_SUPPRESSED = 21, "trace_suppressed", Note;
    /// A datagram, for a frontend or not; left to the ordinary lookup, for an answer has to leave from a socket that
    /// is bound to the frontend.
    STEER_DATAGRAM = 22, "steer_datagram", Steer;
    /// The policy would drop it, but it opens no connection and its port is one that the node may dial from: it may be
    /// an answer to the node itself.
    MAY_BE_ANSWER = 23, "may_be_answer", Pass;
}

impl Reason {
    /// How many there are: the size of [`crate::maps::REASONS`].
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// Whether a packet with this reason is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn drops(self) -> bool {
        self.0 >= Self::DENIED.0 && self.0 <= Self::DENIED_FRAGMENT.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_drop_reasons_drop() {
        for reason in Reason::ALL {
            assert_eq!(
                reason.drops(),
                reason.kind() == Kind::Drop,
                "{}",
                reason.name()
            );
        }
    }
}
