//! What this kernel lets us do, found by doing it; and what to tell an operator when it is too little.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::buffers::{BufferPool, Layout};
use super::entry::{self, Kind, Tag};
use super::queue::Queue;
use crate::op::Group;

/// What the kernel can do beyond the least we need (Linux 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A receive ends by itself after so many bytes (6.17). Without: the relay cancels.
    pub byte_credit: bool,
    /// Waiting is not counted as waiting for a disk (6.15).
    pub no_iowait: bool,
    /// One array less per ring (6.6).
    pub no_sqarray: bool,
}

/// Why the engine cannot be had.
#[derive(Debug)]
pub struct SetupError {
    step: Step,
    cause: io::Error,
    host: Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ring,
    Buffers,
    Memory,
    Wake,
    PrivateTable,
    Pin(usize),
    Nofile,
}

/// What the likely cause is guessed from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    kernel: String,
    /// The sysctl kernel.io_uring_disabled, where it exists (6.6).
    io_uring_disabled: Option<u8>,
    memlock_bytes: Option<u64>,
    nofile: Option<u64>,
}

/// Sets up a ring as the workers will, and tries each feature on it.
pub fn probe() -> Result<Features, SetupError> {
    // The pool goes last, when nothing can write into it any longer.
    let mut pool = BufferPool::new(Group::SMALL, Layout::small(64, 2)).map_err(SetupError::memory)?;
    let mut queue = Queue::new().map_err(SetupError::ring)?;
    // SAFETY: `pool` is declared before `queue` and so dropped after it.
    unsafe { pool.register(&queue.submitter()) }.map_err(SetupError::buffers)?;
    pool.top_up();
    let byte_credit = has_byte_credit(&mut queue).map_err(SetupError::buffers)?;
    Ok(Features { byte_credit, no_iowait: queue.has_no_iowait(), no_sqarray: queue.has_no_sqarray() })
}

/// The kernel's release, as in `uname -r`.
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |s| s.trim().into())
}

/// Receives five bytes with credit for five: a kernel that counts ends the receive with them.
fn has_byte_credit(queue: &mut Queue) -> io::Result<bool> {
    let (reader, mut writer) = UnixStream::pair()?;
    io::Write::write_all(&mut writer, b"probe")?;
    let mut receive = entry::receive(reader.as_raw_fd(), Group::SMALL.number().into(), 5);
    receive.set_user_data(Tag::alone(Kind::Receive(Group::SMALL)).pack());
    // SAFETY: the entry has no pointers.
    unsafe { queue.push(&receive) };
    queue.submit_and_wait(1, Some(std::time::Duration::from_secs(5)))?;
    let Some(cqe) = queue.pop() else { return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)) };
    Ok(cqe.result() == 5 && !io_uring::cqueue::more(cqe.flags()))
}

impl SetupError {
    pub(super) fn ring(cause: io::Error) -> Self {
        Self::new(Step::Ring, cause)
    }

    pub(super) fn buffers(cause: io::Error) -> Self {
        Self::new(Step::Buffers, cause)
    }

    pub(super) fn memory(cause: io::Error) -> Self {
        Self::new(Step::Memory, cause)
    }

    pub(super) fn wake(cause: io::Error) -> Self {
        Self::new(Step::Wake, cause)
    }

    pub(super) fn unshare_fd_table(cause: io::Error) -> Self {
        Self::new(Step::PrivateTable, cause)
    }

    pub(super) fn pin(cpu: usize, cause: io::Error) -> Self {
        Self::new(Step::Pin(cpu), cause)
    }

    pub(super) fn nofile(cause: io::Error) -> Self {
        Self::new(Step::Nofile, cause)
    }

    fn new(step: Step, cause: io::Error) -> Self {
        SetupError { step, cause, host: Host::here() }
    }
}

impl Host {
    fn here() -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        Host {
            kernel: kernel(),
            io_uring_disabled: disabled.ok().and_then(|value| value.trim().parse().ok()),
            memlock_bytes: super::thread::limit(libc::RLIMIT_MEMLOCK).ok().map(|(soft, _)| soft),
            nofile: super::thread::limit(libc::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Ring => write!(f, "cannot set up io_uring")?,
            Step::Buffers => write!(f, "cannot register receive buffers with io_uring")?,
            Step::Memory => write!(f, "cannot map memory for receive buffers")?,
            Step::Wake => write!(f, "cannot create an eventfd")?,
            Step::PrivateTable => write!(f, "cannot give a worker a file descriptor table of its own")?,
            Step::Pin(cpu) => write!(f, "cannot pin a worker to CPU {cpu}")?,
            Step::Nofile => write!(f, "the limit of open files is too low")?,
        }
        write!(f, ": {}", self.cause)?;
        match advice(self.step, self.cause.raw_os_error().unwrap_or(0), &self.host) {
            Some((cause, fix)) => write!(f, ". Likely cause: {cause}. Try: {fix}"),
            None => write!(f, " (kernel {})", self.host.kernel),
        }
    }
}

