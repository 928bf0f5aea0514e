//! Types of commands and objects, and their fields in the order in which they are written, up to the last one that
//! matters (the command reference of ActiveMQ's OpenWire, versions 1 to 12).

#[derive(Clone, Copy)]
pub enum Slot {
    Destination,
    /// Not sent by its number.
    NestedDestination,
    /// Another destination of the same command.
    OtherDestination,
    BrokerUrl,
    Correlation,
    Properties,
    ResponseTo,
}

#[derive(Clone, Copy)]
pub enum Field {
    Flag,
    Byte,
    Int,
    Long,
    Text,
    /// The text that names the object.
    Name,
    Bytes,
    Nested,
    Cached,
    Throwable,
    Keep(Slot),
}

use Field::{Byte, Bytes, Cached, Flag, Int, Keep, Long, Name, Nested, Text, Throwable};

pub const WIRE_FORMAT_INFO: u8 = 1;
pub const CONNECTION_ERROR: u8 = 16;
const RESPONSE: u8 = 30;
const INTEGER_RESPONSE: u8 = 34;

const MESSAGE: &[Field] = &[
    Cached,
    Keep(Slot::Destination),
    Cached,
    Keep(Slot::OtherDestination),
    Nested,
    Cached,
    Text,
    Int,
    Keep(Slot::Correlation),
    Flag,
    Long,
    Byte,
    Nested,
    Long,
    Text,
    Bytes,
    Keep(Slot::Properties),
];
/// Since version 10 a message's id may be a text.
const MESSAGE_ID: &[Field] = &[Text, Cached, Long, Long];
const OLD_MESSAGE_ID: &[Field] = &[Cached, Long, Long];

/// Is it one of the kinds of JMS message?
pub fn is_message(kind: u8) -> bool {
    (23..=29).contains(&kind)
}

pub fn is_response(kind: u8) -> bool {
    (RESPONSE..=INTEGER_RESPONSE).contains(&kind)
}

/// Does a response flag follow the number? Parts of commands and repetitions have none.
pub fn is_answered(kind: u8) -> bool {
    !matches!(kind, 60 | 61 | 65)
}

/// Fields of an object, after the number and the response flag that every command begins with.
pub fn fields(kind: u8, version: u32) -> Option<&'static [Field]> {
    Some(match kind {
        2 => &[Cached, Keep(Slot::BrokerUrl)],
        5 => &[Cached, Flag, Keep(Slot::Destination)],
        6 | 8 | 20 => &[Cached, Keep(Slot::Destination)],
        CONNECTION_ERROR => &[Throwable],
        17 if version >= 6 => &[Keep(Slot::NestedDestination)],
        21 => &[Cached, Keep(Slot::Destination), Nested],
        22 => &[Keep(Slot::Destination)],
        23..=29 => MESSAGE,
        31 => &[Keep(Slot::ResponseTo), Throwable],
        RESPONSE..=INTEGER_RESPONSE => &[Keep(Slot::ResponseTo)],
        3 | 4 | 7 | 9..=12 | 14 | 15 | 17..=19 => &[],
        100..=103 => &[Name],
        110 if version >= 10 => MESSAGE_ID,
        110 => OLD_MESSAGE_ID,
        111 => &[Long, Cached],
        112 => &[Int, Bytes, Bytes],
        120 | 124 => &[Name],
        121 => &[Name, Long],
        122 | 123 => &[Name, Long, Long],
        _ => return None,
    })
}

/// Name of a command.
pub fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        WIRE_FORMAT_INFO => "WireFormatInfo",
        2 => "BrokerInfo",
        3 => "ConnectionInfo",
        4 => "SessionInfo",
        5 => "ConsumerInfo",
        6 => "ProducerInfo",
        7 => "TransactionInfo",
        8 => "DestinationInfo",
        9 => "RemoveSubscriptionInfo",
        10 => "KeepAliveInfo",
        11 => "ShutdownInfo",
        12 => "RemoveInfo",
        14 => "ControlCommand",
        15 => "FlushCommand",
        CONNECTION_ERROR => "ConnectionError",
        17 => "ConsumerControl",
        18 => "ConnectionControl",
        19 => "ProducerAck",
        20 => "MessagePull",
        21 => "MessageDispatch",
        22 => "MessageAck",
        23 => "ActiveMQMessage",
        24 => "ActiveMQBytesMessage",
        25 => "ActiveMQMapMessage",
        26 => "ActiveMQObjectMessage",
        27 => "ActiveMQStreamMessage",
        28 => "ActiveMQTextMessage",
        29 => "ActiveMQBlobMessage",
        RESPONSE => "Response",
        31 => "ExceptionResponse",
        32 => "DataResponse",
        33 => "DataArrayResponse",
        INTEGER_RESPONSE => "IntegerResponse",
        60 => "PartialCommand",
        61 => "LastPartialCommand",
        65 => "ReplayCommand",
        90 => "MessageDispatchNotification",
        _ => return None,
    })
}
