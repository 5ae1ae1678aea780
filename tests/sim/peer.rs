//! Clients and backends: some keep to the rules, some do not.

use std::collections::VecDeque;

use ringway::op::Side;

use crate::plain;
use crate::script::{self, Act, Answer, Ask};
use crate::temper::Dice;
use crate::temper::Wire;

pub struct Peer {
    pub side: Side,
    script: VecDeque<Act>,
    current: Vec<u8>,
    at: usize,
    reads: Reads,
    /// How much the kernels between hold that the relay has not read.
    room: usize,
    /// Keeps to the protocol, reads, and ends in order.
    pub well_behaved: bool,
    /// The head that it sends offers, or agrees to, permessage-deflate.
    pub deflate: bool,
    /// Where in what it sends frames begin, or the body.
    pub frames_from: Option<usize>,
    /// A client's: what of the body of its plain request may pass.
    pub body: Vec<u8>,
    /// It asks for, or is asked for, plain HTTP.
    pub plain: bool,
    /// Where a backend's last answer ends its head.
    pub answered_from: Option<usize>,
    /// Where the 101 ends that is right for the request.
    pub right_answer: Option<usize>,
    close_written: bool,
    /// Nothing more will be written.
    pub finished: bool,
}

#[derive(Clone, Copy)]
enum Reads {
    Eagerly,
    Slowly(usize),
    Never,
}

/// What the peer knows from what it has read.
pub struct View {
    pub head: bool,
    /// A 100, or the head.
    pub continued: bool,
    /// How much behind the head.
    pub body: usize,
    pub status: u16,
    /// The head is a backend's, of an answer other than 101.
    pub is_page: bool,
    pub close: bool,
}

impl Peer {
    pub fn client(ask: &Ask, gentle: bool, deflate: bool, dice: &mut Dice) -> Self {
        let good = gentle || dice.chance(500);
        let (script, body) = script::client(ask, good, gentle, deflate, dice);
        Peer { body, plain: ask.plain, deflate, ..Peer::new(Side::Client, script, good, dice) }
    }

    /// Of a client: what it needs to know is whether that has asked for plain HTTP, and with what body.
    pub fn backend(client: &Peer, gentle: bool, deflate: bool, dice: &mut Dice) -> Self {
        let good = gentle || dice.chance(500);
        let script = match client.plain {
            true => plain::backend(client.body.len(), good, gentle, dice),
            false => script::backend(good, deflate, dice),
        };
        Peer { plain: client.plain, deflate, ..Peer::new(Side::Backend, script, good, dice) }
    }

    fn new(side: Side, script: VecDeque<Act>, well_behaved: bool, dice: &mut Dice) -> Self {
        let reads = match dice.below(10) {
            0 if !well_behaved => Reads::Never,
            0..=2 => Reads::Slowly(dice.within(20..=500)),
            _ => Reads::Eagerly,
        };
        Peer {
            side,
            script,
            current: Vec::new(),
            at: 0,
            reads,
            room: dice.pick(&[1000, 10_000, 100_000]),
            well_behaved,
            deflate: false,
            frames_from: None,
            body: Vec::new(),
            plain: false,
            answered_from: None,
            right_answer: None,
            close_written: false,
            finished: false,
        }
    }

    /// Gives up, in one way or another, whatever it was about.
    pub fn leave(&mut self, dice: &mut Dice) {
        if self.finished {
            return;
        }
        self.script.clear();
        self.current.truncate(self.at);
        self.script.push_back(if dice.chance(500) { Act::Fin } else { Act::Reset });
        self.well_behaved = false;
        if dice.chance(500) {
            self.reads = Reads::Eagerly;
        }
    }

    /// Reads and writes a little. Returns whether anything happened.
    pub fn act(&mut self, wire: &mut Wire, view: &View, dice: &mut Dice) -> bool {
        let read = self.read(wire, dice);
        if self.finished {
            return read;
        }
        if wire.relay_closed && wire.to_peer.unread() == 0 {
            (self.finished, wire.peer_fin) = (true, true);
            return true;
        }
        if self.at < self.current.len() {
            return self.write(wire, dice) || read;
        }
        if self.well_behaved {
            self.keep_to_the_rules(wire, view);
        }
        self.next_act(wire, view, dice) || read
    }

