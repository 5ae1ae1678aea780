//! Descriptors on their way to a worker, whose table is its own: SCM_RIGHTS over a pair of unix sockets (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// In one message. The kernel's bound is 253 (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 128;

/// The control plane's end.
#[derive(Debug)]
pub struct Passing(UnixStream);

/// The worker's end.
#[derive(Debug)]
pub struct Passed(OwnedFd);

/// Both ends.
pub fn passing() -> io::Result<(Passing, UnixStream)> {
    UnixStream::pair().map(|(ours, theirs)| (Passing(ours), theirs))
}

impl Passing {
    /// The caller may close its own at once: a descriptor under way is open.
    pub fn send(&self, descriptors: &[RawFd]) -> io::Result<()> {
        for some in descriptors.chunks(DESCRIPTORS_MAX) {
            let rights = [ControlMessage::ScmRights(some)];
            sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        }
        Ok(())
    }
}

impl Passed {
    pub fn new(end: OwnedFd) -> Self {
        Passed(end)
    }

    /// As many as were sent, in order. To be called when they have been sent: else it waits.
    pub fn receive(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut received = Vec::with_capacity(count);
        while received.len() < count {
            let mut byte = [0];
            let mut iov = [IoSliceMut::new(&mut byte)];
            let mut space = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
            let message = recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
            let before = received.len();
            for rights in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(descriptors) = rights {
                    // SAFETY: the kernel has just made them in this thread's table, so nobody else owns them.
                    received.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            if received.len() == before {
                return Err(io::Error::other("no descriptor came; is RLIMIT_NOFILE used up?"));
            }
        }
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn descriptors_arrive_in_order_and_open() {
        let (passing, end) = passing().unwrap();
        let passed = Passed::new(end.into());
        let pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().unwrap()).collect();
        let ours: Vec<RawFd> = pairs.iter().map(|(ours, _)| ours.as_raw_fd()).collect();
        passing.send(&ours).unwrap();
        let theirs: Vec<UnixStream> = pairs.into_iter().map(|(_, theirs)| theirs).collect();
        let received = passed.receive(300).unwrap();
        for (number, (fd, mut other)) in received.into_iter().zip(theirs).enumerate() {
            UnixStream::from(fd).write_all(&(number as u32).to_ne_bytes()).unwrap();
            let mut read = [0; 4];
            other.read_exact(&mut read).unwrap();
            assert_eq!(u32::from_ne_bytes(read), number as u32);
        }
    }

    #[test]
    fn a_sender_that_is_gone_is_an_error() {
        let (passing, end) = passing().unwrap();
        drop(passing);
        assert!(Passed::new(end.into()).receive(1).is_err());
    }
}
