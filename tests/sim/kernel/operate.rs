//! What the relay asks: carried out, and held against the contract.

use std::net::Shutdown;

use ringway::op::{ConnId, Group, InFlight, Lease, Op, Piece};

use super::{Connect, Event, Kernel, Receive, Sending, Socket, Wire, bytes_of, name};

impl Kernel {
    pub fn operate(&mut self, op: Op) {
        self.activity += 1;
        if self.trace {
            println!("      -> {}", show(&op));
        }
        match op {
            Op::Accept { listener } => {
                let listener = &mut self.listeners[usize::from(listener)];
                assert!(!listener.busy && !listener.closed, "accept is armed already, or the listener is closed");
                (listener.armed, listener.busy, listener.stopping) = (true, true, false);
            }
            Op::StopAccept { listener } => {
                // Like a cancel, it may come when accept has just ended by itself.
                let listener = &mut self.listeners[usize::from(listener)];
                listener.stopping = listener.busy;
            }
            Op::CloseListener { listener } => {
                let listener = &mut self.listeners[usize::from(listener)];
                assert!(!listener.busy && !listener.closed, "a listener closed twice, or while it accepts");
                listener.closed = true;
                // Those who have not been accepted are reset.
                for wire in std::mem::take(&mut listener.backlog) {
                    self.wires[wire].turned_away = true;
                    self.close_wire(wire);
                }
            }
            Op::Adopt { conn, socket } => self.open(conn, socket.token() as usize, None),
            Op::Refuse { socket } => self.close_wire(socket.token() as usize),
            Op::Connect { conn, address } => {
                let port = address.as_socket().expect("backends have ports here").port();
                let hangs = self.dice.chance(self.temper.connect_hangs);
                let connect = Connect { port, hangs, cancelled: false };
                self.log.push((conn, Some(port)));
                self.wires.push(Wire::default());
                self.open(conn, self.wires.len() - 1, Some(connect));
            }
            Op::Receive { conn, group, credit } => self.receive(conn, group, credit),
            Op::Send { conn, pieces } => self.send(conn, pieces),
            Op::Copy { conn, pieces } => self.copy(conn, pieces),
            Op::Cancel { conn, what } => self.cancel(conn, what),
            Op::Shutdown { conn, how } => self.shutdown(conn, how),
            Op::Abort { .. } => {}
            Op::Close { conn } => self.close(conn),
            Op::Release { conn } => panic!("{conn:?} is given away"),
            Op::Recycle { lease } => self.recycle(lease),
        }
    }

    fn open(&mut self, conn: ConnId, wire: usize, connect: Option<Connect>) {
        let index = conn.index();
        while self.sockets.len() <= index {
            self.sockets.push(None);
        }
        assert!(self.sockets[index].is_none(), "{conn:?} has a socket already");
        self.sockets[index] = Some(Socket {
            conn,
            wire,
            connect_busy: connect.is_some(),
            connect,
            receive: None,
            send: None,
            receive_busy: false,
            send_busy: false,
            shut_read: false,
            shut_write: false,
            unheard: 0,
        });
    }

    fn receive(&mut self, conn: ConnId, group: Group, credit: u32) {
        let socket = self.socket(conn);
        assert!(!socket.connect_busy, "{conn:?} receives before it is connected");
        assert!(!socket.receive_busy, "{conn:?} has two receives in flight");
        assert!(credit > 0, "{conn:?} receives without credit");
        socket.receive_busy = true;
        let bulk = group == Group::BULK;
        socket.receive = Some(Receive { bulk, credit: credit as usize, cancelled: false, late: 0 });
    }

    fn send(&mut self, conn: ConnId, pieces: Vec<Piece>) {
        let socket = self.socket(conn);
        assert!(!socket.connect_busy, "{conn:?} sends before it is connected");
        assert!(!socket.send_busy, "{conn:?} has two sends in flight");
        let total = pieces.iter().map(Piece::len).sum();
        assert!(total > 0, "{conn:?} sends nothing");
        assert!(pieces.iter().all(|piece| !piece.is_empty()), "{conn:?} sends an empty piece");
        socket.send_busy = true;
        socket.send = Some(Sending { pieces, total, done: 0, cancelled: false });
    }

    fn copy(&mut self, conn: ConnId, pieces: Vec<Piece>) {
        let bytes = pieces.iter().flat_map(|piece| bytes_of(&self.pools, piece)).copied().collect();
        let socket = self.socket(conn);
        assert!(!socket.send_busy, "{conn:?} copies while it sends");
        assert!(pieces.iter().any(|piece| matches!(piece, Piece::Lease(_))), "{conn:?} copies what lies in no buffer");
        socket.send_busy = true;
        self.post(Event::Copied { conn, bytes, pieces });
    }

    fn cancel(&mut self, conn: ConnId, what: InFlight) {
        let socket = self.socket(conn);
        match what {
            InFlight::Connect => socket.connect.iter_mut().for_each(|connect| connect.cancelled = true),
            InFlight::Receive => socket.receive.iter_mut().for_each(|receive| receive.cancelled = true),
            InFlight::Send => socket.send.iter_mut().for_each(|send| send.cancelled = true),
        }
    }

    fn shutdown(&mut self, conn: ConnId, how: Shutdown) {
        let socket = self.socket(conn);
        assert!(how != Shutdown::Write || !socket.send_busy, "{conn:?} is shut down before its send");
        assert!(!socket.connect_busy, "{conn:?} is shut down before it is connected");
        let wire = socket.wire;
        socket.shut_read |= how != Shutdown::Write;
        if how != Shutdown::Read {
            socket.shut_write = true;
            self.wires[wire].relay_fin = true;
        }
    }

    fn close(&mut self, conn: ConnId) {
        let socket = self.socket(conn);
        let busy = socket.connect_busy || socket.receive_busy || socket.send_busy;
        assert!(!busy, "{} is closed with something in flight", name(conn));
        assert_eq!(socket.unheard, 0);
        let wire = socket.wire;
        self.sockets[conn.index()] = None;
        self.log.push((conn, None));
        self.close_wire(wire);
    }

    fn close_wire(&mut self, wire: usize) {
        let wire = &mut self.wires[wire];
        assert!(!wire.relay_closed, "a socket is closed once");
        wire.relay_closed = true;
        wire.relay_fin = true;
        // "If there is unread data, RST is sent" (RFC 2525, 2.17): what the peer has not read yet may be lost.
        wire.relay_reset = wire.to_relay.unread() > 0;
    }

    fn recycle(&mut self, lease: Lease) {
        let (wire, len) = self.pools[lease.group().index()].reclaim(lease);
        self.wires[wire].held -= len;
        self.lent -= 1;
        self.starving = 0;
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
