//! The load generator as a program: real processes, real sockets, loopback only, ephemeral ports.

mod errors;
mod faults;
mod foreign;
mod judge;
mod outputs;
mod scenarios;
mod strict;
mod support;
mod tls;
