//! One end of a session: a socket, and what is in flight on it.

use crate::op::Group;

/// One socket of a session.
#[derive(Debug)]
pub(super) struct Port {
    pub link: Link,
    pub receiving: Receiving,
    /// True exactly while a Send is in flight, or what it is to send is being copied.
    pub sending: bool,
    /// When that Send was asked for or last got some bytes through.
    pub sending_since: u64,
    /// That Send has been cancelled to see how far it got.
    pub probing: bool,
    /// How long it had been under way then, in milliseconds.
    pub probed_after: u32,
    /// That Send has been cancelled to have its buffers back.
    pub reclaiming: bool,
    /// It has lately taken so long that its buffers were wanted back: it gets little at a time until it is fast again.
    pub sluggish: bool,
    /// No more bytes will come from it: FIN, RST, or given up.
    pub finished: bool,
    /// No more bytes can go to it.
    pub broken: bool,
    /// FIN has been sent to it.
    pub shut: bool,
    /// It is to hear RST instead of FIN: what it has been sent is not all, and nothing else would tell.
    pub abort: bool,
    /// This peer sends more at a time than fits into a small buffer.
    pub bulk: bool,
    /// How sure that is.
    score: i8,
    /// The group of the armed receive.
    pub group: Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// No socket.
    Absent,
    /// Exactly while a Connect is in flight and still wanted.
    Connecting,
    Live,
    /// Shut down; closed as soon as nothing is in flight. `connecting`: a cancelled Connect is.
    Retiring {
        connecting: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Idle,
    Armed,
    /// Armed, and a Cancel is on its way.
    Cancelling,
    /// Not armed: no buffer was free. On the list of those who wait for one.
    Starved,
}

impl Port {
    pub fn absent() -> Self {
        Port {
            link: Link::Absent,
            receiving: Receiving::Idle,
            sending: false,
            sending_since: 0,
            probing: false,
            probed_after: 0,
            reclaiming: false,
            sluggish: false,
            finished: false,
            broken: false,
            shut: false,
            abort: false,
            bulk: false,
            score: 0,
            group: Group::Small,
        }
    }

    /// A send is in flight, and nobody has cancelled it to see how far it got.
    pub fn waits_for_peer(&self) -> bool {
        self.sending && !self.probing && !self.reclaiming
    }

    /// The send in flight has been under way for that long.
    pub fn is_slow(&self, now: u64, patience: u64) -> bool {
        let is_live = self.link == Link::Live && !self.broken;
        is_live && self.waits_for_peer() && now >= self.sending_since.saturating_add(patience)
    }

    pub fn is_ready_to_close(&self) -> bool {
        self.link == Link::Retiring { connecting: false }
            && !self.sending
            && matches!(self.receiving, Receiving::Idle | Receiving::Starved)
    }

    /// Learns from the size of a receive which group suits this peer. A message a little longer than a small buffer shows
    /// as full, rest, full, rest: hence steps of different size.
    pub fn learn(&mut self, received: usize, small_bytes: usize) {
        const STEP: i8 = 4;
        const SCORE_MAX: i8 = 16;
        if self.bulk {
            let step = if received > small_bytes { STEP } else { -1 };
            self.score = (self.score + step).clamp(0, SCORE_MAX);
            self.bulk = self.score > 0;
        } else {
            let step = if received == small_bytes { STEP } else { -1 };
            self.score = (self.score + step).max(0);
            if self.score >= 2 * STEP {
                self.bulk = true;
                self.score = SCORE_MAX;
            }
        }
    }
}
