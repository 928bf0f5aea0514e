//! Each delay and each count, by hand-built packets.

use _core::flow::perf::{Delay, Perf, Report};
use _core::packet::decode::{ACK, FIN, ICMP, PSH, Packet, RST, SYN, UDP};

use crate::packets::{CLIENT, SERVER, tcp};

const C: u32 = 1_000;
const S: u32 = 9_000;

/// A flow after its handshake: SYN at 100 µs, SYN-ACK at 130, ACK at 180.
fn up() -> Perf {
    let mut perf = Perf::new();
    perf.packet(100, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(130, SERVER, &tcp(SYN | ACK, S, C + 1, &[]));
    perf.packet(180, CLIENT, &tcp(ACK, C + 1, S + 1, &[]));
    perf
}

fn established() -> Perf {
    let mut perf = up();
    perf.take();
    perf
}

fn once(us: u32) -> Delay {
    Delay { sum: us.into(), count: 1, max: us }
}

fn data(seq: u32, ack: u32, bytes: &[u8]) -> Packet<'_> {
    tcp(ACK | PSH, seq, ack, bytes)
}

fn ack(seq: u32, ack: u32) -> Packet<'static> {
    tcp(ACK, seq, ack, &[])
}

/// Feeds packets (time, side, packet) after the handshake.
fn after(packets: &[(u64, usize, Packet<'_>)]) -> Report {
    let mut perf = established();
    for (time_us, side, packet) in packets {
        perf.packet(*time_us, *side, packet);
    }
    perf.take()
}

#[test]
fn the_handshake_has_a_part_of_the_server_and_one_of_the_client() {
    let report = up().take();
    assert_eq!((report.rtt_server, report.rtt_client, report.rtt), (once(30), once(50), once(80)));
    assert_eq!((report.syn_count, report.synack_count, report.retrans), (1, 1, [0, 0]));
}

#[test]
fn what_was_sent_again_is_measured_from_the_last() {
    let mut perf = Perf::new();
    perf.packet(0, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(1_000_000, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(1_000_040, SERVER, &tcp(SYN | ACK, S, C + 1, &[]));
    perf.packet(2_000_040, SERVER, &tcp(SYN | ACK, S, C + 1, &[]));
    perf.packet(2_000_100, CLIENT, &ack(C + 1, S + 1));
    let report = perf.take();
    assert_eq!((report.rtt_server, report.rtt_client, report.rtt), (once(40), once(60), once(1_000_100)));
    assert_eq!((report.syn_count, report.retrans_syn, report.synack_count, report.retrans_synack), (2, 1, 2, 1));
    assert_eq!(report.retrans, [1, 1]);
}

#[test]
fn a_syn_with_data_that_comes_again_is_one_retransmission() {
    let mut perf = Perf::new();
    perf.packet(0, CLIENT, &tcp(SYN, C, 0, b"early"));
    perf.packet(1_000, CLIENT, &tcp(SYN, C, 0, b"early"));
    perf.packet(1_050, SERVER, &tcp(SYN | ACK, S, C + 6, &[]));
    perf.packet(1_080, CLIENT, &ack(C + 6, S + 1));
    perf.packet(1_100, SERVER, &data(S + 1, C + 6, b"reply"));
    let report = perf.take();
    assert_eq!((report.retrans, report.retrans_syn, report.syn_count), ([1, 0], 1, 2));
    assert_eq!((report.rtt_server, report.rtt, report.art), (once(50), once(80), once(100)));
}

/// Found at random: the SYN came again with data that a later segment had overtaken, and counted as both.
#[test]
fn a_syn_that_comes_again_with_overtaken_data_is_one_retransmission() {
    let mut perf = Perf::new();
    perf.packet(0, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(1_000, CLIENT, &data(C + 6, 0, b"later"));
    perf.packet(1_500, CLIENT, &tcp(SYN, C, 0, b"early"));
    let report = perf.take();
    assert_eq!((report.retrans, report.ooo, report.retrans_syn), ([1, 0], [0, 0], 1));
}

#[test]
fn a_handshake_out_of_its_order_is_not_measured() {
    let mut perf = Perf::new();
    perf.packet(0, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(10, CLIENT, &ack(C + 1, S + 1));
    perf.packet(20, SERVER, &tcp(SYN | ACK, S, C + 1, &[]));
    perf.packet(30, CLIENT, &ack(C + 1, S + 1));
    let report = perf.take();
    assert_eq!([report.rtt, report.rtt_client, report.rtt_server], [Delay::default(); 3]);
    // SYN-ACK before SYN: the client's part alone is sound.
    let mut perf = Perf::new();
    perf.packet(0, SERVER, &tcp(SYN | ACK, S, C + 1, &[]));
    perf.packet(10, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(15, CLIENT, &ack(C + 1, S + 1));
    let report = perf.take();
    assert_eq!([report.rtt, report.rtt_client, report.rtt_server], [Delay::default(), once(15), Delay::default()]);
    // An answer to another SYN, and an ACK of another SYN-ACK.
    let mut perf = Perf::new();
    perf.packet(0, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(10, SERVER, &tcp(SYN | ACK, S, 77, &[]));
    perf.packet(15, CLIENT, &ack(C + 1, S + 1));
    let report = perf.take();
    assert_eq!([report.rtt, report.rtt_client, report.rtt_server], [Delay::default(); 3]);
}

#[test]
fn delays_over_their_limit_and_time_that_runs_backwards_are_dropped() {
    let mut perf = Perf::new();
    perf.packet(0, CLIENT, &tcp(SYN, C, 0, &[]));
    perf.packet(30_000_001, SERVER, &tcp(SYN | ACK, S, C + 1, &[]));
    perf.packet(30_000_011, CLIENT, &ack(C + 1, S + 1));
    let report = perf.take();
    assert_eq!([report.rtt_server, report.rtt, report.rtt_client], [Delay::default(), Delay::default(), once(10)]);
    let limit = 1_000 + 10_000_000;
    let slow = |us: u64| after(&[(1_000, CLIENT, data(C + 1, S + 1, b"ask")), (us, SERVER, ack(S + 1, C + 4))]).srt;
    assert_eq!([slow(limit), slow(limit + 1), slow(999)], [once(10_000_000), Delay::default(), Delay::default()]);
    let late =
        |us: u64| after(&[(1_000, CLIENT, data(C + 1, S + 1, b"a")), (us, SERVER, data(S + 1, C + 2, b"b"))]).art;
    assert_eq!(
        [late(300_001_000), late(300_001_001), late(10)],
        [once(300_000_000), Delay::default(), Delay::default()]
    );
}

#[test]
fn the_system_answers_with_an_ack_and_the_application_with_data() {
    let report = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, b"one")),
        (1_200, CLIENT, data(C + 4, S + 1, b"two")),
        (1_250, SERVER, ack(S + 1, C + 7)),
        (3_200, SERVER, data(S + 1, C + 7, b"reply")),
        (3_300, SERVER, data(S + 6, C + 7, b"more")),
        (3_340, CLIENT, ack(C + 7, S + 10)),
        (9_300, CLIENT, data(C + 7, S + 10, b"next")),
    ]);
    assert_eq!((report.srt, report.srt_client), (once(50), once(40)));
    assert_eq!(report.art, once(2_000), "last data of the request to first data of the response");
    // From the ACK of the handshake to the first request, from the last data of the response to the next one.
    assert_eq!(report.cit, Delay { sum: 820 + 6_000, count: 2, max: 6_000 });
}

#[test]
fn only_an_ack_of_the_last_data_that_comes_first_is_the_systems_answer() {
    let ask = (1_000, CLIENT, data(C + 1, S + 1, b"abc"));
    let partial = [ask, (1_010, SERVER, ack(S + 1, C + 1)), (1_020, SERVER, ack(S + 1, C + 4))];
    assert_eq!(after(&partial).srt, Delay::default());
    let with_data = [ask, (1_010, SERVER, data(S + 1, C + 4, b"x")), (1_020, SERVER, ack(S + 2, C + 4))];
    assert_eq!(after(&with_data).srt, Delay::default());
    let reset = [ask, (1_010, SERVER, tcp(RST | ACK, S + 1, C + 4, &[])), (1_020, SERVER, ack(S + 1, C + 4))];
    assert_eq!(after(&reset).srt, Delay::default());
    let fin = [(1_000, CLIENT, tcp(ACK | FIN, C + 1, S + 1, b"abc")), (1_010, SERVER, ack(S + 1, C + 5))];
    assert_eq!(after(&fin).srt, once(10), "the FIN is acknowledged with the data");
}

#[test]
fn a_response_that_is_sent_again_does_not_answer_the_next_request() {
    let report = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, b"one")),
        (1_100, SERVER, data(S + 1, C + 4, b"reply")),
        (2_000, CLIENT, data(C + 4, S + 6, b"two")),
        (2_100, SERVER, data(S + 1, C + 4, b"reply")),
        (5_000, SERVER, data(S + 6, C + 7, b"reply")),
    ]);
    assert_eq!((report.art, report.retrans), (Delay { sum: 3_100, count: 2, max: 3_000 }, [0, 1]));
    // A request that comes again after its response asks nothing.
    let report = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, b"one")),
        (1_100, SERVER, data(S + 1, C + 4, b"reply")),
        (1_200, CLIENT, data(C + 1, S + 1, b"one")),
        (9_000, SERVER, data(S + 6, C + 4, b"push")),
    ]);
    assert_eq!((report.art, report.cit, report.retrans), (once(100), once(820), [1, 0]));
}

