//! Discovery against a nameserver and files that change under it.

mod dns;
mod follow;
mod nameserver;
