//! Least connections: always the least loaded, whoever of the workers asks, whatever has changed before.

use std::time::Duration;

use super::*;
use crate::table::state::Checked;

/// Sessions and the next one by effective weight, as the balancer should see them, by comparing all.
fn least(view: &View, pool: &Pool) -> Load {
    view.numbers().iter().map(|number| view.load(pool, *number)).min().unwrap()
}

/// Chooses, and holds that against what looking at everybody tells.
fn choose(balancer: &mut Balancer, pool: &Pool, now: u64, random: u64) -> u16 {
    let mut view = View::default();
    view.rebuild(pool, now);
    let least = least(&view, pool);
    let before: Vec<Load> = (0..pool.members.len() as u16).map(|number| view.load(pool, number)).collect();
    let number = balancer.choose(pool, &ask(now, random)).unwrap();
    assert!(view.has(number));
    assert_eq!(before[usize::from(number)].packed(), least.packed(), "{number} is not the least loaded");
    handshake_ended(&pool.members[usize::from(number)].state);
    number
}

#[test]
fn it_is_exact_whoever_asks_and_whatever_changes() {
    let table = table(Balance::LeastConnections, 150, |pool| {
        pool.slow_start = Some(Duration::from_millis(700));
        (0..).zip(&mut pool.backends).for_each(|(number, backend)| backend.weight = [1, 1, 3, 256][number % 4]);
    });
    let pool = &table.pools[0];
    let mut workers: Vec<Balancer> = (0..3).map(|_| Balancer::new(pool)).collect();
    let (mut dice, mut open, mut now) = (Dice::new(2), Vec::new(), 1000);
    for _ in 0..30_000 {
        match dice.below(100) {
            0 => {
                let state = &pool.members[dice.below(150)].state;
                match dice.below(3) {
                    0 => state.set_checked(Checked::Down),
                    1 => state.ejected_until.store(now + 50, Relaxed),
                    _ => {
                        state.set_checked(Checked::Up);
                        state.up_since.store(now, Relaxed);
                    }
                }
                pool.state.changed();
            }
            1..5 => now += dice.roll() % 20,
            5..45 if !open.is_empty() => {
                let number: u16 = open.swap_remove(dice.below(open.len()));
                release(&pool.members[usize::from(number)].state, &pool.state, &table);
            }
            _ => open.push(choose(&mut workers[dice.below(3)], pool, now, dice.roll())),
        }
    }
    assert_eq!(sessions(pool).iter().sum::<u32>() as usize, open.len());
}

#[test]
fn limits_and_tried_ones_leave_it_exact_for_the_next() {
    let table = table(Balance::LeastConnections, 100, |pool| {
        pool.connections_max = Some(6);
        pool.admission.backend_handshakes_max = Some(1);
    });
    let pool = &table.pools[0];
    let mut workers: Vec<Balancer> = (0..2).map(|_| Balancer::new(pool)).collect();
    let (mut dice, mut open, mut handshaking) = (Dice::new(4), Vec::new(), Vec::new());
    for _ in 0..30_000 {
        match dice.below(10) {
            0..4 if !open.is_empty() => {
                let number: u16 = open.swap_remove(dice.below(open.len()));
                release(&pool.members[usize::from(number)].state, &pool.state, &table);
            }
            4..6 if !handshaking.is_empty() => {
                let number: u16 = handshaking.swap_remove(dice.below(handshaking.len()));
                handshake_ended(&pool.members[usize::from(number)].state);
                open.push(number);
            }
            _ => {
                let tried = [dice.below(100) as u16, dice.below(100) as u16];
                let is_handshake = dice.below(3) > 0;
                let ask = Ask { tried: &tried, is_handshake, ..ask(1, dice.roll()) };
                let may = |number: &u16| !tried.contains(number) && has_room(pool, &ask, *number);
                let least = (0..100).filter(may).map(|number| sessions(pool)[usize::from(number)]).min();
                let chosen = workers[dice.below(2)].choose(pool, &ask);
                match chosen {
                    Ok(number) => {
                        assert_eq!(Some(sessions(pool)[usize::from(number)] - 1), least);
                        if is_handshake { &mut handshaking } else { &mut open }.push(number);
                    }
                    Err(why) => assert_eq!((why, least), (Unavailable::Full, None)),
                }
            }
        }
    }
}

