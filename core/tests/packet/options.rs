//! TCP options.

use std::net::{IpAddr, Ipv4Addr};

use _core::event::Endpoint;
use _core::packet::decode::{TcpOptions, Traced, decode};
use _core::packet::tunnel::Decapsulation;

use crate::frames::{CLIENT, RAW, SERVER, ip, tcp};

fn parsed(options: &[u8]) -> TcpOptions {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let packet = ip(CLIENT, SERVER, 6, &tcp(40_000, 80, 2, &padded, b"data"));
    let found = decode(RAW, &packet, Decapsulation::ALL).expect("a packet");
    assert_eq!(found.payload, b"data");
    found.tcp.options
}

#[test]
fn each_option() {
    let syn = parsed(b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\x07\0\0\0\x09\x01\x03\x03\x0a");
    let want = TcpOptions {
        mss: Some(1460),
        window_scale: Some(10),
        sack_permitted: true,
        timestamp: Some((7, 9)),
        ..TcpOptions::default()
    };
    assert_eq!(syn, want);
    let stamped = parsed(b"\x01\x01\x08\x0a\x01\x02\x03\x04\x05\x06\x07\x08");
    assert_eq!(stamped, TcpOptions { timestamp: Some((0x0102_0304, 0x0506_0708)), ..TcpOptions::default() });
    let blocks = parsed(b"\x01\x01\x05\x12\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04");
    assert_eq!((blocks.sack_count, &blocks.sack[..3]), (2, &[(1, 2), (3, 4), (0, 0)][..]));
    for kind in [200, 254] {
        let toa = parsed(&[kind, 8, 0x1f, 0x90, 203, 0, 113, 5]).toa;
        assert_eq!(toa, Some(Endpoint { ip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)), port: 8080 }));
    }
    let traced = parsed(b"\xfd\x10\xde\xe9\0\0\x04\xd2\x0a\x01\0\x01\0\0\x10\0").traced;
    assert_eq!(traced, Some(Traced { pid: 1234, ip: CLIENT, tcp_seq: 4096 }));
}

#[test]
fn options_that_lie() {
    let nothing = TcpOptions::default();
    for (what, options) in [
        ("no length", &b"\x02"[..]),
        ("a length of none", b"\x02\0\x05\xb4"),
        ("a length of one", b"\x02\x01\x05\xb4"),
        ("a length beyond the header", b"\x02\x05\x05\xb4"),
        ("a size of one byte", b"\x02\x03\x05\x01"),
        ("half a block", b"\x05\x06\0\0\0\x01\0\0"),
        ("behind the end of the list", b"\0\x02\x04\x05\xb4"),
        ("another experiment", b"\xfd\x10\xde\xea\0\0\x04\xd2\x0a\x01\0\x01\0\0\x10\0"),
        ("a short trace", b"\xfd\x0c\xde\xe9\0\0\x04\xd2\x0a\x01\0\x01"),
        ("a cookie of Fast Open", b"\xfe\x08\xf9\x89\x01\x02\x03\x04"),
        ("no address", b"\xfe\x08\x1f\x90\0\0\0\0"),
    ] {
        assert_eq!(parsed(options), nothing, "{what}");
    }
    // One that is wrong does not hide the next.
    assert_eq!(parsed(b"\x02\x03\x05\x03\x03\x0f").window_scale, Some(14));
    // More blocks than fit are cut by the header; what is captured of the options alone counts.
    let packet = ip(CLIENT, SERVER, 6, &tcp(1, 2, 16, b"\x01\x01\x08\x0a\0\0\0\x01\0\0\0\x02", b"data"));
    let cut = decode(RAW, &packet[..48], Decapsulation::ALL).expect("a packet");
    assert_eq!((cut.tcp.options, cut.length, cut.payload), (nothing, 4, &b""[..]));
}
