//! The end of a ring: nothing may be in flight when its memory goes.

use super::*;

/// How long cancelled operations may take to say so. They need no peer for it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Ring {
    /// Cancels everything and waits for the last completion of each operation.
    pub(super) fn quiesce(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for listener in &mut self.listeners {
            listener.stopping = true;
        }
        // The kernel knows nothing of these.
        while let Some((conn, _)) = self.waiting.pop_front() {
            self.end(conn, CONNECT);
        }
        while self.queue.unsubmitted() > 0 {
            self.queue.submit()?;
        }
        loop {
            while let Some(completion) = self.next() {
                dispose(completion);
            }
            if !self.is_busy() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let patience = Timespec::new().sec(1);
            match self.queue.submitter().register_sync_cancel(Some(patience), CancelBuilder::any()) {
                Ok(()) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ETIME | libc::EINTR)) => {}
                Err(error) => return Err(error),
            }
            self.queue.submit_and_wait(1, Some(Duration::from_millis(10)))?;
            self.batch = self.queue.completed();
        }
    }

    fn is_busy(&self) -> bool {
        self.wake.armed
            || self.listeners.iter().any(|listener| listener.armed)
            || self.sockets.iter().any(|socket| socket.in_flight != 0)
    }
}

/// Ends what a completion owns, in place of the relay.
fn dispose(completion: Completion<'_>) {
    match completion {
        Completion::Accepted { socket, .. } | Completion::Released { socket, .. } => socket::close(socket.0),
        Completion::Received { lease, .. } => drop(lease.map(Lease::end)),
        Completion::Sent { pieces, .. } | Completion::Copied { pieces, .. } => {
            for piece in pieces {
                if let Piece::Lease(lease) = piece {
                    lease.end();
                }
            }
        }
        Completion::AcceptEnded { .. }
        | Completion::Connected { .. }
        | Completion::ReceiveEnded { .. }
        | Completion::Woken => {}
    }
}
