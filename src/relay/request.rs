//! A request that has been checked, on its way to a backend.

use bytes::BytesMut;

use crate::config::Limits;
use crate::op::ListenerId;
use crate::proto::upgrade::Incoming;

#[derive(Debug)]
pub(super) struct ClientRequest {
    pub incoming: Incoming,
    /// What the client sent behind its head. No byte of it leaves before a right 101 (CVE-2026-2833).
    pub early: BytesMut,
    /// The one it came to.
    pub listener: ListenerId,
    /// The target as the route has rewritten it.
    pub target: Option<String>,
    /// Ringways that it has passed before this one.
    pub hops: u32,
}

impl ClientRequest {
    pub fn is_plain(&self) -> bool {
        matches!(self.incoming, Incoming::Plain(..))
    }

    /// How many more bytes of the client's may come; 0: stop reading.
    pub fn credit(&self, limits: &Limits) -> u32 {
        limits.early_bytes_max.saturating_sub(self.early.len()) as u32
    }
}
