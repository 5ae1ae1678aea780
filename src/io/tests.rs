//! The engine on the real kernel. What the code relies on beyond documentation stands here as a test, because it may move
//! with the kernel's version.

mod accept;
mod buffers;
mod close;
mod connect;
mod kit;
mod receive;
mod send;
mod thread;
mod wake;
