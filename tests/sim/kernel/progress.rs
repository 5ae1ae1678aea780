//! What happens by itself: operations get on, or do not.

use ringway::op::ConnId;

use super::{End, Event, Kernel, LATE_MAX, UNHEARD_MAX, bytes_of};

impl Kernel {
    /// Lets every socket with something to do get on with it, if the dice agree.
    pub fn progress(&mut self) {
        for listener in 0..self.listeners.len() {
            if self.dice.chance(self.temper.progress) {
                self.progress_accept(listener);
            }
        }
        let count = self.sockets.len();
        let first = if count > 0 { self.dice.below(count) } else { 0 };
        for at in 0..count {
            let index = (first + at) % count;
            for progress in [Self::progress_connect, Self::progress_receive, Self::progress_send] {
                if self.sockets[index].is_some() && self.dice.chance(self.temper.progress) {
                    progress(self, index);
                }
            }
        }
    }

    fn progress_accept(&mut self, at: usize) {
        let fails = self.dice.chance(self.temper.accept_fails);
        let accepts_first = self.dice.chance(self.temper.cancel_loses);
        let listener = &mut self.listeners[at];
        if !listener.armed {
            return;
        }
        if listener.stopping && !accepts_first {
            listener.armed = false;
            self.post(Event::AcceptEnded { listener: at as u16, error: None });
        } else if fails && !listener.backlog.is_empty() {
            listener.armed = false;
            let error = self.dice.pick(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]);
            self.post(Event::AcceptEnded { listener: at as u16, error: Some(error) });
        } else if !listener.backlog.is_empty() {
            let wire = listener.backlog.remove(0);
            self.post(Event::Accepted { listener: at as u16, wire });
        }
    }

    fn progress_connect(&mut self, index: usize) {
        let Some(socket) = &mut self.sockets[index] else { return };
        let Some(connect) = &socket.connect else { return };
        let conn = socket.conn;
        let (cancelled, port) = (connect.cancelled, connect.port);
        let result = if cancelled && !self.dice.chance(self.temper.cancel_loses) {
            Err(libc::ECANCELED)
        } else if connect.hangs && !cancelled {
            return;
        } else if self.dice.chance(self.temper.connect_fails) {
            let lacks = [libc::EADDRNOTAVAIL, libc::EMFILE, libc::ENOBUFS, libc::ENOMEM];
            let fails = [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ECONNREFUSED];
            let errors = if self.dice.chance(500) { lacks } else { fails };
            Err(self.dice.pick(&errors))
        } else {
            Ok(())
        };
        let socket = self.socket(conn);
        socket.connect = None;
        if result.is_ok() {
            let wire = socket.wire;
            self.links.push((conn, wire, port));
        }
        self.post(Event::Connected { conn, result });
    }

    fn progress_receive(&mut self, index: usize) {
        let Some(socket) = &self.sockets[index] else { return };
        let Some(receive) = &socket.receive else { return };
        let (conn, bulk, cancelled) = (socket.conn, receive.bulk, receive.cancelled);
        let wire = &self.wires[socket.wire];
        let unread = wire.to_relay.unread();
        let (fin, reset, shut) = (wire.peer_fin, wire.peer_reset, socket.shut_read);
        let skips_data = (reset || shut) && self.dice.chance(500);
        if cancelled && (receive.late == LATE_MAX || !self.dice.chance(self.temper.cancel_loses)) {
            return self.end_receive(conn, End::Cancelled);
        }
        let empty = self.pools[usize::from(bulk)].is_empty();
        if empty || self.dice.chance(self.temper.spurious_no_buffers) {
            self.starving += usize::from(empty);
            return self.end_receive(conn, End::NoBuffers);
        }
        if unread > 0 && !skips_data {
            self.receive_bytes(conn);
        } else if reset {
            self.end_receive(conn, End::Failed(libc::ECONNRESET));
        } else if fin || shut {
            self.end_receive(conn, End::Eof);
        }
    }

    fn end_receive(&mut self, conn: ConnId, why: End) {
        self.socket(conn).receive = None;
        self.post(Event::ReceiveEnded { conn, why });
    }

    fn receive_bytes(&mut self, conn: ConnId) {
        let whole = self.dice.chance(self.temper.whole_receive);
        let ends = self.dice.chance(self.temper.receive_ends);
        let counts_credit = self.temper.credit;
        let socket = self.socket(conn);
        if socket.unheard == UNHEARD_MAX {
            return;
        }
        socket.unheard += 1;
        let wire = socket.wire;
        let receive = socket.receive.as_mut().expect("asked only if one is armed");
        let bulk = receive.bulk;
        let before = receive.credit;
        let most = self.pools[usize::from(bulk)].size().min(self.wires[wire].to_relay.unread());
        let len = if whole { most } else { self.dice.within(1..=most) };
        let stream = &mut self.wires[wire].to_relay;
        let lease = self.pools[usize::from(bulk)].lend(&stream.bytes[stream.read..stream.read + len], wire);
        stream.read += len;
        self.starving = 0;
        let more = !(ends || counts_credit && before <= len);
        let socket = self.socket(conn);
        match &mut socket.receive {
            Some(receive) if more => {
                receive.credit = before.saturating_sub(len);
                receive.late += usize::from(receive.cancelled);
            }
            receive => *receive = None,
        }
        self.post(Event::Received { conn, lease, more });
    }

    fn progress_send(&mut self, index: usize) {
        let Some(socket) = &self.sockets[index] else { return };
        let Some(send) = &socket.send else { return };
        let (conn, wire, cancelled) = (socket.conn, socket.wire, send.cancelled);
        let (done, total) = (send.done, send.total);
        if self.wires[wire].peer_reset || socket.shut_write {
            let result = if done > 0 { Ok(done) } else { Err(libc::EPIPE) };
            return self.end_send(conn, result);
        }
        if !cancelled || self.dice.chance(self.temper.cancel_loses) {
            self.send_bytes(conn, wire, total - done);
        }
        let Some(send) = &self.socket(conn).send else { unreachable!("it is still in flight") };
        let done = send.done;
        if done == total || done > 0 && (cancelled || self.dice.chance(self.temper.send_ends)) {
            self.end_send(conn, Ok(done));
        } else if cancelled {
            self.end_send(conn, Err(libc::ECANCELED));
        }
    }

    fn end_send(&mut self, conn: ConnId, result: Result<usize, i32>) {
        let send = self.socket(conn).send.take().expect("asked only if there is one");
        self.post(Event::Sent { conn, result, pieces: send.pieces });
    }

    /// Gets rid of what fits, or of a part of it.
    fn send_bytes(&mut self, conn: ConnId, wire: usize, left: usize) {
        let room = self.temper.send_room.saturating_sub(self.wires[wire].to_peer.unread()).min(left);
        if room == 0 {
            return;
        }
        let len = if self.dice.chance(self.temper.whole_send) { room } else { self.dice.within(1..=room) };
        let index = conn.index();
        let Some(send) = self.sockets[index].as_mut().and_then(|socket| socket.send.as_mut()) else { return };
        let (mut skip, mut wanted) = (send.done, len);
        for piece in &send.pieces {
            let bytes = bytes_of(&self.pools, piece);
            let bytes = &bytes[skip.min(bytes.len())..];
            skip -= skip.min(piece.len());
            let bytes = &bytes[..bytes.len().min(wanted)];
            wanted -= bytes.len();
            self.wires[wire].to_peer.bytes.extend_from_slice(bytes);
        }
        send.done += len;
        self.activity += 1;
    }
}
