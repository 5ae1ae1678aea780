//! What a seed decides before anything happens: the config, the kernel's temper, how many clients.

use ringway::config::{Config, Plan};
use ringway::op::Group;

use crate::configs::{self, Frame};
use crate::temper::Dice;
use crate::temper::Temper;

pub struct Setup {
    pub frame: Frame,
    pub config: Config,
    pub plan: Plan,
    pub temper: Temper,
    /// Bounds a run.
    pub steps: u32,
    /// How likely a reload is in one step, of 1000.
    pub reloads: u32,
}

impl Setup {
    pub fn roll(dice: &mut Dice) -> Setup {
        let gentle = dice.chance(300);
        let frame = Frame { gentle, clients: dice.within(1..=8) };
        let listeners = if dice.chance(500) { &[0, 1][..] } else { &[0] };
        let config = configs::roll(frame, listeners, dice);
        let sessions_max = if gentle { frame.clients } else { dice.within(1..=frame.clients) };
        let plan = Plan {
            sessions_max,
            refusals_max: dice.within(1..=2),
            small_count: dice.pick(&[2, 4, 16, 64]),
            bulk_count: dice.pick(&[1, 2, 8]),
        };
        let steps = if gentle { 400_000 } else { 600 };
        Setup { frame, config, plan, temper: temper(gentle, dice), steps, reloads: dice.pick(&[0, 3, 30]) }
    }

    /// Of each group of buffers: how large, and how many.
    pub fn buffers(&self) -> [(usize, usize); Group::COUNT] {
        let buffers = &self.config.buffers;
        [(buffers.small_bytes, self.plan.small_count), (buffers.bulk_bytes, self.plan.bulk_count)]
    }
}

fn temper(gentle: bool, dice: &mut Dice) -> Temper {
    let mut rarely = |most| if gentle { 0 } else { dice.pick(&[0, 0, 10, most]) };
    let (accept_fails, connect_fails, connect_hangs) = (rarely(300), rarely(500), rarely(300));
    Temper {
        credit: dice.chance(500),
        progress: dice.pick(&[300, 700, 950]),
        whole_receive: dice.pick(&[0, 500, 900, 1000]),
        receive_ends: dice.pick(&[0, 50, 500]),
        spurious_no_buffers: dice.pick(&[0, 0, 20]),
        whole_send: dice.pick(&[0, 500, 900, 1000]),
        send_ends: dice.pick(&[0, 0, 50, 500]),
        cancel_loses: dice.pick(&[0, 300, 800]),
        reorder: dice.pick(&[0, 300, 900]),
        accept_fails: if gentle { dice.pick(&[0, 100]) } else { accept_fails },
        connect_fails,
        connect_hangs,
        send_room: dice.pick(&[100, 5000, 100_000]),
    }
}
