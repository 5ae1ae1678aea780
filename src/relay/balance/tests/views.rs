//! Who is usable, and with what weight.

use std::time::Duration;

use super::*;
use crate::table::state::Checked;

/// Who gets any of the next sessions, which all end at once.
fn chosen(table: &Table, now: u64) -> Vec<u16> {
    let pool = &table.pools[0];
    let (mut balancer, mut dice) = (Balancer::new(pool), Dice::new(4));
    let mut chosen: Vec<u16> = (0..40).flat_map(|_| balancer.choose(pool, &ask(now, dice.roll()))).collect();
    chosen.iter().for_each(|number| release(&pool.members[usize::from(*number)].state, &pool.state, table));
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[test]
fn backups_serve_only_when_no_other_is_usable() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::PowerOfTwo, Balance::Random] {
        let table = table(balance, 4, |pool| (2..4).for_each(|number| pool.backends[number].backup = true));
        let pool = &table.pools[0];
        let eject = |number: usize, until| pool.members[number].state.ejected_until.store(until, Relaxed);
        assert_eq!(chosen(&table, 1), [0, 1], "{balance:?}");
        eject(0, 100);
        assert_eq!(chosen(&table, 2), [1], "{balance:?}");
        eject(1, 50);
        assert_eq!(chosen(&table, 3), [2, 3], "{balance:?}");
        eject(2, 100);
        assert_eq!(chosen(&table, 4), [3], "{balance:?}");
        eject(3, 100);
        assert_eq!(chosen(&table, 5), [0, 1], "{balance:?}: better those than nobody");
        assert_eq!(chosen(&table, 50), [1], "{balance:?}");
    }
}

#[test]
fn full_ones_do_not_bring_backups_in() {
    let table = table(Balance::RoundRobin, 2, |pool| {
        pool.connections_max = Some(1);
        pool.backends[1].backup = true;
    });
    let pool = &table.pools[0];
    assert_eq!(choices(&mut Balancer::new(pool), pool, 1), [0]);
    assert_eq!(Balancer::new(pool).choose(pool, &ask(1, 0)), Err(Unavailable::Full));
}

#[test]
fn who_is_down_or_drained_gets_nothing_whatever_happens() {
    let table = table(Balance::LeastConnections, 3, |pool| pool.backends[0].drain = true);
    let pool = &table.pools[0];
    pool.members[1].state.set_checked(Checked::Down);
    pool.members[2].state.ejected_until.store(100, Relaxed);
    assert_eq!(chosen(&table, 1), [2]);
    pool.members[2].state.set_checked(Checked::Down);
    assert_eq!(Balancer::new(pool).choose(pool, &ask(1, 0)), Err(Unavailable::Down));
    assert!(chosen(&table, 1000).is_empty());
}

#[test]
fn a_view_lasts_until_the_version_changes_or_its_time_is_over() {
    let table = table(Balance::RoundRobin, 2, |_| ());
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    assert_eq!(choices(&mut balancer, pool, 2), [0, 1]);
    pool.members[0].state.ejected_until.store(100, Relaxed);
    assert_eq!(choices(&mut balancer, pool, 2), [0, 1], "nobody has told it");
    pool.state.changed();
    assert_eq!(choices(&mut balancer, pool, 3), [1, 1, 1]);
    assert_eq!(balancer.choose(pool, &ask(99, 0)), Ok(1));
    let back: Vec<u16> = (0..5).map(|_| balancer.choose(pool, &ask(100, 0)).unwrap()).collect();
    assert_eq!(back, [0, 0, 1, 0, 1], "its turn comes in the round that has begun");
}

#[test]
fn no_workers_view_lags_behind_another_workers_clock() {
    let table = table(Balance::RoundRobin, 2, |_| ());
    let pool = &table.pools[0];
    pool.members[0].state.ejected_until.store(100, Relaxed);
    let (mut early, mut late) = (View::default(), View::default());
    early.rebuild(pool, 90);
    assert!(early.is_current(pool, 99) && !early.has(0));
    late.rebuild(pool, 100);
    assert!(!early.is_current(pool, 99));
    early.rebuild(pool, 99);
    assert!(early.has(0));
}

#[test]
fn slow_start_goes_from_a_tenth_to_all_in_steps() {
    let table = table(Balance::RoundRobin, 2, |pool| {
        pool.backends[0].weight = 3;
        pool.backends[0].slow_start = Some(Duration::from_millis(1005));
    });
    let pool = &table.pools[0];
    let mut view = View::default();
    view.rebuild(pool, 1);
    assert_eq!(view.weight(0), 30, "it was there from the beginning");
    pool.members[0].state.up_since.store(1000, Relaxed);
    pool.state.changed();
    let mut weights = Vec::new();
    for now in 1000..2100 {
        if !view.is_current(pool, now) {
            view.rebuild(pool, now);
        }
        if weights.last().is_none_or(|(_, weight)| *weight != view.weight(0)) {
            weights.push((now, view.weight(0)));
        }
    }
    let expected = [1000, 1201, 1302, 1402, 1503, 1603, 1704, 1804, 1905, 2005].into_iter().zip((3..=30).step_by(3));
    assert_eq!(weights, expected.collect::<Vec<_>>());
    assert_eq!(view.weight(1), 10);
    assert!(view.is_current(pool, u64::MAX - 1), "nothing will change any more");
}

#[test]
fn slow_start_holds_for_the_policies_that_weigh() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::Random] {
        let table = table(balance, 2, |pool| pool.slow_start = Some(Duration::from_secs(10)));
        let pool = &table.pools[0];
        pool.members[1].state.up_since.store(1000, Relaxed);
        let (mut balancer, mut dice) = (Balancer::new(pool), Dice::new(5));
        for _ in 0..1100 {
            balancer.choose(pool, &ask(1500, dice.roll())).unwrap();
        }
        let share = sessions(pool)[1];
        assert!((75..=125).contains(&share), "{balance:?}: {share} instead of 100");
    }
}

#[test]
fn a_wanted_member_is_taken_if_it_may_be() {
    let table = table(Balance::LeastConnections, 5, |pool| {
        pool.backends[1].drain = true;
        pool.backends[2].connections_max = Some(1);
        pool.backends[4].backup = true;
    });
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    let mut claim = |number, tried| balancer.claim(pool, number, &Ask { tried, ..ask(1, 0) });
    assert!(claim(0, &[1]));
    assert!(!claim(0, &[0]), "it was tried");
    assert!(!claim(1, &[]), "it is drained");
    assert!(claim(2, &[]));
    assert!(!claim(2, &[]), "it is full");
    assert!(claim(4, &[]), "a backup keeps its clients");
    assert!(!claim(5, &[]), "there is none");
    pool.members[3].state.ejected_until.store(100, Relaxed);
    pool.state.changed();
    assert!(!claim(3, &[]), "it is ejected");
    pool.members[3].state.ejected_until.store(0, Relaxed);
    pool.members[3].state.set_checked(Checked::Down);
    pool.state.changed();
    assert!(!claim(3, &[]), "it is down");
    assert_eq!(sessions(pool), [1, 0, 1, 0, 1]);
    assert_eq!(pool.state.sessions.load(Relaxed), 3);
}
