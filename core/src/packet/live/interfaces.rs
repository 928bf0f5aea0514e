//! What the interfaces of this host are, and from that where a flow is seen (docs/network.md).

use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::netlink::Link;
use crate::event::{Endpoint, Place, Point};
use crate::flow::seen::Places;

const ARPHRD_LOOPBACK: u16 = 772;

/// What makes the difference for capture and for places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Physical,
    Loopback,
    Veth,
    Bridge,
    Vxlan,
    /// Another virtual one: VLAN, tunnel, bond, dummy …
    Virtual,
}

impl Kind {
    pub fn of(link: &Link) -> Self {
        match link.kind.as_str() {
            _ if link.hardware == ARPHRD_LOOPBACK => Self::Loopback,
            "" => Self::Physical,
            "veth" => Self::Veth,
            "bridge" => Self::Bridge,
            "vxlan" => Self::Vxlan,
            _ => Self::Virtual,
        }
    }
}

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub netns: u32,
    pub index: u32,
}

/// An interface in one of the namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number for as long as the agent runs: an index counts within its namespace only.
    pub nic: u32,
    /// The same in rows (`capture_nics.rs`).
    pub capture_nic: u32,
    /// Namespace (inode).
    pub netns: u32,
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    pub kind: Kind,
    /// Index of the bridge it is a port of, 0 none.
    pub master: u32,
    pub addresses: Vec<IpAddr>,
    /// Of a veth, when its namespace is known.
    pub peer: Option<Peer>,
    pub captured: bool,
}

impl Interface {
    /// Bridge that frames of this interface pass, 0 none.
    fn bridge(&self) -> u32 {
        if self.kind == Kind::Bridge { self.index } else { self.master }
    }
}

/// What the server is told of an interface whose packets are read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Captured {
    pub capture_nic: u32,
    pub name: String,
    pub kind: Kind,
    /// Its namespace, 0 that of the node.
    pub netns: u32,
    /// The namespace that hangs on this veth, 0 none.
    pub behind: u32,
}

#[derive(Debug, Default)]
struct Around {
    /// Addresses of the namespace itself.
    own: FxHashSet<IpAddr>,
    /// Addresses of namespaces that hang on it → bridge of the veth that leads there.
    hanging: FxHashMap<IpAddr, u32>,
    /// Namespaces that hang on it.
    below: FxHashSet<u32>,
}

/// All interfaces at one moment.
#[derive(Debug, Default)]
pub struct Interfaces {
    by_nic: FxHashMap<u32, Interface>,
    namespaces: FxHashMap<u32, Around>,
}

impl Interfaces {
    /// `own` is the namespace of the agent, that is of the node.
    pub fn new(own: u32, list: Vec<Interface>) -> Self {
        let mut namespaces: FxHashMap<u32, Around> = FxHashMap::default();
        for one in &list {
            namespaces.entry(one.netns).or_default().own.extend(&one.addresses);
        }
        let mut neighbours: FxHashMap<u32, FxHashSet<u32>> = FxHashMap::default();
        for one in &list {
            if let Some(peer) = one.peer.filter(|peer| peer.netns != one.netns) {
                neighbours.entry(one.netns).or_default().insert(peer.netns);
            }
        }
        let count = |netns: u32| neighbours.get(&netns).map_or(0, FxHashSet::len);
        // On the node hangs what a veth joins to it; elsewhere only a namespace without another way out.
        let hangs = |below: u32, on: u32| below != own && (on == own || (count(below) == 1 && count(on) > 1));
        for one in &list {
            let Some(peer) = one.peer.filter(|peer| peer.netns != one.netns && hangs(peer.netns, one.netns)) else {
                continue;
            };
            let addresses: Vec<IpAddr> =
                namespaces.get(&peer.netns).map(|there| there.own.iter().copied().collect()).unwrap_or_default();
            let around = namespaces.entry(one.netns).or_default();
            around.below.insert(peer.netns);
            around.hanging.extend(addresses.into_iter().filter(|ip| !ip.is_loopback()).map(|ip| (ip, one.bridge())));
        }
        Self { by_nic: list.into_iter().map(|one| (one.nic, one)).collect(), namespaces }
    }

    pub fn get(&self, nic: u32) -> Option<&Interface> {
        self.by_nic.get(&nic)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.by_nic.values()
    }

    /// Those whose packets are read, in the order of their numbers; `own` is the namespace of the node.
    pub fn captured(&self, own: u32) -> Vec<Captured> {
        let captured = self.by_nic.values().filter(|one| one.captured);
        let mut list: Vec<Captured> = captured
            .map(|one| Captured {
                capture_nic: one.capture_nic,
                name: one.name.clone(),
                kind: one.kind,
                netns: if one.netns == own { 0 } else { one.netns },
                behind: self.below(one).unwrap_or_default(),
            })
            .collect();
        list.sort_unstable();
        list
    }

    /// Network namespaces that have an interface.
    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// The namespace that hangs on this veth.
    fn below(&self, one: &Interface) -> Option<u32> {
        let peer = one.peer?;
        self.namespaces.get(&one.netns)?.below.contains(&peer.netns).then_some(peer.netns)
    }

    /// Where a flow between these addresses is seen at this interface.
    pub fn place(&self, nic: u32, client: IpAddr, server: IpAddr) -> Place {
        let Some(one) = self.get(nic) else {
            return Place::default();
        };
        let here = self.namespaces.get(&one.netns);
        let below = self.below(one);
        let at = |netns: u32, ip: IpAddr| self.namespaces.get(&netns).is_some_and(|around| around.own.contains(&ip));
        // The namespace that has an end: this one, or what hangs on the veth.
        let home = |ip: IpAddr| match below.filter(|netns| at(*netns, ip)) {
            _ if ip.is_loopback() || at(one.netns, ip) => Some(one.netns),
            below => below,
        };
        let bridge_to = |ip: IpAddr| here.and_then(|around| around.hanging.get(&ip)).copied();
        let ends = [client.to_canonical(), server.to_canonical()];
        let homes = ends.map(home);
        let l3_end = homes.map(|home| home.is_some());
        let hanging = ends.map(bridge_to);
        let point = match (l3_end, hanging) {
            ([true, true], _) => Point::Local,
            ([true, false], _) => Point::Client,
            ([false, true], _) => Point::Server,
            (_, [Some(_), _]) => Point::ClientNode,
            (_, [None, Some(_)]) => Point::ServerNode,
            _ => Point::Rest,
        };
        // Where a listening socket would be, or else the client's.
        let netns = homes[1].or(homes[0]).unwrap_or(one.netns);
        let same_bridge = |bridge: Option<u32>| bridge.is_some_and(|bridge| bridge != 0 && bridge == one.bridge());
        let l2_end = [0, 1].map(|side| l3_end[side] || same_bridge(hanging[side]));
        Place { point, l2_end, l3_end, nic: one.capture_nic, tunnel: 0, nat_source: 0, netns }
    }
}

impl Places for Interfaces {
    fn place(&self, nic: u32, client: Endpoint, server: Endpoint) -> Place {
        Self::place(self, nic, client.ip, server.ip)
    }

    fn is_here(&self, ip: IpAddr) -> bool {
        self.namespaces.values().any(|around| around.own.contains(&ip))
    }
}
