//! Which of the sockets of one address gets a client's datagrams: by a hash of the client's address and port
//! over the sockets that were bound first, one for each worker.
//!
//! Left to itself the kernel spreads clients over whatever shares the address. Sockets of sessions share it too while
//! one process leaves and another comes, and with each that is bound or closed clients would move to other workers,
//! away from their sessions. So the sockets carry a classic filter, which needs no privilege, and which leaves
//! everything that is bound later out.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;

use libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD,
    BPF_LDX, BPF_MEM, BPF_MISC, BPF_MOD, BPF_MSH, BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_TAX,
    BPF_W, BPF_X, BPF_XOR, sock_filter, sock_fprog,
};
use nix::sys::socket::{setsockopt, sockopt};

/// Where the packet's IP header begins for a filter (linux v6.1 include/uapi/linux/filter.h `SKF_NET_OFF`).
const NETWORK: u32 = -0x10_0000_i32 as u32;

/// Where the filter keeps its hash.
const HASH: u32 = 0;

/// Odd, its bits well mixed: 2^32 divided by the golden ratio.
const FACTOR: u32 = 0x9E37_79B9;

/// Spreads clients over these sockets, all that are bound to their address, in the order in which they were bound.
pub(crate) fn over(sockets: &[OwnedFd], v6: bool) -> io::Result<()> {
    let (Some(first), Ok(count)) = (sockets.first(), u16::try_from(sockets.len())) else {
        return Ok(());
    };
    // Nobody can aim at one worker who does not know where the hash begins.
    let seed = RandomState::new().build_hasher().finish() as u32;
    let mut filter = filter(v6, count, seed);
    let program = sock_fprog {
        len: u16::try_from(filter.len()).expect("a few dozen instructions"),
        filter: filter.as_mut_ptr(),
    };
    setsockopt(first, sockopt::AttachReusePortCbpf, &program)?;
    Ok(())
}

fn filter(v6: bool, count: u16, seed: u32) -> Vec<sock_filter> {
    let mut program = vec![
        instruction(BPF_LD | BPF_IMM, seed),
        instruction(BPF_ST, HASH),
    ];
    if v6 {
        // RFC 8200 §3: the source address; the port, where UDP follows at once.
        for at in [8, 12, 16, 20] {
            program.push(instruction(BPF_LD | BPF_W | BPF_ABS, NETWORK + at));
            program.extend(mixed_in());
        }
        program.push(instruction(BPF_LD | BPF_B | BPF_ABS, NETWORK + 6));
        let mut port = vec![instruction(BPF_LD | BPF_H | BPF_ABS, NETWORK + 40)];
        port.extend(mixed_in());
        program.push(sock_filter {
            jf: u8::try_from(port.len()).expect("a few instructions"),
            ..instruction(BPF_JMP | BPF_JEQ | BPF_K, libc::IPPROTO_UDP as u32)
        });
        program.extend(port);
    } else {
        // RFC 791 §3.1: the source address; the port, behind a header of whatever length.
        program.push(instruction(BPF_LD | BPF_W | BPF_ABS, NETWORK + 12));
        program.extend(mixed_in());
        program.push(instruction(BPF_LDX | BPF_B | BPF_MSH, NETWORK));
        program.push(instruction(BPF_LD | BPF_H | BPF_IND, NETWORK));
        program.extend(mixed_in());
    }
    program.extend([
        instruction(BPF_LD | BPF_MEM, HASH),
        instruction(BPF_ALU | BPF_MOD | BPF_K, count.into()),
        instruction(BPF_RET | BPF_A, 0),
    ]);
    program
}

/// Mixes what has been loaded into the hash.
fn mixed_in() -> [sock_filter; 7] {
    [
        instruction(BPF_LDX | BPF_MEM, HASH),
        instruction(BPF_ALU | BPF_XOR | BPF_X, 0),
        instruction(BPF_ALU | BPF_MUL | BPF_K, FACTOR),
        instruction(BPF_MISC | BPF_TAX, 0),
        instruction(BPF_ALU | BPF_RSH | BPF_K, 15),
        instruction(BPF_ALU | BPF_XOR | BPF_X, 0),
        instruction(BPF_ST, HASH),
    ]
}

fn instruction(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).expect("codes have 16 bits"),
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
    use std::os::fd::AsFd;

    use super::super::socket::bind;
    use super::*;

    /// The socket that each client's datagram arrives at; one over loopback is there once it is sent.
    fn arrivals(clients: &[UdpSocket], sockets: &[OwnedFd], to: SocketAddr) -> Vec<Option<usize>> {
        let arrived = |client: &UdpSocket| {
            client.send_to(b"x", to).expect("loopback takes it");
            let got = |socket: &OwnedFd| {
                let socket = UdpSocket::from(socket.try_clone().expect("a descriptor"));
                socket.recv(&mut [0; 1]).is_ok()
            };
            sockets.iter().position(got)
        };
        clients.iter().map(arrived).collect()
    }

    #[test]
    fn each_client_keeps_its_socket_whatever_else_is_bound_or_closed() {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let first = bind((ip, 0).into(), false, 1 << 16).expect("a socket");
            let to = UdpSocket::from(first.as_fd().try_clone_to_owned().expect("a descriptor"))
                .local_addr()
                .expect("an address");
            let more = || bind(to, false, 1 << 16).expect("a socket");
            let mut sockets = vec![first, more(), more()];
            over(&sockets, ip.is_ipv6()).expect("a filter");
            let clients: Vec<_> = (0..96)
                .map(|_| UdpSocket::bind((ip, 0)).expect("a client"))
                .collect();
            let begin = arrivals(&clients, &sockets, to);
            for index in 0..3 {
                let share = begin.iter().filter(|at| **at == Some(index)).count();
                assert!(share >= 12, "socket {index} has {share} of 96: {ip}");
            }
            sockets.extend([more(), more(), more(), more()]);
            assert_eq!(arrivals(&clients, &sockets, to), begin, "{ip}");
            sockets.remove(4);
            assert_eq!(arrivals(&clients, &sockets, to), begin, "{ip}");
            sockets.truncate(3);
            assert_eq!(arrivals(&clients, &sockets, to), begin, "{ip}");
        }
    }
}
