//! Programs of the packet filter: run by a small interpreter of classic BPF, and offered to the kernel's own checker.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;

use _core::packet::live::filter::{Condition, End, Extra, Instruction, program, ranges};

const SNAP: u32 = 1000;

/// A frame with what the kernel knows of it besides its bytes.
#[derive(Clone)]
struct Sent {
    frame: Vec<u8>,
    /// Where the network header begins, and the EtherType the kernel took from the frame.
    network: usize,
    protocol: u16,
    ifindex: u32,
    hardware: u32,
    packet_type: u32,
}

/// Runs a program (linux/filter.h, linux/bpf_common.h); a load beyond the packet ends it with 0.
fn run(code: &[Instruction], sent: &Sent) -> u32 {
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
    let load = |at: u32, size: usize| -> Option<u32> {
        let signed = at.cast_signed();
        let ancillary = signed.wrapping_sub(libc::SKF_AD_OFF);
        if (0..libc::SKF_AD_MAX).contains(&ancillary) {
            return match ancillary {
                libc::SKF_AD_PROTOCOL => Some(u32::from(sent.protocol)),
                libc::SKF_AD_PKTTYPE => Some(sent.packet_type),
                libc::SKF_AD_IFINDEX => Some(sent.ifindex),
                libc::SKF_AD_HATYPE => Some(sent.hardware),
                _ => panic!("extension {ancillary}"),
            };
        }
        let begin = if signed < 0 {
            sent.network + usize::try_from(signed - libc::SKF_NET_OFF).expect("an offset from the network header")
        } else {
            signed as usize
        };
        let bytes = sent.frame.get(begin..begin + size)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    let mut at = 0;
    loop {
        let Instruction { code: what, jt, jf, k } = code[at];
        let what = u32::from(what);
        at += 1;
        let size = match what & 0x18 {
            libc::BPF_W => 4,
            libc::BPF_H => 2,
            _ => 1,
        };
        match what & 0x07 {
            libc::BPF_RET => return k,
            libc::BPF_ST => memory[k as usize] = a,
            libc::BPF_LD => {
                let loaded = match what & 0xe0 {
                    libc::BPF_IMM => Some(k),
                    libc::BPF_MEM => Some(memory[k as usize]),
                    libc::BPF_ABS => load(k, size),
                    libc::BPF_IND => load(k.wrapping_add(x), size),
                    mode => panic!("load {mode:x}"),
                };
                let Some(loaded) = loaded else { return 0 };
                a = loaded;
            }
            libc::BPF_LDX => match what & 0xe0 {
                libc::BPF_IMM => x = k,
                libc::BPF_MSH => {
                    let Some(byte) = load(k, 1) else { return 0 };
                    x = (byte & 0xf) * 4;
                }
                mode => panic!("load x {mode:x}"),
            },
            libc::BPF_JMP => {
                let yes = match what & 0xf0 {
                    libc::BPF_JA => {
                        at += k as usize;
                        continue;
                    }
                    libc::BPF_JEQ => a == k,
                    libc::BPF_JGE => a >= k,
                    libc::BPF_JSET => a & k != 0,
                    test => panic!("test {test:x}"),
                };
                at += usize::from(if yes { jt } else { jf });
            }
            libc::BPF_ALU if what & 0xf0 == libc::BPF_AND => a &= k,
            class => panic!("class {class}"),
        }
    }
}

/// The kernel's checker takes the program: any socket may have a filter.
fn kernel_takes(code: &[Instruction]) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut list: Vec<libc::sock_filter> =
        code.iter().map(|one| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect();
    let filter = libc::sock_fprog { len: list.len() as u16, filter: list.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as u32;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: the program lives until the call is over.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const filter).cast(), size) == 0 }
}

