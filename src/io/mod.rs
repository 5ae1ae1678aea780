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
//! | passing | descriptors on their way to a worker |
//! | socket | listeners, connecting sockets, options |
//! | thread | CPU, private file descriptor table, wake-up, limits |
//! | probe | what the kernel can do; refusals with their likely cause and cure |
#![allow(unsafe_code)]

mod buffers;
mod entry;
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

pub use passing::{Passed, Passing, passing};
pub use probe::{Features, SetupError, kernel, probe};
pub use ring::Ring;
pub use socket::{Change, ListenError, Listeners};
pub use thread::{Waker, cpus, pin, private_table};

use crate::config::{Config, Plan};
use crate::op::ConnId;

/// Descriptors that are no session's: standard streams, the ring, the wake-up, and some to spare.
const RESERVE: usize = 32;
/// Slots in which a client beyond the limit is told so, instead of being left to wonder.
const REFUSALS_MAX: usize = 64;
/// Buffer ids are 16 bits wide, and the kernel's rings at most this long.
const BUFFERS_MAX: usize = 1 << 15;

/// What one worker may use: derived from the config and RLIMIT_NOFILE, which is raised as far as it goes. Every worker has
/// a file descriptor table, and so that limit, of its own.
pub fn plan(config: &Config) -> Result<Plan, SetupError> {
    let nofile = thread::raise_nofile().map_err(SetupError::nofile)?;
    plan_for(config, nofile).ok_or_else(|| SetupError::nofile(std::io::Error::from_raw_os_error(libc::EMFILE)))
}

/// What the config asks for and RLIMIT_NOFILE does not allow, with what mends it.
pub fn shortfall(config: &Config) -> Option<String> {
    let wanted = config.limits.sessions_max?;
    let nofile = thread::raise_nofile().ok()?;
    let allowed = plan_for(config, nofile).map_or(0, |plan| plan.sessions_max);
    let needed = 2 * wanted + RESERVE + config.listeners.len() + REFUSALS_MAX;
    (wanted > allowed).then(|| {
        format!(
            "limits.sessions_max is {wanted}, but RLIMIT_NOFILE is {nofile}, which allows {allowed} sessions of a worker; \
             `ulimit -n {needed}` before starting, or LimitNOFILE={needed} in the systemd unit"
        )
    })
}

fn plan_for(config: &Config, nofile: u64) -> Option<Plan> {
    let nofile = usize::try_from(nofile).unwrap_or(usize::MAX);
    let reserve = RESERVE + config.listeners.len() + REFUSALS_MAX;
    let affordable = nofile.saturating_sub(reserve) / 2;
    let wanted = config.limits.sessions_max.unwrap_or(usize::MAX);
    let sessions_max = wanted.min(affordable).min(ConnId::SESSIONS_MAX - REFUSALS_MAX);
    if sessions_max == 0 {
        return None;
    }
    let small_count = config.buffers.small_count.unwrap_or_else(|| (2 * sessions_max).clamp(1024, BUFFERS_MAX));
    Some(Plan {
        sessions_max,
        refusals_max: REFUSALS_MAX,
        small_count: small_count.clamp(1, BUFFERS_MAX),
        bulk_count: config.buffers.bulk_count.clamp(1, BUFFERS_MAX),
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
        sessions_max = plan.sessions_max,
        small_buffers = plan.small_count,
        bulk_buffers = plan.bulk_count,
        "io_uring"
    );
}
