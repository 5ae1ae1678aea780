//! [`Op`] to submission queue entry, or to a plain system call where that is cheaper or where order demands it.

use super::*;

impl Ring {
    pub(super) fn receive(&mut self, conn: ConnId, group: Group, credit: u32) {
        debug_assert!(credit > 0, "a receive without credit");
        let Some(fd) = self.begin(conn, RECEIVE, RECEIVE) else { return };
        self.sockets[conn.index()].group = group;
        let credit = if self.features.byte_credit { credit.min(entry::CREDIT_MAX) } else { 0 };
        self.queue(Tag::socket(Kind::Receive(group), conn), |_| entry::receive(fd, group.number().into(), credit));
    }

    pub(super) fn send(&mut self, conn: ConnId, pieces: Vec<Piece>) {
        let Some(fd) = self.begin(conn, SEND, SEND) else {
            let result = Err(io::Error::from_raw_os_error(libc::EBADF));
            return self.ready.push_back(Completion::Sent { conn, result, pieces });
        };
        self.queue(Tag::socket(Kind::Send, conn), |ring| {
            let (slot, entry) = ring.sends.start(fd, pieces, &ring.pools);
            ring.sockets[conn.index()].send = slot;
            entry
        });
    }

    pub(super) fn recycle(&mut self, lease: Lease) {
        let (group, buffer) = lease.end();
        self.pools[group.index()].recycle(buffer);
    }

    pub(super) fn copy(&mut self, conn: ConnId, pieces: Vec<Piece>) {
        let mut bytes = Vec::with_capacity(pieces.iter().map(Piece::len).sum());
        for piece in &pieces {
            bytes.extend_from_slice(piece.bytes(|lease| self.pools[lease.group().index()].bytes(lease)));
        }
        self.ready.push_back(Completion::Copied { conn, bytes: bytes.into(), pieces });
    }

    pub(super) fn connect(&mut self, conn: ConnId, address: Arc<SockAddr>) {
        let fd = match socket::for_connect(&address, &self.tcp) {
            Ok(fd) => fd.into_raw_fd(),
            Err(error) => {
                return self.ready.push_back(Completion::Connected { conn, result: Err(error) });
            }
        };
        self.adopt(conn, fd);
        self.begin(conn, CONNECT, CONNECT);
        if address.is_unix() {
            return self.connect_unix(conn, address);
        }
        self.queue(Tag::socket(Kind::Connect, conn), |ring| ring.sends.connect(fd, address));
    }

    /// A plain system call, as a connect to a unix socket succeeds or fails at once. But for a full backlog: then it is tried
    /// again until somebody has accepted, or until it is cancelled.
    fn connect_unix(&mut self, conn: ConnId, address: Arc<SockAddr>) {
        let Some(fd) = self.socket(conn).map(|socket| socket.fd) else { return };
        match socket::connect_now(fd, &address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.waiting.push_back((conn, address)),
            result => {
                self.end(conn, CONNECT);
                self.ready.push_back(Completion::Connected { conn, result });
            }
        }
    }

    pub(super) fn retry_waiting(&mut self) {
        for _ in 0..self.waiting.len().min(WAITING_TRIES_MAX) {
            let Some((conn, address)) = self.waiting.pop_front() else { return };
            self.connect_unix(conn, address);
        }
    }

    /// The cancelled operation answers for itself; the cancel's own completion is asked for only if it failed, which
    /// says that the operation has already ended, and is ignored.
    pub(super) fn cancel(&mut self, conn: ConnId, what: InFlight) {
        let Some(socket) = self.socket(conn) else { return };
        let (kind, flag) = match what {
            InFlight::Connect => (Kind::Connect, CONNECT),
            InFlight::Send => (Kind::Send, SEND),
            InFlight::Receive => (Kind::Receive(socket.group), RECEIVE),
        };
        if socket.in_flight & flag == 0 {
            return;
        }
        let place = || self.waiting.iter().position(|(waiting, _)| *waiting == conn);
        match (what == InFlight::Connect).then(place).flatten() {
            Some(at) => {
                self.waiting.remove(at);
                self.end(conn, CONNECT);
                let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
                self.ready.push_back(Completion::Connected { conn, result });
            }
            None => self.queue_cancel(Tag::socket(kind, conn)),
        }
    }

    /// A plain system call: IORING_OP_SHUTDOWN always takes a detour through a worker thread of the kernel.
    pub(super) fn shutdown(&mut self, conn: ConnId, how: Shutdown) {
        let Some(socket) = self.socket(conn) else { return };
        // It is done at once, so a send queued before it would be cut off.
        debug_assert!(how != Shutdown::Write || socket.in_flight & SEND == 0, "{conn:?} is shut down before its send");
        socket::shutdown(socket.fd, how);
    }

    pub(super) fn abort(&mut self, conn: ConnId) {
        if let Some(socket) = self.socket(conn) {
            socket::reset_on_close(socket.fd);
        }
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        // A socket that could not even be created has nothing to close.
        let Some(socket) = self.socket(conn) else { return };
        debug_assert_eq!(socket.in_flight, 0, "{conn:?} is closed with operations in flight");
        if socket.in_flight != 0 {
            tracing::error!(?conn, in_flight = socket.in_flight, "closed with operations in flight");
        }
        self.sockets[conn.index()].fd = -1;
        socket::close(socket.fd);
    }

