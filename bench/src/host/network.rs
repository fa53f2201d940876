//! The network of a host: the card that leads to an address, and the settings of its connections. No name and no
//! address is among them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use serde::{Deserialize, Serialize};

use super::system_files::{line, number};

/// The network of a host; each figure `None` if it cannot be determined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Driver of the network card; `loopback`, or `virtual` without a device.
    pub(crate) card: Option<String>,
    /// Largest packet of the card.
    pub(crate) mtu_bytes: Option<u64>,
    /// Congestion control of TCP connections, such as `cubic`.
    pub(crate) congestion_control: Option<String>,
}

/// The first and the last of the ports that the system gives to those who ask for any: `ip_local_port_range` of `ip(7)`.
pub(crate) fn local_ports() -> Option<(u16, u16)> {
    let range = line("/proc/sys/net/ipv4/ip_local_port_range")?;
    let (first, last) = range.split_once(char::is_whitespace)?;
    Some((first.parse().ok()?, last.trim().parse().ok()?))
}

impl Network {
    /// The network over which this host reaches an address, which may be one of its own.
    pub(crate) fn towards(address: IpAddr) -> Self {
        let congestion_control = line("/proc/sys/net/ipv4/tcp_congestion_control");
        let Some(interface) = interface_towards(address) else {
            return Network {
                congestion_control,
                ..Network::default()
            };
        };

        // In a network namespace of its own, a process may see the interfaces of another one here.
        let folder = Path::new("/sys/class/net").join(&interface.interface_name);
        let index = if_nametoindex(interface.interface_name.as_str()).ok();
        let is_same = index.is_some() && number(folder.join("ifindex")) == index;
        let is_loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let card = || {
            let driver = fs::read_link(folder.join("device/driver")).ok();
            let driver = driver.as_deref().and_then(Path::file_name);
            driver.map_or_else(
                || "virtual".to_owned(),
                |name| name.to_string_lossy().into_owned(),
            )
        };
        Network {
            card: if is_loopback {
                Some("loopback".to_owned())
            } else {
                is_same.then(card)
            },
            mtu_bytes: number(folder.join("mtu")).filter(|_| is_same),
            congestion_control,
        }
    }
}

/// The interface with the address from which this host sends to another one.
fn interface_towards(address: IpAddr) -> Option<InterfaceAddress> {
    // Sends nothing: it only looks up the route.
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();

    let is_own = |interface: &InterfaceAddress| {
        let address = interface.address.as_ref();
        let v4 = address.and_then(|it| it.as_sockaddr_in());
        let v6 = address.and_then(|it| it.as_sockaddr_in6());
        match own {
            // Every address of 127.0.0.0/8 is one of the loopback device.
            IpAddr::V4(own) if own.is_loopback() => {
                interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            }
            IpAddr::V4(own) => v4.is_some_and(|it| it.ip() == own),
            IpAddr::V6(own) => v6.is_some_and(|it| it.ip() == own),
        }
    };
    getifaddrs().ok()?.find(is_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_on_every_host() {
        for address in ["127.0.0.1", "127.0.0.9"] {
            let network = Network::towards(address.parse().unwrap());
            assert_eq!(network.card.as_deref(), Some("loopback"));
            assert!(
                network.mtu_bytes.is_none_or(|mtu| mtu >= 1_280),
                "{network:?}"
            );
        }
    }

    #[test]
    fn a_host_without_a_route_has_no_card() {
        // Of a range for documents, which no interface has and no default route of version 6 leads to in most
        // places; where one does, it has a card.
        let network = Network::towards("2001:db8::1".parse().unwrap());
        assert!(network.card.is_some() || network.mtu_bytes.is_none());
    }
}
