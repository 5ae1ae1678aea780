//! What a worker needs of a kernel: operations in, completions out. [`Ring`](crate::io::Ring) is the engine on io_uring; a record
//! layer is one around another one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use crate::op::{Completion, Group, Lease, Op};

/// Calling order: [`push`](Engine::push) what the relay wants, [`submit_and_wait`](Engine::submit_and_wait), then
/// [`next`](Engine::next) until `None`.
pub trait Engine {
    /// Carries out or queues the operations, in order.
    fn push(&mut self, ops: impl IntoIterator<Item = Op>);

    /// Submits everything and waits until something has completed or `deadline` has come. Fails only if the engine can no longer
    /// be used.
    fn submit_and_wait(&mut self, deadline: Option<Instant>) -> io::Result<()>;

    /// The next completion of this batch. A batch ends where it ended when the wait returned, however much has completed since.
    fn next(&mut self) -> Option<Completion<'_>>;

    /// From here on operations may name this listener. Its number is one that none has, or that of a closed one.
    fn listen(&mut self, number: u16, fd: OwnedFd);

    /// A free buffer of this group, for bytes that have none; `None` if there is none.
    fn borrow(&mut self, group: Group) -> Option<Lease>;

    /// The bytes of a lease.
    fn bytes_mut(&mut self, lease: &mut Lease) -> &mut [u8];

    /// Buffers on loan.
    fn leases(&self) -> usize;
}
