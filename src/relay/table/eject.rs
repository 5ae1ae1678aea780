//! Outlier detection: what sessions meet at a backend takes it out of its pool for a while.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::state::{BackendState, Checked};
use super::{Member, Pool};

/// A session has met a failure there. Returns for how many milliseconds it is ejected, if that was one too many.
pub fn failed(pool: &Pool, number: u16, now: u64, random: u64) -> Option<u64> {
    count(pool, number, |state| &state.failures, now, random)
}

/// It has dropped a session soon after the handshake. Counted apart: every such session was answered well before.
pub fn dropped(pool: &Pool, number: u16, now: u64, random: u64) -> Option<u64> {
    count(pool, number, |state| &state.early_closes, now, random)
}

/// A session has ended there that it has not dropped early.
pub fn stayed(pool: &Pool, number: u16) {
    if let Some(member) = pool.members.get(usize::from(number))
        && member.state.early_closes.load(Relaxed) != 0
    {
        member.state.early_closes.store(0, Relaxed);
    }
}

fn count(
    pool: &Pool,
    number: u16,
    failures: impl Fn(&BackendState) -> &AtomicU32,
    now: u64,
    random: u64,
) -> Option<u64> {
    let config = &pool.config.eject;
    let limit = config.failures?;
    let member = pool.members.get(usize::from(number))?;
    let state = &*member.state;
    let before = state.ejected_until.load(SeqCst);
    if before > now {
        // It was under way when the others failed, or nobody better is left.
        return None;
    }
    let in_a_row = failures(state).fetch_add(1, Relaxed).saturating_add(1);
    if in_a_row < limit || !is_eligible(member) || !may_lack(pool, member, now) {
        return None;
    }
    forgive(state, now, config.time_max);
    let ejections = state.ejections.load(Relaxed);
    let time = span(config.time, config.time_max, ejections, random);
    // Of several workers that saw the same failures, one ejects.
    state.ejected_until.compare_exchange(before, now + time, SeqCst, SeqCst).ok()?;
    // Another worker may have ejected another member meanwhile: then one of the two, or both, take it back.
    let stays = may_lack(pool, member, now);
    if stays {
        state.failures.store(0, Relaxed);
        state.early_closes.store(0, Relaxed);
        state.ejections.store(ejections.saturating_add(1), Relaxed);
        state.well_since.store(0, Relaxed);
    } else {
        state.ejected_until.store(before, SeqCst);
    }
    pool.state.changed();
    stays.then_some(time)
}

/// A session has been answered there. Returns whether it had been ejected, which makes this news.
pub fn succeeded(pool: &Pool, number: u16, now: u64) -> bool {
    let Some(member) = pool.members.get(usize::from(number)) else { return false };
    let state = &*member.state;
    // Loads first: nearly always there is nothing to change, and the line stays with all workers.
    if state.failures.load(Relaxed) != 0 {
        state.failures.store(0, Relaxed);
    }
    forgive(state, now, pool.config.eject.time_max);
    let news = state.ejected_until.load(Relaxed) != 0 && state.ejected_until.swap(0, SeqCst) != 0;
    if news {
        state.well_since.store(now.max(1), Relaxed);
        pool.state.changed();
    }
    news
}

/// Earlier ejections no longer count once it has been well for this time.
fn forgive(state: &BackendState, now: u64, time: Duration) {
    let since = state.well_since.load(Relaxed);
    if since != 0 && u128::from(now.saturating_sub(since)) >= time.as_millis() {
        state.ejections.store(0, Relaxed);
        state.well_since.store(0, Relaxed);
    }
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
    use crate::relay::table::Table;
    use std::sync::Arc;
    use std::time::Instant;

    /// Ejected after 3 failures, for 5 to 20 seconds, and half of the pool stays.
    fn table(members: usize) -> Arc<Table> {
        let mut pool = config::Pool::named("chat");
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

    #[test]
    fn early_closes_are_counted_although_each_follows_a_good_answer() {
        let table = table(4);
        let pool = &table.pools[0];
        let drop_one = |now| {
            succeeded(pool, 2, now);
            dropped(pool, 2, now, exactly(5000))
        };
        assert_eq!([drop_one(0), drop_one(1)], [None, None]);
        stayed(pool, 2);
        assert_eq!([drop_one(2), drop_one(3), drop_one(4)], [None, None, Some(5000)]);
        assert_eq!(drop_one(6000), None, "it begins anew");
    }

    #[test]
    fn failures_in_a_row_eject() {
        let table = table(4);
        let pool = &table.pools[0];
        assert_eq!([failed(pool, 1, 0, 0), failed(pool, 1, 0, 0)], [None, None]);
        assert!(!succeeded(pool, 1, 0), "it had not been ejected");
        eject(pool, 1, 10, 5000);
        assert_eq!(pool.members[1].state.ejected_until.load(Relaxed), 5010);
        assert_eq!(pool.state.version.load(Relaxed), 1);
        assert_eq!(failed(pool, 1, 11, 0), None, "it is ejected already");
        assert!(succeeded(pool, 1, 5010));
        assert!(!succeeded(pool, 1, 5010), "it is no news any more");
        assert_eq!(pool.members[1].state.ejected_until.load(Relaxed), 0);
        assert_eq!(pool.state.version.load(Relaxed), 2);
    }

    #[test]
    fn each_ejection_is_twice_as_long_up_to_the_maximum_until_it_has_been_well() {
        let table = table(4);
        let pool = &table.pools[0];
        let mut now = 0;
        for time in [5000, 10_000, 20_000, 20_000] {
            eject(pool, 0, now, time);
            now += time;
        }
        assert!(succeeded(pool, 0, now));
        eject(pool, 0, now + 19_999, 20_000);
        now += 40_000;
        assert!(succeeded(pool, 0, now));
        assert!(!succeeded(pool, 0, now + 20_000));
        assert_eq!(pool.members[0].state.ejections.load(Relaxed), 0);
        eject(pool, 0, now + 20_001, 5000);
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
        assert!(!succeeded(&table.pools[0], 9, 0));
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
