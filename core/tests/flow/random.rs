//! Any packets in any order: no panic, and no more counted than there were packets.

use _core::flow::perf::{Delay, Perf, Report};
use _core::flow::settings::Timeouts;
use _core::flow::state::{CloseType, End, State};
use _core::packet::decode::{ICMP, Packet, SYN, TCP, UDP};
use proptest::prelude::*;

use crate::packets::tcp;

#[derive(Clone, Debug)]
struct Any {
    time_us: u64,
    side: usize,
    protocol: u8,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    ip_id: u16,
    length: u32,
    payload: Vec<u8>,
    swap: bool,
    take: bool,
}

/// Mostly near each other, around the wrap and anywhere.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1_000u32..1_200, 2 => (u32::MAX - 40)..=u32::MAX, 2 => 0u32..60, 1 => any::<u32>()]
}

fn any_packet() -> impl Strategy<Value = Any> {
    let time = prop_oneof![8 => 0u64..50_000_000, 1 => any::<u64>()];
    let protocol = prop_oneof![8 => Just(TCP), 1 => Just(UDP), 1 => Just(ICMP)];
    let flags = prop_oneof![4 => 0u8..32, 1 => any::<u8>()];
    let length = prop_oneof![6 => 0u32..20, 1 => any::<u32>()];
    let payload = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..24),
        1 => prop::collection::vec(prop_oneof![Just(22u8), Just(3), Just(1), Just(2), Just(20), Just(0)], 0..40),
    ];
    let first = (time, 0usize..3, protocol, flags, number(), number(), any::<u16>(), 0u16..9);
    (first, length, payload, prop::bool::weighted(0.05), prop::bool::weighted(0.2)).prop_map(
        |((time_us, side, protocol, flags, seq, ack, window, ip_id), length, payload, swap, take)| Any {
            time_us,
            side,
            protocol,
            flags,
            seq,
            ack,
            window,
            ip_id,
            length,
            payload,
            swap,
            take,
        },
    )
}

fn delays(report: &Report) -> [Delay; 8] {
    let r = report;
    [r.rtt, r.rtt_client, r.rtt_server, r.srt, r.srt_client, r.art, r.cit, r.tls_rtt]
}

/// All counts of a report, and of delays that their sum and largest fit.
fn check(report: &Report, packets: u32) {
    let r = report;
    let counts = [r.retrans, r.zero_win, r.ooo].concat();
    let counts = [counts, vec![r.retrans_syn, r.retrans_synack, r.syn_count, r.synack_count, r.fin_count]].concat();
    assert!(counts.iter().all(|count| *count <= packets), "{report:?}");
    assert!(r.retrans_syn <= r.syn_count && r.retrans_synack <= r.synack_count, "{report:?}");
    assert!(r.retrans[0] + r.retrans[1] + r.ooo[0] + r.ooo[1] <= packets, "{report:?}");
    for delay in delays(report) {
        assert!(delay.count <= packets, "{report:?}");
        assert!(delay.sum <= u64::from(delay.max) * u64::from(delay.count), "{report:?}");
        assert!(delay.sum >= u64::from(delay.max), "{report:?}");
    }
    for delay in &delays(report)[..3] {
        assert!(delay.max <= 30_000_000, "{report:?}");
    }
    assert!(r.srt.max <= 10_000_000 && r.srt_client.max <= 10_000_000, "{report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_packets_in_any_order_are_measured_within_bounds(packets in prop::collection::vec(any_packet(), 1..120)) {
        let (mut perf, mut state) = (Perf::new(), State::new());
        let (mut total, mut since) = (Report::default(), 0u32);
        for any in &packets {
            let mut packet: Packet<'_> = tcp(any.flags, any.seq, any.ack, &any.payload);
            packet.protocol = any.protocol;
            packet.length = any.length;
            packet.ip_id = any.ip_id;
            packet.tcp.window = any.window % 3;
            since += 1;
            perf.packet(any.time_us, any.side, &packet);
            if any.protocol == TCP {
                let _ = state.is_replaced_by(any.side, &packet.tcp);
                state.packet(any.side, &packet.tcp, packet.length);
            }
            if any.swap {
                perf.swap();
                state.swap();
            }
            if any.take {
                let report = perf.take();
                check(&report, since);
                total.add(&report);
                since = 0;
                prop_assert_eq!(perf.take(), Report::default());
            }
            prop_assert_eq!(state.close_type(End::Forced), CloseType::Forced);
            let timeout_us = state.timeout_us(&Timeouts::default());
            prop_assert!((1_000_000..=300_000_000).contains(&timeout_us));
        }
        total.add(&perf.take());
        let of_tcp = packets.iter().filter(|any| any.protocol == TCP);
        let syns = of_tcp.filter(|any| any.flags & (SYN | 4 | 16) == SYN).count() as u32;
        prop_assert_eq!(total.syn_count, syns);
    }

    /// Each byte is counted as sent again no more often than it was: data once sent in any order is no retransmission.
    #[test]
    fn shuffled_data_is_overtaken_or_sent_again_and_a_copy_is_a_retransmission(
        order in Just((0u32..14).collect::<Vec<_>>()).prop_shuffle(),
        start in number(),
    ) {
        let mut perf = Perf::new();
        let payload = [7u8; 10];
        let mut late = 0;
        let mut furthest = None;
        for (at, index) in order.iter().enumerate() {
            let packet = tcp(16, start.wrapping_add(index * 10), 1, &payload);
            perf.packet(at as u64, 0, &packet);
            late += u32::from(furthest > Some(*index));
            furthest = furthest.max(Some(*index));
        }
        let report = perf.take();
        prop_assert_eq!(report.ooo[0] + report.retrans[0], late);
        prop_assert_eq!(report.retrans[0], 0, "all within 3 ms");
        for index in &order {
            perf.packet(100, 0, &tcp(16, start.wrapping_add(index * 10), 1, &payload));
        }
        let report = perf.take();
        prop_assert_eq!((report.retrans[0], report.ooo[0]), (14, 0));
    }
}
