//! What may not be larger than something else.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::Findings;
use crate::config::draft::Draft;
use crate::config::options::{GLOBAL, POOL, ROUTE, Setting, Value};

/// The smaller first.
type Order = (&'static str, &'static str);

const GLOBAL_ORDERS: [Order; 7] = [
    ("limits.header_bytes_max", "limits.head_bytes_max"),
    ("buffers.small_bytes", "limits.window_bytes"),
    ("buffers.small_bytes", "buffers.bulk_bytes"),
    ("limits.early_bytes_max", "limits.window_bytes"),
    ("limits.target_bytes_max", "limits.head_bytes_max"),
    ("limits.frame_bytes_max", "limits.message_bytes_max"),
    ("timeouts.drain_spread", "timeouts.drain"),
];
const POOL_ORDERS: [Order; 4] = [
    ("health.timeout", "health.interval"),
    ("health.status_min", "health.status_max"),
    ("eject.time", "eject.time_max"),
    ("discovery.interval_min", "discovery.interval_max"),
];
const ROUTE_ORDERS: [Order; 1] = [("limits.frame_bytes_max", "limits.message_bytes_max")];

pub(super) fn check(draft: &Draft, found: &mut Findings) {
    // A value that was refused left its default behind, which nobody compared with anything.
    let refused: HashSet<&str> = draft.faults.iter().map(|fault| fault.option.as_str()).collect();
    let mut checker = Checker { draft, refused, found };
    checker.orders(&GLOBAL, &GLOBAL_ORDERS, &draft.config, |path| path.into());
    for pool in &draft.pools {
        checker.orders(&POOL, &POOL_ORDERS, &pool.pool, |path| format!("pools[{}].{path}", pool.number));
    }
    for route in &draft.routes {
        // What a route does not say is said for all.
        let own = |path: &str| format!("routes[{}].{path}", route.number);
        let is_own = |path: &str| draft.places.contains_key(&own(path));
        let orders = ROUTE_ORDERS.iter().copied().filter(|(low, high)| is_own(low) || is_own(high));
        let name = |path: &str| if is_own(path) { own(path) } else { path.into() };
        checker.orders(&ROUTE, &orders.collect::<Vec<_>>(), &route.route, name);
    }
}

struct Checker<'d, 'f> {
    draft: &'d Draft,
    refused: HashSet<&'d str>,
    found: &'f mut Findings,
}

impl Checker<'_, '_> {
    /// `name` tells the path in the file of an option of the `owner`.
    fn orders<T>(&mut self, settings: &[Setting<T>], orders: &[Order], owner: &T, name: impl Fn(&str) -> String) {
        let read = |path: &str| {
            let setting = settings.iter().find(|setting| setting.path == path).expect("an order of known options");
            let value = setting.read(owner);
            let printed = if value == Value::Absent { String::new() } else { setting.print(&value) };
            (value, printed.trim_matches('"').to_owned())
        };
        for (low, high) in orders {
            let ((low_value, low_text), (high_value, high_text)) = (read(low), read(high));
            let (low, high) = (name(low), name(high));
            let is_judged = [&low, &high].iter().all(|path| !self.refused.contains(path.as_str()));
            if is_judged && low_value.size_cmp(&high_value) == Some(Ordering::Greater) {
                self.not_above((low, low_text), (high, high_text));
            }
        }
    }

    /// Names the option that was given and the one it breaks against; if both were given, the later one.
    fn not_above(&mut self, low: (String, String), high: (String, String)) {
        if self.draft.places.get(&low.0) >= self.draft.places.get(&high.0) {
            let message = format!("{} is not allowed; it may be no more than {}, which is {}", low.1, high.0, high.1);
            self.found.fault(low.0, message);
        } else {
            let message = format!("{} is not allowed; it may be no less than {}, which is {}", high.1, low.0, low.1);
            self.found.fault(high.0, message);
        }
    }
}
