//! Stage: the client's last bytes are on their way. Whatever it still sends is dropped.

use std::convert::Infallible;

use super::context::Context;
use super::life::Life;
use super::outcome::{Cause, EndedBy};
use super::port::Ports;
use super::stage::{Event, Step};
use crate::op::Side;

pub(super) fn on(event: Event<'_>, ports: &Ports, life: &mut Life, cx: &mut Context<'_>) -> Step<Infallible> {
    match event {
        Event::Progress(Side::Client) if !ports.client.shut => {
            life.deadline = cx.now + life.waits().send_stall;
            Step::Stay
        }
        Event::Unsendable(side, cause) => Step::End(side.into(), cause),
        Event::End(Side::Client, Some(_)) => Step::End(EndedBy::Client, Cause::ConnectionReset),
        Event::Deadline => Step::End(EndedBy::Client, Cause::AnswerNotTaken),
        other => other.ignore(cx),
    }
}

/// FIN has gone out behind the last of it.
pub(super) fn has_shut(life: &mut Life, cx: &Context<'_>) {
    life.outcome.set(EndedBy::Backend, Cause::Answered);
    life.deadline = cx.now + life.waits().linger;
}

/// The client has taken all, and has ended its side too.
pub(super) fn is_over(ports: &Ports) -> bool {
    (ports.client.finished || ports.client.abort) && ports.client.is_flushed()
}
