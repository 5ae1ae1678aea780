//! Round robin, random and power of two: who gets how many.

use super::*;
use crate::table::state::Checked;

#[test]
fn equals_take_turns_from_a_random_one_on() {
    let table = table(Balance::RoundRobin, 3, |_| ());
    let pool = &table.pools[0];
    assert_eq!(choices(&mut Balancer::new(pool), pool, 7), [0, 1, 2, 0, 1, 2, 0]);
    let mut other = Balancer::new(pool);
    assert_eq!(other.choose(pool, &ask(1, u64::MAX)), Ok(2));
    assert_eq!(choices(&mut other, pool, 4), [0, 1, 2, 0]);
}

#[test]
fn a_heavy_one_is_spread_over_the_round() {
    let table = weighted(Balance::RoundRobin, &[5, 1, 1]);
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    for _ in 0..3 {
        assert_eq!(choices(&mut balancer, pool, 7), [0, 0, 1, 0, 0, 2, 0]);
    }
}

#[test]
fn turns_go_on_when_the_view_is_made_anew() {
    let table = table(Balance::RoundRobin, 4, |_| ());
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    let mut chosen = Vec::new();
    for _ in 0..8 {
        chosen.extend(choices(&mut balancer, pool, 1));
        pool.state.changed();
    }
    assert_eq!(chosen, [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn who_comes_back_makes_up_for_nothing() {
    let table = table(Balance::RoundRobin, 3, |_| ());
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    let check = |checked| {
        pool.members[1].state.set_checked(checked);
        pool.state.changed();
    };
    choices(&mut balancer, pool, 3);
    check(Checked::Down);
    assert_eq!(choices(&mut balancer, pool, 1000).iter().filter(|number| **number == 1).count(), 0);
    check(Checked::Up);
    let back = choices(&mut balancer, pool, 9);
    assert_eq!(back.iter().filter(|number| **number == 1).count(), 3, "{back:?}");
    assert!(back.windows(2).all(|pair| pair != [1, 1]), "{back:?}");
}

#[test]
fn rounds_are_exact_for_any_weights_and_long_after_the_passes_were_counted_anew() {
    let weights = [3, 200, 256, 1, 40];
    let table = weighted(Balance::RoundRobin, &weights);
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    for _ in 0..4 {
        let mut counts = [0; 5];
        choices(&mut balancer, pool, 500).iter().for_each(|number| counts[usize::from(*number)] += 1);
        assert!(
            counts.iter().zip(weights).all(|(count, weight): (&u32, u32)| count.abs_diff(weight) <= 1),
            "{counts:?}"
        );
        pool.state.changed();
    }
}

#[test]
fn random_picks_follow_the_weights_exactly() {
    let table = weighted(Balance::Random, &[1, 2, 3, 256, 1]);
    let pool = &table.pools[0];
    let mut view = View::default();
    view.rebuild(pool, 1);
    let mut alias = Alias::default();
    alias.update(&view);
    assert_eq!(alias.shares(5), [1, 2, 3, 256, 1].map(|weight| weight * u64::from(WEIGHT_UNIT) * 5));
}

#[test]
fn random_spreads_sessions_by_weight() {
    let weights = [1, 2, 3, 4];
    let table = weighted(Balance::Random, &weights);
    let pool = &table.pools[0];
    let (mut balancer, mut dice) = (Balancer::new(pool), Dice::new(7));
    for _ in 0..100_000 {
        balancer.choose(pool, &ask(1, dice.roll())).unwrap();
    }
    for (sessions, weight) in sessions(pool).into_iter().zip(weights) {
        assert!(sessions.abs_diff(weight * 10_000) < 400, "{sessions} at weight {weight}");
    }
}

#[test]
fn power_of_two_of_two_takes_the_less_loaded_by_weight() {
    let table = weighted(Balance::PowerOfTwo, &[1, 3]);
    let pool = &table.pools[0];
    let (mut balancer, mut dice) = (Balancer::new(pool), Dice::new(3));
    for round in 1..=100 {
        (0..4).for_each(|_| assert!(balancer.choose(pool, &ask(1, dice.roll())).is_ok()));
        assert_eq!(sessions(pool), [round, 3 * round]);
    }
}

#[test]
fn power_of_two_is_much_more_even_than_random() {
    let spread = |balance| {
        let table = table(balance, 100, |_| ());
        let pool = &table.pools[0];
        let (mut balancer, mut dice) = (Balancer::new(pool), Dice::new(1));
        (0..10_000).for_each(|_| assert!(balancer.choose(pool, &ask(1, dice.roll())).is_ok()));
        let sessions = sessions(pool);
        sessions.iter().max().unwrap() - sessions.iter().min().unwrap()
    };
    assert!(spread(Balance::PowerOfTwo) <= 10, "{}", spread(Balance::PowerOfTwo));
    assert!(spread(Balance::Random) >= 30, "{}", spread(Balance::Random));
}