/// The likely cause, and what mends it.
fn advice(step: Step, errno: i32, host: &Host) -> Option<(String, String)> {
    let (cause, fix) = match (step, errno) {
        (Step::Ring | Step::Buffers, libc::EPERM | libc::EACCES) => return Some(refused(host)),
        (Step::Ring | Step::Buffers, libc::ENOSYS) => (
            format!("kernel {} has no io_uring, or a sandbox such as gVisor hides it", host.kernel),
            "run on Linux 6.1 or later with CONFIG_IO_URING, and not inside gVisor".into(),
        ),
        (Step::Ring | Step::Buffers, libc::EINVAL) => (
            format!("kernel {} is older than 6.1 and lacks IORING_SETUP_DEFER_TASKRUN", host.kernel),
            "run on Linux 6.1 or later; `uname -r` tells".into(),
        ),
        (Step::Ring | Step::Buffers | Step::Memory, libc::ENOMEM) => (
            format!("too little memory, or RLIMIT_MEMLOCK ({}) is used up", limit_text(host.memlock_bytes)),
            "`ulimit -l unlimited`, LimitMEMLOCK=infinity in the systemd unit, or fewer and smaller buffers in the \
             config"
                .into(),
        ),
        (_, libc::EMFILE | libc::ENFILE) | (Step::Nofile, _) => (
            format!("RLIMIT_NOFILE is {}", limit_text(host.nofile)),
            "`ulimit -n 1048576` before starting, or LimitNOFILE=1048576 in the systemd unit".into(),
        ),
        (Step::PrivateTable, libc::EPERM | libc::ENOSYS) => (
            "a seccomp profile forbids close_range(2)".into(),
            "allow close_range in the profile, or run with `--security-opt seccomp=unconfined`".into(),
        ),
        (Step::Pin(cpu), libc::EINVAL) => (
            format!("CPU {cpu} does not exist, is offline, or is outside this process's cpuset"),
            "`taskset -cp $$` lists the CPUs that may be used; give some of those with --cpus".into(),
        ),
        _ => return None,
    };
    Some((cause, fix))
}

fn refused(host: &Host) -> (String, String) {
    let (cause, fix) = match host.io_uring_disabled {
        Some(2) => {
            ("the sysctl kernel.io_uring_disabled is 2 (forbidden to all)", "`sysctl kernel.io_uring_disabled=0`")
        }
        Some(1) => (
            "the sysctl kernel.io_uring_disabled is 1 (forbidden to those without CAP_SYS_ADMIN or the io_uring group)",
            "`sysctl kernel.io_uring_disabled=0`, or put this user's group into kernel.io_uring_group",
        ),
        _ => (
            "a seccomp profile forbids it, as the default ones of Docker, containerd and Podman do",
            "`--security-opt seccomp=unconfined`, or a profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register",
        ),
    };
    (cause.into(), fix.into())
}

fn limit_text(limit: Option<u64>) -> String {
    match limit {
        None => "unknown".into(),
        Some(libc::RLIM_INFINITY) => "unlimited".into(),
        Some(limit) => limit.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(step: Step, errno: i32, io_uring_disabled: Option<u8>) -> String {
        let host = Host { kernel: "5.15.0".into(), io_uring_disabled, memlock_bytes: Some(65536), nofile: Some(1024) };
        SetupError { step, cause: io::Error::from_raw_os_error(errno), host }.to_string()
    }

    /// Each refusal, and the words an operator must find in what they read.
    #[test]
    fn refusals_name_cause_and_cure() {
        let cases: &[(Step, i32, Option<u8>, &[&str])] = &[
            (
                Step::Ring,
                libc::EPERM,
                Some(2),
                &["os error 1", "io_uring_disabled is 2", "sysctl kernel.io_uring_disabled=0"],
            ),
            (Step::Ring, libc::EPERM, Some(1), &["CAP_SYS_ADMIN", "kernel.io_uring_group"]),
            (Step::Ring, libc::EPERM, Some(0), &["seccomp", "--security-opt"]),
            (Step::Ring, libc::EPERM, None, &["seccomp", "Docker"]),
            (Step::Ring, libc::EACCES, None, &["seccomp", "Docker"]),
            (Step::Ring, libc::ENOSYS, None, &["5.15.0", "gVisor"]),
            (Step::Ring, libc::EINVAL, None, &["5.15.0 is older than 6.1"]),
            (Step::Ring, libc::ENOMEM, None, &["RLIMIT_MEMLOCK (65536)", "ulimit -l"]),
            (Step::Memory, libc::ENOMEM, None, &["buffers in the config"]),
            (Step::Ring, libc::EMFILE, None, &["RLIMIT_NOFILE is 1024", "ulimit -n"]),
            (Step::Nofile, 0, None, &["RLIMIT_NOFILE is 1024", "LimitNOFILE"]),
            (Step::PrivateTable, libc::EPERM, None, &["close_range"]),
            (Step::Pin(7), libc::EINVAL, None, &["CPU 7", "taskset"]),
            (Step::Buffers, libc::EIO, None, &["receive buffers", "(kernel 5.15.0)"]),
        ];
        for (step, errno, disabled, words) in cases {
            let told = told(*step, *errno, *disabled);
            for word in *words {
                assert!(told.contains(word), "{word:?} is missing in: {told}");
            }
        }
    }

    #[test]
    fn this_machine_answers() {
        match probe() {
            Ok(features) => println!("kernel {}: {features:?}", kernel()),
            Err(error) => println!("SKIPPED: {error}"),
        }
    }

    /// A real refusal: a seccomp filter of this thread alone, which answers EPERM as containers' default profiles do.
    #[test]
    fn a_seccomp_profile_is_named() {
        let told = std::thread::spawn(|| {
            forbid_io_uring();
            probe().unwrap_err().to_string()
        });
        let told = told.join().unwrap();
        assert!(told.contains("cannot set up io_uring") && told.contains("os error 1"), "{told}");
        assert!(told.contains("seccomp") || told.contains("io_uring_disabled"), "{told}");
    }

    fn forbid_io_uring() {
        const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut steps = [
            step(LOAD_NUMBER, 0, 0, 0),
            step(IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: `program` and the steps it points to are readable, as long as it says, and outlive the call. Without
        // TSYNC the filter holds for this thread, which ends with the test.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) }, 0);
    }
}
