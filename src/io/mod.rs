//! The kernel: the only place for `unsafe`, libc and io_uring names.
//!
//! [`Ring`] turns operations into submissions and completions into answers; the rest prepares it.
//!
//! | file | does |
//! |---|---|
//! | ring | the engine of one worker: `Op` in ([ring/operate]), `Completion` out ([ring/complete]), and its end ([ring/quiesce]) |
//! | queue | the ring itself: set-up, enter |
//! | entry | names of operations, entries that the crate lacks |
//! | buffers | provided buffers: lend, reclaim, and the proof that it is sound |
//! | sends | payload and scratch memory of what is in flight |
//! | memory | mappings |
//! | cgroup | the control groups' limit on memory |
//! | passing | descriptors on their way to a worker |
//! | listen | listeners, in step with the configuration |
//! | socket | connecting sockets, options |
//! | thread | CPU, private file descriptor table, wake-up, limits |
//! | probe | what the kernel can do; refusals with their likely cause and cure |
#![allow(unsafe_code)]

mod buffers;
mod cgroup;
mod entry;
mod listen;
mod memory;
mod passing;
mod probe;
mod queue;
mod ring;
mod sends;
mod socket;
mod thread;

#[cfg(test)]
mod tests;

pub use listen::{ListenError, ListenerChange, Listeners};
pub use passing::{FdReceiver, FdSender, fd_channel};
pub use probe::{Features, SetupError, kernel, probe};
pub use ring::Ring;

pub use thread::{Waker, cpus, pin, unshare_fd_table};

use crate::config::{Config, Plan};
use crate::op::ConnId;

/// Descriptors that are no session's: standard streams, the ring, the wake-up, and some to spare.
const RESERVE: usize = 32;
/// Slots in which a client beyond the limit is told so, instead of being left to wonder.
const REFUSALS_MAX: usize = 64;
/// Buffer ids are 16 bits wide, and the kernel's rings at most this long.
const BUFFERS_MAX: usize = 1 << 15;
/// With fewer of a kind a worker could not do its work, whatever the memory.
const BUFFERS_MIN: usize = 8;
/// What an idle session takes, nearly all of it in the kernel (engine: two TCP sockets and their receives).
const SESSION_BYTES: usize = 10 << 10;

/// What one of so many workers may use: derived from the config, from RLIMIT_NOFILE, which is raised as far as it goes, and
/// from the control groups' limit on memory. Every worker has a file descriptor table, and so the first limit, of its own.
pub fn plan(config: &Config, workers: usize) -> Result<Plan, SetupError> {
    let nofile = thread::raise_nofile().map_err(SetupError::nofile)?;
    let memory = cgroup::memory_max().map(|bytes| share(bytes, workers));
    plan_for(config, nofile, memory).ok_or_else(|| SetupError::nofile(std::io::Error::from_raw_os_error(libc::EMFILE)))
}

fn share(bytes: u64, workers: usize) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX) / workers.max(1)
}

/// What the config asks for and this machine does not allow, with what mends it.
pub fn shortfall(config: &Config, workers: usize) -> Vec<String> {
    let Some(wanted) = config.limits.sessions_max else { return Vec::new() };
    let descriptors = thread::raise_nofile().ok().and_then(|nofile| {
        let allowed = plan_for(config, nofile, None).map_or(0, |plan| plan.sessions_max);
        let needed = 2 * wanted + RESERVE + config.listeners.len() + REFUSALS_MAX;
        (wanted > allowed).then(|| {
            format!(
                "limits.sessions_max is {wanted}, but RLIMIT_NOFILE is {nofile}, which allows {allowed} sessions of a \
                 worker; `ulimit -n {needed}` before starting, or LimitNOFILE={needed} in the systemd unit"
            )
        })
    });
    let memory = cgroup::memory_max().and_then(|bytes| {
        let allowed = share(bytes, workers) / 2 / SESSION_BYTES;
        (wanted > allowed).then(|| {
            format!(
                "limits.sessions_max is {wanted}, but the control group's limit on memory is {} MiB, which is enough for \
                 some {allowed} sessions of a worker; beyond it the kernel kills the process",
                bytes >> 20
            )
        })
    });
    descriptors.into_iter().chain(memory).collect()
}

