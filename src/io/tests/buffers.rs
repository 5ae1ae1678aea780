use super::kit::{Heard, Setup, kit_with, write};

/// Buffers that are never used cost no memory, and what is used is used again.
#[test]
fn only_what_is_used_is_touched() {
    let setup = Setup { small_bytes: 4096, small_count: 1 << 15, ..Setup::default() };
    let before = resident_kib();
    let Some(mut kit) = kit_with(setup) else { return };
    let (conn, peer) = kit.pair(1);
    kit.receive(conn, u32::MAX);
    for _ in 0..5000 {
        write(&peer, b"a chat message");
        let Heard::Data { lease, .. } = kit.hear_one() else { panic!() };
        kit.recycle(lease);
    }
    let grown = resident_kib().saturating_sub(before);
    // Other tests run in this process at the same time, so this is a bound against 128 MiB, not a measurement.
    println!("{grown} KiB for a pool of 128 MiB");
    assert!(grown < 64 << 10, "{grown} KiB");
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
