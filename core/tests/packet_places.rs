//! Observation points by interface and addresses (docs/network.md), on a drawn-up host:
//!
//! ```text
//! node (10)  eth0 192.168.0.10          pods on cni0: 11 (10.1.0.2) behind veth1, 12 (10.1.0.3) behind veth2
//!            cni0 10.1.0.1, flannel.1   pod without a bridge: 13 (10.1.1.2) behind cali1
//! node (20)  a node in a namespace of its own: eth0 192.168.0.20 joined to the node by veth20,
//!            pods 21 (10.2.0.2) behind veth1 and 22 (10.2.0.3) behind veth2, both on its bridge
//! ```

use std::net::IpAddr;

use _core::event::Place;
use _core::packet::live::interfaces::{Interface, Interfaces, Kind, Peer};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Numbered in the order of the list.
struct Host(Vec<Interface>);

impl Host {
    fn add(&mut self, netns: u32, index: u32, name: &str, kind: Kind, addresses: &[&str]) -> &mut Interface {
        self.0.push(Interface {
            nic: self.0.len() as u32 + 1,
            capture_nic: 0,
            netns,
            index,
            name: name.to_string(),
            mac: [2, 0, 0, netns as u8, 0, index as u8],
            kind,
            master: 0,
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            peer: None,
            captured: true,
        });
        self.0.last_mut().expect("just added")
    }

    /// Joins two namespaces; (namespace, index, name, bridge, addresses) of each end.
    fn veth(&mut self, ends: [(u32, u32, &str, u32, &[&str]); 2]) {
        for (one, (other, peer_index, ..)) in [(0, ends[1]), (1, ends[0])] {
            let (netns, index, name, master, addresses) = ends[one];
            let end = self.add(netns, index, name, Kind::Veth, addresses);
            end.master = master;
            end.peer = Some(Peer { netns: other, index: peer_index });
        }
    }

    fn build() -> (Interfaces, Vec<Interface>) {
        let mut host = Self(Vec::new());
        for netns in [10, 11, 12, 13, 20, 21, 22] {
            host.add(netns, 1, "lo", Kind::Loopback, &["127.0.0.1", "::1"]);
        }
        host.add(10, 2, "eth0", Kind::Physical, &["192.168.0.10", "fd00::10"]);
        host.add(10, 3, "cni0", Kind::Bridge, &["10.1.0.1"]);
        host.add(10, 4, "flannel.1", Kind::Vxlan, &["10.1.0.0"]);
        host.veth([(10, 5, "veth1", 3, &[]), (11, 2, "eth0", 0, &["10.1.0.2", "fd01::2"])]);
        host.veth([(10, 6, "veth2", 3, &[]), (12, 2, "eth0", 0, &["10.1.0.3"])]);
        host.veth([(10, 7, "cali1", 0, &[]), (13, 2, "eth0", 0, &["10.1.1.2"])]);
        host.veth([(10, 8, "veth20", 0, &[]), (20, 2, "eth0", 0, &["192.168.0.20"])]);
        host.add(20, 3, "cni0", Kind::Bridge, &["10.2.0.1"]);
        host.veth([(20, 5, "veth1", 3, &[]), (21, 2, "eth0", 0, &["10.2.0.2"])]);
        host.veth([(20, 6, "veth2", 3, &[]), (22, 2, "eth0", 0, &["10.2.0.3"])]);
        (Interfaces::new(10, host.0.clone()), host.0)
    }
}

fn place(netns: u32, name: &str, client: &str, server: &str) -> Place {
    let (interfaces, list) = Host::build();
    let one = list.iter().find(|one| one.netns == netns && one.name == name).expect("an interface");
    interfaces.place(one.nic, ip(client), ip(server))
}

const WORLD: &str = "203.0.113.9";