#[test]
fn retransmissions_are_told_from_overtaken_segments() {
    let hole = [(1_000, CLIENT, data(C + 1, S + 1, b"abc")), (1_010, CLIENT, data(C + 7, S + 1, b"ghi"))];
    let late = |us: u64, ids: [u16; 2]| {
        let mut second = hole[1];
        second.2.ip_id = ids[0];
        let mut filling = data(C + 4, S + 1, b"def");
        filling.ip_id = ids[1];
        let report = after(&[hole[0], second, (us, CLIENT, filling)]);
        (report.ooo[0], report.retrans[0])
    };
    // The round trip of the handshake was 80 µs: sent again it cannot come before.
    assert_eq!(late(1_089, [0, 0]), (1, 0));
    assert_eq!(late(1_090, [0, 0]), (0, 1));
    // The number of the packet is surer than the time.
    assert_eq!(late(1_011, [500, 501]), (0, 1));
    assert_eq!(late(9_000, [2, u16::MAX]), (1, 0), "numbers wrap");
    assert_eq!(late(1_011, [500, 40_000]), (1, 0), "numbers at random say nothing");
    // A copy of what was seen is a retransmission at any time, also of a part with new data behind it.
    for copy in [data(C + 1, S + 1, b"abc"), data(C + 8, S + 1, b"hijk"), data(C + 2, S + 1, b"bcdefghij")] {
        let report = after(&[hole[0], hole[1], (1_011, CLIENT, copy)]);
        assert_eq!((report.retrans, report.ooo), ([1, 0], [0, 0]));
    }
}