#[test]
fn lone_sessions_do_not_all_go_to_the_first() {
    let table = table(Balance::LeastConnections, 40, |_| ());
    let pool = &table.pools[0];
    let (mut balancer, mut dice) = (Balancer::new(pool), Dice::new(6));
    let mut counts = [0; 40];
    for _ in 0..4000 {
        let number = usize::from(balancer.choose(pool, &ask(1, dice.roll())).unwrap());
        counts[number] += 1;
        release(&pool.members[number].state, &pool.state, &table);
    }
    assert!(counts.iter().all(|count| (50..=400).contains(count)), "{counts:?}");
}

#[test]
fn weights_are_kept_to_a_session() {
    let table = weighted(Balance::LeastConnections, &[1, 2, 7]);
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    for round in 1..=50 {
        choices(&mut balancer, pool, 10);
        assert_eq!(sessions(pool), [round, 2 * round, 7 * round]);
    }
}

/// A reload adds members while sessions live on. One worker has adopted the new table, the other not yet.
#[test]
fn what_a_worker_released_by_its_old_table_is_known_once_it_has_the_new() {
    let old = table(Balance::LeastConnections, 40, |_| ());
    let mut behind = Balancer::new(&old.pools[0]);
    let mut open = choices(&mut behind, &old.pools[0], 400);
    let mut config = (*old.config).clone();
    config.pools[0].backends = backends(50);
    let new = old.next(Arc::new(config), &Default::default(), old.epoch);
    let pool = &new.pools[0];
    let mut ahead = Balancer::new(pool);
    for random in 0..120 {
        choose(&mut ahead, pool, 1, nth(0, random));
    }
    for _ in 0..100 {
        let number = usize::from(open.pop().unwrap());
        release(&old.pools[0].members[number].state, &old.pools[0].state, &old);
    }
    reset(pool);
    let mut behind = Balancer::new(pool);
    let mut dice = Dice::new(8);
    for step in 0..400 {
        choose(if step % 2 == 0 { &mut ahead } else { &mut behind }, pool, 1, dice.roll());
        if step % 3 == 0 {
            let number = usize::from(open.swap_remove(dice.below(open.len())));
            release(&old.pools[0].members[number].state, &old.pools[0].state, &new);
        }
    }
}

/// The sum of all that many workers do at once, after the pool has grown by half.
#[test]
fn workers_even_out_a_scale_out_under_churn() {
    const WORKERS: u32 = 4;
    let table = table(Balance::LeastConnections, 60, |_| ());
    let pool = &table.pools[0];
    // So far only 40 were there.
    for member in &pool.members[40..] {
        member.state.set_checked(Checked::Down);
    }
    let mut balancer = Balancer::new(pool);
    let mut open: Vec<Vec<u16>> = (0..WORKERS).map(|_| choices(&mut balancer, pool, 1000)).collect();
    for member in &pool.members[40..] {
        member.state.set_checked(Checked::Up);
    }
    pool.state.changed();
    let work = |worker: u32, open: &mut Vec<u16>| {
        let (mut balancer, mut dice) = (Balancer::new(pool), Dice::new(u64::from(worker) << 32));
        for _ in 0..20_000 {
            let number = open.swap_remove(dice.below(open.len()));
            release(&pool.members[usize::from(number)].state, &pool.state, &table);
            open.push(balancer.choose(pool, &ask(1, dice.roll())).unwrap());
        }
    };
    std::thread::scope(|scope| {
        for (worker, open) in (0..WORKERS).zip(&mut open) {
            scope.spawn(move || work(worker, open));
        }
    });
    // Churn empties members at random: what counts is where the next ones go. With each that comes, the ideal is a
    // member of the least; after a few, nobody is below the ideal by more than one.
    let ideal = 4 * 1000 / 60;
    let missing: u32 = sessions(pool).iter().map(|sessions| (ideal + 1_u32).saturating_sub(*sessions)).sum();
    for random in 0..missing {
        choose(&mut balancer, pool, 1, nth(1, u64::from(random)));
    }
    assert!(sessions(pool).iter().all(|sessions| *sessions > ideal), "{:?}", sessions(pool));
    assert!(sessions(pool).iter().all(|sessions| *sessions <= ideal + 2 + WORKERS), "{:?}", sessions(pool));
}
