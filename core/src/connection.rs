//! A connection: which protocol it speaks, who is the client, and the state of both directions.

mod recognition;

use std::cell::OnceCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use crate::causality::Memory;
use crate::event::{Direction, Endpoint, Segment, Source};
use crate::peers::Process;
use crate::protocols::{Late, Message, Parser, Protocol, REGISTRY, Role, Told};
use crate::session::{Ticket, Waiting};
use crate::stream::{Piece, Report, Seen, Stream, Switched};
pub use recognition::Recognition;

/// Payloads in a row without sense that end the trust in a guess.
const MAX_SENSELESS: u32 = 16;

/// Identity of a connection. A UDP socket may talk to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub socket: u64,
    pub remote: Option<Endpoint>,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Without a mark of whether there is a remote end: most have none, and equality tells them apart.
        self.socket.hash(state);
        if let Some(remote) = &self.remote {
            remote.hash(state);
        }
    }
}

impl Key {
    pub fn of(segment: &Segment<'_>) -> Self {
        // A flow of packets has one number for its tuple; a UDP socket is one for all it talks to.
        let remote = (segment.protocol == 17 && !segment.source.is_packet()).then_some(segment.remote);
        Self { socket: segment.socket, remote }
    }

    /// One number for the connection.
    fn flow_id(&self) -> u64 {
        match self.remote {
            None => self.socket,
            Some(remote) => {
                use std::hash::BuildHasher;
                rustc_hash::FxBuildHasher.hash_one((self.socket, remote))
            }
        }
    }
}

pub fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

pub fn is_client(role: Role) -> bool {
    role == Role::Client
}

/// What is fixed once the protocol is known; rows and meters hold on to it.
#[derive(Debug)]
pub struct Flow {
    pub id: u64,
    pub source: Source,
    pub protocol: u8,
    pub netns: u32,
    pub client: Endpoint,
    pub server: Endpoint,
    pub local_role: Role,
    pub l7: &'static Protocol,
    /// Place of `l7` in the registry.
    pub l7_index: usize,
    pub direction_score: u8,
    /// Processes of client and server, once they were found.
    pub processes: [OnceCell<Process>; 2],
    /// First name the client asked for (host, SNI).
    pub domain: OnceCell<Box<str>>,
}

impl Flow {
    /// Near and far end, seen from the process that was observed.
    pub fn ends(&self) -> (Endpoint, Endpoint) {
        if is_client(self.local_role) { (self.client, self.server) } else { (self.server, self.client) }
    }
}

impl Flow {
    /// Number of the protocol of a message of this connection.
    pub fn l7_protocol(&self, message: &Message) -> u8 {
        if message.l7_protocol == 0 { self.l7.id } else { message.l7_protocol }
    }
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// How far the recognition of the protocol is.
pub enum State {
    Undecided { tries: u32 },
    Parsed(Parsed),
    GivenUp,
}

/// A connection whose protocol is known.
pub struct Parsed {
    local_role: Role,
    parser: Box<dyn Parser>,
    /// Payloads in a row that made no sense.
    senseless: u32,
    datagrams: bool,
}

impl Parsed {
    /// Walks the parser along the bytes of one direction. True when they, and too many before them, made no sense.
    #[inline]
    fn feed(
        &mut self,
        stream: &mut Stream,
        direction: Direction,
        piece: &Piece<'_>,
        seen: &mut Vec<Seen>,
        report: &mut Report,
    ) -> bool {
        let role = if direction == Direction::Egress { self.local_role } else { other(self.local_role) };
        let (before, invalid) = (seen.len(), report.invalid);
        stream.feed(self.parser.as_mut(), (role, direction), piece, self.datagrams, seen, report);
        if seen.len() > before {
            self.senseless = 0;
        } else if report.invalid > invalid {
            self.senseless += 1;
            return self.senseless >= MAX_SENSELESS;
        }
        false
    }
}

pub struct Connection {
    pub key: Key,
    pub source: Source,
    pub protocol: u8,
    pub local: Endpoint,
    pub remote: Endpoint,
    pub netns: u32,
    pub state: State,
    /// While the state is `Parsed`; taken out for as long as messages are settled.
    pub flow: Option<Rc<Flow>>,
    /// The local side was seen to connect.
    pub connected: bool,
    pub waiting: Waiting,
    pub memory: Memory,
    /// Messages seen so far.
    pub messages: u32,
    pub last_us: u64,
    /// Process that used the socket last.
    pub owner: u32,
    streams: [Stream; 2],
}

/// Result of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Goes,
    /// The protocol was recognised in this segment.
    Decided,
    /// Nobody knows the protocol: let the source be quiet about it.
    GaveUp,
    /// The protocol is known, but nothing more can be read (encryption): let the source be quiet about it.
    Done,
}

