//! A worker's thread: its CPU, its file descriptor table, its wake-up; and the process's limits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::probe::SetupError;

/// Wakes a worker from another thread. Cheap to clone; may outlive the worker.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub fn new() -> Result<Self, SetupError> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(SetupError::wake(io::Error::last_os_error()));
        }
        // SAFETY: just created, so nobody else owns it.
        Ok(Waker(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Makes [`Completion::Woken`](crate::op::Completion::Woken) on the worker, at least once after this call.
    pub fn wake(&self) {
        // SAFETY: eight readable bytes, as an eventfd takes.
        let written = unsafe { libc::write(self.0.as_raw_fd(), 1u64.to_ne_bytes().as_ptr().cast(), 8) };
        debug_assert_eq!(written, 8, "an eventfd that is full wakes too");
    }

    /// A further descriptor of the eventfd, for a ring on a thread without a table of its own.
    #[cfg(test)]
    pub fn duplicate(&self) -> OwnedFd {
        self.0.try_clone().expect("a descriptor is free")
    }

    /// The eventfd, for [`unshare_fd_table`].
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Pins the calling thread to one CPU. Before it allocates, so that its memory is near.
pub fn pin(cpu: usize) -> Result<(), SetupError> {
    // SAFETY: all-zero is a valid, empty `cpu_set_t`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(SetupError::pin(cpu, io::Error::from_raw_os_error(libc::EINVAL)));
    }
    // SAFETY: `cpu` is below CPU_SETSIZE, so the bit lies inside `set`.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is a `cpu_set_t` of the size given; 0 is the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    if done < 0 { Err(SetupError::pin(cpu, io::Error::last_os_error())) } else { Ok(()) }
}

/// The CPUs the calling thread may run on.
pub fn cpus() -> Vec<usize> {
    // SAFETY: all-zero is a valid, empty `cpu_set_t`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable and of the size given; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } < 0 {
        return (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
    }
    // SAFETY: the range ends at CPU_SETSIZE, so every bit lies inside `set`.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Gives the calling thread a file descriptor table of its own, in which only the standard streams and `keep` are open,
/// and returns those as this thread's property.
///
/// A table of its own has no lock contention, its own share of RLIMIT_NOFILE, and nothing in it that another thread opened:
/// a listener that one worker closes is closed. The price: this thread must not use any descriptor from before, in a log
/// writer for instance.
///
/// The caller keeps the originals open, in the old table, until this has returned.
pub fn unshare_fd_table(keep: &[RawFd]) -> Result<Vec<OwnedFd>, SetupError> {
    let mut bounds: Vec<u32> = keep.iter().map(|&fd| fd as u32).filter(|&fd| fd > 2).collect();
    bounds.push(2);
    bounds.sort_unstable();
    // From the top down, so that the first call, which makes the table private, has the least to copy.
    let mut end = u32::MAX;
    let mut flags = libc::CLOSE_RANGE_UNSHARE;
    for fd in bounds.into_iter().rev() {
        if fd < end {
            close_range(fd + 1, end, flags).map_err(SetupError::unshare_fd_table)?;
            flags = 0;
        }
        end = fd.saturating_sub(1);
    }
    keep.iter()
        .map(|&fd| {
            // SAFETY: no memory is passed.
            if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                return Err(SetupError::unshare_fd_table(io::Error::last_os_error()));
            }
            // SAFETY: it is open, and in this thread's own table, which was made above: whoever owns the same number in
            // the old table owns another descriptor. `keep` has no number twice (they are the open descriptors of
            // different objects), so nobody owns this one.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: no memory is passed. Descriptors are closed only in a table that belongs to this thread alone (the first
    // call unshares it before it closes anything), where nobody owns them.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A limit of the process, soft and hard.
pub(super) fn limit(resource: libc::__rlimit_resource_t) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and of the type that the call fills.
    if unsafe { libc::getrlimit(resource, &mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit of open files to the hard one, and returns it.
pub(super) fn raise_nofile() -> io::Result<u64> {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE)?;
    if soft < hard {
        let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: `raised` is readable and of the type that the call takes.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } < 0 {
            return Ok(soft);
        }
    }
    Ok(hard)
}
