//! Each close type, status and time-out, by hand-built connections.

use _core::flow::settings::Timeouts;
use _core::flow::state::{CloseType, End, State};
use _core::packet::decode::{ACK, FIN, PSH, RST, SYN, TCP, Tcp, UDP};

use crate::packets::{CLIENT, SERVER};

const C: u32 = 1_000;
const S: u32 = 9_000;

type Step = (usize, u8, u32, u32, u32);

const ASK: Step = (CLIENT, SYN, C, 0, 0);
const ACCEPT: Step = (SERVER, SYN | ACK, S, C + 1, 0);
const CONFIRM: Step = (CLIENT, ACK, C + 1, S + 1, 0);
const REQUEST: Step = (CLIENT, ACK | PSH, C + 1, S + 1, 100);
const RESPONSE: Step = (SERVER, ACK | PSH, S + 1, C + 101, 200);
const CLIENT_FIN: Step = (CLIENT, ACK | FIN, C + 101, S + 201, 0);
const SERVER_FIN: Step = (SERVER, ACK | FIN, S + 201, C + 102, 0);
const LAST_ACK: Step = (CLIENT, ACK, C + 102, S + 202, 0);
const CLIENT_RST: Step = (CLIENT, RST, C + 101, 0, 0);
const SERVER_RST: Step = (SERVER, RST | ACK, S + 201, C + 101, 0);

const UP: [Step; 5] = [ASK, ACCEPT, CONFIRM, REQUEST, RESPONSE];

fn after(steps: &[Step]) -> State {
    let mut state = State::new();
    for (side, flags, seq, ack, length) in steps {
        let tcp = Tcp { seq: *seq, ack: *ack, flags: *flags, ..Tcp::default() };
        state.packet(*side, &tcp, *length);
    }
    state
}

fn up(steps: &[Step]) -> State {
    after(&[&UP, steps].concat())
}

/// Close type after the time-out, seconds until then, and whether the connection has ended before.
fn end(state: &State) -> (CloseType, u64, bool) {
    (state.close_type(End::TimedOut), state.timeout_us(&Timeouts::default()) / 1_000_000, state.is_closed())
}

#[test]
fn each_end_has_its_close_type() {
    use CloseType::*;
    assert_eq!(end(&after(&[])), (TimedOut, 5, false), "not TCP");
    assert_eq!(end(&up(&[])), (TimedOut, 300, false));
    assert_eq!(end(&up(&[CLIENT_FIN, SERVER_FIN, LAST_ACK])), (Normal, 5, true));
    assert_eq!(end(&up(&[CLIENT_FIN, SERVER_FIN])), (Normal, 5, false), "the last ACK was not seen");
    assert_eq!(end(&up(&[SERVER_RST])), (ServerReset, 35, true));
    assert_eq!(end(&up(&[CLIENT_RST])), (ClientReset, 35, true));
    assert_eq!(end(&after(&[ASK])), (ServerSynMiss, 5, false));
    assert_eq!(end(&after(&[ASK, ASK, ASK])), (ServerSynMiss, 5, false));
    assert_eq!(end(&after(&[ASK, ACCEPT, ACCEPT])), (ClientAckMiss, 5, false));
    assert_eq!(end(&after(&[ACCEPT])), (ClientAckMiss, 5, false));
    assert_eq!(end(&up(&[CLIENT_FIN])), (ServerHalfClose, 5, false), "the server's FIN is missing");
    assert_eq!(end(&up(&[SERVER_FIN])), (ClientHalfClose, 5, false), "the client's FIN is missing");
    assert_eq!(end(&after(&[ASK, (SERVER, RST | ACK, 0, C + 1, 0)])), (ServerDirectReset, 1, true));
    assert_eq!(end(&after(&[ASK, ACCEPT, (CLIENT, RST, C + 1, 0, 0)])), (ClientEstablishReset, 1, true));
    assert_eq!(end(&after(&[ASK, (CLIENT, RST, C + 1, 0, 0)])), (ClientEstablishReset, 1, true));
    assert_eq!(end(&after(&[ASK, ACCEPT, (SERVER, RST, S + 1, 0, 0)])), (ServerEstablishReset, 1, true));
    assert_eq!(end(&up(&[SERVER_FIN, CLIENT_RST])), (NormalClientReset, 35, true));
    assert_eq!(end(&up(&[CLIENT_FIN, CLIENT_RST])), (NormalClientReset, 35, true));
    assert_eq!(end(&up(&[CLIENT_FIN, SERVER_RST])), (ServerReset, 35, true));
    assert_eq!(end(&up(&[CLIENT_FIN, SERVER_FIN, SERVER_RST])), (Normal, 35, true), "both sides were done");
    assert_eq!(end(&after(&[CLIENT_RST])), (Other, 1, true), "nothing is known of the connection");
}

#[test]
fn a_server_that_holds_an_older_connection_shows_that_the_port_is_reused() {
    let old = (SERVER, ACK, 77, 55_555, 0);
    assert_eq!(end(&after(&[ASK, old])), (CloseType::ClientPortReuse, 5, false));
    // RFC 5961, 4.2: the client resets the old connection, then asks again.
    let reset = after(&[ASK, old, (CLIENT, RST, 55_555, 0, 0)]);
    assert_eq!(end(&reset), (CloseType::ClientPortReuse, 1, true));
    assert_eq!(end(&after(&[ASK, old, (SERVER, SYN | ACK, 66, 44, 0)])).0, CloseType::ClientPortReuse);
    let again = after(&[&[ASK, old, (CLIENT, RST, 55_555, 0, 0)], &UP[..]].concat());
    assert_eq!(end(&again).0, CloseType::TimedOut, "the same SYN again, and a connection");
    // The SYN-ACK was only not captured: both sides go on.
    assert_eq!(end(&after(&[ASK, RESPONSE, (CLIENT, ACK, C + 101, S + 201, 0)])).0, CloseType::TimedOut);
}

