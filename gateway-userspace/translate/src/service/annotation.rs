//! The annotation `sluice.dev/endpoints` of a Service: addresses for whoever has no EndpointSlices.

use std::net::{IpAddr, SocketAddr};

/// Its name.
pub(crate) const ENDPOINTS: &str = "sluice.dev/endpoints";

/// Reads `10.0.0.1, 10.0.0.2:9000, [2001:db8::1]:80`; an address without a port gets `port`.
///
/// # Errors
/// What is not an address, in words.
pub(super) fn parse(text: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let bare = part
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(part);
        let address = part.parse::<SocketAddr>().ok().or_else(|| {
            let address = bare.parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(address, port))
        });
        match address {
            Some(address) if address.port() != 0 => addresses.push(address),
            _ => {
                return Err(format!(
                    "{part:?} is not an address; write addresses with or without port, \
                     as in \"10.0.0.1, 10.0.0.2:8080, [2001:db8::1]:8080\", \
                     and for a DNS name use a Service of type ExternalName"
                ));
            }
        }
    }
    if addresses.is_empty() {
        return Err("it names no address".to_owned());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn addresses_with_and_without_port_are_read() {
        let addresses = parse(
            "10.0.0.1, 10.0.0.2:9000,[2001:db8::1]:81, 2001:db8::2,[::1]",
            80,
        );
        let shown: Vec<_> = addresses
            .expect("addresses")
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "10.0.0.1:80",
                "10.0.0.2:9000",
                "[2001:db8::1]:81",
                "[2001:db8::2]:80",
                "[::1]:80"
            ]
        );
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in [
            "",
            " , ",
            "localhost",
            "10.0.0.300",
            "10.0.0.1:0",
            "10.0.0.1:x",
        ] {
            assert!(parse(text, 80).is_err(), "{text}");
        }
    }
}