fn compiled(condition: &Condition) -> Vec<Instruction> {
    let code = program(None, condition, None, SNAP).expect("short enough");
    assert!(kernel_takes(&code), "the kernel refuses the program of {condition:?}");
    code
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn packet(source: &str, destination: &str, transport: u8, ports: (u16, u16)) -> (u16, Vec<u8>) {
    let (source, destination) = (ip(source), ip(destination));
    let mut packet = Vec::new();
    let kind = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x46, 0, 0, 44, 0, 1, 0x40, 0, 64, transport, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend([1; 4]);
            0x0800
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0, 0, 20, transport, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            0x86dd
        }
        _ => panic!("addresses of two kinds"),
    };
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend([0; 16]);
    (kind, packet)
}

/// In an Ethernet frame, with as many VLAN tags as named still in it.
fn framed((kind, packet): &(u16, Vec<u8>), tags: &[u16]) -> Sent {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 5]);
    }
    frame.extend(kind.to_be_bytes());
    let protocol = tags.first().copied().unwrap_or(*kind);
    let network = frame.len();
    frame.extend(packet);
    Sent { frame, network, protocol, ifindex: 3, hardware: 1, packet_type: 0 }
}

/// The packet as it is without a link layer, behind one or two tags, and in a frame.
fn everywhere(one: &(u16, Vec<u8>)) -> Vec<Sent> {
    let bare = Sent { frame: one.1.clone(), network: 0, hardware: 0xfffe, ..framed(one, &[]) };
    vec![bare, framed(one, &[]), framed(one, &[0x8100]), framed(one, &[0x88a8, 0x8100])]
}

fn takes(condition: &Condition, one: &(u16, Vec<u8>)) -> bool {
    let code = compiled(condition);
    let answers: Vec<u32> = everywhere(one).iter().map(|sent| run(&code, sent)).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?} for {condition:?}");
    answers[0] == SNAP
}

#[test]
fn ip_is_taken_and_nothing_else() {
    let code = compiled(&Condition::Always);
    for one in [packet("10.0.0.1", "10.0.0.2", 1, (0, 0)), packet("fd00::1", "fd00::2", 58, (0, 0))] {
        assert!(everywhere(&one).iter().all(|sent| run(&code, sent) == SNAP));
    }
    for kind in [0x0806, 0x88cc, 0x8847] {
        let one = (kind, vec![0; 60]);
        assert!(everywhere(&one).iter().all(|sent| run(&code, sent) == 0), "{kind:x}");
    }
}

#[test]
fn ports_on_either_side() {
    let web = Condition::port(80, 80);
    assert!(takes(&web, &packet("10.0.0.1", "10.0.0.2", 6, (4000, 80))));
    assert!(takes(&web, &packet("10.0.0.2", "10.0.0.1", 17, (80, 4000))));
    assert!(takes(&web, &packet("fd00::1", "fd00::2", 6, (4000, 80))));
    assert!(!takes(&web, &packet("fd00::1", "fd00::2", 6, (4000, 81))));
    assert!(!takes(&web.clone().negated(), &packet("10.0.0.1", "10.0.0.2", 6, (4000, 80))));
    // What stands there in another protocol is no port.
    assert!(!takes(&web, &packet("10.0.0.1", "10.0.0.2", 47, (80, 80))));
    let range = Condition::Port(End::Destination, 8000, 8999);
    for (port, inside) in [(7999, false), (8000, true), (8500, true), (8999, true), (9000, false)] {
        assert_eq!(takes(&range, &packet("10.0.0.1", "10.0.0.2", 6, (8500, port))), inside, "{port}");
    }
    assert!(takes(&Condition::port(0, 65_535), &packet("10.0.0.1", "10.0.0.2", 6, (1, 65_535))));
}

#[test]
fn later_fragments_have_no_ports() {
    let mut one = packet("10.0.0.1", "10.0.0.2", 17, (80, 80));
    assert!(takes(&Condition::port(80, 80), &one));
    one.1[6..8].copy_from_slice(&0x2000u16.to_be_bytes());
    assert!(takes(&Condition::port(80, 80), &one), "the first fragment has");
    one.1[6..8].copy_from_slice(&0x0001u16.to_be_bytes());
    assert!(!takes(&Condition::port(80, 80), &one));
    assert!(takes(&Condition::port(0, 0), &one));
}