#[test]
fn a_server_that_repeats_its_syn_ack_has_a_full_queue_until_it_speaks() {
    let full = [ASK, ACCEPT, CONFIRM, REQUEST, ACCEPT, CONFIRM, REQUEST];
    let overflow = CloseType::ServerQueueOverflow;
    assert_eq!(end(&after(&full)), (overflow, 300, false));
    assert_eq!(end(&after(&[&full[..], &[CLIENT_RST]].concat())), (overflow, 35, true));
    assert_eq!(end(&after(&[&full[..], &[SERVER_RST]].concat())), (overflow, 35, true));
    assert_eq!(end(&after(&[&full[..], &[CLIENT_FIN, ACCEPT]].concat())).0, overflow);
    assert_eq!(end(&after(&[&full[..], &[RESPONSE]].concat())).0, CloseType::TimedOut);
    assert_eq!(end(&after(&[&full[..], &[CLIENT_FIN, RESPONSE]].concat())).0, CloseType::ServerHalfClose);
    // Once the server has spoken a late copy of its SYN-ACK means nothing.
    assert_eq!(end(&up(&[ACCEPT])).0, CloseType::TimedOut);
}

#[test]
fn a_false_ack_does_not_end_the_handshake() {
    let early = (CLIENT, ACK, C + 1, 123_456_789, 0);
    assert_eq!(end(&after(&[ASK, ACCEPT, early])).0, CloseType::ClientAckMiss);
    assert_eq!(end(&after(&[ASK, ACCEPT, early, (CLIENT, RST, C + 1, 0, 0)])).0, CloseType::ClientEstablishReset);
    // What the server sends proves that it has got an ACK.
    assert_eq!(end(&after(&[ASK, ACCEPT, early, (SERVER, ACK, S + 1, C + 1, 10)])).0, CloseType::TimedOut);
}

#[test]
fn a_forged_rst_does_not_end_a_connection_that_goes_on() {
    assert_eq!(end(&up(&[SERVER_RST, (SERVER, ACK, S + 201, C + 101, 50)])), (CloseType::TimedOut, 300, false));
    // What was under way when it was sent does not deny a RST.
    assert_eq!(end(&up(&[SERVER_RST, RESPONSE, REQUEST])), (CloseType::ServerReset, 35, true));
    let refused = after(&[ASK, (SERVER, RST | ACK, 0, C, 0), ACCEPT, CONFIRM]);
    assert_eq!(end(&refused), (CloseType::TimedOut, 300, false));
}

#[test]
fn why_a_row_is_written_tells_with_the_state() {
    let open = up(&[]);
    let closed = up(&[CLIENT_FIN, SERVER_FIN, LAST_ACK]);
    let types =
        |state: &State| [End::Forced, End::Replaced, End::Evicted, End::Flushed].map(|why| state.close_type(why));
    use CloseType::*;
    assert_eq!(types(&open), [Forced, Other, Other, Forced]);
    assert_eq!(types(&closed), [Forced, Normal, Normal, Normal]);
    assert_eq!(types(&after(&[ASK])), [Forced, ServerSynMiss, Other, Forced]);
    assert_eq!(types(&up(&[CLIENT_RST])), [Forced, ClientReset, ClientReset, ClientReset]);
}

#[test]
fn a_syn_with_another_number_begins_another_connection() {
    let syn = |seq: u32| Tcp { seq, flags: SYN, ..Tcp::default() };
    let open = up(&[]);
    assert!(!open.is_replaced_by(CLIENT, &syn(C)), "a late copy");
    assert!(open.is_replaced_by(CLIENT, &syn(C + 50_000)));
    assert!(up(&[CLIENT_RST]).is_replaced_by(CLIENT, &syn(7)));
    assert!(!after(&[ASK]).is_replaced_by(CLIENT, &syn(7)), "still asking");
    assert!(!after(&[REQUEST]).is_replaced_by(CLIENT, &syn(C)), "the SYN comes after the first data");
    assert!(after(&[REQUEST]).is_replaced_by(CLIENT, &syn(C + 9)));
    assert!(!open.is_replaced_by(SERVER, &Tcp { flags: SYN | ACK, ..syn(4) }));
}

#[test]
fn exchanged_sides_exchange_the_blame() {
    let mut half = up(&[CLIENT_FIN]);
    half.swap();
    assert_eq!(end(&half).0, CloseType::ClientHalfClose);
    let mut reset = up(&[CLIENT_RST]);
    reset.swap();
    assert_eq!(end(&reset).0, CloseType::ServerReset);
}

#[test]
fn status_tells_whose_fault_it_is() {
    use CloseType::*;
    let all = [
        (Other, 2),
        (Normal, 0),
        (ServerReset, 3),
        (TimedOut, 3),
        (Forced, 0),
        (ServerSynMiss, 3),
        (ServerHalfClose, 0),
        (ClientReset, 4),
        (ClientAckMiss, 4),
        (ClientHalfClose, 0),
        (ClientPortReuse, 4),
        (ServerDirectReset, 3),
        (ServerQueueOverflow, 3),
        (ClientEstablishReset, 4),
        (ServerEstablishReset, 3),
        (NormalClientReset, 0),
    ];
    let numbers = all.map(|(close, _)| close as u8);
    assert_eq!(numbers, [0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 13, 15, 17, 18, 19, 20]);
    for (close, status) in all {
        assert_eq!(close.status(TCP), status, "{close:?}");
    }
    assert_eq!(TimedOut.status(UDP), 0);
}