/// `memory`: the worker's share of a limit. Half of it is for sessions, unless the config says how many there may be, and an
/// eighth each for small buffers, for what is copied out of them, and for bulk buffers.
fn plan_for(config: &Config, nofile: u64, memory: Option<usize>) -> Option<Plan> {
    let nofile = usize::try_from(nofile).unwrap_or(usize::MAX);
    let reserve = RESERVE + config.listeners.len() + REFUSALS_MAX;
    let affordable = nofile.saturating_sub(reserve) / 2;
    let fitting = memory.map_or(usize::MAX, |bytes| (bytes / 2 / SESSION_BYTES).max(1));
    let wanted = config.limits.sessions_max.unwrap_or(fitting);
    let sessions_max = wanted.min(affordable).min(ConnId::SESSIONS_MAX - REFUSALS_MAX);
    if sessions_max == 0 {
        return None;
    }
    let buffers = &config.buffers;
    let fitting = |bytes: usize| memory.map_or(BUFFERS_MAX, |memory| (memory / 8 / bytes).max(BUFFERS_MIN));
    let small_count = (2 * sessions_max).clamp(1024, BUFFERS_MAX).min(fitting(buffers.small_bytes));
    Some(Plan {
        sessions_max,
        refusals_max: REFUSALS_MAX,
        small_count: buffers.small_count.unwrap_or(small_count).clamp(1, BUFFERS_MAX),
        bulk_count: buffers.bulk_count.min(fitting(buffers.bulk_bytes)).clamp(1, BUFFERS_MAX),
    })
}

/// Says on one line what the kernel lets us do and how far the limits reach.
pub fn report(features: Features, plan: &Plan) {
    let nofile = thread::limit(libc::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    tracing::info!(
        kernel = kernel(),
        byte_credit = features.byte_credit,
        no_iowait = features.no_iowait,
        no_sqarray = features.no_sqarray,
        nofile,
        memory_max_mib = cgroup::memory_max().map(|bytes| bytes >> 20),
        sessions_max = plan.sessions_max,
        small_buffers = plan.small_count,
        bulk_buffers = plan.bulk_count,
        "io_uring"
    );
}

#[cfg(test)]
mod plans {
    use super::*;

    #[test]
    fn field_r18_a_plan_fits_into_the_memory_that_there_is() {
        let plan = |config: &Config, memory: Option<usize>| plan_for(config, 1 << 20, memory).unwrap();
        let mut config = Config::default();
        let free = plan(&config, None);
        assert_eq!((free.sessions_max, free.small_count, free.bulk_count), (524_240, BUFFERS_MAX, 64));
        for mib in [1, 4, 32, 64, 256, 4096, 1 << 20] {
            let memory = mib << 20;
            let plan = plan(&config, Some(memory));
            let small = plan.small_count * config.buffers.small_bytes;
            let taken = plan.sessions_max * SESSION_BYTES + 2 * small + plan.bulk_count * config.buffers.bulk_bytes;
            assert!(taken <= memory || mib < 16, "{taken} of {mib} MiB: {plan:?}");
            assert!(plan.sessions_max > 0 && plan.small_count >= 8 && plan.bulk_count >= 8);
        }
        assert_eq!(plan(&config, Some(1 << 40)).sessions_max, free.sessions_max);
        // What the config says counts.
        config.limits.sessions_max = Some(100_000);
        config.buffers.small_count = Some(5000);
        let plan = plan(&config, Some(64 << 20));
        assert_eq!((plan.sessions_max, plan.small_count), (100_000, 5000));
    }
}
