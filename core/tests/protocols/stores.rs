//! MongoDB, Memcached, Cassandra and Redis: what masks hide, and captures that begin in the middle.

use std::rc::Rc;

use _core::protocols::{Guess, ParserSettings, REGISTRY, Role};

use super::driver::Connection;
use super::{conversations, protocol, settings};

const STORES: [&str; 4] = ["MongoDB", "Memcached", "Cassandra", "Redis"];

fn masking() -> Rc<ParserSettings> {
    let obfuscate_protocols = STORES.map(String::from).to_vec();
    Rc::new(ParserSettings { obfuscate_protocols, ..ParserSettings::default() })
}

/// Everything that a connection says, as one text.
fn said(name: &str, settings: &Rc<ParserSettings>) -> String {
    let mut all = String::new();
    for case in conversations().iter().filter(|case| case.protocol.name == name) {
        let mut connection = Connection::new(case.protocol, settings, 6);
        for (role, bytes) in &case.writes {
            connection.feed(*role, bytes, 0, false);
        }
        for (_, message) in &connection.messages {
            for text in [&message.request_resource, &message.response_result, &message.response_exception] {
                all.push_str(text);
                all.push('\n');
            }
        }
    }
    all
}

#[test]
fn masks_hide_values_and_nothing_else() {
    for (name, values, kept) in [
        ("MongoDB", &["\"xxx\"", "\"y\"", "_id: 1"][..], &["\"find\": \"orders\"", "\"ok\": 1", "\"_id\": ?"][..]),
        ("Memcached", &["\n13\n", "\n7\n"], &["incr n 2", "VALUE a 0 50", "\n?\n"]),
        ("Cassandra", &["'nnnnnnnnn'", "'NONSENSE'"], &["INSERT INTO shop.orders (id, note) VALUES (?)"]),
    ] {
        let (open, masked) = (said(name, &settings()), said(name, &masking()));
        for value in values {
            assert!(open.contains(value), "{name}: {value:?} is not there to be hidden");
            assert!(!masked.contains(value), "{name} shows {value:?}:\n{masked}");
        }
        for text in kept {
            assert!(masked.contains(text), "{name} hides {text:?}:\n{masked}");
        }
    }
}

#[test]
fn logins_are_never_shown() {
    for name in STORES {
        let all = said(name, &settings());
        assert!(!all.contains("secret") && !all.contains("n,,n=user"), "{name}:\n{all}");
    }
}

/// Wherever a capture begins, what is recognised is recognised as what it is, and by the right side.
#[test]
fn beginnings_in_the_middle_are_no_other_protocol() {
    let ports = [("MongoDB", 27017), ("Memcached", 11211), ("Cassandra", 9042), ("Redis", 6379)];
    let mut found = 0;
    for case in conversations() {
        let Some((name, port)) = ports.iter().find(|(name, _)| *name == case.protocol.name) else {
            continue;
        };
        for (role, bytes) in &case.writes {
            let claims =
                REGISTRY.iter().filter(|protocol| protocol.transports.contains(&6)).find_map(
                    |protocol| match (protocol.check)(bytes, *port) {
                        Guess::Yes(writer) => Some((protocol.name, writer)),
                        _ => None,
                    },
                );
            if let Some((claimed, writer)) = claims {
                assert_eq!((claimed, writer), (*name, *role), "{}", case.name);
                found += 1;
            }
        }
    }
    assert!(found > 100, "only {found} beginnings were recognised");
}

/// A reply whose end was not captured leaves the commands after it to their own replies.
#[test]
fn a_memcached_reply_cut_short_does_not_shift_the_next() {
    let mut connection = Connection::new(protocol("Memcached"), &settings(), 6);
    connection.feed(Role::Client, b"get a\r\n", 0, false);
    connection.feed(Role::Server, b"VALUE a 0 5000\r\nxxxx", 5000 - 4 + 2 + 5, false);
    connection.feed(Role::Client, b"get b\r\n", 0, false);
    connection.feed(Role::Server, b"END\r\n", 0, false);
    let pairs: Vec<_> = connection.messages.iter().map(|(_, message)| message.pair).collect();
    assert_eq!(pairs, [Some(1), Some(1), Some(2), Some(2)]);
}
