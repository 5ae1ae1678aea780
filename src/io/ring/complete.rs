//! Completion queue entry to [`Completion`].

use super::*;

impl Ring {
    /// What the relay hears of this, if anything.
    pub(super) fn complete(&mut self, cqe: &cqueue::Entry) -> Option<Answer> {
        let Some(tag) = Tag::unpack(cqe.user_data()) else {
            debug_assert!(false, "a completion that nobody asked for: {cqe:?}");
            return None;
        };
        match tag.kind {
            Kind::Accept => self.accepted(tag.index as u16, cqe).map(Answer::Plain),
            Kind::Cancel => None,
            Kind::Wake => {
                self.wake.armed = false;
                Some(Answer::Plain(Completion::Woken))
            }
            Kind::Receive(group) => self.received(tag.conn(), group, cqe),
            Kind::Send => self.sent(tag.conn(), cqe).map(Answer::Plain),
            Kind::Connect => {
                let conn = tag.conn();
                self.end(conn, CONNECT)?;
                Some(Answer::Plain(Completion::Connected { conn, result: result(cqe).map(drop) }))
            }
        }
    }

    fn received(&mut self, conn: ConnId, group: Group, cqe: &cqueue::Entry) -> Option<Answer> {
        let more = cqueue::more(cqe.flags());
        let buffer = cqueue::buffer_select(cqe.flags());
        let known = if more { self.check(conn, RECEIVE) } else { self.end(conn, RECEIVE) };
        if let (Some(buffer), Ok(bytes @ 1..), Some(_)) = (buffer, result(cqe), known) {
            let lease = self.pools[group.index()].lend(buffer, bytes as u32);
            return Some(Answer::Data { conn, lease, more });
        }
        if let Some(buffer) = buffer {
            self.pools[group.index()].unused(buffer);
        }
        known?;
        debug_assert!(!more, "a receive that goes on has bytes: {cqe:?}");
        Some(Answer::Plain(Completion::ReceiveEnded { conn, why: self.receive_end(cqe, group) }))
    }

    fn receive_end(&mut self, cqe: &cqueue::Entry, group: Group) -> ReceiveEnd {
        match result(cqe) {
            Ok(_) => ReceiveEnd::Eof,
            Err(error) => match error.raw_os_error() {
                Some(libc::ECANCELED) => ReceiveEnd::Cancelled,
                Some(libc::ENOBUFS) => {
                    self.pools[group.index()].starved();
                    ReceiveEnd::NoBuffers
                }
                _ => ReceiveEnd::Failed(error),
            },
        }
    }

    fn sent(&mut self, conn: ConnId, cqe: &cqueue::Entry) -> Option<Completion<'static>> {
        let socket = self.end(conn, SEND)?;
        let pieces = self.sends.finish(socket.send);
        Some(Completion::Sent { conn, result: result(cqe), pieces })
    }

    fn accepted(&mut self, listener: u16, cqe: &cqueue::Entry) -> Option<Completion<'static>> {
        let state = &mut self.listeners[usize::from(listener)];
        let stopping = state.stopping;
        let ended = !cqueue::more(cqe.flags());
        if ended {
            state.armed = false;
        }
        match result(cqe) {
            Ok(fd) => {
                if ended {
                    self.go_on_accepting(listener);
                }
                let fd = fd as i32;
                let (peer, local) = (socket::peer(fd), socket::local(fd));
                Some(Completion::Accepted { listener, socket: Accepted(fd), peer, local })
            }
            // One client's bad luck is no reason to stop.
            Err(error) if !stopping && is_the_clients(&error) => {
                self.go_on_accepting(listener);
                None
            }
            Err(error) => {
                let error = (!stopping && error.raw_os_error() != Some(libc::ECANCELED)).then_some(error);
                Some(Completion::AcceptEnded { listener, error })
            }
        }
    }

    /// After a multishot accept has ended by itself: arms it again, or says that it has stopped as asked.
    fn go_on_accepting(&mut self, listener: u16) {
        let state = &self.listeners[usize::from(listener)];
        if state.stopping {
            self.ready.push_back(Completion::AcceptEnded { listener, error: None });
        } else if !state.armed {
            self.accept(listener);
        }
    }

    /// The socket on which the operation is in flight. Anything else is our bug: a socket is closed, and its slot used
    /// again, only after all its operations have completed.
    fn check(&mut self, conn: ConnId, flag: u8) -> Option<Socket> {
        let socket = self.socket(conn).filter(|socket| socket.in_flight & flag != 0);
        if socket.is_none() {
            debug_assert!(false, "a completion for {conn:?}, which has no such operation in flight");
            tracing::error!(?conn, flag, "a completion for a socket that is gone");
        }
        socket
    }

    pub(super) fn end(&mut self, conn: ConnId, flag: u8) -> Option<Socket> {
        let socket = self.check(conn, flag)?;
        self.sockets[conn.index()].in_flight &= !flag;
        Some(socket)
    }
}

fn result(cqe: &cqueue::Entry) -> io::Result<usize> {
    usize::try_from(cqe.result()).map_err(|_| io::Error::from_raw_os_error(-cqe.result()))
}

/// Errors of accept(2) that concern the one connection, or that the manual says to treat as "try again".
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
        )
    )
}
