//! Frames made by hand, from the inside out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const ETHERNET: u16 = 1;
pub const RAW: u16 = 101;

pub fn v6(address: Ipv4Addr) -> Ipv6Addr {
    address.to_ipv6_mapped()
}

pub fn ethernet(ether_type: u16, inside: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 0xd1, 2, 0, 0, 0, 0, 0x51], &ether_type.to_be_bytes()[..], inside].concat()
}

/// As `ethernet`, with the EtherType of the packet.
pub fn framed(packet: &[u8]) -> Vec<u8> {
    ethernet(if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
}

/// An IPv4 or IPv6 packet.
pub fn ip(source: impl Into<IpAddr>, target: impl Into<IpAddr>, protocol: u8, inside: &[u8]) -> Vec<u8> {
    match (source.into(), target.into()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => ipv4(source, target, protocol, (7, 0), inside),
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let length = (inside.len() as u16).to_be_bytes();
            let head = [&[0x60, 0, 0, 0], &length[..], &[protocol, 61]].concat();
            [&head[..], &source.octets(), &target.octets(), inside].concat()
        }
        _ => panic!("addresses of two families"),
    }
}

/// `fragment`: identification, and the field of flags and offset.
pub fn ipv4(source: Ipv4Addr, target: Ipv4Addr, protocol: u8, fragment: (u16, u16), inside: &[u8]) -> Vec<u8> {
    let total = (20 + inside.len() as u16).to_be_bytes();
    let (id, place) = (fragment.0.to_be_bytes(), fragment.1.to_be_bytes());
    let head = [&[0x45, 0], &total[..], &id[..], &place[..], &[62, protocol, 0, 0]].concat();
    [&head[..], &source.octets(), &target.octets(), inside].concat()
}

pub fn udp(source: u16, target: u16, inside: &[u8]) -> Vec<u8> {
    let length = (8 + inside.len() as u16).to_be_bytes();
    [&source.to_be_bytes()[..], &target.to_be_bytes()[..], &length[..], &[0, 0], inside].concat()
}

pub fn tcp(source: u16, target: u16, flags: u8, options: &[u8], inside: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4) && options.len() <= 40);
    let words = (5 + options.len() / 4) as u8;
    let ports = [source.to_be_bytes(), target.to_be_bytes()].concat();
    let numbers = [1000_u32.to_be_bytes(), 2000_u32.to_be_bytes()].concat();
    [&ports[..], &numbers[..], &[words << 4, flags, 0x20, 0, 0, 0, 0, 0], options, inside].concat()
}

/// A request from CLIENT to SERVER, as an IPv4 packet.
pub fn request() -> Vec<u8> {
    ip(CLIENT, SERVER, 6, &tcp(40_000, 80, 0x18, &[], b"GET / HTTP/1.1\r\n\r\n"))
}

pub fn request_v6() -> Vec<u8> {
    ip(v6(CLIENT), v6(SERVER), 6, &tcp(40_000, 80, 0x18, &[], b"GET / HTTP/1.1\r\n\r\n"))
}

/// Between the nodes.
pub fn outer(protocol: u8, inside: &[u8]) -> Vec<u8> {
    ip(NODE, OTHER_NODE, protocol, inside)
}

pub fn vxlan(port: u16, header: [u8; 4], vni: u32, frame: &[u8]) -> Vec<u8> {
    outer(17, &udp(51_000, port, &[&header[..], &(vni << 8).to_be_bytes(), frame].concat()))
}

pub fn geneve(protocol: u16, vni: u32, options: &[u8], inside: &[u8]) -> Vec<u8> {
    let head = [&[(options.len() / 4) as u8, 0], &protocol.to_be_bytes()[..], &(vni << 8).to_be_bytes()].concat();
    outer(17, &udp(51_000, 6081, &[&head[..], options, inside].concat()))
}

/// `fields`: what the flags announce (checksum, key, sequence number).
pub fn gre(flags: u16, protocol: u16, fields: &[u8], inside: &[u8]) -> Vec<u8> {
    outer(47, &[&flags.to_be_bytes()[..], &protocol.to_be_bytes()[..], fields, inside].concat())
}

/// Network service header of metadata type 1 in VXLAN-GPE.
pub fn nsh(vni: u32, next: u8, inside: &[u8]) -> Vec<u8> {
    let head = [&[0x0f, 0xc6, 1, next, 0, 0, 42, 255][..], &[9; 16]].concat();
    vxlan(4790, [0x0c, 0, 0, 4], vni, &[&head[..], inside].concat())
}
