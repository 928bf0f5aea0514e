//! Which protocol a connection speaks, and which end is the server.

use std::cell::OnceCell;
use std::rc::Rc;

use super::{Connection, Flow, Parsed, State, Verdict, is_client, other};
use crate::endpoints::Endpoints;
use crate::event::{Direction, Endpoint, Source};
use crate::protocols::{Guess, ParserSettings, REGISTRY, Role};
use crate::stream::{Piece, Stream};

/// Payloads that may fail to be recognised before a connection is given up; fewer at an end point known to be foreign.
const MAX_TRIES: u32 = 12;
const MAX_TRIES_FOREIGN: u32 = 3;
/// Connections given up until an end point counts as foreign.
const FOREIGN_AFTER: u32 = 4;
/// Bytes kept of a first payload that may become recognisable.
const MAX_UNDECIDED: usize = 4096;
/// Ports from here up are usually ephemeral (Linux, net.ipv4.ip_local_port_range).
const EPHEMERAL: u16 = 32_768;

/// What recognition needs from outside the connection.
pub struct Recognition<'a> {
    pub endpoints: &'a mut Endpoints,
    pub settings: &'a Rc<ParserSettings>,
    /// The local side listens on its port.
    pub listens: bool,
}

impl Connection {
    /// Which end is the server, before the protocol says it.
    fn likely_server(&self, listens: bool) -> Endpoint {
        if self.connected {
            self.remote
        } else if listens || self.local.port < self.remote.port {
            self.local
        } else {
            self.remote
        }
    }

    fn role_beside(&self, server: Endpoint) -> Role {
        if server == self.local { Role::Server } else { Role::Client }
    }

    /// The local end's role when neither the protocol nor the ports say it: one of the ends was a server of this
    /// protocol before, else who speaks first is the client.
    fn role_in(&self, place: usize, direction: Direction, now_us: u64, recognition: &Recognition<'_>) -> Role {
        let served = |end| recognition.endpoints.get(self.protocol, end, now_us).is_some_and(|it| it.l7 == Some(place));
        match (served(self.local), served(self.remote), direction) {
            (true, false, _) => Role::Server,
            (false, true, _) | (_, _, Direction::Egress) => Role::Client,
            _ => Role::Server,
        }
    }

    pub(super) fn recognise(
        &self,
        stream: &Stream,
        direction: Direction,
        piece: &Piece<'_>,
        recognition: &Recognition<'_>,
    ) -> Option<(usize, Role)> {
        if piece.payload.is_empty() {
            return None;
        }
        let joined: Vec<u8>;
        let payload = if stream.kept().is_empty() {
            piece.payload
        } else {
            joined = [stream.kept(), piece.payload].concat();
            &joined
        };
        let server = self.likely_server(recognition.listens);
        let certain = self.connected || recognition.listens;
        let port = if certain || server.port < EPHEMERAL { server.port } else { 0 };
        let remembered =
            recognition.endpoints.get(self.protocol, server, piece.origin.time_us).and_then(|known| known.l7);
        let order = remembered.into_iter().chain((0..REGISTRY.len()).filter(|place| Some(*place) != remembered));
        for place in order {
            let protocol = &REGISTRY[place];
            if !protocol.transports.contains(&self.protocol) {
                continue;
            }
            let local = match (protocol.check)(payload, port) {
                Guess::Yes(writer) if direction == Direction::Egress => Some(writer),
                Guess::Yes(writer) => Some(other(writer)),
                Guess::Either if certain || server.port < EPHEMERAL => Some(self.role_beside(server)),
                Guess::Either => Some(self.role_in(place, direction, piece.origin.time_us, recognition)),
                Guess::No | Guess::Maybe => None,
            };
            if let Some(local) = local {
                let contradicts = (self.connected && local == Role::Server)
                    || (!self.connected && recognition.listens && self.protocol == 6 && local == Role::Client);
                if !contradicts {
                    return Some((place, local));
                }
            }
        }
        None
    }

    fn maybe(&self, payload: &[u8], server: Endpoint) -> bool {
        REGISTRY
            .iter()
            .filter(|protocol| protocol.transports.contains(&self.protocol))
            .any(|protocol| (protocol.check)(payload, server.port) == Guess::Maybe)
    }

    pub(super) fn undecided(
        &mut self,
        stream: &mut Stream,
        tries: u32,
        piece: &Piece<'_>,
        recognition: &mut Recognition<'_>,
    ) -> Verdict {
        if piece.payload.is_empty() {
            // Bytes without payload: what was kept cannot be completed.
            stream.clear();
            return Verdict::Goes;
        }
        let server = self.likely_server(recognition.listens);
        let whole = piece.length == piece.payload.len() as u64;
        if whole && self.protocol == 6 && stream.kept().len() + piece.payload.len() <= MAX_UNDECIDED {
            stream.keep(piece);
            if self.maybe(stream.kept(), server) {
                return Verdict::Goes;
            }
        }
        stream.clear();
        let now_us = piece.origin.time_us;
        let failures = recognition.endpoints.get(self.protocol, server, now_us).map_or(0, |known| known.failures);
        let bound = if failures >= FOREIGN_AFTER { MAX_TRIES_FOREIGN } else { MAX_TRIES };
        if tries + 1 < bound {
            self.state = State::Undecided { tries: tries + 1 };
            return Verdict::Goes;
        }
        recognition.endpoints.note(self.protocol, server, None, now_us);
        self.give_up();
        self.streams = [Stream::default(), Stream::default()];
        Verdict::GaveUp
    }

    pub(super) fn decide(&mut self, l7_index: usize, local_role: Role, now_us: u64, recognition: &mut Recognition<'_>) {
        let server = if is_client(local_role) { self.remote } else { self.local };
        recognition.endpoints.note(self.protocol, server, Some(l7_index), now_us);
        self.speak(l7_index, local_role, recognition);
    }

    /// From here on the connection speaks this protocol.
    pub(super) fn speak(&mut self, l7_index: usize, local_role: Role, recognition: &Recognition<'_>) {
        let l7 = &REGISTRY[l7_index];
        let (client, server) =
            if is_client(local_role) { (self.local, self.remote) } else { (self.remote, self.local) };
        let source = match self.source {
            Source::Packet(place) if !is_client(local_role) => Source::Packet(place.mirrored()),
            source => source,
        };
        let flow = Flow {
            id: self.key.flow_id(),
            source,
            protocol: self.protocol,
            netns: self.netns,
            client,
            server,
            local_role,
            l7,
            l7_index,
            direction_score: if self.connected { 255 } else { 254 },
            processes: [OnceCell::new(), OnceCell::new()],
            domain: OnceCell::new(),
        };
        let mut parser = (l7.parser)(recognition.settings);
        parser.transport(self.protocol);
        self.flow = Some(Rc::new(flow));
        self.state = State::Parsed(Parsed { local_role, parser, senseless: 0, datagrams: self.protocol != 6 });
    }
}
