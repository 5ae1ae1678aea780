//! Who uses which backend, counted apart from the relay; and what its own counts, queues and tables must be then.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use ringway::op::ConnId;
use ringway::table::state::{BackendState, Checked, PoolState};
use ringway::table::{Member, Pool, Table};

use crate::causes::Rules;
use crate::configs::{self, frame_limits};
use crate::shadow::Limits;

pub struct Ledger {
    /// The newest.
    pub table: Arc<Table>,
    older: Vec<Weak<Table>>,
    /// By open socket of a backend.
    used: HashMap<ConnId, Use>,
    /// Of all tables, and how many handshakes there were last time.
    backends: Vec<(Arc<BackendState>, u32)>,
    pools: Vec<Arc<PoolState>>,
    /// Since when somebody waits who need not, in milliseconds.
    neglected_since: Option<u64>,
}

/// What holds for a session that goes to a backend.
pub struct Dialled {
    pub limits: Limits,
    pub rules: Rules,
    pub backend: Arc<BackendState>,
}

struct Use {
    backend: Arc<BackendState>,
    pool: Arc<PoolState>,
    /// Not plain HTTP.
    is_handshake: bool,
}

/// How long somebody may wait for a backend that time alone has made usable.
const NOTICED_MS: u64 = 12;

impl Ledger {
    pub fn new(table: Arc<Table>) -> Ledger {
        let (older, used, backends, pools) = Default::default();
        let mut ledger = Ledger { table, older, used, backends, pools, neglected_since: None };
        ledger.enter_states();
        ledger
    }

    pub fn adopt(&mut self, table: Arc<Table>) {
        let before = std::mem::replace(&mut self.table, table);
        if !Arc::ptr_eq(&before, &self.table) {
            self.older.push(Arc::downgrade(&before));
        }
        self.enter_states();
    }

    fn enter_states(&mut self) {
        for pool in &self.table.pools {
            if !self.pools.iter().any(|known| Arc::ptr_eq(known, &pool.state)) {
                self.pools.push(pool.state.clone());
            }
            for member in &pool.members {
                if !self.backends.iter().any(|(known, _)| Arc::ptr_eq(known, &member.state)) {
                    self.backends.push((member.state.clone(), 0));
                }
            }
        }
    }

    pub fn backends(&self) -> impl Iterator<Item = &Arc<BackendState>> {
        self.backends.iter().map(|(state, _)| state)
    }

    /// A request for this path, come to this listener, goes to the backend at this port. Returns what holds for the session.
    pub fn dialled(&mut self, conn: ConnId, port: u16, path: &str, listener: u32, is_handshake: bool) -> Dialled {
        let Some((number, limits, timeouts)) = configs::routed(&self.table.config, path, listener) else {
            panic!("a request for {path} is relayed, which no route takes");
        };
        let pool = &self.table.pools[number];
        let has_port =
            |member: &&Member| member.backend.address.as_socket().is_some_and(|address| address.port() == port);
        let Some(member) = pool.members.iter().find(has_port) else {
            panic!("a request for {path} goes to backend {port}, which is not of {}", pool.config.name);
        };
        assert!(!member.drain, "backend {port} is drained and gets a session");
        let used = Use { backend: member.state.clone(), pool: pool.state.clone(), is_handshake };
        assert!(self.used.insert(conn, used).is_none(), "{conn:?} is connected twice");
        let sessions = self.sessions_of(&member.state);
        assert!(sessions <= member.connections_max, "backend {port} has {sessions} sessions");
        Dialled { limits: frame_limits(limits), rules: Rules::of(limits, timeouts), backend: member.state.clone() }
    }

    pub fn closed(&mut self, conn: ConnId) {
        self.used.remove(&conn);
    }

    fn sessions_of(&self, state: &Arc<BackendState>) -> u32 {
        self.uses_of(state).count() as u32
    }

    fn uses_of(&self, state: &Arc<BackendState>) -> impl Iterator<Item = &Use> {
        self.used.values().filter(move |used| Arc::ptr_eq(&used.backend, state))
    }

    /// After a batch. `queues`: whether those who wait could go to any backend of their pool.
    pub fn check(&mut self, now: u64, queues: bool) {
        self.check_counts();
        assert!(self.older.iter().all(|table| table.strong_count() == 0), "an old table is kept");
        if !queues || !self.table.pools.iter().any(|pool| somebody_is_neglected(pool, now)) {
            self.neglected_since = None;
        }
        let since = *self.neglected_since.get_or_insert(now);
        let neglects = queues && self.table.pools.iter().any(|pool| somebody_is_neglected(pool, now));
        assert!(!neglects || now <= since + NOTICED_MS, "somebody waits while a backend has room");
    }

    fn check_counts(&mut self) {
        for (state, _) in &self.backends {
            assert_eq!(state.sessions.load(Relaxed), self.sessions_of(state), "sessions of a backend");
            let most = self.uses_of(state).filter(|used| used.is_handshake).count() as u32;
            assert!(
                state.handshakes.load(Relaxed) <= most,
                "more handshakes than sessions that are none of plain HTTP"
            );
        }
        for pool in &self.pools {
            let sessions = self.used.values().filter(|used| Arc::ptr_eq(&used.pool, pool)).count() as u32;
            assert_eq!(pool.sessions.load(Relaxed), sessions, "sessions of a pool");
            assert!(pool.keys.len() <= sessions as usize, "keys of sessions that have ended");
        }
        for (state, before) in &mut self.backends {
            let now = state.handshakes.load(Relaxed);
            let most = |pool: &Pool| pool.config.admission.backend_handshakes_max.unwrap_or(u32::MAX);
            let is_of = |pool: &&Pool| pool.members.iter().any(|member| Arc::ptr_eq(&member.state, state));
            if let Some(pool) = self.table.pools.iter().find(is_of).filter(|_| now > *before) {
                assert!(now <= most(pool), "{now} handshakes with one backend");
            }
            *before = now;
        }
    }

    /// Nobody is there any more.
    pub fn check_nothing_is_left(&self) {
        assert!(self.used.is_empty());
        for (state, _) in &self.backends {
            assert_eq!((state.sessions.load(Relaxed), state.handshakes.load(Relaxed)), (0, 0));
        }
        for state in &self.pools {
            assert_eq!((state.sessions.load(Relaxed), state.waiting.load(Relaxed)), (0, 0));
            assert!(state.keys.is_empty());
        }
    }
}

/// Somebody waits at this pool although one of its backends could serve.
fn somebody_is_neglected(pool: &Pool, now: u64) -> bool {
    let admission = &pool.config.admission;
    let has_room = |member: &Member| {
        let state = &member.state;
        let is_usable = !member.drain && !member.backup && state.checked() != Checked::Down;
        is_usable
            && state.ejected_until.load(Relaxed) <= now
            && state.sessions.load(Relaxed) < member.connections_max
            && admission.backend_handshakes_max.is_none_or(|most| state.handshakes.load(Relaxed) < most)
    };
    // Who has been at a backend in vain, or has had no connection in time, waits for another one.
    pool.state.waiting.load(Relaxed) > pool.state.retrying.load(Relaxed)
        && admission.handshakes_per_second_max.is_none()
        && pool.members.iter().any(has_room)
}
