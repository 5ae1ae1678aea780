use std::time::{Duration, Instant};

use super::kit::{Heard, kit};

#[test]
fn another_thread_wakes_the_ring_again_and_again() {
    let Some(mut kit) = kit() else { return };
    for _ in 0..3 {
        let waker = kit.waker.clone();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        assert!(matches!(kit.hear_one(), Heard::Woken));
        other.join().unwrap();
    }
    kit.waker.wake();
    kit.waker.wake();
    assert!(matches!(kit.hear_one(), Heard::Woken), "two at once are one");
    kit.hear_nothing();
}

#[test]
fn the_deadline_ends_the_wait() {
    let Some(mut kit) = kit() else { return };
    for ms in [0, 1, 30] {
        let begin = Instant::now();
        assert!(kit.turn(Duration::from_millis(ms)).is_empty());
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(ms) && took < Duration::from_millis(ms + 500), "{ms} ms took {took:?}");
    }
}