    fn read(&mut self, wire: &mut Wire, dice: &mut Dice) -> bool {
        let unread = wire.to_peer.unread();
        if wire.relay_reset {
            wire.to_peer.read = wire.to_peer.bytes.len();
        }
        let wanted = match self.reads {
            Reads::Eagerly => unread,
            Reads::Slowly(most) => dice.within(0..=most).min(unread),
            Reads::Never => 0,
        };
        wire.to_peer.read = (wire.to_peer.read + wanted).min(wire.to_peer.bytes.len());
        unread > 0 && !matches!(self.reads, Reads::Never)
    }

    fn write(&mut self, wire: &mut Wire, dice: &mut Dice) -> bool {
        let room = self.room.saturating_sub(wire.to_relay.unread()).min(self.current.len() - self.at);
        if room == 0 {
            return false;
        }
        let len = if dice.chance(600) { room } else { dice.within(1..=room) };
        wire.to_relay.bytes.extend_from_slice(&self.current[self.at..self.at + len]);
        self.at += len;
        true
    }

    /// A Close is answered, and the connection ended in the order of RFC 6455, 7.1.1.
    fn keep_to_the_rules(&mut self, wire: &Wire, view: &View) {
        let refused = self.side == Side::Client && view.head && view.status != 101;
        let ended = wire.relay_fin && wire.to_peer.unread() == 0;
        let server_done = self.side == Side::Backend && self.close_written && view.close;
        let asked_plainly = self.plain && self.side == Side::Client;
        if ended || server_done {
            self.script.clear();
            self.script.push_back(Act::Fin);
        } else if refused && !(asked_plainly && view.is_page) {
            self.script.clear();
        } else if view.close && !self.close_written {
            self.script.clear();
            self.script.push_back(Act::Close(script::close_frame(self.side, 1000)));
        }
    }

    fn next_act(&mut self, wire: &mut Wire, view: &View, dice: &mut Dice) -> bool {
        let Some(act) = self.script.pop_front() else { return false };
        match act {
            Act::Head(bytes) => {
                self.frames_from = Some(wire.to_relay.bytes.len() + bytes.len());
                self.begin(bytes);
            }
            Act::Write(bytes) => self.begin(bytes),
            Act::Close(frame) => {
                self.close_written = true;
                self.begin(frame);
            }
            Act::AwaitHead if view.head => {}
            Act::AwaitClose if view.close => {}
            Act::AwaitContinue if view.continued => {}
            Act::AwaitBody(length) if view.body >= length => {}
            Act::AwaitHead | Act::AwaitClose | Act::AwaitContinue | Act::AwaitBody(_) => {
                self.script.push_front(act);
                return false;
            }
            Act::Wait(0) => {}
            Act::Wait(steps) => self.script.push_front(Act::Wait(steps - 1)),
            Act::Fin => (self.finished, wire.peer_fin) = (true, true),
            Act::Reset => {
                (self.finished, wire.peer_reset) = (true, true);
                self.reads = Reads::Never;
            }
            Act::Answer(answer) => self.answer(answer, wire, dice),
        }
        true
    }

    fn begin(&mut self, bytes: Vec<u8>) {
        (self.current, self.at) = (bytes, 0);
    }

    fn answer(&mut self, answer: Answer, wire: &Wire, dice: &mut Dice) {
        let request = &wire.to_peer.bytes[..wire.to_peer.read];
        self.deflate &= answer == Answer::Right && script::offers_deflate(request);
        let bytes = script::response(answer, request, self.deflate, dice);
        if answer != Answer::Informational {
            let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
            self.answered_from = head.map(|end| wire.to_relay.bytes.len() + end);
        }
        if answer == Answer::Right && script::has_key(request) {
            let end = wire.to_relay.bytes.len() + bytes.len();
            (self.right_answer, self.frames_from) = (Some(end), Some(end));
        }
        self.begin(bytes);
    }
}