#[test]
fn an_end_is_address_and_port_together() {
    let server = Condition::All(vec![
        Condition::Transport(6),
        Condition::Any(vec![Condition::end(ip("10.0.0.2"), 20416), Condition::end(ip("fd00::2"), 20416)]),
    ]);
    let agent = packet("10.0.0.1", "10.0.0.2", 6, (4000, 20416));
    assert!(takes(&server, &agent));
    assert!(takes(&server, &packet("10.0.0.2", "10.0.0.1", 6, (20416, 4000))));
    assert!(takes(&server, &packet("fd00::1", "fd00::2", 6, (4000, 20416))));
    for other in [
        packet("10.0.0.1", "10.0.0.2", 17, (4000, 20416)),
        packet("10.0.0.1", "10.0.0.2", 6, (20416, 4000)),
        packet("10.0.0.1", "10.0.0.3", 6, (4000, 20416)),
        packet("fd00::2", "fd00::1", 6, (4000, 20416)),
        packet("fd00::1", "fd00:0:0:1::2", 6, (4000, 20416)),
    ] {
        assert!(!takes(&server, &other), "{other:?}");
    }
    assert!(!takes(&server.negated(), &agent));
}

#[test]
fn a_loopback_is_taken_once() {
    let code = compiled(&Condition::Always);
    let one = framed(&packet("127.0.0.1", "127.0.0.1", 6, (1, 2)), &[]);
    let outgoing = u32::from(libc::PACKET_OUTGOING);
    for (hardware, packet_type, taken) in [(772, 0, true), (772, outgoing, false), (1, outgoing, true), (1, 0, true)] {
        assert_eq!(run(&code, &Sent { hardware, packet_type, ..one.clone() }), if taken { SNAP } else { 0 });
    }
}

#[test]
fn of_many_interfaces_the_chosen_ones() {
    let one = framed(&packet("10.0.0.1", "10.0.0.2", 6, (1, 2)), &[]);
    for chosen in [vec![], vec![7], (2..600).filter(|index| index % 3 == 0).collect::<Vec<u32>>()] {
        let code = program(Some(&chosen), &Condition::Always, None, SNAP).expect("short enough");
        assert!(kernel_takes(&code));
        for ifindex in 0..605 {
            let taken = run(&code, &Sent { ifindex, ..one.clone() }) == SNAP;
            assert_eq!(taken, chosen.contains(&ifindex), "{ifindex} of {chosen:?}");
        }
    }
}

#[test]
fn long_lists_jump_further_than_a_byte_says() {
    let ports: Vec<u16> = (1..800).map(|port| port * 3).collect();
    let list = ranges(&ports[..400]).into_iter().map(|(first, last)| Condition::port(first, last)).collect();
    let condition = Condition::Any(list);
    let code = compiled(&condition);
    for port in 1..1300u16 {
        let one = framed(&packet("10.0.0.1", "10.0.0.2", 6, (60_000, port)), &[]);
        assert_eq!(run(&code, &one) == SNAP, port % 3 == 0 && port <= 1200, "{port}");
    }
    let too_long = ranges(&ports).into_iter().map(|(first, last)| Condition::port(first, last)).collect();
    let refused = program(None, &Condition::Any(too_long), None, SNAP).expect_err("too long");
    assert!(refused.contains("4096"), "{refused}");
}

#[test]
fn packets_cut_short_are_not_taken_and_do_no_harm() {
    let condition = Condition::All(vec![Condition::end(ip("fd00::2"), 80).negated(), Condition::port(9, 9).negated()]);
    let code = compiled(&condition);
    for one in [packet("10.0.0.1", "10.0.0.2", 6, (1, 2)), packet("fd00::1", "fd00::2", 6, (1, 2))] {
        for sent in everywhere(&one) {
            for cut in 0..sent.frame.len() {
                let short = Sent { frame: sent.frame[..cut].to_vec(), ..sent.clone() };
                assert!([0, SNAP].contains(&run(&code, &short)));
            }
        }
    }
}

