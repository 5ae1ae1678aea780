//! Memory that the kernel writes into: mapped, so that pages nobody used cost nothing and none ever moves.

use std::io;
use std::ptr::NonNull;

/// Anonymous zeroed pages, unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// At least `len` bytes, page-aligned. Nothing is committed until touched.
    pub fn new(len: usize) -> io::Result<Self> {
        let len = len.max(1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: with a null hint and without MAP_FIXED the kernel picks an unused range, so no memory that anyone
        // else uses is touched.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap never returns page zero unless asked");
        Ok(Mapping { start, len })
    }

    /// The first byte; page-aligned.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that mmap gave `new`, unmapped once. That nobody uses it any longer, the kernel
        // included, is what the owner of a `Mapping` upholds (see `Ring`'s Drop).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
