//! Outlier detection: what sessions meet at a backend takes it out of its pool for a while.
//!
//! Two kinds of failure, as clients can provoke some of them. No connection, no answer and the statuses of
//! `eject.statuses` count at once, so many in a row. A connection that is closed instead of an answer, an answer that is
//! wrong and any other 5xx may be the fault of the very request: they count as a share of the clients, and only if they
//! meet several. What follows from a client's own offer is not counted by anybody.

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::hash::hash_bytes;
use super::state::{BackendState, Checked, PoolState};
use super::{Member, Pool};

/// The clients that a backend has served in the current window, by the last that each of them met: one bit per client, by
/// its address's hash. Many clients share the bits, and what those of most of them say counts.
#[derive(Debug, Default)]
pub struct Clients {
    /// Windows are numbered.
    window: AtomicU64,
    seen: AtomicU64,
    failed: AtomicU64,
}

/// How long clients are counted together.
const CLIENTS_WINDOW_MS: u64 = 60_000;

/// Who tells of failures: an address, or of IPv6 its network, as one host may have all addresses of that. Clients
/// without one (of unix sockets) are one.
pub fn client_of(address: Option<IpAddr>) -> u64 {
    match address.map(|ip| ip.to_canonical()) {
        None => 0,
        Some(IpAddr::V4(ip)) => hash_bytes(&ip.octets()),
        Some(IpAddr::V6(ip)) => hash_bytes(&ip.octets()[..8]),
    }
}

/// What a failure that counts by clients comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// So many clients meet this that it is no longer theirs.
    pub is_widespread: bool,
    /// The backend is ejected for so many milliseconds.
    pub ejected: Option<u64>,
}

/// A session has met a failure there that counts at once. Returns for how many milliseconds it is ejected, if that was
/// one too many.
pub fn failed(pool: &Pool, number: u16, now: u64, random: u64) -> Option<u64> {
    let limit = pool.config.eject.failures?;
    let state = &*pool.members.get(usize::from(number))?.state;
    if state.ejected_until.load(SeqCst) > now {
        // It was under way when the others failed, or nobody better is left.
        return None;
    }
    let in_a_row = state.failures.fetch_add(1, Relaxed).saturating_add(1);
    if in_a_row < limit { None } else { eject(pool, number, now, random) }
}

/// This client ([`client_of`]) has met a failure there that may be of its own making.
pub fn suspected(pool: &Pool, number: u16, client: u64, now: u64, random: u64) -> Suspicion {
    let config = &pool.config.eject;
    let Some(member) = pool.members.get(usize::from(number)) else {
        return Suspicion { is_widespread: false, ejected: None };
    };
    let (failed, seen) = member.state.clients.failed(client, now);
    let is_widespread = failed >= config.clients_min && failed * 100 >= config.clients_percent * seen;
    let may_eject = is_widespread && config.failures.is_some() && member.state.ejected_until.load(SeqCst) <= now;
    Suspicion { is_widespread, ejected: if may_eject { eject(pool, number, now, random) } else { None } }
}

/// A session of this client has been answered there. Returns whether it had been ejected, which makes this news. One good
/// answer ends the row: the next ejection is as short as the first.
pub fn succeeded(pool: &PoolState, state: &BackendState, client: u64, now: u64) -> bool {
    state.clients.answered(client, now);
    // Loads first: nearly always there is nothing to change, and the line stays with all workers.
    for counter in [&state.failures, &state.ejections] {
        if counter.load(Relaxed) != 0 {
            counter.store(0, Relaxed);
        }
    }
    let news = state.ejected_until.load(Relaxed) != 0 && state.ejected_until.swap(0, SeqCst) != 0;
    if news {
        pool.changed();
    }
    news
}