fn index(direction: Direction) -> usize {
    usize::from(direction == Direction::Ingress)
}

fn opposite(direction: Direction) -> Direction {
    if direction == Direction::Egress { Direction::Ingress } else { Direction::Egress }
}

impl Connection {
    pub fn new(key: Key, source: Source, protocol: u8, local: Endpoint, remote: Endpoint, netns: u32) -> Self {
        Self {
            key,
            source,
            protocol,
            local,
            remote,
            netns,
            state: State::Undecided { tries: 0 },
            flow: None,
            connected: false,
            waiting: Waiting::default(),
            memory: Memory::default(),
            messages: 0,
            last_us: 0,
            owner: 0,
            streams: [Stream::default(), Stream::default()],
        }
    }

    /// Time since which packets wait for earlier ones, µs.
    pub fn waits_since(&self) -> Option<u64> {
        self.streams.iter().filter_map(Stream::waits_since).min()
    }

    /// What is spoken here, when the ticket is of this connection, which has none afterwards.
    pub fn redeem(&mut self, ticket: &Ticket) -> Option<Rc<Flow>> {
        let valid = self.waiting.redeem(ticket);
        self.flow.clone().filter(|_| valid)
    }

    fn give_up(&mut self) {
        self.flow = None;
        self.state = State::GivenUp;
    }

    /// Takes the bytes of one direction; messages go to `seen`.
    pub fn take(
        &mut self,
        direction: Direction,
        piece: &Piece<'_>,
        recognition: &mut Recognition<'_>,
        seen: &mut Vec<Seen>,
        report: &mut Report,
    ) -> Verdict {
        let stream = &mut self.streams[index(direction)];
        if let State::Parsed(parsed) = &mut self.state
            && !parsed.parser.is_done()
            && stream.is_next(piece)
        {
            // Most pieces: nothing to recognise or to put in order, so nothing is moved to and fro.
            if parsed.feed(stream, direction, piece, seen, report) && self.waiting.is_empty() {
                stream.clear();
                self.give_up();
                return Verdict::GaveUp;
            }
            return Verdict::Goes;
        }
        let wait = self.source.is_packet();
        let mut verdict = Verdict::Goes;
        // The stream orders its bytes while the connection parses them; it is put back afterwards.
        let mut stream = std::mem::take(&mut self.streams[index(direction)]);
        stream.order(*piece, wait, report, &mut |stream, piece, report| {
            let result = self.bytes(stream, direction, piece, recognition, seen, report);
            if result != Verdict::Goes {
                verdict = result;
            }
        });
        self.streams[index(direction)] = stream;
        verdict
    }

    /// The parser said that another protocol begins with the bytes it left: recognises that one.
    pub fn switch(
        &mut self,
        Switched { direction, to }: Switched,
        recognition: &mut Recognition<'_>,
        seen: &mut Vec<Seen>,
        report: &mut Report,
    ) -> Verdict {
        let mut stream = std::mem::take(&mut self.streams[index(direction)]);
        let (origin, bytes) = stream.give_back();
        self.streams[index(opposite(direction))].clear();
        self.flow = None;
        let before = std::mem::replace(&mut self.state, State::Undecided { tries: 0 });
        let place = to.and_then(|id| REGISTRY.iter().position(|protocol| protocol.id == id));
        if let (Some(place), State::Parsed(Parsed { local_role, mut parser, .. })) = (place, before) {
            self.speak(place, local_role, recognition);
            if let (State::Parsed(next), Some(successor)) = (&mut self.state, parser.successor()) {
                next.parser = successor;
            }
        }
        let piece = Piece { origin, length: bytes.len() as u64, payload: &bytes };
        let mut verdict = self.bytes(&mut stream, direction, &piece, recognition, seen, report);
        if report.switched.is_some() {
            stream.clear();
            self.give_up();
            verdict = Verdict::GaveUp;
        }
        self.streams[index(direction)] = stream;
        verdict
    }

