//! The kernel: the only place for `unsafe`, libc and io_uring names.
#![allow(unsafe_code)]
