//! Pulsar's commands: names, what they are, and the numbers of the fields that a row needs.
//!
//! Source: PulsarApi.proto of Pulsar 4.0.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The client asks.
    Ask,
    /// The server answers.
    Answer,
    /// Nobody answers what the client says.
    Tell,
    /// Nobody answers what the server says.
    Push,
    /// The server asks the client.
    Challenge,
    /// The client answers.
    Reply,
    /// Both sides may ask.
    EitherAsks,
    EitherAnswers,
}

/// Numbers of fields; 0 the command has none.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    pub name: &'static str,
    pub class: Class,
    pub request_id: u32,
    pub topic: u32,
    /// Producer, and its sequence number.
    pub producer: u32,
    pub sequence: u32,
    pub consumer: u32,
    pub message_id: u32,
    pub error: u32,
    pub text: u32,
}

const fn command(name: &'static str, class: Class, request_id: u32) -> Command {
    Command {
        name,
        class,
        request_id,
        topic: 0,
        producer: 0,
        sequence: 0,
        consumer: 0,
        message_id: 0,
        error: 0,
        text: 0,
    }
}

const fn failing(name: &'static str, request_id: u32, error: u32, text: u32) -> Command {
    Command { error, text, ..command(name, Class::Answer, request_id) }
}

const fn of_consumer(name: &'static str, class: Class, consumer: u32, request_id: u32) -> Command {
    Command { consumer, ..command(name, class, request_id) }
}

pub const CONNECT: u64 = 2;
pub const CONNECTED: u64 = 3;
pub const SUBSCRIBE: u64 = 4;
pub const PRODUCER: u64 = 5;
pub const SEND: u64 = 6;
pub const MESSAGE: u64 = 9;
pub const CLOSE_PRODUCER: u64 = 15;
pub const CLOSE_CONSUMER: u64 = 16;
pub const PRODUCER_SUCCESS: u64 = 17;

/// The command of a type.
pub fn by_type(number: u64) -> Option<&'static Command> {
    let place = match number {
        2..=40 => number - 2,
        50..=68 => number - 11,
        _ => return None,
    };
    COMMANDS.get(place as usize)
}