fn eject(pool: &Pool, number: u16, now: u64, random: u64) -> Option<u64> {
    let config = &pool.config.eject;
    let member = pool.members.get(usize::from(number))?;
    let state = &*member.state;
    if !is_eligible(member) || !may_lack(pool, member, now) {
        return None;
    }
    let before = state.ejected_until.load(SeqCst);
    let ejections = state.ejections.load(Relaxed);
    let time = span(config.time, config.time_max, ejections, random);
    // Of several workers that saw the same failures, one ejects.
    if before > now || state.ejected_until.compare_exchange(before, now + time, SeqCst, SeqCst).is_err() {
        return None;
    }
    // Another worker may have ejected another member meanwhile: then one of the two, or both, take it back.
    let stays = may_lack(pool, member, now);
    if stays {
        state.failures.store(0, Relaxed);
        state.clients.forget();
        state.ejections.store(ejections.saturating_add(1), Relaxed);
    } else {
        state.ejected_until.store(before, SeqCst);
    }
    pool.state.changed();
    stays.then_some(time)
}

impl Clients {
    /// Returns how many have failed and how many there were, as far as the bits can tell them apart.
    fn failed(&self, client: u64, now: u64) -> (u32, u32) {
        self.turn(now);
        let bit = bit_of(client);
        let seen = self.seen.fetch_or(bit, Relaxed) | bit;
        let failed = self.failed.fetch_or(bit, Relaxed) | bit;
        (failed.count_ones(), seen.count_ones())
    }

    fn answered(&self, client: u64, now: u64) {
        self.turn(now);
        let bit = bit_of(client);
        if self.seen.load(Relaxed) & bit == 0 {
            self.seen.fetch_or(bit, Relaxed);
        }
        if self.failed.load(Relaxed) & bit != 0 {
            self.failed.fetch_and(!bit, Relaxed);
        }
    }

    /// What two workers lose by turning at once is a failure or two.
    fn turn(&self, now: u64) {
        let (window, current) = (self.window.load(Relaxed), now / CLIENTS_WINDOW_MS);
        if window < current && self.window.compare_exchange(window, current, Relaxed, Relaxed).is_ok() {
            self.forget();
        }
    }

    fn forget(&self) {
        self.failed.store(0, Relaxed);
        self.seen.store(0, Relaxed);
    }
}

fn bit_of(client: u64) -> u64 {
    1 << (client % 64)
}

/// Counts for the share of the pool that must stay.
fn is_eligible(member: &Member) -> bool {
    !member.drain && member.state.checked() != Checked::Down
}

/// Without this member the pool still has the share that it must have.
fn may_lack(pool: &Pool, member: &Member, now: u64) -> bool {
    let eligible = || pool.members.iter().filter(|member| is_eligible(member));
    let is_left = |other: &&Member| !std::ptr::eq(*other, member) && other.state.ejected_until.load(SeqCst) <= now;
    let left = eligible().filter(is_left).count() as u64;
    left * 100 >= u64::from(pool.config.eject.available_percent_min) * eligible().count() as u64
}

