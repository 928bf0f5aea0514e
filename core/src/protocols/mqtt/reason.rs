//! Return codes of MQTT 3 and reason codes of MQTT 5 (MQTT 3.1.1 section 3.2.2.3, MQTT 5 section 2.4).

use crate::protocols::Status;

/// Status and text of a CONNACK's return code before MQTT 5.
pub fn of_connack(code: u8) -> (Status, &'static str) {
    match code {
        0 => (Status::Success, ""),
        1 => (Status::ClientError, "unacceptable protocol version"),
        2 => (Status::ClientError, "identifier rejected"),
        3 => (Status::ServerError, "server unavailable"),
        4 => (Status::ClientError, "bad user name or password"),
        5 => (Status::ClientError, "not authorized"),
        _ => (Status::ClientError, "reserved return code"),
    }
}

/// Status and text of a reason code; below 0x80 all is well.
pub fn of_reason(code: u8) -> (Status, &'static str) {
    let status = match code {
        0..0x80 => return (Status::Success, ""),
        0x80 | 0x83 | 0x88 | 0x89 | 0x8b | 0x98 | 0x9c | 0x9d => Status::ServerError,
        _ => Status::ClientError,
    };
    let text = match code {
        0x80 => "Unspecified error",
        0x81 => "Malformed Packet",
        0x82 => "Protocol Error",
        0x83 => "Implementation specific error",
        0x84 => "Unsupported Protocol Version",
        0x85 => "Client Identifier not valid",
        0x86 => "Bad User Name or Password",
        0x87 => "Not authorized",
        0x88 => "Server unavailable",
        0x89 => "Server busy",
        0x8a => "Banned",
        0x8b => "Server shutting down",
        0x8c => "Bad authentication method",
        0x8d => "Keep Alive timeout",
        0x8e => "Session taken over",
        0x8f => "Topic Filter invalid",
        0x90 => "Topic Name invalid",
        0x91 => "Packet Identifier in use",
        0x92 => "Packet Identifier not found",
        0x93 => "Receive Maximum exceeded",
        0x94 => "Topic Alias invalid",
        0x95 => "Packet too large",
        0x96 => "Message rate too high",
        0x97 => "Quota exceeded",
        0x98 => "Administrative action",
        0x99 => "Payload format invalid",
        0x9a => "Retain not supported",
        0x9b => "QoS not supported",
        0x9c => "Use another server",
        0x9d => "Server moved",
        0x9e => "Shared Subscriptions not supported",
        0x9f => "Connection rate exceeded",
        0xa0 => "Maximum connect time",
        0xa1 => "Subscription Identifiers not supported",
        0xa2 => "Wildcard Subscriptions not supported",
        _ => "unknown reason code",
    };
    (status, text)
}
