//! A pool, its balancers, and the sessions they have chosen; the files below ask them.

mod hashed;
mod least;
mod limits;
mod turns;
mod views;

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::config::{self, Config};

pub(super) fn table(balance: Balance, members: usize, edit: impl FnOnce(&mut config::PoolConfig)) -> Arc<Table> {
    let mut pool = config::PoolConfig::named("chat");
    pool.balance = balance;
    pool.backends = backends(members);
    edit(&mut pool);
    Table::first(Arc::new(Config { pools: vec![pool], ..Config::default() }), Instant::now())
}

pub(super) fn weighted(balance: Balance, weights: &[u32]) -> Arc<Table> {
    table(balance, weights.len(), |pool| {
        pool.backends.iter_mut().zip(weights).for_each(|(backend, weight)| backend.weight = *weight);
    })
}

pub(super) fn backends(count: usize) -> Vec<config::Backend> {
    let address = |number: usize| format!("10.0.{}.{}:9000", number / 250, number % 250);
    (0..count).map(|number| address(number).parse::<config::Address>().unwrap().into()).collect()
}

pub(super) fn ask(now: u64, random: u64) -> Ask<'static> {
    Ask { key: 0, tried: &[], is_last: false, now, random, is_handshake: true }
}

pub(super) fn keyed(key: u64) -> Ask<'static> {
    Ask { key: hash_bytes(&key.to_le_bytes()), ..ask(1, key) }
}

pub(super) fn sessions(pool: &Pool) -> Vec<u32> {
    pool.members.iter().map(|member| member.state.sessions.load(Relaxed)).collect()
}

/// The next sessions' members, `random` being 0 each time.
pub(super) fn choices(balancer: &mut Balancer, pool: &Pool, count: usize) -> Vec<u16> {
    (0..count).map(|_| balancer.choose(pool, &ask(1, 0)).unwrap()).collect()
}

/// Fixed dice.
pub(super) struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        nth(0, self.0)
    }

    pub fn below(&mut self, count: usize) -> usize {
        view::scale(self.roll(), count)
    }
}
