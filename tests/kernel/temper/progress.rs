//! What happens by itself: operations get on, or do not.

use ringway::op::ConnId;

use super::{End, Event, LATE_MAX, Tempered, UNHEARD_MAX};
use crate::kernel::Accepting;

impl Tempered {
    /// Lets every socket with something to do get on with it, if the dice agree.
    pub fn progress(&mut self) {
        for listener in 0..self.listeners.len() {
            if self.dice.chance(self.temper.progress) {
                self.progress_accept(listener);
            }
        }
        let count = self.underway.len();
        let first = if count > 0 { self.dice.below(count) } else { 0 };
        for at in 0..count {
            let index = (first + at) % count;
            for progress in [Self::progress_connect, Self::progress_receive, Self::progress_send] {
                let Some(conn) = self.kernel.sockets[index].as_ref().map(|socket| socket.conn) else { continue };
                if self.dice.chance(self.temper.progress) {
                    progress(self, conn);
                }
            }
        }
    }

    fn progress_accept(&mut self, at: usize) {
        let fails = self.dice.chance(self.temper.accept_fails);
        let accepts_first = self.dice.chance(self.temper.cancel_loses);
        let state = self.kernel.listeners[at];
        let listener = &mut self.listeners[at];
        if listener.ended || !matches!(state, Accepting::Armed | Accepting::Stopping) {
            return;
        }
        if state == Accepting::Stopping && !accepts_first {
            listener.ended = true;
            self.post(Event::AcceptEnded { listener: at as u16, error: None });
        } else if fails && !listener.backlog.is_empty() {
            listener.ended = true;
            let error = self.dice.pick(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]);
            self.post(Event::AcceptEnded { listener: at as u16, error: Some(error) });
        } else if !listener.backlog.is_empty() {
            let wire = listener.backlog.remove(0);
            self.post(Event::Accepted { listener: at as u16, wire });
        }
    }

    fn progress_connect(&mut self, conn: ConnId) {
        let Some(connect) = &self.kernel.socket(conn).connect else { return };
        let cancelled = connect.cancelled;
        let port = connect.address.expect("backends have ports here").port();
        let underway = self.underway(conn);
        let (wire, hangs) = (underway.wire, underway.hangs);
        if underway.connected {
            return;
        }
        let result = if cancelled && !self.dice.chance(self.temper.cancel_loses) {
            Err(libc::ECANCELED)
        } else if hangs && !cancelled {
            return;
        } else if self.dice.chance(self.temper.connect_fails) {
            let lacks = [libc::EADDRNOTAVAIL, libc::EMFILE, libc::ENOBUFS, libc::ENOMEM];
            let fails = [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ECONNREFUSED];
            let errors = if self.dice.chance(500) { lacks } else { fails };
            Err(self.dice.pick(&errors))
        } else {
            Ok(())
        };
        self.underway(conn).connected = true;
        if result.is_ok() {
            self.links.push((conn, wire, port));
        }
        self.post(Event::Connected { conn, result });
    }

    fn progress_receive(&mut self, conn: ConnId) {
        let socket = self.kernel.socket(conn);
        let Some(receive) = socket.receive else { return };
        let shut = socket.shut_read;
        let underway = self.underway(conn);
        let (at, late) = (underway.wire, underway.late);
        if underway.receive_ended {
            return;
        }
        let wire = &self.wires[at];
        let unread = wire.to_relay.unread();
        let (fin, reset) = (wire.peer_fin, wire.peer_reset);
        let skips_data = (reset || shut) && self.dice.chance(500);
        if receive.cancelled && (late == LATE_MAX || !self.dice.chance(self.temper.cancel_loses)) {
            return self.end_receive(conn, End::Cancelled);
        }
        let empty = self.kernel.pools[receive.group.index()].is_empty();
        if empty || self.dice.chance(self.temper.spurious_no_buffers) {
            self.starving += usize::from(empty);
            return self.end_receive(conn, End::NoBuffers);
        }
        if unread > 0 && !skips_data {
            self.receive_bytes(conn, receive.credit, receive.cancelled);
        } else if reset {
            self.end_receive(conn, End::Failed(libc::ECONNRESET));
        } else if fin || shut {
            self.end_receive(conn, End::Eof);
        }
    }

    fn end_receive(&mut self, conn: ConnId, why: End) {
        let underway = self.underway(conn);
        (underway.receive_ended, underway.late) = (true, 0);
        self.post(Event::ReceiveEnded { conn, why });
    }

    fn receive_bytes(&mut self, conn: ConnId, credit: usize, cancelled: bool) {
        let whole = self.dice.chance(self.temper.whole_receive);
        let ends = self.dice.chance(self.temper.receive_ends);
        let underway = self.underway(conn);
        if underway.unheard == UNHEARD_MAX {
            return;
        }
        underway.unheard += 1;
        let wire = underway.wire;
        let group = self.kernel.socket(conn).receive.expect("asked only if one is armed").group;
        let most = self.kernel.pools[group.index()].size().min(self.wires[wire].to_relay.unread());
        let len = if whole { most } else { self.dice.within(1..=most) };
        let stream = &mut self.wires[wire].to_relay;
        let (lease, _) = self.kernel.receive(conn, &stream.bytes[stream.read..stream.read + len]);
        stream.read += len;
        self.owners[group.index()][usize::from(lease.buffer())] = Some((wire, len));
        self.starving = 0;
        let more = !(ends || self.temper.credit && credit <= len);
        let underway = self.underway(conn);
        underway.receive_ended = !more;
        underway.late = if more { underway.late + usize::from(cancelled) } else { 0 };
        self.post(Event::Received { conn, lease, more });
    }

    fn progress_send(&mut self, conn: ConnId) {
        let socket = self.kernel.socket(conn);
        let Some(send) = socket.send.as_ref().filter(|send| !send.copies) else { return };
        let (total, cancelled, shut) = (send.total, send.cancelled, socket.shut_write);
        let underway = self.underway(conn);
        let (wire, done) = (underway.wire, underway.sent);
        if underway.send_ended {
            return;
        }
        if self.wires[wire].peer_reset || shut {
            let result = if done > 0 { Ok(done) } else { Err(libc::EPIPE) };
            return self.end_send(conn, result);
        }
        if !cancelled || self.dice.chance(self.temper.cancel_loses) {
            self.send_bytes(conn, wire, total - done);
        }
        let done = self.underway(conn).sent;
        if done == total || done > 0 && (cancelled || self.dice.chance(self.temper.send_ends)) {
            self.end_send(conn, Ok(done));
        } else if cancelled {
            self.end_send(conn, Err(libc::ECANCELED));
        }
    }

    fn end_send(&mut self, conn: ConnId, result: Result<usize, i32>) {
        self.underway(conn).send_ended = true;
        self.post(Event::Sent { conn, result });
    }

    /// Gets rid of what fits, or of a part of it.
    fn send_bytes(&mut self, conn: ConnId, wire: usize, left: usize) {
        let room = self.temper.send_room.saturating_sub(self.wires[wire].to_peer.unread()).min(left);
        if room == 0 {
            return;
        }
        let len = if self.dice.chance(self.temper.whole_send) { room } else { self.dice.within(1..=room) };
        let (mut skip, mut wanted) = (self.underway(conn).sent, len);
        let send = self.kernel.get(conn).and_then(|socket| socket.send.as_ref());
        for piece in &send.expect("asked only if there is one").pieces {
            let bytes = self.kernel.bytes(piece);
            let bytes = &bytes[skip.min(bytes.len())..];
            skip -= skip.min(piece.len());
            let bytes = &bytes[..bytes.len().min(wanted)];
            wanted -= bytes.len();
            self.wires[wire].to_peer.bytes.extend_from_slice(bytes);
        }
        self.underway(conn).sent += len;
        self.activity += 1;
    }
}
