//! What may not be larger than something else: the `at_most` of the declarations.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::Findings;
use crate::config::draft::Draft;
use crate::config::options::{GLOBAL, POOL, ROUTE, Setting, Value};

pub(super) fn check(draft: &Draft, found: &mut Findings) {
    // A value that was refused left its default behind, which nobody compared with anything.
    let refused: HashSet<&str> = draft.faults.iter().map(|fault| fault.option.as_str()).collect();
    let mut checker = Checker { draft, refused, found };
    checker.orders(&GLOBAL, &draft.config, |path| path.into(), |_, _| true);
    for pool in &draft.pools {
        checker.orders(&POOL, &pool.pool, |path| format!("pools[{}].{path}", pool.number), |_, _| true);
    }
    for route in &draft.routes {
        // What a route does not say is said for all.
        let own = |path: &str| format!("routes[{}].{path}", route.number);
        let is_own = |path: &str| draft.places.contains_key(&own(path));
        let name = |path: &str| if is_own(path) { own(path) } else { path.into() };
        checker.orders(&ROUTE, &route.route, name, |low, high| is_own(low) || is_own(high));
    }
}

struct Checker<'d, 'f> {
    draft: &'d Draft,
    refused: HashSet<&'d str>,
    found: &'f mut Findings,
}

impl Checker<'_, '_> {
    /// `name` tells the path in the file of an option of the `owner`; `wanted`, whether two are to be compared.
    fn orders<T>(
        &mut self,
        settings: &[Setting<T>],
        owner: &T,
        name: impl Fn(&str) -> String,
        wanted: impl Fn(&str, &str) -> bool,
    ) {
        let find = |path: &str| settings.iter().find(|setting| setting.path == path);
        let read = |setting: &Setting<T>| {
            let value = setting.read(owner);
            let printed = if value == Value::Absent { String::new() } else { setting.print(&value) };
            (value, printed.trim_matches('"').to_owned())
        };
        let bounds =
            settings.iter().flat_map(|low| low.at_most.iter().filter_map(move |path| Some((low, find(path)?))));
        for (low, high) in bounds.filter(|(low, high)| wanted(&low.path, &high.path)) {
            let ((low_value, low_text), (high_value, high_text)) = (read(low), read(high));
            let (low, high) = (name(&low.path), name(&high.path));
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