#[test]
fn packets_without_data_show_what_is_missing() {
    let fin = (1_000, SERVER, tcp(ACK | FIN, S + 4, C + 1, &[]));
    let report = after(&[fin, (1_020, SERVER, data(S + 1, C + 1, b"abc"))]);
    assert_eq!((report.ooo, report.retrans), ([0, 1], [0, 0]));
    let bare = (1_000, CLIENT, ack(C + 4, S + 1));
    let report = after(&[bare, (200_000, CLIENT, data(C + 1, S + 1, b"abc"))]);
    assert_eq!((report.ooo, report.retrans), ([0, 0], [1, 0]));
    // A number far away is not believed.
    let bare = (1_000, CLIENT, ack(C + 1_000_000, S + 1));
    let report = after(&[bare, (200_000, CLIENT, data(C + 1, S + 1, b"abc"))]);
    assert_eq!((report.ooo, report.retrans), ([0, 0], [0, 0]));
}

#[test]
fn sixteen_ranges_are_remembered_and_the_oldest_hole_goes_first() {
    let mut perf = established();
    for index in 0..=20u32 {
        perf.packet(1_000, CLIENT, &data(C + 11 + index * 20, S + 1, b"0123456789"));
    }
    // Twenty-one holes, of which the newest fifteen are known.
    for index in 0..=20u32 {
        perf.packet(1_001, CLIENT, &data(C + 1 + index * 20, S + 1, b"abcdefghij"));
    }
    let report = perf.take();
    assert_eq!((report.ooo[0], report.retrans[0]), (15, 6));
}

