//! Descriptors on their way to a worker, whose table is its own: SCM_RIGHTS over a pair of unix sockets (unix(7)).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// In one message. The kernel's bound is 253 (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 128;
/// What they take up in a message.
// SAFETY: only arithmetic.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as u32) } as usize;

/// The control plane's end.
#[derive(Debug)]
pub struct FdSender(UnixStream);

/// The worker's end.
#[derive(Debug)]
pub struct FdReceiver(OwnedFd);

/// Both ends.
pub fn fd_channel() -> io::Result<(FdSender, UnixStream)> {
    UnixStream::pair().map(|(ours, theirs)| (FdSender(ours), theirs))
}

impl FdSender {
    /// The caller may close its own at once: a descriptor under way is open.
    pub fn send(&self, descriptors: &[RawFd]) -> io::Result<()> {
        for some in descriptors.chunks(DESCRIPTORS_MAX) {
            let rights = [ControlMessage::ScmRights(some)];
            sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        }
        Ok(())
    }
}

impl FdReceiver {
    pub fn new(end: OwnedFd) -> Self {
        FdReceiver(end)
    }

    /// As many as were sent, in order. To be called when they have been sent: else it waits.
    ///
    /// The kernel drops those that RLIMIT_NOFILE has no room for, and hands over those before them. All messages are taken
    /// all the same: what has come is closed, or clients would be sent to listeners that nobody accepts on, and what is
    /// left of this call would be taken for the next one's.
    pub fn receive(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut received = Vec::with_capacity(count);
        for _ in 0..count.div_ceil(DESCRIPTORS_MAX) {
            self.take_message(&mut received)?;
        }
        match received.len() == count {
            true => Ok(received),
            false => Err(io::Error::other("not all descriptors came; is RLIMIT_NOFILE used up?")),
        }
    }

    /// Not by nix, which shows nothing of a message that was cut.
    fn take_message(&self, received: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut byte = 0_u8;
        let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut space = [0_u64; CONTROL_BYTES.div_ceil(size_of::<u64>())];
        // SAFETY: all-zero is a valid, empty `msghdr`.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut iov, 1);
        (message.msg_control, message.msg_controllen) = (space.as_mut_ptr().cast(), CONTROL_BYTES as _);
        // SAFETY: `message` names one byte and CONTROL_BYTES of `space`, both writable, and both outlive the call.
        let bytes = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match bytes {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            ..0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        // SAFETY: the kernel has filled in `message`, whose control bytes lie in `space`, aligned for a `cmsghdr`.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR has returned is null or whole.
        while let Some(control) = unsafe { header.as_ref() } {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                // SAFETY: only arithmetic, on a length and on a pointer to a whole header.
                let (data, empty) = unsafe { (libc::CMSG_DATA(header).cast::<RawFd>(), libc::CMSG_LEN(0)) };
                let count = (control.cmsg_len - empty as usize) / size_of::<RawFd>();
                received.extend((0..count).map(|at| {
                    // SAFETY: as many descriptors as the header's length says stand behind it. The kernel has just made
                    // them in this thread's table, so nobody else owns them.
                    unsafe { OwnedFd::from_raw_fd(data.add(at).read_unaligned()) }
                }));
            }
            // SAFETY: as for the first one.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn descriptors_arrive_in_order_and_open() {
        let (sender, end) = fd_channel().unwrap();
        let passed = FdReceiver::new(end.into());
        let pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().unwrap()).collect();
        let ours: Vec<RawFd> = pairs.iter().map(|(ours, _)| ours.as_raw_fd()).collect();
        sender.send(&ours).unwrap();
        let theirs: Vec<UnixStream> = pairs.into_iter().map(|(_, theirs)| theirs).collect();
        let received = passed.receive(300).unwrap();
        for (number, (fd, mut other)) in received.into_iter().zip(theirs).enumerate() {
            UnixStream::from(fd).write_all(&(number as u32).to_ne_bytes()).unwrap();
            let mut read = [0; 4];
            other.read_exact(&mut read).unwrap();
            assert_eq!(u32::from_ne_bytes(read), number as u32);
        }
    }

    /// Two come to a table that has room for one.
    #[test]
    fn descriptors_that_find_no_room_are_closed_and_the_next_ones_arrive() {
        let (sender, end) = fd_channel().unwrap();
        let (told, tells) = std::sync::mpsc::channel();
        let (first, second) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        first.1.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        sender.send(&[first.0.as_raw_fd(), second.0.as_raw_fd()]).unwrap();
        sender.send(&[second.0.as_raw_fd()]).unwrap();
        let (may_end, waits) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            let mut own = crate::io::unshare_fd_table(&[end.as_raw_fd()]).unwrap();
            let passed = FdReceiver::new(own.pop().unwrap());
            std::mem::forget(end); // its number is that of `passed` in this table
            let mut others: Vec<_> = std::iter::from_fn(|| passed.0.try_clone().ok()).collect();
            others.pop();
            let too_many = passed.receive(2).map(|all| all.len());
            others.clear();
            told.send((too_many.is_err(), passed.receive(1).map(|all| all.len()).ok())).unwrap();
            let _ = waits.recv();
        });
        assert_eq!(tells.recv(), Ok((true, Some(1))));
        drop(first.0);
        assert_eq!((&first.1).read(&mut [0]).ok(), Some(0), "the worker still has the one that found room");
        drop(may_end);
        worker.join().unwrap();
    }

    #[test]
    fn a_sender_that_is_gone_is_an_error() {
        let (sender, end) = fd_channel().unwrap();
        drop(sender);
        assert!(FdReceiver::new(end.into()).receive(1).is_err());
    }
}
