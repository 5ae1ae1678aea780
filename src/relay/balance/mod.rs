//! STUB
use super::table::{Member, Pool, Table};
use std::sync::atomic::Ordering::Relaxed;
pub use super::table::hash::hash_bytes;
#[derive(Debug)]
pub struct Balancer { turn: usize }
pub struct Ask<'a> { pub key: u64, pub tried: &'a [u16], pub now: u64, pub random: u64 }
#[derive(Debug)]
pub enum Unavailable { Down, Full }
impl Balancer {
    pub fn new(_: &Pool) -> Self { Balancer { turn: 0 } }
    pub fn choose(&mut self, pool: &Pool, ask: &Ask<'_>) -> Result<u16, Unavailable> {
        for i in 0..pool.members.len() {
            let n = (self.turn + i) % pool.members.len();
            if !ask.tried.contains(&(n as u16)) {
                self.turn = n + 1;
                pool.members[n].state.sessions.fetch_add(1, Relaxed);
                pool.members[n].state.handshakes.fetch_add(1, Relaxed);
                pool.state.sessions.fetch_add(1, Relaxed);
                return Ok(n as u16);
            }
        }
        Err(Unavailable::Down)
    }
    pub fn claim(&mut self, _: &Pool, _: u16, _: &Ask<'_>) -> bool { false }
}
pub fn handshake_ended(m: &Member) { m.state.handshakes.fetch_sub(1, Relaxed); }
pub fn release(m: &Member, p: &Pool, _: &Table) { m.state.sessions.fetch_sub(1, Relaxed); p.state.sessions.fetch_sub(1, Relaxed); }
pub fn reset(_: &Pool) {}
