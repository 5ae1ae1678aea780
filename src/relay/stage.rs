//! What a stage of a session is told, and what it says follows.

use std::io;

use super::context::Context;
use super::notice::Notice;
use super::outcome::{Cause, EndedBy};
use super::port::Backing;
use super::refusal::Refusal;
use crate::op::Side;

/// What has happened.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// Bytes of this side, never none, in what the stage passes on or releases.
    Bytes(Side, &'a [u8], Backing),
    /// A send to this side has got some bytes through.
    Progress(Side),
    /// Nothing more can go to this side.
    Unsendable(Side, Cause),
    /// No more bytes come from this side: FIN, or its connection is gone.
    End(Side, Option<io::Error>),
    /// The connect that was wanted has ended.
    Connected(io::Result<()>),
    /// The stage's deadline has come.
    Deadline,
    /// SIGTERM.
    Drain,
    /// The backend is to be left, with this notice, within so many milliseconds: not by all at the same moment. A handshake
    /// that is under way goes on, as only an open session can be told to come back.
    Move(Notice, u64),
}

/// What follows. `N`: the stages that this one leads to, [`Infallible`](std::convert::Infallible) if only to the end. Only
/// `session` carries it out.
#[derive(Debug)]
#[must_use]
pub(super) enum Step<N> {
    Stay,
    Enter(N),
    /// Ringway answers the client itself.
    Refuse(Refusal),
    /// What is queued for the client is the last it hears.
    Linger,
    /// Both sockets are given up, for this reason if there is none yet.
    End(EndedBy, Cause),
    /// The same, and the reason is known.
    Over,
}

impl<N> Step<N> {
    pub fn map<M>(self, next: impl FnOnce(N) -> M) -> Step<M> {
        match self {
            Step::Stay => Step::Stay,
            Step::Enter(stage) => Step::Enter(next(stage)),
            Step::Refuse(refusal) => Step::Refuse(refusal),
            Step::Linger => Step::Linger,
            Step::End(by, cause) => Step::End(by, cause),
            Step::Over => Step::Over,
        }
    }
}

impl Event<'_> {
    /// Of no meaning in this stage.
    pub fn ignore<N>(self, cx: &mut Context<'_>) -> Step<N> {
        if let Event::Bytes(_, _, backing) = self {
            backing.release(cx);
        }
        Step::Stay
    }
}
