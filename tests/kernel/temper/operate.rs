//! What the relay asks: carried out, with what follows for the wires.

use ringway::op::{ConnId, Op, Piece};

use super::{Event, Tempered, Underway, Wire, name};
use crate::kernel::Effect;

impl Tempered {
    pub fn operate(&mut self, op: Op) {
        self.activity += 1;
        if self.trace {
            println!("      -> {}", show(&op));
        }
        match self.kernel.perform(op) {
            Effect::None => {}
            Effect::Moved(conn) => self.moved(conn),
            Effect::Opened(conn) => self.opened(conn),
            Effect::Closed(socket) => {
                let underway = self.underway[socket.conn.index()].take().expect("it was open");
                assert_eq!(underway.unheard, 0);
                self.log.push((socket.conn, None));
                self.close_wire(underway.wire);
            }
            Effect::Refused(wire) => self.close_wire(wire as usize),
            Effect::Released(conn) => panic!("{conn:?} is given away, which nothing asks for"),
            // Those who have not been accepted are reset.
            Effect::ListenerClosed(listener) => {
                for wire in std::mem::take(&mut self.listeners[usize::from(listener)].backlog) {
                    self.wires[wire].turned_away = true;
                    self.close_wire(wire);
                }
            }
            Effect::Recycled(group, buffer) => {
                let owner = self.owners[group.index()][usize::from(buffer)].take();
                let (wire, len) = owner.expect("a buffer that is lent is somebody's");
                self.wires[wire].held -= len;
                self.starving = 0;
            }
        }
    }

    fn opened(&mut self, conn: ConnId) {
        let socket = self.kernel.get(conn).expect("just opened");
        let underway = match &socket.connect {
            None => Underway { wire: socket.token as usize, ..Underway::default() },
            Some(connect) => {
                let port = connect.address.expect("backends have ports here").port();
                self.log.push((conn, Some(port)));
                self.wires.push(Wire::default());
                let hangs = self.dice.chance(self.temper.connect_hangs);
                Underway { wire: self.wires.len() - 1, hangs, ..Underway::default() }
            }
        };
        self.underway.resize_with(self.kernel.sockets.len(), || None);
        self.underway[conn.index()] = Some(underway);
    }

    fn moved(&mut self, conn: ConnId) {
        let socket = self.kernel.get(conn).expect("just asked something");
        let (is_shut, copies) = (socket.shut_write, socket.send.as_ref().is_some_and(|send| send.copies));
        let underway = self.underway(conn);
        let wire = underway.wire;
        if copies && !std::mem::replace(&mut underway.send_ended, true) {
            self.post(Event::Copied { conn });
        }
        self.wires[wire].relay_fin |= is_shut;
    }

    fn close_wire(&mut self, wire: usize) {
        let wire = &mut self.wires[wire];
        assert!(!wire.relay_closed, "a socket is closed once");
        wire.relay_closed = true;
        wire.relay_fin = true;
        // "If there is unread data, RST is sent" (RFC 2525, 2.17): what the peer has not read yet may be lost.
        wire.relay_reset = wire.to_relay.unread() > 0;
    }
}

fn show(op: &Op) -> String {
    match op {
        Op::Receive { conn, group, credit } => format!("{} receive {credit} into {group:?}", name(*conn)),
        Op::Send { conn, pieces } => {
            let lens: Vec<usize> = pieces.iter().map(Piece::len).collect();
            format!("{} send {lens:?}", name(*conn))
        }
        Op::Copy { conn, pieces } => format!("{} copy {} pieces", name(*conn), pieces.len()),
        Op::Cancel { conn, what } => format!("{} cancel {what:?}", name(*conn)),
        Op::Shutdown { conn, how } => format!("{} shutdown {how:?}", name(*conn)),
        Op::Abort { conn } => format!("{} abort", name(*conn)),
        Op::Close { conn } => format!("{} close", name(*conn)),
        Op::Adopt { conn, socket } => format!("{} adopt wire {}", name(*conn), socket.token()),
        Op::Connect { conn, address } => format!("{} connect {:?}", name(*conn), address.as_socket()),
        op => format!("{op:?}"),
    }
}
