//! The two queues shared with the kernel: how they are set up, and the one system call that runs them.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

/// Entries of the submission queue. It is walked round and round, so a large one is a cache footprint; when a batch is
/// longer it is submitted in parts.
const SUBMISSIONS: u32 = 512;
/// Entries of the completion queue. One enter completes what it submits and runs about 20 items of task work, each of
/// which may deliver up to 32 pieces. A burst beyond this ends multishot operations and spills to kernel memory, but
/// loses nothing.
const COMPLETIONS: u32 = 4096;

const IORING_REGISTER_RING_FDS: libc::c_uint = 20;
const IORING_UNREGISTER_RING_FDS: libc::c_uint = 21;

/// Of each kind, bounded and unbounded.
const IOWQ_WORKERS_MAX: u32 = 4;

pub(super) struct Queue {
    uring: IoUring,
    /// The ring's index among this thread's registered rings (with REGISTERED_RING), or its fd.
    enter_fd: i32,
    enter_flags: EnterFlags,
    no_sqarray: bool,
}

impl Queue {
    /// Sets up a ring for this thread alone.
    pub fn new() -> io::Result<Self> {
        Self::sized(SUBMISSIONS, COMPLETIONS)
    }

    pub fn sized(submissions: u32, completions: u32) -> io::Result<Self> {
        let (uring, no_sqarray) = match build(submissions, completions, true) {
            Ok(uring) => (uring, true),
            // NO_SQARRAY came with 6.6, the other flags with 6.1.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (build(submissions, completions, false)?, false)
            }
            Err(error) => return Err(error),
        };
        // Nothing that is asked of it should need one of the kernel's threads. Whatever does all the same has a few, instead of
        // as many as there are operations. Without the fence (before 5.15) it works as well.
        let _ = uring.submitter().register_iowq_max_workers(&mut [IOWQ_WORKERS_MAX; 2]);
        let fd = uring.as_raw_fd();
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // Without it a waiting worker counts as waiting for a disk: 100 % iowait on an idle machine.
        if uring.params().is_feature_no_iowait() {
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        // A registered ring saves the look-up of its fd in every enter. It is an optimisation: do without if refused.
        let enter_fd =
            match register(fd, IORING_REGISTER_RING_FDS, RingUpdate { offset: u32::MAX, resv: 0, data: fd as u64 }) {
                Ok(index) => {
                    enter_flags |= EnterFlags::REGISTERED_RING;
                    index
                }
                Err(_) => fd,
            };
        Ok(Queue { uring, enter_fd, enter_flags, no_sqarray })
    }

    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    pub fn has_no_sqarray(&self) -> bool {
        self.no_sqarray
    }

    pub fn has_no_iowait(&self) -> bool {
        self.enter_flags.contains(EnterFlags::NO_IOWAIT)
    }

    pub fn is_full(&mut self) -> bool {
        self.uring.submission().is_full()
    }

    /// Entries that the kernel has not taken yet.
    pub fn unsubmitted(&mut self) -> usize {
        self.uring.submission().len()
    }

    /// Queues an entry; false if the queue is full.
    ///
    /// # Safety
    ///
    /// What the entry's pointers lead to must stay there, unchanged, until the entry is submitted; payload until its
    /// completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller's promise is the one that `push` asks for.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Submits what is queued, without waiting. What completes at once is there afterwards; task work is not run.
    pub fn submit(&mut self) -> io::Result<()> {
        self.enter(0, None, self.enter_flags - EnterFlags::GETEVENTS)
    }

    /// Submits what is queued, and waits for `want` completions or until `timeout` has passed. Returning early, with
    /// less or nothing, is normal.
    pub fn submit_and_wait(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.enter(want, timeout, self.enter_flags)
    }

    /// Completions that are there now.
    pub fn completed(&mut self) -> usize {
        self.uring.completion().len()
    }

    pub fn pop(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>, flags: EnterFlags) -> io::Result<()> {
        let pending = self.unsubmitted() as u32;
        let timespec = timeout.map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        // SAFETY: `args` is `repr(transparent)` around the `io_uring_getevents_arg` that EXT_ARG announces, its size is
        // given, and it and the timespec it points to outlive the call. The entries submitted were pushed under
        // `Queue::push`'s contract.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                pending,
                want,
                flags.bits(),
                std::ptr::from_ref(&args),
                size_of_val(&args),
            )
        };
        if taken >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The time is up, or a signal came: nothing is lost.
            Some(libc::ETIME | libc::EINTR) => Ok(()),
            // No memory for a request, or completions overflowed: hand over what there is, then try again.
            Some(libc::EAGAIN | libc::EBUSY) => {
                std::thread::sleep(Duration::from_micros(100));
                Ok(())
            }
            _ => Err(error),
        }
    }
}

fn build(submissions: u32, completions: u32, no_sqarray: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(completions).dontfork();
    if no_sqarray {
        builder.setup_no_sqarray();
    }
    let uring = builder.build(submissions)?;
    let params = uring.params();
    // All older than DEFER_TASKRUN, so a kernel that took the flags has them; what follows relies on each.
    assert!(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_submit_stable());
    assert!(params.is_feature_skip_cqe_on_success() && params.is_feature_fast_poll());
    Ok(uring)
}

impl Drop for Queue {
    /// A registered ring lives until its thread ends, whoever closes its fd.
    fn drop(&mut self) {
        if self.enter_flags.contains(EnterFlags::REGISTERED_RING) {
            let update = RingUpdate { offset: self.enter_fd as u32, resv: 0, data: 0 };
            let done = register(self.uring.as_raw_fd(), IORING_UNREGISTER_RING_FDS, update);
            debug_assert!(done.is_ok(), "{done:?}");
        }
    }
}

/// The kernel's `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// Registers the ring with this thread, or ends that. Returns the index that stands for its fd in `io_uring_enter`.
fn register(fd: i32, what: libc::c_uint, mut update: RingUpdate) -> io::Result<i32> {
    // SAFETY: both operations read and write one `io_uring_rsrc_update`; `update` is laid out as one and outlives the
    // call.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, what, std::ptr::from_mut(&mut update), 1) };
    if done == 1 { Ok(update.offset as i32) } else { Err(io::Error::last_os_error()) }
}
