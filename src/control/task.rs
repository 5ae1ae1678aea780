//! A task that ends with its owner, and the dice that spread such tasks over time.

use std::hash::{BuildHasher, Hasher};

use tokio::task::AbortHandle;

/// Dropping it stops the task: on the control plane's one thread it is never polled again, and its sockets close as soon
/// as the runtime drops it.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Task(tokio::spawn(future).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Not for secrets: the standard library seeds each thread's hashers from the kernel and gives every one another key.
pub(super) fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// `random` as a part of a whole: the same chance for each of a million steps from 0 to 1, both included.
pub(super) fn share(random: u64) -> f64 {
    const STEPS: u64 = 1_000_000;
    (random % (STEPS + 1)) as f64 / STEPS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_parts_of_a_whole() {
        for (random, expected) in [(0, 0.0), (500_000, 0.5), (1_000_000, 1.0), (1_000_001, 0.0)] {
            assert_eq!(share(random), expected);
        }
        assert!((0.0..=1.0).contains(&share(u64::MAX)));
    }

    #[test]
    fn two_throws_differ() {
        assert_ne!(random(), random());
    }

    #[tokio::test]
    async fn a_dropped_task_lets_go_of_what_it_holds() {
        let (held, mut released) = tokio::sync::mpsc::channel::<()>(1);
        let task = Task::spawn(async move {
            let _held = held;
            std::future::pending().await
        });
        tokio::task::yield_now().await;
        drop(task);
        assert_eq!(released.recv().await, None);
    }
}
