//! `[[routes]]`: their conditions, and how they change headers.

use toml::de::{DeTable, DeValue};

use super::{Element, Reader, Value, describe, join};
use crate::config::draft::DraftRoute;
use crate::config::options::{EDIT_KEYS, ROUTE, ROUTE_KEYS};
use crate::config::{HeaderEdits, HeaderMatch, HostMatch, PathMatch, Route, text};
use crate::proto::text::is_of_the_handshake;

/// How the path's condition is written: the key, and what its value has to be.
type PathKey = (&'static str, fn(String) -> PathMatch, fn(&str) -> Result<(), String>);
const PATH_KEYS: [PathKey; 3] = [
    ("path", PathMatch::Exact, text::matched_path),
    ("path_segments", PathMatch::Segments, text::path_segments),
    ("path_prefix", PathMatch::Prefix, text::matched_path),
];

impl Reader<'_> {
    pub(super) fn route(&mut self, element: Element<'_>) {
        let Element { number, path, span, table } = element;
        let name = self.name(&path, table).unwrap_or_else(|| path.clone());
        let mut route = Route::catch_all(name, usize::MAX, &self.draft.config);
        self.options(&path, table, &ROUTE, ROUTE_KEYS, &mut route);
        if let Some(value) = table.get("host") {
            route.hosts = self.hosts(&format!("{path}.host"), value);
        }
        route.path = self.path_match(&path, table);
        if let Some(value) = table.get("listeners") {
            route.listeners = self.listener_names(&format!("{path}.listeners"), value);
        }
        if let Some(value) = table.get("headers") {
            route.headers = self.header_matches(&format!("{path}.headers"), value);
        }
        if let Some(value) = table.get("request_headers") {
            route.request_headers = self.edits(&format!("{path}.request_headers"), value);
        }
        if let Some(value) = table.get("response_headers") {
            route.response_headers = self.edits(&format!("{path}.response_headers"), value);
        }
        if let Some(value) = table.get("rewrite")
            && !PATH_KEYS.iter().any(|(key, ..)| table.contains_key(*key))
        {
            let message = "needs a path that it stands in for; write path, path_segments or path_prefix too";
            self.fault(value.span(), &format!("{path}.rewrite"), message);
        }
        let pool_path = format!("{path}.pool");
        let pool = match table.get("pool") {
            Some(value) => self.string(&pool_path, value).map(str::to_owned),
            None => {
                self.fault(span, &pool_path, "is missing; write the name of a pool");
                None
            }
        };
        self.draft.routes.push(DraftRoute { number, route, pool });
    }

    fn path_match(&mut self, path: &str, table: &DeTable<'_>) -> PathMatch {
        let mut found: Option<(&str, PathMatch)> = None;
        for (key, wrap, check) in PATH_KEYS {
            let Some(value) = table.get(key) else { continue };
            let full = join(path, key);
            if let Some((before, _)) = &found {
                let message = format!("there is {before} as well; a route may have one of the two");
                self.fault(value.span(), &full, message);
            } else {
                let text = self.text(&full, value, check).unwrap_or_default();
                found = Some((key, wrap(text.to_owned())));
            }
        }
        found.map(|(_, found)| found).unwrap_or_default()
    }

    fn listener_names(&mut self, path: &str, value: &Value<'_>) -> Vec<String> {
        let list = self.array(path, value, "[\"public\"]");
        if matches!(value.get_ref(), DeValue::Array(_)) && list.is_empty() {
            self.fault(value.span(), path, "is empty; leave it out for all listeners");
        }
        // A faulty one is an empty one, so that the others keep their numbers.
        let names = list.iter().enumerate();
        names.map(|(n, value)| self.string(&format!("{path}[{n}]"), value).unwrap_or_default().to_owned()).collect()
    }

    fn header_matches(&mut self, path: &str, value: &Value<'_>) -> Vec<HeaderMatch> {
        let pairs = self.headers(path, value, text::request_header_name);
        let mut matches = Vec::with_capacity(pairs.len());
        for (name, text) in pairs {
            match text.parse() {
                Ok(value) => matches.push(HeaderMatch { name, value }),
                Err(message) => {
                    let DeValue::Table(table) = value.get_ref() else { continue };
                    let span = table.get(name.as_str()).map_or(value.span(), |value| value.span());
                    self.fault(span, &join(path, &name), message);
                }
            }
        }
        matches
    }

    /// One, or a list of them.
    fn hosts(&mut self, path: &str, value: &Value<'_>) -> Vec<HostMatch> {
        let DeValue::Array(list) = value.get_ref() else {
            return self.host(path, value).map_or_else(|| vec![HostMatch::Any], |host| vec![host]);
        };
        if list.is_empty() {
            self.fault(value.span(), path, "is empty; leave it out for all hosts");
        }
        let mut hosts: Vec<HostMatch> = Vec::with_capacity(list.len());
        for (number, value) in list.iter().enumerate() {
            let path = format!("{path}[{number}]");
            match self.host(&path, value) {
                Some(host) if hosts.contains(&host) => self.fault(value.span(), &path, "is there twice"),
                found => hosts.extend(found),
            }
        }
        hosts
    }

    fn host(&mut self, path: &str, value: &Value<'_>) -> Option<HostMatch> {
        let text = self.string(path, value)?.to_owned();
        match text.parse() {
            Ok(host) => Some(host),
            Err(message) => {
                self.fault(value.span(), path, message);
                None
            }
        }
    }

    fn edits(&mut self, path: &str, value: &Value<'_>) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        let Some(table) = self.table(path, value) else { return edits };
        self.only_keys(path, table, EDIT_KEYS);
        if let Some(value) = table.get("remove") {
            let path = format!("{path}.remove");
            for (number, value) in self.array(&path, value, "[\"X-Debug\"]").iter().enumerate() {
                edits.remove.extend(self.text(&format!("{path}[{number}]"), value, editable).map(str::to_owned));
            }
        }
        if let Some(value) = table.get("set") {
            edits.set = self.headers(&format!("{path}.set"), value, editable);
        }
        if let Some(value) = table.get("add") {
            edits.add = self.headers(&format!("{path}.add"), value, editable);
        }
        edits
    }

    /// A table of names and values.
    fn headers(
        &mut self,
        path: &str,
        value: &Value<'_>,
        check_name: fn(&str) -> Result<(), String>,
    ) -> Vec<(String, String)> {
        let DeValue::Table(table) = value.get_ref() else {
            let message =
                format!("{} is not allowed; write a table such as {{ \"X-Room\" = \"a\" }}", describe(value.get_ref()));
            self.fault(value.span(), path, message);
            return Vec::new();
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let full = join(path, name);
            if let Err(message) = check_name(name) {
                self.fault(key.span(), &full, message);
            } else if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                self.fault(key.span(), &full, "is there twice; case does not count in a header's name");
            }
            match value.get_ref() {
                DeValue::String(text) => match text::header_value(text) {
                    Ok(()) => headers.push((name.to_owned(), text.to_string())),
                    Err(message) => self.fault(value.span(), &full, message),
                },
                other => self.fault(value.span(), &full, format!("{} is not allowed; write a string", describe(other))),
            }
        }
        headers
    }
}

/// Headers that Ringway answers for itself: an edit would break the handshake, or speak for another option.
fn editable(name: &str) -> Result<(), String> {
    const FORWARD: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];
    text::header_name(name)?;
    if is_of_the_handshake(name) {
        return Err("may not be edited; it belongs to the handshake".into());
    }
    if FORWARD.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        return Err("may not be edited; [routes.forward] is for it".into());
    }
    Ok(())
}
