//! From table to table: which checks go on, which end, and what they leave behind.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{SocketPath, health};
use crate::config::{Address, Check, Config, Health, PoolConfig};
use crate::control::health::{Checks, HealthChange, Subject, UNDER_WAY_MAX};
use crate::table::state::Checked;
use crate::table::{Found, Table};

fn checks() -> (Checks, UnboundedReceiver<HealthChange>) {
    let (changed, changes) = unbounded_channel();
    (Checks::new(changed), changes)
}

/// A pool of sockets, checked as often as can be.
fn config(check: Check, paths: &[&SocketPath]) -> Config {
    let mut pool = PoolConfig::named("chat");
    pool.health = Health { interval: Duration::from_millis(1), ..health(check) };
    pool.backends = paths.iter().map(|path| Address::Unix(path.0.clone()).into()).collect();
    Config { pools: vec![pool], ..Config::default() }
}

fn table(config: &Config) -> Arc<Table> {
    Table::first(Arc::new(config.clone()), Instant::now())
}

fn next(table: &Table, config: &Config) -> Arc<Table> {
    table.next(Arc::new(config.clone()), &Found::new(), table.epoch)
}

fn checked(table: &Table, member: usize) -> Checked {
    table.pools[0].members[member].state.checked()
}

fn version(table: &Table) -> u64 {
    table.pools[0].state.version.load(Relaxed)
}

/// Tells whether the task of that member still runs: it holds what it checks.
fn subject(checks: &Checks, table: &Table, member: usize) -> Weak<Subject> {
    Arc::downgrade(&checks.running[&crate::control::health::key(&table.pools[0].members[member])].subject)
}

/// Lets the runtime drop tasks that were stopped.
async fn settle() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

async fn expect(changes: &mut UnboundedReceiver<HealthChange>, table: &Table, checked: Checked) {
    let change = changes.recv().await.unwrap();
    assert_eq!((&*change.pool, change.checked), ("chat", checked));
    assert!(Arc::ptr_eq(&change.state, &table.pools[0].members[0].state));
    assert_eq!(change.state.checked(), checked);
}

#[tokio::test]
async fn a_backend_goes_down_and_comes_up_again() {
    let path = SocketPath::new("life");
    let (mut checks, mut changes) = checks();
    let table = table(&config(Check::Tcp, &[&path]));
    let up_since = || table.pools[0].members[0].state.up_since.load(Relaxed);

    let listener = UnixListener::bind(&path.0).unwrap();
    checks.follow(&table);
    expect(&mut changes, &table, Checked::Up).await;
    let first = version(&table);
    assert_eq!(up_since(), 0, "it was there from the beginning");

    drop(listener);
    expect(&mut changes, &table, Checked::Down).await;
    let second = version(&table);
    assert_eq!(up_since(), 0);

    std::fs::remove_file(&path.0).unwrap();
    let _listener = UnixListener::bind(&path.0).unwrap();
    expect(&mut changes, &table, Checked::Up).await;
    assert_ne!(up_since(), 0);
    assert!(0 < first && first < second && second < version(&table));
}

#[tokio::test]
async fn checks_that_stay_the_same_go_on() {
    let paths = ["kept", "removed", "added"].map(SocketPath::new);
    let [kept, removed, added] = &paths;
    let (mut checks, mut changes) = checks();
    let before = table(&config(Check::Tcp, &[kept, removed]));
    checks.follow(&before);
    for _ in 0..2 {
        assert_eq!(changes.recv().await.unwrap().checked, Checked::Down);
    }
    let (kept_task, removed_task) = (subject(&checks, &before, 0), subject(&checks, &before, 1));
    let version_before = version(&before);

    // In another place, and with another pool in front.
    let mut config = config(Check::Tcp, &[added, kept]);
    config.pools[0].slow_start = Some(Duration::from_secs(1));
    let after = next(&before, &config);
    checks.follow(&after);
    settle().await;
    assert_eq!(checks.count(), 2);
    assert!(kept_task.ptr_eq(&subject(&checks, &after, 1)));
    assert_eq!(checked(&after, 1), Checked::Down);
    assert!(removed_task.upgrade().is_none());
    // Of whom nobody will hear again, nothing is known.
    assert_eq!(checked(&before, 1), Checked::Unknown);
    assert!(version(&after) > version_before);
}

