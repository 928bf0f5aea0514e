//! What rtnetlink says of the interfaces and addresses of one network namespace (rtnetlink(7)).

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustc_hash::FxHashMap;

use super::namespaces::Namespace;

/// Most interfaces and addresses read of a namespace.
const MAX_ENTRIES: usize = 8192;
/// One answer of the kernel is at most this long.
const ANSWER_BYTES: usize = 64 * 1024;
/// linux/net_namespace.h
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// linux/if_link.h
const IFLA_LINK_NETNSID: u16 = 37;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// ARPHRD_* number.
    pub hardware: u16,
    pub flags: u32,
    pub name: String,
    pub mac: [u8; 6],
    /// Index of the interface it stands on or of its peer, 0 none.
    pub link: u32,
    /// Number of the namespace in which `link` is, as this namespace counts.
    pub link_namespace: Option<i32>,
    /// Bridge it is a port of, 0 none.
    pub master: u32,
    /// Such as `veth`, `bridge`, `vxlan`; empty for hardware.
    pub kind: String,
}

/// A netlink socket of one namespace: that in which the thread was that opened it.
pub struct Netlink {
    socket: OwnedFd,
    sequence: AtomicU32,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// (type, value) of each attribute.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(rest, 0)?);
        let kind = half(rest, 2)? & !(libc::NLA_F_NESTED as u16);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn link(message: &[u8]) -> Option<Link> {
    let mut link =
        Link { hardware: half(message, 2)?, index: word(message, 4)?, flags: word(message, 8)?, ..Link::default() };
    for (kind, value) in attributes(message.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().unwrap_or_default(),
            libc::IFLA_LINK => link.link = word(value, 0)?,
            libc::IFLA_MASTER => link.master = word(value, 0)?,
            IFLA_LINK_NETNSID => link.link_namespace = Some(word(value, 0)?.cast_signed()),
            libc::IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// Interface index and address.
fn address(message: &[u8]) -> Option<(u32, IpAddr)> {
    let index = word(message, 4)?;
    let mut found = None;
    for (kind, value) in attributes(message.get(8..)?) {
        // Of a point-to-point interface IFA_ADDRESS is the other end.
        if kind == libc::IFA_LOCAL || (kind == libc::IFA_ADDRESS && found.is_none()) {
            found = match value.len() {
                4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
                16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
                _ => None,
            };
        }
    }
    Some((index, found?))
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl Netlink {
    /// In the namespace of this thread. `groups`: RTMGRP_* of which changes are told.
    pub fn open(groups: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        let fd = check(fd as isize)? as i32;
        // SAFETY: `fd` is open and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: plain numbers, zero is a value of each.
        let mut address: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        let size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the pointer is valid for `size` bytes during the call.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), size) } as isize)?;
        // An answer that does not come must not hold up the capture of everything else.
        let patience = libc::timeval { tv_sec: 1, tv_usec: 0 };
        let size = size_of::<libc::timeval>() as libc::socklen_t;
        // SAFETY: the pointer is valid for `size` bytes during the call.
        let set =
            unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const patience).cast(), size) };
        check(set as isize)?;
        Ok(Self { socket, sequence: AtomicU32::new(0) })
    }

    pub fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    fn receive(&self, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
        // SAFETY: the kernel writes at most the buffer's length.
        check(unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) })
    }

    /// Something changed since the last call; what, the next look will say.
    pub fn changed(&self) -> bool {
        let mut buffer = [0; 8192];
        let mut any = false;
        // Bounded: a storm of changes is one change.
        for _ in 0..1024 {
            match self.receive(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => any = true,
                // More changes than the socket holds.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(_) => break,
            }
        }
        any
    }

    /// Sends a request and hands over the body of each message of the answer, with its type.
    fn ask(&self, kind: u16, flags: i32, body: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let asked = self.sequence.fetch_add(1, Ordering::Relaxed);
        let mut request = Vec::with_capacity(16 + body.len());
        request.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        request.extend_from_slice(&asked.to_ne_bytes());
        request.extend_from_slice(&[0; 4]);
        request.extend_from_slice(body);
        // SAFETY: the pointer is valid for the length during the call.
        check(unsafe { libc::send(self.fd(), request.as_ptr().cast(), request.len(), 0) })?;
        let mut buffer = vec![0; ANSWER_BYTES];
        let mut entries = 0;
        loop {
            let length = self.receive(&mut buffer, 0)?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let (Some(size), Some(kind), Some(sequence)) = (word(rest, 0), half(rest, 4), word(rest, 8)) {
                let Some(body) = rest.get(16..size as usize) else {
                    break;
                };
                if sequence == asked {
                    match i32::from(kind) {
                        libc::NLMSG_DONE => return Ok(()),
                        libc::NLMSG_ERROR => {
                            return match word(body, 0).unwrap_or(0).cast_signed() {
                                0 => Ok(()),
                                error => Err(io::Error::from_raw_os_error(-error)),
                            };
                        }
                        _ => each(kind, body),
                    }
                    entries += 1;
                    if flags & libc::NLM_F_DUMP == 0 || entries >= MAX_ENTRIES {
                        return Ok(());
                    }
                }
                rest = rest.get((size as usize).next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// All interfaces.
    pub fn links(&self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16], |_, body| links.extend(link(body)))?;
        Ok(links)
    }

    /// Addresses by interface index.
    pub fn addresses(&self) -> io::Result<FxHashMap<u32, Vec<IpAddr>>> {
        let mut all: FxHashMap<u32, Vec<IpAddr>> = FxHashMap::default();
        self.ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8], |_, body| {
            if let Some((index, ip)) = address(body) {
                all.entry(index).or_default().push(ip);
            }
        })?;
        Ok(all)
    }

    /// The number that this namespace gave another one, if any.
    pub fn number_of(&self, namespace: &Namespace) -> io::Result<Option<i32>> {
        let mut body = vec![0; 4];
        body.extend_from_slice(&8u16.to_ne_bytes());
        body.extend_from_slice(&NETNSA_FD.to_ne_bytes());
        body.extend_from_slice(&namespace.handle.as_raw_fd().to_ne_bytes());
        let mut number = None;
        self.ask(libc::RTM_GETNSID, 0, &body, |_, body| {
            let found = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == NETNSA_NSID);
            number = found.and_then(|(_, value)| word(value, 0)).map(u32::cast_signed);
        })?;
        Ok(number.filter(|number| *number >= 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut all = [((4 + value.len()) as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        all.extend_from_slice(value);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    #[test]
    fn a_link_of_a_veth() {
        let mut message = vec![0; 16];
        message[2..4].copy_from_slice(&1u16.to_ne_bytes());
        message[4..8].copy_from_slice(&7u32.to_ne_bytes());
        message.extend(attribute(libc::IFLA_IFNAME, b"veth1\0"));
        message.extend(attribute(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]));
        message.extend(attribute(libc::IFLA_LINK, &2u32.to_ne_bytes()));
        message.extend(attribute(IFLA_LINK_NETNSID, &0i32.to_ne_bytes()));
        message.extend(attribute(libc::IFLA_LINKINFO, &attribute(libc::IFLA_INFO_KIND, b"veth\0")));
        let found = link(&message).expect("a link");
        assert_eq!((found.index, found.link, found.link_namespace, found.hardware), (7, 2, Some(0), 1));
        assert_eq!((found.name.as_str(), found.kind.as_str(), found.mac), ("veth1", "veth", [2, 0, 0, 0, 0, 1]));
        for cut in 0..message.len() {
            let _ = link(&message[..cut]);
        }
    }

    #[test]
    fn the_local_address_is_taken() {
        let mut message = vec![0; 8];
        message[4..8].copy_from_slice(&3u32.to_ne_bytes());
        message.extend(attribute(libc::IFA_ADDRESS, &[10, 0, 0, 2]));
        message.extend(attribute(libc::IFA_LOCAL, &[10, 0, 0, 1]));
        assert_eq!(address(&message), Some((3, IpAddr::from([10, 0, 0, 1]))));
    }

    #[test]
    fn this_namespace_has_a_loopback() {
        let netlink = Netlink::open(0).expect("a netlink socket");
        let links = netlink.links().expect("links");
        assert!(links.iter().any(|link| link.name == "lo" && link.hardware == 772), "{links:?}");
    }
}