#[test]
fn ranges_of_ports() {
    assert_eq!(ranges(&[]), []);
    assert_eq!(ranges(&[82, 80, 81, 80, 443, 65_535]), [(80, 82), (443, 443), (65_535, 65_535)]);
}

/// `tcpdump -ddd -y EN10MB 'udp and not port 53'`, and the same for frames without a link layer (`-y RAW`).
const NO_NAMES: [&[(u16, u8, u8, u32)]; 2] = [
    &[
        (40, 0, 0, 12),
        (21, 0, 9, 2048),
        (48, 0, 0, 23),
        (21, 0, 18, 17),
        (40, 0, 0, 20),
        (69, 15, 0, 8191),
        (177, 0, 0, 14),
        (72, 0, 0, 14),
        (21, 13, 0, 53),
        (72, 0, 0, 16),
        (21, 11, 10, 53),
        (21, 0, 10, 34525),
        (48, 0, 0, 20),
        (21, 0, 4, 17),
        (40, 0, 0, 54),
        (21, 6, 0, 53),
        (40, 0, 0, 56),
        (21, 4, 3, 53),
        (21, 0, 3, 44),
        (48, 0, 0, 54),
        (21, 0, 1, 17),
        (6, 0, 0, 262144),
        (6, 0, 0, 0),
    ],
    &[
        (48, 0, 0, 0),
        (84, 0, 0, 240),
        (21, 0, 9, 64),
        (48, 0, 0, 9),
        (21, 0, 20, 17),
        (40, 0, 0, 6),
        (69, 17, 0, 8191),
        (177, 0, 0, 0),
        (72, 0, 0, 0),
        (21, 15, 0, 53),
        (72, 0, 0, 2),
        (21, 13, 12, 53),
        (48, 0, 0, 0),
        (84, 0, 0, 240),
        (21, 0, 10, 96),
        (48, 0, 0, 6),
        (21, 0, 4, 17),
        (40, 0, 0, 40),
        (21, 6, 0, 53),
        (40, 0, 0, 42),
        (21, 4, 3, 53),
        (21, 0, 3, 44),
        (48, 0, 0, 40),
        (21, 0, 1, 17),
        (6, 0, 0, 262144),
        (6, 0, 0, 0),
    ],
];

#[test]
fn a_program_of_the_user_has_to_take_it_too() {
    let [ethernet, raw] = NO_NAMES;
    let told = serde_json::json!({"ethernet": ethernet, "raw": raw}).to_string();
    let extra: Extra = serde_json::from_str(&told).expect("a filter");
    let code = program(None, &Condition::port(99, 99).negated(), Some(&extra), SNAP).expect("short enough");
    assert!(kernel_takes(&code));
    for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        for (transport, port, taken) in [(17, 53, false), (17, 54, true), (17, 99, false), (6, 54, false)] {
            let one = packet(source, destination, transport, (4000, port));
            let framed = framed(&one, &[]);
            let loopback = Sent { hardware: 772, ..framed.clone() };
            let bare = Sent { frame: one.1.clone(), network: 0, hardware: 0xfffe, ..framed.clone() };
            for sent in [framed, loopback, bare] {
                let answer = run(&code, &sent);
                assert_eq!(answer, if taken { SNAP } else { 0 }, "{transport} {port} {}", sent.hardware);
            }
        }
    }
    let by_register: Extra = serde_json::from_str(r#"{"ethernet": [[22, 0, 0, 0]], "raw": []}"#).expect("a filter");
    let refused = program(None, &Condition::Always, Some(&by_register), SNAP).expect_err("returns A");
    assert!(refused.contains("returns"), "{refused}");
}
