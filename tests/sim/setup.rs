//! What a seed decides before anything happens: the config, the kernel's temper, how many clients.

use std::time::Duration;

use ringway::config::{Address, Balance, Config, Plan, Pool as Backends};
use ringway::op::Group;

use crate::dice::Dice;
use crate::kernel::{Pool, Temper};
use crate::shadow::Limits;

pub struct Setup {
    /// Nobody misbehaves and nothing breaks: then everything must arrive.
    pub gentle: bool,
    pub config: Config,
    pub plan: Plan,
    pub temper: Temper,
    pub clients: usize,
    /// Bounds a run.
    pub steps: u32,
}

impl Setup {
    pub fn roll(dice: &mut Dice) -> Setup {
        let gentle = dice.chance(300);
        let clients = dice.within(1..=8);
        let mut config = config(dice);
        if gentle {
            be_patient(&mut config);
        } else {
            be_strict(&mut config, dice);
        }
        let sessions_max = if gentle { clients } else { dice.within(1..=clients) };
        let plan = Plan {
            sessions_max,
            refusals_max: dice.within(1..=2),
            small_count: dice.pick(&[2, 4, 16, 64]),
            bulk_count: dice.pick(&[1, 2, 8]),
        };
        Setup { gentle, config, plan, temper: temper(gentle, dice), clients, steps: if gentle { 400_000 } else { 600 } }
    }

    pub fn pools(&self) -> [Pool; 2] {
        [
            Pool::new(Group::Small, self.config.buffers.small_bytes, self.plan.small_count),
            Pool::new(Group::Bulk, self.config.buffers.bulk_bytes, self.plan.bulk_count),
        ]
    }

    pub fn frame_limits(&self) -> Limits {
        let limits = &self.config.limits;
        Limits {
            frame: limits.frame_bytes_max.unwrap_or(u64::MAX),
            message: limits.message_bytes_max.unwrap_or(u64::MAX),
            fragments: limits.message_fragments_max.unwrap_or(u32::MAX),
        }
    }
}

fn config(dice: &mut Dice) -> Config {
    let mut config = Config::default();
    let address = |port| Address::Inet(([127, 0, 0, 1], port).into());
    config.listeners = (0..dice.within(1..=2)).map(|_| address(8080).into()).collect();
    let backends = (1..=dice.within(1..=3) as u16).map(|port| address(port).into()).collect();
    let balance = dice.pick(&[Balance::RoundRobin, Balance::LeastConnections, Balance::Random]);
    config.pools = vec![Backends { backends, balance, ..Backends::named("chat") }];
    config.default_pool = Some(0);
    config.limits.head_bytes_max = dice.pick(&[512, 2048, 16 << 10]);
    config.limits.early_bytes_max = dice.pick(&[1, 100, 16 << 10]);
    config.limits.window_bytes = dice.pick(&[1 << 10, 4 << 10, 32 << 10, 128 << 10]);
    config.buffers.small_bytes = dice.pick(&[64, 512, 4 << 10]);
    config.buffers.bulk_bytes = dice.pick(&[1 << 10, 4 << 10, 16 << 10]);
    config
}

fn be_patient(config: &mut Config) {
    config.limits.control_frames_per_second_max = None;
    let timeouts = &mut config.timeouts;
    let long = Duration::from_secs(3600);
    (timeouts.head, timeouts.connect, timeouts.answer, timeouts.send_stall) = (long, long, long, long);
    (timeouts.close, timeouts.linger) = (long, long);
}

fn be_strict(config: &mut Config, dice: &mut Dice) {
    let limits = &mut config.limits;
    limits.control_frames_per_second_max = dice.pick(&[None, Some(5), Some(1000)]);
    limits.frame_bytes_max = dice.pick(&[None, None, Some(1000)]);
    limits.message_bytes_max = dice.pick(&[None, None, Some(3000)]);
    limits.message_fragments_max = dice.pick(&[None, None, Some(3)]);
    limits.response_body_bytes_max = dice.pick(&[0, 5, 1 << 20]);
    limits.informational_max = dice.pick(&[0, 10]);
    let timeouts = &mut config.timeouts;
    let mut wait = || Duration::from_millis(dice.pick(&[1, 50, 1000, 10_000]));
    (timeouts.head, timeouts.connect, timeouts.answer) = (wait(), wait(), wait());
    (timeouts.send_stall, timeouts.close, timeouts.linger) = (wait(), wait(), wait());
    (timeouts.drain, timeouts.drain_spread) = (wait(), wait());
    if dice.chance(500) {
        timeouts.drain_spread = Duration::ZERO;
    }
    timeouts.idle = dice.pick(&[None, Some(Duration::from_millis(20)), Some(Duration::from_secs(60))]);
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
