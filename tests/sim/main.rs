//! The simulation: from one number comes everything that peers and kernel do to a relay, and what must not happen then.
//!
//! `RINGWAY_SIM_SEEDS=100000 cargo test --test sim` runs more seeds; `RINGWAY_SIM_SEED=42` runs one and prints each
//! operation (`->`), completion (`<-`) and jump of time.

mod causes;
mod configs;
mod contract;
#[path = "../kernel/mod.rs"]
mod kernel;
mod ledger;
mod peer;
mod plain;
mod reload;
mod script;
mod scripted;
mod setup;
mod shadow;
#[path = "../kernel/stage.rs"]
mod stage;
#[path = "../kernel/temper/mod.rs"]
mod temper;
mod track;
mod world;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// Seeds that have found something.
const REGRESSIONS: &[u64] = &[];
const SEEDS: u64 = 2000;

#[test]
fn any_kernel_and_any_peers() {
    if let Some(seed) = number("RINGWAY_SIM_SEED") {
        return World::new(seed, true).run();
    }
    for &seed in REGRESSIONS {
        assert!(is_good(seed), "seed {seed}, which was mended once, fails again");
    }
    let seeds = number("RINGWAY_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(1);
    let failed = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == 0 {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    if !is_good(seed) {
                        failed.store(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = failed.into_inner();
    assert!(seed == 0, "seed {seed} fails; RINGWAY_SIM_SEED={seed} cargo test --test sim -- --nocapture tells how");
}

fn is_good(seed: u64) -> bool {
    catch_unwind(|| World::new(seed, false).run()).is_ok()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}
