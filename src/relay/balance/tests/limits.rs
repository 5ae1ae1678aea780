//! What is counted, and that it stays within its limits.

use super::*;

const POLICIES: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::PowerOfTwo,
    Balance::Random,
    Balance::IpHash,
    Balance::ConsistentHash,
];

fn handshakes(pool: &Pool) -> Vec<u32> {
    pool.members.iter().map(|member| member.state.handshakes.load(Relaxed)).collect()
}

#[test]
fn choosing_counts_and_releasing_counts_back() {
    for balance in POLICIES {
        let table = table(balance, 5, |_| ());
        let pool = &table.pools[0];
        let mut balancer = Balancer::new(pool);
        let chosen: Vec<u16> = (0..50).map(|key| balancer.choose(pool, &keyed(key)).unwrap()).collect();
        assert_eq!(sessions(pool), handshakes(pool), "{balance:?}");
        assert_eq!(sessions(pool).iter().sum::<u32>(), 50);
        assert_eq!(pool.state.sessions.load(Relaxed), 50);
        for number in chosen {
            handshake_ended(&pool.members[usize::from(number)].state);
            release(&pool.members[usize::from(number)].state, &pool.state, &table);
        }
        assert_eq!((sessions(pool), handshakes(pool)), (vec![0; 5], vec![0; 5]), "{balance:?}");
        assert_eq!(pool.state.sessions.load(Relaxed), 0);
    }
}

/// Whatever a policy proposes, everybody is filled up to the last place, and nobody above.
#[test]
fn a_pool_is_full_when_everybody_is() {
    for balance in POLICIES {
        let table = table(balance, 70, |pool| {
            pool.connections_max = Some(3);
            pool.backends[7].connections_max = Some(1);
        });
        let pool = &table.pools[0];
        let mut balancer = Balancer::new(pool);
        for key in 0..69 * 3 + 1 {
            assert!(balancer.choose(pool, &keyed(key)).is_ok(), "{balance:?}: refused session {key}");
        }
        assert_eq!(balancer.choose(pool, &keyed(0)), Err(Unavailable::Full), "{balance:?}");
        assert_eq!(sessions(pool).iter().max(), Some(&3));
        assert_eq!(handshakes(pool), sessions(pool));
        release(&pool.members[30].state, &pool.state, &table);
        assert_eq!(balancer.choose(pool, &keyed(0)), Ok(30), "{balance:?}");
    }
}

#[test]
fn handshakes_have_a_limit_of_their_own() {
    for balance in POLICIES {
        let table = table(balance, 40, |pool| pool.admission.backend_handshakes_max = Some(2));
        let pool = &table.pools[0];
        let mut balancer = Balancer::new(pool);
        for key in 0..80 {
            assert!(balancer.choose(pool, &keyed(key)).is_ok(), "{balance:?}: refused handshake {key}");
        }
        assert_eq!(balancer.choose(pool, &keyed(0)), Err(Unavailable::Full), "{balance:?}");
        handshake_ended(&pool.members[35].state);
        assert_eq!(balancer.choose(pool, &keyed(0)), Ok(35), "{balance:?}");
        assert_eq!(handshakes(pool), [2; 40]);
    }
}

/// It is counted as a session and nothing else, however many handshakes there are.
#[test]
fn plain_http_is_no_handshake() {
    for balance in POLICIES {
        let table = table(balance, 40, |pool| {
            pool.connections_max = Some(42);
            pool.admission.backend_handshakes_max = Some(2);
        });
        let pool = &table.pools[0];
        let mut balancer = Balancer::new(pool);
        let plain = |key| Ask { is_handshake: false, ..keyed(key) };
        for key in 0..40 {
            assert!(balancer.choose(pool, &plain(key)).is_ok(), "{balance:?}: refused request {key}");
        }
        assert_eq!(handshakes(pool), [0; 40], "{balance:?}");
        for key in 0..80 {
            assert!(balancer.choose(pool, &keyed(key)).is_ok(), "{balance:?}: refused handshake {key}");
        }
        assert_eq!(balancer.choose(pool, &keyed(0)), Err(Unavailable::Full), "{balance:?}");
        for key in 0..39 * 40 {
            assert!(balancer.choose(pool, &plain(key)).is_ok(), "{balance:?}: refused request {key} beside handshakes");
        }
        assert_eq!(balancer.choose(pool, &plain(0)), Err(Unavailable::Full), "{balance:?}");
        assert_eq!((sessions(pool), handshakes(pool)), (vec![42; 40], vec![2; 40]), "{balance:?}");
        for claims in [false, true] {
            release(&pool.members[35].state, &pool.state, &table);
            assert_eq!(balancer.choose(pool, &keyed(0)), Err(Unavailable::Full), "{balance:?}");
            assert!(!balancer.claim(pool, 35, &keyed(0)), "{balance:?}");
            match claims {
                true => assert!(balancer.claim(pool, 35, &plain(0)), "{balance:?}"),
                false => assert_eq!(balancer.choose(pool, &plain(0)), Ok(35), "{balance:?}"),
            }
        }
    }
}

#[test]
fn each_one_is_tried_once_and_then_all_are_down() {
    for balance in POLICIES {
        let table = table(balance, 40, |_| ());
        let pool = &table.pools[0];
        let mut balancer = Balancer::new(pool);
        let mut tried = Vec::new();
        for _ in 0..40 {
            let number = balancer.choose(pool, &Ask { tried: &tried, ..keyed(1) }).unwrap();
            assert!(!tried.contains(&number), "{balance:?}: {number} again");
            tried.push(number);
        }
        let all = Ask { tried: &tried, ..keyed(1) };
        assert_eq!(balancer.choose(pool, &all), Err(Unavailable::Down), "{balance:?}");
    }
}

#[test]
fn full_and_tried_together_are_full_if_one_is_only_full() {
    let table = table(Balance::RoundRobin, 2, |pool| pool.backends[0].connections_max = Some(0));
    let pool = &table.pools[0];
    let mut balancer = Balancer::new(pool);
    assert_eq!(balancer.choose(pool, &Ask { tried: &[1], ..ask(1, 0) }), Err(Unavailable::Full));
    assert_eq!(balancer.choose(pool, &Ask { tried: &[0, 1], ..ask(1, 0) }), Err(Unavailable::Down));
}

#[test]
fn a_pool_of_nobody_is_down() {
    for balance in POLICIES {
        let table = table(balance, 0, |_| ());
        let pool = &table.pools[0];
        assert_eq!(Balancer::new(pool).choose(pool, &keyed(1)), Err(Unavailable::Down), "{balance:?}");
    }
}

#[test]
fn limits_hold_over_workers() {
    for balance in POLICIES {
        let table = table(balance, 10, |pool| {
            pool.connections_max = Some(100);
            pool.admission.backend_handshakes_max = Some(150);
        });
        let pool = &table.pools[0];
        let work = |worker: u64| {
            let mut balancer = Balancer::new(pool);
            (0..600).filter(|key| balancer.choose(pool, &keyed(worker << 32 | key)).is_ok()).count()
        };
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|worker| scope.spawn(move || work(worker))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!((taken, sessions(pool)), (1000, vec![100; 10]), "{balance:?}");
    }
}
