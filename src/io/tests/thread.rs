use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::io::{Waker, cpus, pin, unshare_fd_table};

/// Fills the calling thread's descriptor table, unless that would take too many.
pub fn exhaust(filler: &OwnedFd) -> Option<Vec<OwnedFd>> {
    let (soft, _) = crate::io::thread::limit(libc::RLIMIT_NOFILE).unwrap();
    if soft > 100_000 {
        return None;
    }
    let mut fillers = Vec::new();
    while let Ok(fd) = filler.try_clone() {
        fillers.push(fd);
    }
    Some(fillers)
}

#[test]
fn a_private_table_has_only_what_was_kept() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let other = File::open("/dev/null").unwrap();
    let waker = Waker::new().unwrap();
    let (kept, gone) = (ours.as_raw_fd(), other.as_raw_fd());
    let wake = waker.descriptor();
    std::thread::spawn(move || {
        let own = unshare_fd_table(&[kept, wake]).unwrap();
        assert_eq!(own.iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>(), [kept, wake]);
        // SAFETY: no memory is passed.
        assert_eq!(unsafe { libc::fcntl(gone, libc::F_GETFD) }, -1, "closed in this thread's table");
        let open = std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
        assert!(open <= 6, "{open} descriptors: three streams, two kept, one for reading the directory");
    })
    .join()
    .unwrap();
    assert!(other.metadata().is_ok(), "still open in everyone else's");
    drop(ours);
    assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0, "the thread's copy went with the thread");
}

#[test]
fn a_descriptor_that_is_not_open_cannot_be_kept() {
    std::thread::spawn(|| {
        let error = unshare_fd_table(&[999_999]).unwrap_err().to_string();
        assert!(error.contains("os error 9"), "{error}");
    })
    .join()
    .unwrap();
}

#[test]
fn pins_to_a_cpu_that_is_there() {
    std::thread::spawn(|| {
        let all = cpus();
        let last = *all.last().unwrap();
        pin(last).unwrap();
        assert_eq!(cpus(), [last]);
        for cpu in [1023, usize::MAX] {
            let error = pin(cpu).unwrap_err().to_string();
            assert!(error.contains(&format!("CPU {cpu}")), "{error}");
        }
    })
    .join()
    .unwrap();
}
