//! Which event may lead to which words of Ringway's own: a table, written from `docs/protocol.md` and not from the code. Where
//! several things have happened any of them may be told, but nothing that has not.
//!
//! | cause | the client hears | the backend hears |
//! |---|---|---|
//! | SIGTERM; idle for too long; the backend leaves | 1001 | 1001 |
//! | the backend restarts; home is elsewhere | 1012 | 1012 |
//! | the client is gone, takes nothing, or owes its Close | - | 1001 |
//! | the backend is gone, takes nothing, or owes its Close | 1011 | - |
//! | the client breaks a rule: 1002, 1007, 1008, 1009 | the same | the same |
//! | the backend breaks one | 1011 | the same |

use std::time::Duration;

use ringway::config::{Config, Limits, Timeouts};
use ringway::op::Side;

/// What has happened to a session that it may end for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Drain,
    Idle,
    /// `on_loss`.
    Restart,
    GoingAway,
    /// `hash_keep = "home"`.
    Home,
    /// FIN or RST has come from this side.
    Gone(Side),
    /// It has taken nothing that was sent to it, for too long.
    Stalled(Side),
    /// The session closes, and this side has not said its Close in time.
    Silent(Side),
    /// It has broken a rule, for which this is the code.
    Fault(Side, u16),
}

impl Cause {
    /// The code that this side hears of it; `None`: it hears nothing of that.
    pub fn code(self, to: Side) -> Option<u16> {
        match self {
            Cause::Drain | Cause::Idle | Cause::GoingAway => Some(1001),
            Cause::Restart | Cause::Home => Some(1012),
            Cause::Gone(side) | Cause::Stalled(side) | Cause::Silent(side) => match side {
                side if side == to => None,
                Side::Client => Some(1001),
                Side::Backend => Some(1011),
            },
            Cause::Fault(Side::Backend, _) if to == Side::Client => Some(1011),
            Cause::Fault(_, code) => Some(code),
        }
    }
}

/// What has been seen of the time that one wire's session takes.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// When bytes moved last, and how much had by then.
    moved_at: Duration,
    moved: usize,
    /// The longest time without that.
    quiet: Duration,
    /// Since when a send is in flight without a break, and the longest that one has been.
    sending_since: Option<Duration>,
    sending: Duration,
    /// When the first thing happened that ends the session.
    pub closing_since: Option<Duration>,
}

/// Times are counted in whole milliseconds by the relay.
const SLACK: Duration = Duration::from_millis(1);

impl Times {
    pub fn begin(now: Duration) -> Times {
        Times { moved_at: now, ..Times::default() }
    }

    /// `moved`: bytes that have come from the wire's peer or left for it so far.
    pub fn look(&mut self, now: Duration, moved: usize, sends: bool) {
        self.quiet = self.quiet.max(now - self.moved_at);
        if moved != self.moved {
            (self.moved, self.moved_at) = (moved, now);
        }
        let since = *self.sending_since.get_or_insert(now);
        self.sending = self.sending.max(now - since);
        if !sends {
            self.sending_since = None;
        }
    }

    fn has_been_quiet(&self, time: Duration) -> bool {
        self.quiet + SLACK >= time
    }

    fn has_been_closing(&self, now: Duration, time: Duration) -> bool {
        self.closing_since.is_some_and(|since| now + SLACK >= since + time)
    }
}

/// What a session's route allows, as it was when it was routed.
#[derive(Clone, Debug)]
pub struct Rules {
    idle: Option<Duration>,
    send_stall: Duration,
    close: Duration,
    pub controls_max: usize,
}

impl Rules {
    pub fn of(limits: &Limits, timeouts: &Timeouts) -> Rules {
        Rules {
            idle: timeouts.idle,
            send_stall: timeouts.send_stall,
            close: timeouts.close,
            controls_max: limits.control_frames_per_second_max.map_or(usize::MAX, |most| most as usize),
        }
    }

    pub fn is_idle(&self, client: &Times, backend: &Times) -> bool {
        self.idle.is_some_and(|idle| client.has_been_quiet(idle) && backend.has_been_quiet(idle))
    }

    /// While buffers are short a tenth of the time is enough.
    pub fn is_stalled(&self, times: &Times) -> bool {
        times.sending + SLACK >= self.send_stall / 10
    }

    pub fn is_overdue(&self, times: &Times, now: Duration) -> bool {
        times.has_been_closing(now, self.close)
    }
}

/// What may have led to a status that Ringway answers itself.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The client keeps to the rules.
    pub is_good: bool,
    pub is_plain: bool,
    /// Some config of the run has no route for that path.
    pub may_lack_route: bool,
    /// A backend has been reached.
    pub has_backend: bool,
    /// Since it came.
    pub age: Duration,
    /// Connects may never end by themselves.
    pub hangs: bool,
    /// Nobody misbehaves and nothing breaks.
    pub gentle: bool,
}

/// Why this status may not be; `Ok`: it may.
pub fn judge_status(status: u16, asked: &Asked, shortest: &Shortest) -> Result<(), &'static str> {
    let is_late = |wait: Duration| asked.age + SLACK >= wait;
    match status {
        404 if !asked.may_lack_route => Err("404, and every config has a route for it"),
        408 if !is_late(shortest.request) => Err("408, and there has been time"),
        426 | 405 if asked.is_good && !asked.is_plain => Err("a good upgrade is told to be none"),
        // Of plain HTTP on a route that takes none, what an upgrade lacks first is told.
        400 if asked.is_good && !asked.is_plain => Err("a good upgrade is called bad"),
        414 | 417 | 501 | 505 | 508 if asked.is_good => Err("a good request is called bad"),
        502 if !asked.has_backend => Err("502, and no backend has been reached"),
        504 if !asked.hangs && !is_late(shortest.backend) => Err("504, and nothing hangs"),
        503 if asked.gentle => Err("503, and there is room for all"),
        400 | 404 | 405 | 408 | 413 | 414 | 417 | 426 | 431 | 501..=505 | 508 => Ok(()),
        _ => Err("a status that is not in the documents"),
    }
}

/// The shortest that anybody may be waited for, of all configs of a run.
#[derive(Clone, Debug)]
pub struct Shortest {
    /// For requests and their bodies, and for backends.
    pub request: Duration,
    pub backend: Duration,
}

impl Shortest {
    pub const NONE: Shortest = Shortest { request: Duration::MAX, backend: Duration::MAX };

    pub fn add(&mut self, config: &Config) {
        let all = config.routes.iter().map(|route| &route.timeouts).chain([&config.timeouts]);
        for timeouts in all {
            self.request = self.request.min(timeouts.head).min(timeouts.plain_http);
            self.backend = self.backend.min(timeouts.connect).min(timeouts.answer).min(timeouts.plain_http);
        }
    }
}
