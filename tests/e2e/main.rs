//! End to end: the real process, raw bytes, foreign clients and foreign backends.
//!
//! Tests that answer to a row of the wire cases carry its id in their name (`h04_...`); `tests/tidy.rs` sees to it that
//! none is missing. Every wait has a deadline, and no outcome depends on how long anything takes.

mod admission;
mod autobahn;
mod balance;
mod browser;
mod config;
mod discovery;
mod eject;
mod endings;
mod field_answers;
mod field_backends;
mod field_listeners;
mod field_logs;
mod field_machine;
mod field_requests;
mod fleet;
mod foreign;
mod frames;
mod handshake_backend;
mod handshake_client;
mod handshake_flow;
mod harness;
mod health;
mod integrity;
mod leaks;
mod lifecycle;
mod plain;
mod plain_answers;
mod plain_bodies;
mod reload;
mod reload_load;
mod route_effects;
mod routes;
mod signals;
mod site;
mod socketio;
mod sticky;
mod wire;