    /// Messages that the parser held back, of which nothing more will be known; the direction of the last.
    pub fn finish(&mut self, seen: &mut Vec<Seen>) -> Option<Direction> {
        let State::Parsed(Parsed { local_role, parser, .. }) = &mut self.state else {
            return None;
        };
        let mut last = None;
        while let Some((role, message)) = parser.finish() {
            let direction = if role == *local_role { Direction::Egress } else { Direction::Ingress };
            let origin = message.began.unwrap_or_default();
            seen.push(Seen { message: Told::Own(message), direction, origin, captured: 0 });
            last = Some(direction);
        }
        last
    }

    /// What the parser knows of a request whose time is over.
    pub fn late(&mut self, request: &Message) -> Late {
        match &mut self.state {
            State::Parsed(parsed) => parsed.parser.late(request.pairing_key()),
            _ => Late::Unanswered,
        }
    }

    /// Gives up waiting for packets that did not come.
    pub fn release(&mut self, recognition: &mut Recognition<'_>, seen: &mut Vec<Seen>, report: &mut Report) -> Verdict {
        let mut verdict = Verdict::Goes;
        let mut directions = [Direction::Egress, Direction::Ingress];
        directions.sort_by_key(|direction| self.streams[index(*direction)].waits_since().unwrap_or(u64::MAX));
        for direction in directions {
            let mut stream = std::mem::take(&mut self.streams[index(direction)]);
            while stream.waits() {
                stream.release(report, &mut |stream, piece, report| {
                    let result = self.bytes(stream, direction, piece, recognition, seen, report);
                    if result != Verdict::Goes {
                        verdict = result;
                    }
                });
            }
            self.streams[index(direction)] = stream;
        }
        verdict
    }

    fn bytes(
        &mut self,
        stream: &mut Stream,
        direction: Direction,
        piece: &Piece<'_>,
        recognition: &mut Recognition<'_>,
        seen: &mut Vec<Seen>,
        report: &mut Report,
    ) -> Verdict {
        let mut verdict = Verdict::Goes;
        if let State::Undecided { tries } = self.state {
            match self.recognise(stream, direction, piece, recognition) {
                Some((l7_index, local_role)) => {
                    self.decide(l7_index, local_role, piece.origin.time_us, recognition);
                    verdict = Verdict::Decided;
                    self.parse_kept(opposite(direction), seen, report);
                }
                None => return self.undecided(stream, tries, piece, recognition),
            }
        }
        let State::Parsed(parsed) = &mut self.state else {
            return verdict;
        };
        if parsed.parser.is_done() && self.waiting.is_empty() {
            self.give_up();
            return Verdict::Done;
        }
        if parsed.feed(stream, direction, piece, seen, report) && self.waiting.is_empty() {
            stream.clear();
            self.give_up();
            return Verdict::GaveUp;
        }
        verdict
    }

    /// Bytes of the other direction that were kept while nobody knew whose they were.
    fn parse_kept(&mut self, direction: Direction, seen: &mut Vec<Seen>, report: &mut Report) {
        let stream = &mut self.streams[index(direction)];
        if let State::Parsed(parsed) = &mut self.state
            && !stream.kept().is_empty()
        {
            let nothing = Piece { origin: Default::default(), length: 0, payload: &[] };
            parsed.feed(stream, direction, &nothing, seen, report);
            parsed.senseless = 0; // written for nobody yet
        }
    }
}