#[test]
fn sequence_numbers_wrap() {
    let mut perf = Perf::new();
    let start = u32::MAX - 4;
    perf.packet(0, CLIENT, &data(start, 1, b"0123456789"));
    perf.packet(1, CLIENT, &data(5, 1, b"abc"));
    perf.packet(2, CLIENT, &data(u32::MAX, 1, b"5"));
    let report = perf.take();
    assert_eq!((report.retrans, report.ooo), ([1, 0], [0, 0]));
}

#[test]
fn keep_alives_are_no_data() {
    let report = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, b"abc")),
        (1_010, SERVER, data(S + 1, C + 4, b"de")),
        (60_000_000, CLIENT, tcp(ACK, C + 3, S + 3, b"\0")),
        (60_000_010, SERVER, ack(S + 3, C + 4)),
        (61_000_000, SERVER, tcp(ACK, S + 2, C + 4, &[])),
        (62_000_000, CLIENT, data(C + 4, S + 3, b"next")),
    ]);
    assert_eq!((report.retrans, report.art), ([0, 0], once(10)));
    assert_eq!(report.cit.max, 62_000_000 - 1_010);
    assert_eq!(report.srt, Delay::default(), "an answer to a keep-alive is no system delay");
}

#[test]
fn closed_windows_are_counted_but_not_of_a_reset() {
    let mut shut = ack(C + 1, S + 1);
    shut.tcp.window = 0;
    let mut reset = tcp(RST, S + 1, C + 1, &[]);
    reset.tcp.window = 0;
    assert_eq!(after(&[(1_000, CLIENT, shut), (1_001, SERVER, reset), (1_002, CLIENT, shut)]).zero_win, [2, 0]);
}

#[test]
fn a_report_forgets_what_it_told_but_not_where_it_was() {
    let mut perf = up();
    assert_eq!(perf.take().rtt, once(80));
    assert_eq!(perf.take(), Report::default());
    perf.packet(1_000, CLIENT, &data(C + 1, S + 1, b"abc"));
    assert_eq!(perf.take().cit, once(820));
    perf.packet(1_500, SERVER, &data(S + 1, C + 4, b"de"));
    assert_eq!(perf.take(), Report { art: once(500), ..Report::default() });
    perf.packet(1_600, CLIENT, &data(C + 1, S + 3, b"abc"));
    assert_eq!(perf.take(), Report { retrans: [1, 0], ..Report::default() });
}

#[test]
fn exchanged_sides_exchange_their_measurements() {
    let mut perf = Perf::new();
    // The server's data is seen first and taken for the client's.
    perf.packet(1_000, CLIENT, &data(S, C, b"greeting"));
    perf.packet(1_030, SERVER, &ack(C, S + 8));
    perf.packet(1_500, SERVER, &data(C, S + 8, b"ask"));
    perf.packet(1_510, CLIENT, &ack(S + 8, C + 3));
    perf.packet(1_600, SERVER, &data(C, S + 8, b"ask"));
    perf.swap();
    perf.packet(1_900, SERVER, &data(S + 8, C + 3, b"reply"));
    let report = perf.take();
    assert_eq!((report.srt_client, report.srt), (once(30), once(10)));
    assert_eq!((report.cit, report.art, report.retrans), (once(500), once(300), [1, 0]));
}

#[test]
fn datagrams_have_an_application_delay_only() {
    let datagram = |bytes| Packet { protocol: UDP, ..tcp(0, 0, 0, bytes) };
    let mut perf = Perf::new();
    for (time_us, side) in [(5, SERVER), (10, CLIENT), (20, CLIENT), (50, SERVER), (60, SERVER), (100, CLIENT)] {
        perf.packet(time_us, side, &datagram(b"x"));
    }
    assert_eq!(perf.take(), Report { art: once(30), ..Report::default() });
    perf.packet(101 + 150_000_000, SERVER, &datagram(b"x"));
    assert_eq!(perf.take(), Report::default());
}