#[tokio::test]
async fn other_settings_start_another_check_that_goes_on_from_the_verdict() {
    let path = SocketPath::new("settings");
    let (mut checks, mut changes) = checks();
    let before = table(&config(Check::Tcp, &[&path]));
    checks.follow(&before);
    expect(&mut changes, &before, Checked::Down).await;
    let task = subject(&checks, &before, 0);

    let mut config = config(Check::Tcp, &[&path]);
    config.pools[0].health.rise = 1;
    let after = next(&before, &config);
    checks.follow(&after);
    settle().await;
    assert!(task.upgrade().is_none());
    assert_eq!((checks.count(), checked(&after, 0)), (1, Checked::Down));

    let _listener = UnixListener::bind(&path.0).unwrap();
    expect(&mut changes, &after, Checked::Up).await;
    assert_ne!(after.pools[0].members[0].state.up_since.load(Relaxed), 0);
}

#[tokio::test]
async fn what_is_no_longer_checked_may_be_tried() {
    let path = SocketPath::new("off");
    let (mut checks, mut changes) = checks();
    let before = table(&config(Check::Tcp, &[&path]));
    checks.follow(&before);
    expect(&mut changes, &before, Checked::Down).await;
    let version_before = version(&before);

    let after = next(&before, &config(Check::Off, &[&path]));
    checks.follow(&after);
    assert_eq!((checks.count(), checked(&after, 0)), (0, Checked::Unknown));
    assert!(version(&after) > version_before);
    settle().await;
    assert_eq!(checked(&after, 0), Checked::Unknown);
}

#[tokio::test]
async fn a_stopped_check_closes_its_connection() {
    let path = SocketPath::new("leak");
    let listener = UnixListener::bind(&path.0).unwrap();
    let (mut checks, _changes) = checks();
    let before = table(&config(Check::Http, &[&path]));
    checks.follow(&before);
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'G');
    checks.follow(&next(&before, &config(Check::Off, &[&path])));
    // Ends, although nothing was answered and the timeout is far away.
    let mut request = String::new();
    stream.read_to_string(&mut request).await.unwrap();
    assert!(request.starts_with("ET /health "), "{request}");
}

#[tokio::test]
async fn only_so_many_checks_are_under_way() {
    let path = SocketPath::new("slots");
    let _listener = UnixListener::bind(&path.0).unwrap();
    let (mut checks, mut changes) = checks();
    let all = checks.slots.clone().try_acquire_many_owned(UNDER_WAY_MAX as u32).unwrap();
    let table = table(&config(Check::Tcp, &[&path]));
    checks.follow(&table);
    tokio::time::pause();
    // Of virtual time, in which every timer that there is goes off.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    tokio::time::resume();
    assert!(changes.try_recv().is_err());
    drop(all);
    expect(&mut changes, &table, Checked::Up).await;
}

#[tokio::test]
async fn ten_thousand_backends_are_followed() {
    let address = |n: u32| Address::Inet((std::net::Ipv4Addr::from_bits(0x7f01_0000 + n), 9).into());
    let mut config = config(Check::Tcp, &[]);
    config.pools[0].backends = (0..10_000).map(|n| address(n).into()).collect();
    let (mut checks, _changes) = checks();
    let first = table(&config);
    checks.follow(&first);
    assert_eq!(checks.count(), 10_000);
    let task = subject(&checks, &first, 9_999);
    config.pools[0].backends.remove(0);
    let second = next(&first, &config);
    checks.follow(&second);
    assert_eq!(checks.count(), 9_999);
    assert!(task.ptr_eq(&subject(&checks, &second, 9_998)));
}

/// All other tests run on plain Tokio, which the control plane's runtime contains.
#[test]
fn the_control_planes_runtime_will_do() {
    let path = SocketPath::new("uring");
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap();
    runtime.block_on(async {
        let (mut checks, mut changes) = checks();
        let table = table(&config(Check::Tcp, &[&path]));
        checks.follow(&table);
        expect(&mut changes, &table, Checked::Down).await;
        let _listener = UnixListener::bind(&path.0).unwrap();
        expect(&mut changes, &table, Checked::Up).await;
    });
}