/// The time, doubled for every ejection before, up to the maximum; then a tenth more or less.
fn span(time: Duration, time_max: Duration, ejections: u32, random: u64) -> u64 {
    let time = time.saturating_mul(1 << ejections.min(31)).min(time_max);
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(1 << 40);
    (millis - millis / 10 + random % (millis / 5 + 1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config};
    use crate::table::Table;
    use std::sync::Arc;
    use std::time::Instant;

    /// Ejected after 3 failures, for 5 to 20 seconds, and half of the pool stays.
    fn table(members: usize) -> Arc<Table> {
        let mut pool = config::PoolConfig::named("chat");
        pool.eject.time_max = Duration::from_secs(20);
        let address = |number: usize| format!("10.0.0.1:{}", 1000 + number).parse::<config::Address>().unwrap();
        pool.backends.extend((0..members).map(|number| config::Backend::from(address(number))));
        Table::first(Arc::new(Config { pools: vec![pool], ..Config::default() }), Instant::now())
    }

    /// The random number that makes no jitter of `time`.
    fn exactly(time: u64) -> u64 {
        time / 10
    }

    fn eject(pool: &Pool, number: u16, now: u64, time: u64) {
        assert_eq!(failed(pool, number, now, 0), None);
        assert_eq!(failed(pool, number, now, 0), None);
        assert_eq!(failed(pool, number, now, exactly(time)), Some(time));
    }

    fn ejected(pool: &Pool, now: u64) -> usize {
        pool.members.iter().filter(|member| member.state.ejected_until.load(Relaxed) > now).count()
    }

    /// By clients: so many of five at least, and half of those that are seen.
    fn suspect(pool: &Pool, number: u16, client: u64, now: u64) -> (bool, Option<u64>) {
        let Suspicion { is_widespread, ejected } = suspected(pool, number, client, now, exactly(5000));
        (is_widespread, ejected)
    }

    #[test]
    fn field_a02_one_client_ejects_nobody_however_often_it_fails() {
        let table = table(4);
        let pool = &table.pools[0];
        let v6 = |host: u16| client_of(Some(IpAddr::from([0x2001, 0xdb8, 1, 2, host, host, host, host])));
        let client = |ip: &str| client_of(Some(ip.parse().unwrap()));
        for at in 0..1000 {
            for one in [client("192.0.2.1"), client("::ffff:192.0.2.1"), v6(at as u16), client_of(None)] {
                assert_eq!(suspect(pool, 1, one, at), (false, None), "at {at}");
            }
        }
        assert_eq!((v6(1), client("192.0.2.1")), (v6(2), client("::ffff:192.0.2.1")), "one client each");
    }

    #[test]
    fn field_a02_a_share_of_the_clients_ejects_and_well_ones_weigh_against_it() {
        for well in [0, 4, 5, 6, 30] {
            let table = table(4);
            let pool = &table.pools[0];
            (0..well).for_each(|client| assert!(!succeeded(&pool.state, &pool.members[1].state, client, 0)));
            let ejected = (32..37).map(|client| suspect(pool, 1, client, 10)).collect::<Vec<_>>();
            assert_eq!(ejected[..4], [(false, None); 4], "four clients are too few");
            assert_eq!(ejected[4], if well <= 5 { (true, Some(5000)) } else { (false, None) }, "{well} are well");
        }
    }

    #[test]
    fn field_a02_what_each_client_met_last_counts() {
        let table = table(4);
        let pool = &table.pools[0];
        for client in 0..64 {
            assert!(!suspect(pool, 1, client % 4, 0).0);
            succeeded(&pool.state, &pool.members[1].state, client, 1);
        }
        assert_eq!((0..4).map(|client| suspect(pool, 1, client, 2).0).collect::<Vec<_>>(), [false; 4]);
        assert!(!suspect(pool, 1, 4, 3).0, "5 of 64");
        // Another window, in which the well ones have not been seen.
        let later = CLIENTS_WINDOW_MS;
        assert_eq!(
            (0..5).map(|client| suspect(pool, 1, client, later).0).collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
        assert!(!suspect(pool, 1, 9, later + 5001).0, "an ejection begins anew");
    }

    #[test]
    fn without_ejection_a_share_is_still_told() {
        let table = table(4);
        let mut config = (*table.config).clone();
        config.pools[0].eject.failures = None;
        let table = table.next(Arc::new(config), &Default::default(), table.epoch);
        let told: Vec<_> = (0..5).map(|client| suspect(&table.pools[0], 0, client, 0)).collect();
        assert_eq!(told[4], (true, None));
        assert!(!told[3].0);
        assert_eq!(suspect(&table.pools[0], 9, 0, 0), (false, None), "a stranger");
    }

    #[test]
    fn failures_in_a_row_eject() {
        let table = table(4);
        let pool = &table.pools[0];
        assert_eq!([failed(pool, 1, 0, 0), failed(pool, 1, 0, 0)], [None, None]);
        assert!(!succeeded(&pool.state, &pool.members[1].state, 0, 0), "it had not been ejected");
        eject(pool, 1, 10, 5000);
        assert_eq!(pool.members[1].state.ejected_until.load(Relaxed), 5010);
        assert_eq!(pool.state.version.load(Relaxed), 1);
        assert_eq!(failed(pool, 1, 11, 0), None, "it is ejected already");
        assert!(succeeded(&pool.state, &pool.members[1].state, 0, 5010));
        assert!(!succeeded(&pool.state, &pool.members[1].state, 0, 5010), "it is no news any more");
        assert_eq!(pool.members[1].state.ejected_until.load(Relaxed), 0);
        assert_eq!(pool.state.version.load(Relaxed), 2);
    }

    #[test]
    fn field_b01_each_ejection_is_twice_as_long_up_to_the_maximum_until_it_has_answered_once() {
        let table = table(4);
        let pool = &table.pools[0];
        let mut now = 0;
        for time in [5000, 10_000, 20_000, 20_000] {
            eject(pool, 0, now, time);
            now += time;
        }
        assert!(succeeded(&pool.state, &pool.members[0].state, 0, now));
        eject(pool, 0, now, 5000);
        eject(pool, 0, now + 5000, 10_000);
        assert!(
            succeeded(&pool.state, &pool.members[0].state, 0, now + 5001),
            "while it is still ejected, as nobody else was left"
        );
        assert_eq!(pool.members[0].state.ejected_until.load(Relaxed), 0);
        eject(pool, 0, now + 5002, 5000);
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        let (time, max) = (Duration::from_secs(5), Duration::from_secs(300));
        let spans: Vec<u64> = (0..10_000).map(|random| span(time, max, 1, random)).collect();
        assert_eq!((spans.iter().min(), spans.iter().max()), (Some(&9000), Some(&11_000)));
        assert_eq!(span(time, max, u32::MAX, exactly(300_000)), 300_000);
        assert_eq!(span(Duration::ZERO, max, 0, 0), 1);
        assert!(span(Duration::MAX, Duration::MAX, 9, u64::MAX) > 0);
    }

    #[test]
    fn a_share_of_the_pool_is_never_ejected() {
        // Half of it, rounded up.
        for (members, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
            let table = table(members);
            let pool = &table.pools[0];
            for _ in 0..5 {
                (0..members as u16).for_each(|number| {
                    failed(pool, number, 0, 0);
                });
            }
            assert_eq!(ejected(pool, 0), most, "of {members}");
        }
    }

    #[test]
    fn those_that_are_down_or_drained_are_no_part_of_the_share() {
        let table = table(4);
        let pool = &table.pools[0];
        for down in [2, 3] {
            pool.members[down].state.set_checked(Checked::Down);
        }
        eject(pool, 0, 0, 5000);
        assert_eq!([failed(pool, 1, 0, 0), failed(pool, 1, 0, 0), failed(pool, 1, 0, 0)], [None; 3]);
        assert_eq!([failed(pool, 2, 0, 0), failed(pool, 2, 0, 0), failed(pool, 2, 0, 0)], [None; 3]);
        // The time of the first is over: now the other may go.
        assert!(failed(pool, 1, 5000, 0).is_some());
    }

    #[test]
    fn without_a_limit_nobody_is_ejected_and_strangers_do_no_harm() {
        let table = table(1);
        assert_eq!(failed(&table.pools[0], 9, 0, 0), None);
        let mut config = (*table.config).clone();
        config.pools[0].eject.failures = None;
        let table = table.next(Arc::new(config), &Default::default(), table.epoch);
        (0..9).for_each(|_| assert_eq!(failed(&table.pools[0], 0, 0, 0), None));
    }

    #[test]
    fn workers_eject_once_for_the_same_failures_and_keep_the_share() {
        let table = table(9);
        let pool = &table.pools[0];
        let fail = || {
            let all = (0..100).flat_map(|_| 0..9);
            all.filter(|number| failed(pool, *number, 7, 0).is_some()).count()
        };
        let news: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(fail)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!((news, ejected(pool, 7)), (4, 4));
        let ejections: u32 = pool.members.iter().map(|member| member.state.ejections.load(Relaxed)).sum();
        assert_eq!(ejections, 4);
    }
}