/// By type: 2 to 40, then 50 to 68. The class of what DeepFlow takes as one-way is that, even where an answer can be
/// asked for (ACK).
#[rustfmt::skip]
static COMMANDS: &[Command] = &[
    command("CONNECT", Class::Ask, 0),
    command("CONNECTED", Class::Answer, 0),
    Command { topic: 1, ..of_consumer("SUBSCRIBE", Class::Ask, 4, 5) },
    Command { topic: 1, producer: 2, ..command("PRODUCER", Class::Ask, 3) },
    Command { producer: 1, sequence: 2, ..command("SEND", Class::Ask, 0) },
    Command { producer: 1, sequence: 2, message_id: 3, ..command("SEND_RECEIPT", Class::Answer, 0) },
    Command { producer: 1, sequence: 2, ..failing("SEND_ERROR", 0, 3, 4) },
    Command { message_id: 2, ..of_consumer("MESSAGE", Class::Push, 1, 0) },
    of_consumer("ACK", Class::Tell, 1, 8),
    of_consumer("FLOW", Class::Tell, 1, 0),
    of_consumer("UNSUBSCRIBE", Class::Ask, 1, 2),
    command("SUCCESS", Class::Answer, 1),
    failing("ERROR", 1, 2, 3),
    Command { producer: 1, ..command("CLOSE_PRODUCER", Class::Ask, 2) },
    of_consumer("CLOSE_CONSUMER", Class::Ask, 1, 2),
    command("PRODUCER_SUCCESS", Class::Answer, 1),
    command("PING", Class::EitherAsks, 0),
    command("PONG", Class::EitherAnswers, 0),
    of_consumer("REDELIVER_UNACKNOWLEDGED_MESSAGES", Class::Tell, 1, 0),
    Command { topic: 1, ..command("PARTITIONED_METADATA", Class::Ask, 2) },
    failing("PARTITIONED_METADATA_RESPONSE", 2, 4, 5),
    Command { topic: 1, ..command("LOOKUP", Class::Ask, 2) },
    failing("LOOKUP_RESPONSE", 4, 6, 7),
    of_consumer("CONSUMER_STATS", Class::Ask, 4, 1),
    failing("CONSUMER_STATS_RESPONSE", 1, 2, 3),
    of_consumer("REACHED_END_OF_TOPIC", Class::Push, 1, 0),
    of_consumer("SEEK", Class::Ask, 1, 2),
    of_consumer("GET_LAST_MESSAGE_ID", Class::Ask, 1, 2),
    command("GET_LAST_MESSAGE_ID_RESPONSE", Class::Answer, 2),
    of_consumer("ACTIVE_CONSUMER_CHANGE", Class::Push, 1, 0),
    command("GET_TOPICS_OF_NAMESPACE", Class::Ask, 1),
    command("GET_TOPICS_OF_NAMESPACE_RESPONSE", Class::Answer, 1),
    Command { topic: 2, ..command("GET_SCHEMA", Class::Ask, 1) },
    failing("GET_SCHEMA_RESPONSE", 1, 2, 3),
    command("AUTH_CHALLENGE", Class::Challenge, 0),
    command("AUTH_RESPONSE", Class::Reply, 0),
    Command { error: 4, text: 5, ..of_consumer("ACK_RESPONSE", Class::Push, 1, 6) },
    Command { topic: 2, ..command("GET_OR_CREATE_SCHEMA", Class::Ask, 1) },
    failing("GET_OR_CREATE_SCHEMA_RESPONSE", 1, 2, 3),
    command("NEW_TXN", Class::Ask, 1),
    failing("NEW_TXN_RESPONSE", 1, 4, 5),
    command("ADD_PARTITION_TO_TXN", Class::Ask, 1),
    failing("ADD_PARTITION_TO_TXN_RESPONSE", 1, 4, 5),
    command("ADD_SUBSCRIPTION_TO_TXN", Class::Ask, 1),
    failing("ADD_SUBSCRIPTION_TO_TXN_RESPONSE", 1, 4, 5),
    command("END_TXN", Class::Ask, 1),
    failing("END_TXN_RESPONSE", 1, 4, 5),
    Command { topic: 4, ..command("END_TXN_ON_PARTITION", Class::Ask, 1) },
    failing("END_TXN_ON_PARTITION_RESPONSE", 1, 4, 5),
    command("END_TXN_ON_SUBSCRIPTION", Class::Ask, 1),
    failing("END_TXN_ON_SUBSCRIPTION_RESPONSE", 1, 4, 5),
    command("TC_CLIENT_CONNECT_REQUEST", Class::Ask, 1),
    failing("TC_CLIENT_CONNECT_RESPONSE", 1, 2, 3),
    command("WATCH_TOPIC_LIST", Class::Ask, 1),
    command("WATCH_TOPIC_LIST_SUCCESS", Class::Answer, 1),
    command("WATCH_TOPIC_UPDATE", Class::Push, 0),
    command("WATCH_TOPIC_LIST_CLOSE", Class::Tell, 1),
    command("TOPIC_MIGRATED", Class::Push, 0),
];

/// Name of a ServerError.
pub fn error_name(code: u64) -> String {
    let known = usize::try_from(code).ok().and_then(|code| ERRORS.get(code));
    known.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

static ERRORS: &[&str] = &[
    "UnknownError",
    "MetadataError",
    "PersistenceError",
    "AuthenticationError",
    "AuthorizationError",
    "ConsumerBusy",
    "ServiceNotReady",
    "ProducerBlockedQuotaExceededError",
    "ProducerBlockedQuotaExceededException",
    "ChecksumError",
    "UnsupportedVersionError",
    "TopicNotFound",
    "SubscriptionNotFound",
    "ConsumerNotFound",
    "TooManyRequests",
    "TopicTerminatedError",
    "ProducerBusy",
    "InvalidTopicName",
    "IncompatibleSchema",
    "ConsumerAssignError",
    "TransactionCoordinatorNotFound",
    "InvalidTxnStatus",
    "NotAllowedError",
    "TransactionConflict",
    "TransactionNotFound",
    "ProducerFenced",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_their_commands() {
        for (number, name) in [
            (2, "CONNECT"),
            (9, "MESSAGE"),
            (17, "PRODUCER_SUCCESS"),
            (24, "LOOKUP_RESPONSE"),
            (38, "ACK_RESPONSE"),
            (40, "GET_OR_CREATE_SCHEMA_RESPONSE"),
            (50, "NEW_TXN"),
            (62, "TC_CLIENT_CONNECT_REQUEST"),
            (68, "TOPIC_MIGRATED"),
        ] {
            assert_eq!(by_type(number).map(|command| command.name), Some(name));
        }
        for number in [0, 1, 41, 49, 69, u64::MAX] {
            assert!(by_type(number).is_none());
        }
    }
}
