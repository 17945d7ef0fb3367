//! What the packet path asks of rtnetlink: interfaces, addresses, local routes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::L4Error;

/// Marks the routes that Sluice adds; free in linux v6.6 include/uapi/linux/rtnetlink.h `RTPROT_*`. Whose of several
/// Sluices a route is, its metric says.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(83);
/// `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u32 = 255;

/// A connection to rtnetlink in this process's network namespace.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

/// A network interface.
#[derive(Clone, Debug)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub up: bool,
    pub loopback: bool,
    /// Whether frames begin with an Ethernet header.
    pub ethernet: bool,
    /// Whether it is a port of a bridge or bond, which sees its packets itself.
    pub is_port: bool,
    /// The XDP program attached, and whether in the driver.
    pub xdp: Option<(u32, bool)>,
}

/// A route of a single address in the table of local routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRoute {
    pub address: IpAddr,
    /// The lowest of an address decides.
    pub metric: u32,
    /// Whether a Sluice has added it.
    pub is_sluices: bool,
    /// Whether it brings packets to this node; a broadcast address has one that does not.
    pub is_local: bool,
}

impl Netlink {
    /// Opens the connection; it lives on a task of the current runtime until the last handle is dropped.
    pub fn open() -> Result<Self, L4Error> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| L4Error::System {
                operation: "open an rtnetlink socket",
                source,
            })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Every interface, by index.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, L4Error> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list interfaces"))?;
        Ok(links.iter().map(interface).collect())
    }

    /// The addresses of every interface.
    pub async fn addresses(&self) -> Result<BTreeSet<IpAddr>, L4Error> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list addresses"))?;
        let of = |attribute: &AddressAttribute| match attribute {
            // On point-to-point links the one is ours, the other the peer's.
            AddressAttribute::Local(ip) => Some((0, *ip)),
            AddressAttribute::Address(ip) => Some((1, *ip)),
            _ => None,
        };
        let address = |message: &rtnetlink::packet_route::address::AddressMessage| {
            message
                .attributes
                .iter()
                .filter_map(of)
                .min()
                .map(|(_, ip)| ip)
        };
        Ok(messages.iter().filter_map(address).collect())
    }

    /// The routes of single addresses in the table of local routes.
    pub async fn address_routes(&self) -> Result<Vec<AddressRoute>, L4Error> {
        let mut found = Vec::new();
        for query in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let routes: Vec<RouteMessage> = self
                .handle
                .route()
                .get(query)
                .execute()
                .try_collect()
                .await
                .map_err(failed("list routes"))?;
            found.extend(routes.iter().filter_map(address_route));
        }
        Ok(found)
    }

    /// Routes an address to this node, beside whatever route it has of another metric.
    pub async fn add_local_route(
        &self,
        address: IpAddr,
        metric: u32,
        loopback: u32,
    ) -> Result<(), L4Error> {
        let route = local_route(address, metric, loopback);
        let added = self.handle.route().add(route).execute().await;
        done(added, libc::EEXIST, "add", address)
    }

    /// Removes such a route; it may be gone already.
    pub async fn remove_local_route(
        &self,
        address: IpAddr,
        metric: u32,
        loopback: u32,
    ) -> Result<(), L4Error> {
        let route = local_route(address, metric, loopback);
        let removed = self.handle.route().del(route).execute().await;
        done(removed, libc::ESRCH, "remove", address)
    }

    /// Detaches an XDP program that was attached by netlink; refused for one that a link holds.
    pub async fn detach_xdp(&self, index: u32, native: bool) -> Result<(), L4Error> {
        // linux v6.6 include/uapi/linux/if_link.h: XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE.
        let flags = if native { 1 << 2 } else { 1 << 1 };
        let xdp = LinkAttribute::Xdp(vec![LinkXdp::Fd(-1), LinkXdp::Flags(flags)]);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(xdp)
            .build();
        let request = self.handle.link().set(message).execute();
        request.await.map_err(failed("detach an XDP program"))
    }

    /// The index of the loopback interface.
    pub async fn loopback(&self) -> Result<u32, L4Error> {
        let loopback = self
            .interfaces()
            .await?
            .into_iter()
            .find(|interface| interface.loopback);
        Ok(loopback.map_or(1, |interface| interface.index))
    }
}

fn interface(link: &LinkMessage) -> Interface {
    let mut found = Interface {
        name: String::new(),
        index: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        loopback: link.header.flags.contains(LinkFlags::Loopback),
        ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        is_port: false,
        xdp: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Controller(_) => found.is_port = true,
            LinkAttribute::Xdp(parts) => found.xdp = xdp(parts),
            _ => {}
        }
    }
    found
}

fn xdp(parts: &[LinkXdp]) -> Option<(u32, bool)> {
    let native = parts
        .iter()
        .any(|part| matches!(part, LinkXdp::Attached(XdpAttached::Driver)));
    parts.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) => Some((*id, native)),
        _ => None,
    })
}

/// `local ADDRESS dev lo metric METRIC`, in the table of local routes.
fn local_route(address: IpAddr, metric: u32, loopback: u32) -> RouteMessage {
    match address {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4, 32)
            .table_id(LOCAL_TABLE)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .protocol(PROTOCOL)
            .priority(metric)
            .output_interface(loopback)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, 128)
            .table_id(LOCAL_TABLE)
            .kind(RouteType::Local)
            .scope(RouteScope::Universe)
            .protocol(PROTOCOL)
            .priority(metric)
            .output_interface(loopback)
            .build(),
    }
}

/// None if the route is of another table, or of more than one address.
fn address_route(route: &RouteMessage) -> Option<AddressRoute> {
    let mut table = u32::from(route.header.table);
    let mut metric = 0;
    let mut address = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let address = address?;
    let is_single = route.header.destination_prefix_length == prefix_of_one(address);
    (table == LOCAL_TABLE && is_single).then_some(AddressRoute {
        address,
        metric,
        is_sluices: route.header.protocol == PROTOCOL,
        is_local: route.header.kind == RouteType::Local,
    })
}

fn prefix_of_one(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The result of a request for which one error number says that there was nothing to do.
fn done(
    result: Result<(), rtnetlink::Error>,
    nothing: libc::c_int,
    operation: &'static str,
    address: IpAddr,
) -> Result<(), L4Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nothing => Ok(()),
        other => other.map_err(|source| L4Error::Route {
            operation,
            address,
            source,
        }),
    }
}

fn failed(operation: &'static str) -> impl FnOnce(rtnetlink::Error) -> L4Error {
    move |source| L4Error::Netlink { operation, source }
}
