//! What holds for a session: the limits and waits of its route, as they were when it was routed.

use std::rc::Rc;
use std::sync::Arc;

use super::loans::BULK_WEIGHT;
use crate::config::millis;
use crate::config::{self, CloseCodes, Config, Limits, Route, Timeouts};
use crate::op::Side;
use crate::proto::frame::FrameLimits;
use crate::table::Table;
use crate::table::state::PoolState;

/// One per route; its sessions share it, those of several tables too if nothing of it has changed. It holds parts of a table
/// and never a whole one, which is as large as all its backends and routes: sessions last much longer than tables.
#[derive(Debug)]
pub(super) struct Policy {
    /// `None` before there is a route.
    routed: Option<Routed>,
    limits: Limits,
    pub waits: Waits,
    pub close_codes: CloseCodes,
    /// Of what clients send, and of what backends do.
    client_frames: FrameLimits,
    backend_frames: FrameLimits,
    /// Bytes per second; 0: any progress will do.
    pub receiver_min: u64,
    pub controls_max: Option<u32>,
    /// limits.window_bytes, and the same in small buffers.
    pub window_bytes: u32,
    pub window_buffers: u16,
}

/// A route and its pool, without the backends.
#[derive(Debug)]
pub(super) struct Routed {
    pub route: Arc<Route>,
    pub config: Arc<config::PoolConfig>,
    pub state: Arc<PoolState>,
}

impl Routed {
    /// The pool's number in the table that it was routed with, which tells nothing in any other.
    pub fn number(&self) -> usize {
        self.route.pool
    }
}

/// The timeouts, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    pub head: u64,
    pub connect: u64,
    pub dial: u64,
    pub answer: u64,
    pub send_stall: u64,
    /// `u64::MAX`: none.
    pub idle: u64,
    pub close: u64,
    pub linger: u64,
    pub plain_http: u64,
    pub plain_http_total: u64,
}

impl Policy {
    pub fn new(
        config: &Config,
        routed: Option<Routed>,
        (limits, timeouts, close_codes): (&Limits, &Timeouts, CloseCodes),
    ) -> Rc<Self> {
        let window = config.limits.window_bytes;
        let of_all = FrameLimits {
            frame_bytes_max: limits.frame_bytes_max.unwrap_or(u64::MAX),
            message_bytes_max: limits.message_bytes_max.unwrap_or(u64::MAX),
            message_fragments_max: limits.message_fragments_max.unwrap_or(u32::MAX),
        };
        Rc::new(Policy {
            routed,
            limits: limits.clone(),
            waits: Waits::new(timeouts),
            close_codes,
            client_frames: FrameLimits {
                message_bytes_max: of_all.message_bytes_max.min(limits.client_message_bytes_max.unwrap_or(u64::MAX)),
                ..of_all
            },
            backend_frames: of_all,
            receiver_min: limits.receiver_bytes_per_second_min.unwrap_or(0),
            controls_max: limits.control_frames_per_second_max,
            window_bytes: window as u32,
            window_buffers: window_buffers(window, config.buffers.small_bytes),
        })
    }

    /// Of frames from this side.
    pub fn frame_limits(&self, from: Side) -> &FrameLimits {
        match from {
            Side::Client => &self.client_frames,
            Side::Backend => &self.backend_frames,
        }
    }

    /// The route it was made for.
    pub fn route(&self) -> Option<&Route> {
        self.routed.as_ref().map(|routed| &*routed.route)
    }

    /// The route's pool.
    pub fn pool(&self) -> &Routed {
        self.routed.as_ref().expect("asked of routed sessions only")
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// It would be made just so for this route of this table.
    pub fn is_of(&self, route: &Arc<Route>, table: &Table) -> bool {
        let pool = &table.pools[route.pool];
        let is_same = |routed: &Routed| {
            Arc::ptr_eq(&routed.route, route)
                && Arc::ptr_eq(&routed.config, &pool.config)
                && Arc::ptr_eq(&routed.state, &pool.state)
        };
        self.routed.as_ref().is_some_and(is_same) && self.window_bytes == table.config.limits.window_bytes as u32
    }
}

impl Waits {
    fn new(timeouts: &Timeouts) -> Self {
        Waits {
            head: millis(timeouts.head),
            connect: millis(timeouts.connect),
            dial: millis(timeouts.dial),
            answer: millis(timeouts.answer),
            send_stall: millis(timeouts.send_stall),
            idle: timeouts.idle.map_or(u64::MAX, millis),
            close: millis(timeouts.close),
            linger: millis(timeouts.linger),
            plain_http: millis(timeouts.plain_http),
            plain_http_total: millis(timeouts.plain_http_total),
        }
    }
}

/// No less than one bulk buffer weighs, or a peer of bulk could never send.
fn window_buffers(window_bytes: usize, small_bytes: usize) -> u16 {
    let buffers = window_bytes / small_bytes;
    u16::try_from(buffers).unwrap_or(u16::MAX / 4).clamp(BULK_WEIGHT, u16::MAX / 4)
}