#[test]
fn echoes_have_a_system_delay_where_reply_and_request_are_of_one_number() {
    let echo = |bytes| Packet { protocol: ICMP, ..tcp(0, 0, 0, bytes) };
    let mut perf = Perf::new();
    perf.packet(10, CLIENT, &echo(&[8, 0, 0, 0, 0, 7, 0, 1, 99]));
    perf.packet(20, SERVER, &echo(&[0, 0, 0, 0, 0, 7, 0, 2, 99]));
    perf.packet(35, SERVER, &echo(&[0, 0, 0, 0, 0, 7, 0, 1, 99]));
    perf.packet(40, SERVER, &echo(&[0, 0, 0, 0, 0, 7, 0, 1, 99]));
    assert_eq!(perf.take(), Report { srt: once(25), ..Report::default() });
    perf.packet(50, CLIENT, &echo(&[8, 0]));
    assert_eq!(perf.take(), Report::default());
}

#[test]
fn later_fragments_are_not_looked_at() {
    let fragment = Packet { later_fragment: true, ..data(0, 0, b"") };
    let report = after(&[(1_000, CLIENT, data(C + 1, S + 1, b"abc")), (1_010, SERVER, fragment)]);
    assert_eq!(report, Report { cit: once(820), ..Report::default() });
}

/// A record of TLS with this body.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3], &(body.len() as u16).to_be_bytes()[..], body].concat()
}

#[test]
fn tls_handshakes_end_with_the_second_change_of_keys() {
    let hello = record(22, &[1, 0, 0, 1, 0]);
    let server_hello = record(22, &[2, 0, 0, 1, 0]);
    let change = record(20, &[1]);
    let finished = record(22, &[200; 40]);
    let own = [record(22, &[16, 0, 0, 1, 0]), change.clone(), finished.clone()].concat();
    let theirs = [record(22, &[4, 0, 0, 1, 0]), change.clone(), finished.clone()].concat();
    let full = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, &hello)),
        (1_100, SERVER, data(S + 1, C + 11, &server_hello)),
        (1_200, CLIENT, data(C + 11, S + 11, &own)),
        (1_350, SERVER, data(S + 11, C + 200, &theirs)),
        (9_000, CLIENT, data(C + 200, S + 200, &record(23, &[5; 9]))),
    ]);
    assert_eq!(full.tls_rtt, once(350));
    // TLS 1.3: the server changes with its hello.
    let encrypted = record(23, &[9; 30]);
    let answer = [server_hello.clone(), change.clone(), encrypted.clone()].concat();
    let client = [change, encrypted.clone()].concat();
    let short = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, &hello)),
        (1_100, SERVER, data(S + 1, C + 11, &answer)),
        (1_200, CLIENT, data(C + 11, S + 100, &client)),
    ]);
    assert_eq!(short.tls_rtt, once(200));
    // And without the records of its compatibility mode.
    let answer = [server_hello, encrypted.clone()].concat();
    let bare = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, &hello)),
        (1_100, SERVER, data(S + 1, C + 11, &answer)),
        (1_150, SERVER, data(S + 100, C + 11, &encrypted)),
        (1_300, CLIENT, data(C + 11, S + 135, &encrypted)),
    ]);
    assert_eq!(bare.tls_rtt, once(300));
    // False Start: data of the client before the server has changed its keys.
    let early = after(&[
        (1_000, CLIENT, data(C + 1, S + 1, &hello)),
        (1_100, SERVER, data(S + 1, C + 11, &record(22, &[2, 0, 0, 1, 0]))),
        (1_200, CLIENT, data(C + 11, S + 11, &own)),
        (1_210, CLIENT, data(C + 200, S + 11, &encrypted)),
        (1_350, SERVER, data(S + 11, C + 235, &theirs)),
    ]);
    assert_eq!(early.tls_rtt, once(350));
    let plain = after(&[(1_000, CLIENT, data(C + 1, S + 1, b"GET / HTTP/1.1\r\n\r\n"))]);
    assert_eq!(plain.tls_rtt, Delay::default());
}
