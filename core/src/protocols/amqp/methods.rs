//! The methods of AMQP 0-9-1 (amqp0-9-1.extended.xml, with RabbitMQ's extensions), a line each.

use crate::protocols::Role;

/// What a method is in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Answered by another method, unless its no-wait bit (mask in the byte of bits) is set.
    Asks { no_wait: u8 },
    /// Answers the method of this number in its class.
    Answers(u16),
    /// Neither.
    Alone,
    /// Like `Alone` or `Answers`; a content header and body follow.
    Carries(Option<u16>),
}

/// An argument, as far as rows need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// So many bytes that nobody needs.
    Fixed(usize),
    /// A short string that nobody needs.
    Text,
    Queue,
    Exchange,
    RoutingKey,
    VirtualHost,
    /// Reply code and reply text.
    Reason,
    /// Class and method that failed.
    Failed,
    Bits,
}

pub struct Method {
    pub class: u16,
    pub id: u16,
    pub name: &'static str,
    /// Who may send it; `None`: both.
    pub writer: Option<Role>,
    pub part: Part,
    pub arguments: &'static [Argument],
}

use Argument::{Bits, Exchange, Failed, Fixed, Queue, Reason, RoutingKey, Text, VirtualHost};
use Part::{Alone, Answers, Asks, Carries};

const CLIENT: Option<Role> = Some(Role::Client);
const SERVER: Option<Role> = Some(Role::Server);
const ASKS: Part = Asks { no_wait: 0 };

const fn method(
    class: u16,
    id: u16,
    name: &'static str,
    writer: Option<Role>,
    part: Part,
    arguments: &'static [Argument],
) -> Method {
    Method { class, id, name, writer, part, arguments }
}