    pub(super) fn release(&mut self, conn: ConnId) {
        let Some(socket) = self.socket(conn).filter(|socket| socket.in_flight == 0) else {
            debug_assert!(false, "{conn:?} has no socket, or is released with operations in flight");
            return tracing::error!(?conn, "an operation on a socket that cannot take it");
        };
        self.sockets[conn.index()].fd = -1;
        self.ready.push_back(Completion::Released { conn, socket: Accepted(socket.fd) });
    }

    pub(super) fn adopt(&mut self, conn: ConnId, fd: i32) {
        let index = conn.index();
        if self.sockets.len() <= index {
            debug_assert!(index < self.sockets.capacity(), "{conn:?} is beyond the plan");
            self.sockets.resize(index + 1, NO_SOCKET);
        }
        let socket = &mut self.sockets[index];
        debug_assert!(socket.fd < 0 && socket.in_flight == 0, "{conn:?} has a socket already");
        *socket = Socket { fd, generation: conn.generation(), ..NO_SOCKET };
    }

    pub(super) fn accept(&mut self, listener: u16) {
        let Some(ListenerSlot { fd: Some(fd), armed, stopping }) = self.listeners.get_mut(usize::from(listener)) else {
            // It has never arrived, for want of a free descriptor.
            let error = Some(io::Error::from_raw_os_error(libc::EBADF));
            return self.ready.push_back(Completion::AcceptEnded { listener, error });
        };
        debug_assert!(!*armed, "listener {listener} accepts already");
        (*armed, *stopping) = (true, false);
        let entry = opcode::AcceptMulti::new(Fd(fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.queue(Tag::listener(listener), |_| entry);
    }

    pub(super) fn stop_accept(&mut self, listener: u16) {
        let Some(state) = self.listeners.get_mut(usize::from(listener)) else { return };
        // It may have ended by itself in the batch that asks for this: then its end is on its way.
        if state.armed {
            state.stopping = true;
            self.queue_cancel(Tag::listener(listener));
        }
    }

    pub(super) fn close_listener(&mut self, listener: u16) {
        let Some(state) = self.listeners.get_mut(usize::from(listener)) else { return };
        debug_assert!(!state.armed, "listener {listener} is closed while it accepts");
        state.fd = None;
    }

    pub(super) fn arm_wake(&mut self) {
        if !self.wake.armed {
            self.wake.armed = true;
            let fd = Fd(self.wake.fd.as_raw_fd());
            let entry = opcode::Read::new(fd, std::ptr::from_mut(&mut *self.wake.count).cast(), 8).build();
            self.queue(Tag::alone(Kind::Wake), |_| entry);
        }
    }

    pub(super) fn offer_buffers(&mut self) {
        for pool in self.pools.iter_mut() {
            pool.top_up();
        }
    }

    /// Forgets what only had to live until it was submitted.
    pub(super) fn note_submitted(&mut self) {
        if self.queue.unsubmitted() == 0 {
            self.sends.submitted();
        }
    }

    /// The socket, if it is there and this generation's.
    pub(super) fn socket(&self, conn: ConnId) -> Option<Socket> {
        let socket = *self.sockets.get(conn.index())?;
        (socket.fd >= 0 && socket.generation == conn.generation()).then_some(socket)
    }

    /// Notes that an operation is in flight, unless one of `excluded` is, and says on which fd.
    fn begin(&mut self, conn: ConnId, excluded: u8, flag: u8) -> Option<i32> {
        let Some(socket) = self.socket(conn).filter(|socket| socket.in_flight & excluded == 0) else {
            debug_assert!(false, "{conn:?} has no socket, or this operation is in flight already");
            tracing::error!(?conn, flag, "an operation on a socket that cannot take it");
            return None;
        };
        self.sockets[conn.index()].in_flight |= flag;
        Some(socket.fd)
    }

    fn queue_cancel(&mut self, target: Tag) {
        let entry = opcode::AsyncCancel::new(target.pack()).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.queue(Tag::alone(Kind::Cancel), |_| entry);
    }

    /// The entry is built only when there is room for it and for what it points to: what is submitted to make room forgets all
    /// that has been built before.
    fn queue(&mut self, tag: Tag, build: impl FnOnce(&mut Self) -> squeue::Entry) {
        if self.queue.is_full() || !self.sends.has_room() {
            self.submit();
        }
        let mut entry = build(self);
        entry.set_user_data(tag.pack());
        // SAFETY: of the entries built here only four have pointers. Send and SendMsg point to pieces that lie in `sends`
        // until their completion, SendMsg and Connect to scratch memory there, which is kept until submitted (see
        // `Sends`): nothing is submitted between their building and this push. Read points to the wake-up's count, boxed;
        // `sends` and it live until `Ring::drop` has seen everything end.
        let queued = unsafe { self.queue.push(&entry) };
        debug_assert!(queued || self.broken.is_some(), "the queue was just emptied");
    }

    /// Empties the submission queue now.
    fn submit(&mut self) {
        self.offer_buffers();
        while self.queue.unsubmitted() > 0 && self.broken.is_none() {
            self.broken = self.queue.submit().err();
        }
        self.note_submitted();
    }
}