/// (namespace, interface, client, server, observation point).
const POINTS: [(u32, &str, &str, &str, &str); 36] = [
    // The node itself.
    (10, "eth0", "192.168.0.10", WORLD, "c"),
    (10, "eth0", WORLD, "192.168.0.10", "s"),
    (10, "eth0", "fd00::10", "fd00::99", "c"),
    (10, "lo", "127.0.0.1", "127.0.0.1", "local"),
    (10, "lo", "127.0.0.1", "127.0.0.53", "local"),
    (10, "lo", "192.168.0.10", "192.168.0.10", "local"),
    (10, "eth0", WORLD, "203.0.113.10", "rest"),
    // A pod and the world: in the pod, at its veth, at the bridge, at the node's interface.
    (11, "eth0", "10.1.0.2", WORLD, "c"),
    (10, "veth1", "10.1.0.2", WORLD, "c"),
    (10, "cni0", "10.1.0.2", WORLD, "c-nd"),
    (10, "eth0", "10.1.0.2", WORLD, "c-nd"),
    (10, "flannel.1", "10.1.0.2", "10.9.0.2", "c-nd"),
    (10, "eth0", WORLD, "10.1.0.2", "s-nd"),
    (10, "veth1", WORLD, "10.1.0.2", "s"),
    (11, "eth0", WORLD, "10.1.0.2", "s"),
    (11, "eth0", "fd01::2", "fd00::99", "c"),
    (10, "eth0", "fd01::2", "fd00::99", "c-nd"),
    // After source NAT it is the node that speaks.
    (10, "eth0", "192.168.0.10", WORLD, "c"),
    // A pod without a bridge.
    (10, "cali1", "10.1.1.2", WORLD, "c"),
    (10, "eth0", "10.1.1.2", WORLD, "c-nd"),
    // Two pods of one node, through the bridge.
    (11, "eth0", "10.1.0.2", "10.1.0.3", "c"),
    (10, "veth1", "10.1.0.2", "10.1.0.3", "c"),
    (10, "cni0", "10.1.0.2", "10.1.0.3", "c-nd"),
    (10, "veth2", "10.1.0.2", "10.1.0.3", "s"),
    (12, "eth0", "10.1.0.2", "10.1.0.3", "s"),
    // Node and pod: both are at the veth.
    (10, "veth1", "192.168.0.10", "10.1.0.2", "local"),
    (11, "eth0", "192.168.0.10", "10.1.0.2", "s"),
    // A pod in its own loopback.
    (11, "lo", "127.0.0.1", "127.0.0.1", "local"),
    // The node within a namespace has its own pods; the node above is none of them.
    (21, "eth0", "10.2.0.2", "10.1.0.2", "c"),
    (20, "veth1", "10.2.0.2", "10.1.0.2", "c"),
    (20, "eth0", "10.2.0.2", "10.1.0.2", "c-nd"),
    (10, "veth20", "10.2.0.2", "203.0.113.10", "rest"),
    (10, "veth20", "192.168.0.20", WORLD, "c"),
    (10, "eth0", "192.168.0.20", WORLD, "c-nd"),
    (20, "eth0", "192.168.0.10", "10.2.0.3", "s-nd"),
    (20, "veth2", "192.168.0.10", "10.2.0.3", "s"),
];

#[test]
fn observation_points() {
    for (netns, name, client, server, point) in POINTS {
        assert_eq!(place(netns, name, client, server).point.name(), point, "{client} to {server} at {name} of {netns}");
    }
}

#[test]
fn ends_reached_without_a_router() {
    // (namespace, interface, client, server, l2_end, l3_end)
    for (netns, name, client, server, l2_end, l3_end) in [
        (10, "veth1", "10.1.0.2", "10.1.0.3", [true, true], [true, false]),
        (10, "cni0", "10.1.0.2", "10.1.0.3", [true, true], [false, false]),
        (10, "cni0", "10.1.0.2", WORLD, [true, false], [false, false]),
        (10, "eth0", "10.1.0.2", WORLD, [false, false], [false, false]),
        (10, "eth0", "192.168.0.10", WORLD, [true, false], [true, false]),
        (10, "veth1", "10.1.0.2", "10.1.1.2", [true, false], [true, false]),
        (10, "cali1", "10.1.1.2", "10.1.0.2", [true, false], [true, false]),
    ] {
        let found = place(netns, name, client, server);
        assert_eq!((found.l2_end, found.l3_end), (l2_end, l3_end), "{client} to {server} at {name} of {netns}");
    }
}

#[test]
fn an_unknown_interface_is_at_no_end() {
    let (interfaces, _) = Host::build();
    assert_eq!(interfaces.place(9999, ip("10.1.0.2"), ip("10.1.0.3")), Place::default());
}

#[test]
fn the_namespace_is_that_of_the_local_end() {
    for (netns, name, client, server, home) in [
        (10, "veth1", "10.1.0.2", WORLD, 11),
        (10, "veth1", WORLD, "10.1.0.2", 11),
        // A pod calls its node, and the other way round.
        (10, "veth1", "10.1.0.2", "10.1.0.1", 10),
        (10, "veth1", "192.168.0.10", "10.1.0.2", 11),
        (11, "eth0", "10.1.0.2", "10.1.0.1", 11),
        (10, "eth0", "10.1.0.2", WORLD, 10),
        (20, "eth0", "192.168.0.20", WORLD, 20),
        (13, "lo", "127.0.0.1", "127.0.0.1", 13),
    ] {
        assert_eq!(place(netns, name, client, server).netns, home, "{client} to {server} at {name} of {netns}");
    }
}

#[test]
fn the_server_is_told_where_an_interface_is_and_leads() {
    let (_, mut list) = Host::build();
    let mut expected = Vec::new();
    for (number, one) in (1..).zip(&mut list) {
        one.capture_nic = number;
        one.captured =
            matches!((one.netns, one.name.as_str()), (10, "eth0" | "veth1" | "cali1") | (20, _) | (11, "eth0"));
        let behind = match (one.netns, one.name.as_str()) {
            (10, "veth1") => 11,
            (10, "cali1") => 13,
            (20, "veth1") => 21,
            (20, "veth2") => 22,
            _ => 0,
        };
        let netns = if one.netns == 10 { 0 } else { one.netns };
        if one.captured {
            expected.push((number, one.name.clone(), netns, behind));
        }
    }
    let told = Interfaces::new(10, list).captured(10);
    let told: Vec<_> = told.into_iter().map(|one| (one.capture_nic, one.name, one.netns, one.behind)).collect();
    assert_eq!(told, expected);
    assert_eq!(told.len(), 9);
}

#[test]
fn rows_carry_the_number_of_the_interface() {
    let (_, mut list) = Host::build();
    let nic = list[7].nic;
    list[7].capture_nic = 77;
    let interfaces = Interfaces::new(10, list);
    assert_eq!(interfaces.place(nic, ip(WORLD), ip(WORLD)).nic, 77);
}
