//! `capture_nic` of rows: the number by which an interface is found again.

use rustc_hash::{FxHashMap, FxHashSet};

use super::interfaces::{Interface, Kind};

/// Every interface that leads to a pod has it under Calico.
const EVERYBODYS: [u8; 6] = [0xee; 6];

/// Numbers of the interfaces of one host, each given to one only: the low 32 bits of the MAC, else of a hash. Bridges,
/// VLANs and bonds borrow the MAC of another interface, and tunnels have none.
#[derive(Debug, Default)]
pub struct CaptureNics {
    /// Namespace and index → MAC and number.
    given: FxHashMap<(u32, u32), ([u8; 6], u32)>,
}

/// FNV-1a: the same for this interface after the agent's restart.
fn hash(one: &Interface) -> u32 {
    let (netns, index) = (one.netns.to_be_bytes(), one.index.to_be_bytes());
    let bytes = netns.iter().chain(&index).chain(one.name.as_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// What has a MAC of its own comes before what may have borrowed it.
fn borrows(kind: Kind) -> bool {
    matches!(kind, Kind::Bridge | Kind::Virtual | Kind::Loopback)
}

impl CaptureNics {
    /// Gives each interface its number; one that has a number keeps it for as long as it has its MAC.
    pub fn give(&mut self, list: &mut [Interface]) {
        let mut given = FxHashMap::default();
        let mut taken = FxHashSet::from_iter([0]);
        let mut fresh = Vec::new();
        for (at, one) in list.iter_mut().enumerate() {
            let key = (one.netns, one.index);
            match self.given.get(&key) {
                Some((mac, number)) if *mac == one.mac => {
                    one.capture_nic = *number;
                    taken.insert(*number);
                    given.insert(key, (one.mac, *number));
                }
                _ => fresh.push(at),
            }
        }
        fresh.sort_by_key(|at| list.get(*at).is_some_and(|one| borrows(one.kind)));
        for at in fresh {
            let Some(one) = list.get_mut(at) else { continue };
            let [_, _, low @ ..] = if one.mac == EVERYBODYS { [0; 6] } else { one.mac };
            let mut number = u32::from_be_bytes(low);
            if taken.contains(&number) {
                number = hash(one);
            }
            while !taken.insert(number) {
                number = number.wrapping_add(1);
            }
            one.capture_nic = number;
            given.insert((one.netns, one.index), (one.mac, number));
        }
        self.given = given;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, kind: Kind, mac: [u8; 6]) -> Interface {
        Interface {
            nic: index,
            capture_nic: 0,
            netns: 7,
            index,
            name: name.to_string(),
            mac,
            kind,
            master: 0,
            addresses: Vec::new(),
            peer: None,
            captured: true,
        }
    }

    fn numbers(list: &[Interface]) -> Vec<u32> {
        list.iter().map(|one| one.capture_nic).collect()
    }

    #[test]
    fn a_mac_of_its_own_is_the_number() {
        let mut list = [
            interface(2, "eth0", Kind::Physical, [2, 66, 10, 11, 12, 13]),
            interface(3, "cni0", Kind::Bridge, [2, 66, 10, 11, 12, 14]),
        ];
        CaptureNics::default().give(&mut list);
        assert_eq!(numbers(&list), [0x0a0b_0c0d, 0x0a0b_0c0e]);
    }

    #[test]
    fn who_borrowed_a_mac_has_another_number() {
        let borrowed = [2, 66, 10, 11, 12, 13];
        let mut list = [interface(3, "cni0", Kind::Bridge, borrowed), interface(5, "veth1", Kind::Veth, borrowed)];
        CaptureNics::default().give(&mut list);
        assert_eq!(list[1].capture_nic, 0x0a0b_0c0d);
        assert!(![0, 0x0a0b_0c0d].contains(&list[0].capture_nic));
        let mut again = list.clone();
        CaptureNics::default().give(&mut again);
        assert_eq!(numbers(&again), numbers(&list), "after a restart");
    }

    #[test]
    fn a_number_stays_while_others_come_and_go() {
        let mut nics = CaptureNics::default();
        let mac = [2, 66, 10, 11, 12, 13];
        let mut bridge = [interface(3, "cni0", Kind::Bridge, mac)];
        nics.give(&mut bridge);
        let mut both = [bridge[0].clone(), interface(5, "veth1", Kind::Veth, mac)];
        nics.give(&mut both);
        assert_eq!(both[0].capture_nic, bridge[0].capture_nic);
        assert_ne!(both[1].capture_nic, both[0].capture_nic);
        let mut left = [both[1].clone()];
        nics.give(&mut left);
        assert_eq!(left[0].capture_nic, both[1].capture_nic);
        left[0].mac[5] = 99;
        nics.give(&mut left);
        assert_eq!(left[0].capture_nic, 0x0a0b_0c63);
    }

    #[test]
    fn a_thousand_interfaces_without_a_mac_have_a_thousand_numbers() {
        for mac in [[0; 6], EVERYBODYS] {
            let mut list: Vec<Interface> =
                (1..=1000).map(|at| interface(at, &format!("cali{at}"), Kind::Veth, mac)).collect();
            CaptureNics::default().give(&mut list);
            let different: FxHashSet<u32> = list.iter().map(|one| one.capture_nic).collect();
            assert!(different.len() == 1000 && !different.contains(&0));
        }
    }
}
