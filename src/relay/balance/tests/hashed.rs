//! The same key goes to the same member, but for those whose member is gone or has more than its share.

use super::*;
use crate::table::state::Checked;

const KEYS: u64 = 5000;

/// Where each key goes while nobody has a session.
fn homes(table: &Table) -> Vec<String> {
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    let home = |key| {
        let number = usize::from(balancer.choose(pool, &keyed(key)).unwrap());
        handshake_ended(&pool.members[number].state);
        release(&pool.members[number].state, &pool.state, table);
        pool.members[number].backend.name.to_string()
    };
    (0..KEYS).map(home).collect()
}

fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

#[test]
fn one_more_or_less_of_the_pool_moves_only_its_own_keys() {
    for balance in [Balance::IpHash, Balance::ConsistentHash] {
        for count in [2, 10, 11, 50] {
            let all = table(balance, count, |_| ());
            let gone = all.pools[0].members[count / 2].backend.name.to_string();
            let fewer = table(balance, count, |pool| drop(pool.backends.remove(count / 2)));
            let (all, fewer) = (homes(&all), homes(&fewer));
            let own = all.iter().filter(|home| **home == gone).count();
            assert_eq!(moved(&all, &fewer), own, "{balance:?} of {count}: keys moved between others");
            let fair = KEYS as f64 / count as f64;
            assert!(own as f64 <= 1.5 * fair, "{balance:?} of {count}: {own} moved");
        }
    }
}

#[test]
fn one_that_is_down_moves_only_its_own_keys_and_spreads_them() {
    let table = table(Balance::IpHash, 10, |_| ());
    let pool = &table.pools[0];
    let before = homes(&table);
    let down = pool.members[3].backend.name.to_string();
    pool.members[3].state.set_checked(Checked::Down);
    pool.state.changed();
    let after = homes(&table);
    let orphans: Vec<_> =
        after.iter().zip(&before).filter(|(_, before)| **before == down).map(|(now, _)| now).collect();
    assert_eq!(moved(&before, &after), orphans.len());
    for member in pool.members.iter().filter(|member| *member.backend.name != *down) {
        let share = orphans.iter().filter(|home| ***home == *member.backend.name).count() * 9;
        assert!((orphans.len() / 2..orphans.len() * 2).contains(&share), "{share} of {}", orphans.len());
    }
    pool.members[3].state.set_checked(Checked::Up);
    pool.state.changed();
    assert_eq!(homes(&table), before);
}

#[test]
fn keys_are_stable_even_when_nearly_everybody_is_down() {
    let table = table(Balance::IpHash, 200, |_| ());
    let pool = &table.pools[0];
    for member in &pool.members[2..] {
        member.state.set_checked(Checked::Down);
    }
    pool.state.changed();
    let homes = homes(&table);
    assert_eq!(homes, self::homes(&table));
    let first = homes.iter().filter(|home| **home == *pool.members[0].backend.name).count() as u64;
    assert!((KEYS * 2 / 5..KEYS * 3 / 5).contains(&first), "{first} of {KEYS}");
}

#[test]
fn nobody_gets_more_than_the_bound() {
    for (percent, weights) in [(100, [1; 20]), (125, [1; 20]), (110, std::array::from_fn(|n| 1 + n as u32 % 7))] {
        let table = weighted(Balance::ConsistentHash, &weights);
        let mut config = (*table.config).clone();
        config.pools[0].hash_load_percent_max = Some(percent);
        let table = table.next(Arc::new(config), &Default::default(), table.epoch);
        let pool = &table.pools[0];
        let total: u32 = weights.iter().sum();
        let (mut balancer, mut dice, mut open) = (Balancer::new(pool), Dice::new(9), Vec::new());
        for step in 0..20_000 {
            // A few keys that everybody wants, and sessions that end.
            let key = if step % 3 == 0 { dice.roll() } else { dice.roll() % 4 };
            let number = usize::from(balancer.choose(pool, &keyed(key)).unwrap());
            open.push(number);
            let bound =
                (u64::from(percent) * open.len() as u64 * u64::from(weights[number])).div_ceil(100 * u64::from(total));
            assert!(u64::from(sessions(pool)[number]) <= bound, "step {step}: above {bound}");
            if open.len() > 500 {
                let number = open.swap_remove(dice.below(open.len()));
                release(&pool.members[number].state, &pool.state, &table);
            }
        }
    }
}

#[test]
fn keys_return_home_when_there_is_room() {
    let table = table(Balance::ConsistentHash, 10, |_| ());
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    let home = balancer.choose(pool, &keyed(1)).unwrap();
    let mut others: Vec<u16> = (0..20).map(|_| balancer.choose(pool, &keyed(1)).unwrap()).collect();
    assert!(others.iter().any(|number| *number != home), "the bound sends some elsewhere");
    others.push(home);
    for number in others {
        release(&pool.members[usize::from(number)].state, &pool.state, &table);
    }
    assert_eq!(balancer.choose(pool, &keyed(1)), Ok(home));
}

#[test]
fn an_address_has_no_bound() {
    let table = table(Balance::IpHash, 10, |_| ());
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    let home = balancer.choose(pool, &keyed(1)).unwrap();
    assert!((0..1000).all(|_| balancer.choose(pool, &keyed(1)) == Ok(home)));
}