/// Sorted by class and number.
static METHODS: &[Method] = &[
    method(10, 10, "Connection.Start", SERVER, ASKS, &[]),
    method(10, 11, "Connection.StartOk", CLIENT, Answers(10), &[]),
    method(10, 20, "Connection.Secure", SERVER, ASKS, &[]),
    method(10, 21, "Connection.SecureOk", CLIENT, Answers(20), &[]),
    method(10, 30, "Connection.Tune", SERVER, ASKS, &[]),
    method(10, 31, "Connection.TuneOk", CLIENT, Answers(30), &[]),
    method(10, 40, "Connection.Open", CLIENT, ASKS, &[VirtualHost]),
    method(10, 41, "Connection.OpenOk", SERVER, Answers(40), &[]),
    method(10, 50, "Connection.Close", None, ASKS, &[Reason, Failed]),
    method(10, 51, "Connection.CloseOk", None, Answers(50), &[]),
    method(10, 60, "Connection.Blocked", SERVER, Alone, &[]),
    method(10, 61, "Connection.Unblocked", SERVER, Alone, &[]),
    method(10, 70, "Connection.UpdateSecret", CLIENT, ASKS, &[]),
    method(10, 71, "Connection.UpdateSecretOk", SERVER, Answers(70), &[]),
    method(20, 10, "Channel.Open", CLIENT, ASKS, &[]),
    method(20, 11, "Channel.OpenOk", SERVER, Answers(10), &[]),
    method(20, 20, "Channel.Flow", None, ASKS, &[]),
    method(20, 21, "Channel.FlowOk", None, Answers(20), &[]),
    method(20, 40, "Channel.Close", None, ASKS, &[Reason, Failed]),
    method(20, 41, "Channel.CloseOk", None, Answers(40), &[]),
    method(30, 10, "Access.Request", CLIENT, ASKS, &[]),
    method(30, 11, "Access.RequestOk", SERVER, Answers(10), &[]),
    method(40, 10, "Exchange.Declare", CLIENT, Asks { no_wait: 16 }, &[Fixed(2), Exchange, Text, Bits]),
    method(40, 11, "Exchange.DeclareOk", SERVER, Answers(10), &[]),
    method(40, 20, "Exchange.Delete", CLIENT, Asks { no_wait: 2 }, &[Fixed(2), Exchange, Bits]),
    method(40, 21, "Exchange.DeleteOk", SERVER, Answers(20), &[]),
    method(40, 30, "Exchange.Bind", CLIENT, Asks { no_wait: 1 }, &[Fixed(2), Text, Exchange, RoutingKey, Bits]),
    method(40, 31, "Exchange.BindOk", SERVER, Answers(30), &[]),
    method(40, 40, "Exchange.Unbind", CLIENT, Asks { no_wait: 1 }, &[Fixed(2), Text, Exchange, RoutingKey, Bits]),
    method(40, 51, "Exchange.UnbindOk", SERVER, Answers(40), &[]),
    method(50, 10, "Queue.Declare", CLIENT, Asks { no_wait: 16 }, &[Fixed(2), Queue, Bits]),
    method(50, 11, "Queue.DeclareOk", SERVER, Answers(10), &[Queue]),
    method(50, 20, "Queue.Bind", CLIENT, Asks { no_wait: 1 }, &[Fixed(2), Queue, Exchange, RoutingKey, Bits]),
    method(50, 21, "Queue.BindOk", SERVER, Answers(20), &[]),
    method(50, 30, "Queue.Purge", CLIENT, Asks { no_wait: 1 }, &[Fixed(2), Queue, Bits]),
    method(50, 31, "Queue.PurgeOk", SERVER, Answers(30), &[]),
    method(50, 40, "Queue.Delete", CLIENT, Asks { no_wait: 4 }, &[Fixed(2), Queue, Bits]),
    method(50, 41, "Queue.DeleteOk", SERVER, Answers(40), &[]),
    method(50, 50, "Queue.Unbind", CLIENT, ASKS, &[Fixed(2), Queue, Exchange, RoutingKey]),
    method(50, 51, "Queue.UnbindOk", SERVER, Answers(50), &[]),
    method(60, 10, "Basic.Qos", CLIENT, ASKS, &[]),
    method(60, 11, "Basic.QosOk", SERVER, Answers(10), &[]),
    method(60, 20, "Basic.Consume", CLIENT, Asks { no_wait: 8 }, &[Fixed(2), Queue, Text, Bits]),
    method(60, 21, "Basic.ConsumeOk", SERVER, Answers(20), &[]),
    method(60, 30, "Basic.Cancel", None, Asks { no_wait: 1 }, &[Text, Bits]),
    method(60, 31, "Basic.CancelOk", None, Answers(30), &[]),
    method(60, 40, "Basic.Publish", CLIENT, Carries(None), &[Fixed(2), Exchange, RoutingKey]),
    method(60, 50, "Basic.Return", SERVER, Carries(None), &[Reason, Exchange, RoutingKey]),
    method(60, 60, "Basic.Deliver", SERVER, Carries(None), &[Text, Fixed(9), Exchange, RoutingKey]),
    method(60, 70, "Basic.Get", CLIENT, ASKS, &[Fixed(2), Queue]),
    method(60, 71, "Basic.GetOk", SERVER, Carries(Some(70)), &[Fixed(9), Exchange, RoutingKey]),
    method(60, 72, "Basic.GetEmpty", SERVER, Answers(70), &[]),
    method(60, 80, "Basic.Ack", None, Alone, &[]),
    method(60, 90, "Basic.Reject", CLIENT, Alone, &[]),
    method(60, 100, "Basic.RecoverAsync", CLIENT, Alone, &[]),
    method(60, 110, "Basic.Recover", CLIENT, ASKS, &[]),
    method(60, 111, "Basic.RecoverOk", SERVER, Answers(110), &[]),
    method(60, 120, "Basic.Nack", None, Alone, &[]),
    method(85, 10, "Confirm.Select", CLIENT, Asks { no_wait: 1 }, &[Bits]),
    method(85, 11, "Confirm.SelectOk", SERVER, Answers(10), &[]),
    method(90, 10, "Tx.Select", CLIENT, ASKS, &[]),
    method(90, 11, "Tx.SelectOk", SERVER, Answers(10), &[]),
    method(90, 20, "Tx.Commit", CLIENT, ASKS, &[]),
    method(90, 21, "Tx.CommitOk", SERVER, Answers(20), &[]),
    method(90, 30, "Tx.Rollback", CLIENT, ASKS, &[]),
    method(90, 31, "Tx.RollbackOk", SERVER, Answers(30), &[]),
];

/// The method of a class and a number.
pub fn find(class: u16, id: u16) -> Option<&'static Method> {
    let place = METHODS.binary_search_by_key(&(class, id), |method| (method.class, method.id)).ok()?;
    METHODS.get(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_and_every_answer_has_its_question() {
        for method in METHODS {
            assert_eq!(find(method.class, method.id).map(|found| found.name), Some(method.name));
            let (Answers(asked) | Carries(Some(asked))) = method.part else { continue };
            let asked = find(method.class, asked).expect(method.name);
            assert!(matches!(asked.part, Asks { .. }), "{}", asked.name);
            assert!(method.name.starts_with(asked.name), "{} of {}", method.name, asked.name);
        }
    }
}
