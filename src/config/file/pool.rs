//! `[[pools]]` and their backends.

use toml::de::DeValue;

use super::{Element, Reader, Value};
use crate::config::address::{Address, Target};
use crate::config::draft::{DraftPool, Numbered};
use crate::config::settings::{BACKEND, POOL, describe};
use crate::config::{Backend, Pool};

/// Those that are no options of the tables in `settings`.
pub(in crate::config) const POOL_KEYS: &[&str] = &["name", "backends"];
pub(in crate::config) const BACKEND_KEYS: &[&str] = &["address", "name"];

impl Reader<'_> {
    pub(super) fn pool(&mut self, element: Element<'_>) {
        let Element { number, path, span, table } = element;
        if !table.contains_key("name") {
            self.fault(span.clone(), &format!("{path}.name"), "is missing; write name = \"chat\"");
        }
        let mut pool = Pool::named(self.name(&path, table).unwrap_or_default());
        self.options(&path, table, POOL, POOL_KEYS, &mut pool);
        let backends_path = format!("{path}.backends");
        // One that was given, but not understood, is on as well.
        let discovery_path = format!("{path}.discovery");
        let is_misunderstood = table.contains_key("discovery")
            && (self.draft.broken || self.draft.faults.iter().any(|fault| fault.option.starts_with(&discovery_path)));
        let is_discovered = pool.discovery.is_on() || is_misunderstood;
        let backends = match table.get("backends") {
            Some(value) => {
                let list = self.array(&backends_path, value, "[\"127.0.0.1:9000\"]");
                if matches!(value.get_ref(), DeValue::Array(_)) && list.is_empty() && !is_discovered {
                    let message = "is empty; a pool needs at least one backend, or [pools.discovery] to find it";
                    self.fault(value.span(), &backends_path, message);
                }
                self.backends(&backends_path, list)
            }
            None => {
                if !is_discovered {
                    let message = "is missing; write backends = [\"127.0.0.1:9000\"], or [pools.discovery]";
                    self.fault(span, &backends_path, message);
                }
                Vec::new()
            }
        };
        self.draft.pools.push(DraftPool { number, pool, backends });
    }

    fn backends(&mut self, path: &str, list: &[Value<'_>]) -> Vec<Numbered<Backend>> {
        let mut backends = Vec::new();
        for (number, value) in list.iter().enumerate() {
            let path = format!("{path}[{number}]");
            self.draft.places.insert(path.clone(), self.place(value.span()));
            backends.extend(self.backend(&path, value).into_iter().map(|value| Numbered { number, value }));
        }
        backends
    }

    /// Several if a name has several addresses, none if there is a fault.
    fn backend(&mut self, path: &str, value: &Value<'_>) -> Vec<Backend> {
        match value.get_ref() {
            DeValue::String(_) => self.addresses(path, value).into_iter().map(Backend::from).collect(),
            DeValue::Table(table) => {
                // The address and the name are others for each.
                let mut model = Backend::from(Address::Unix("".into()));
                self.options(path, table, BACKEND, BACKEND_KEYS, &mut model);
                let name = self.name(path, table);
                let address_path = format!("{path}.address");
                let Some(value) = table.get("address") else {
                    self.fault(value.span(), &address_path, "is missing; write address = \"127.0.0.1:9000\"");
                    return Vec::new();
                };
                let addresses = self.addresses(&address_path, value).into_iter().enumerate();
                addresses.map(|(index, address)| named(&model, name.as_deref(), index, address)).collect()
            }
            other => {
                let message = format!("{} is not allowed; write a string, or a table with address", describe(other));
                self.fault(value.span(), path, message);
                Vec::new()
            }
        }
    }

    fn addresses(&mut self, path: &str, value: &Value<'_>) -> Vec<Address> {
        let Some(text) = self.string(path, value) else { return Vec::new() };
        text.parse::<Target>().and_then(|target| target.resolve()).unwrap_or_else(|message| {
            self.fault(value.span(), path, message);
            Vec::new()
        })
    }
}

/// The backend at one of the addresses behind a name: `b`, `b-2`, `b-3`. Without a name each is called by its address.
fn named(model: &Backend, name: Option<&str>, index: usize, address: Address) -> Backend {
    let name = match (name, index) {
        (None, _) => address.to_string(),
        (Some(name), 0) => name.into(),
        (Some(name), index) => format!("{name}-{}", index + 1),
    };
    Backend { name, address, ..model.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_behind_one_name_are_numbered() {
        let model = Backend { weight: 7, ..Backend::from(Address::Unix("".into())) };
        let address = |n: u8| Address::Inet(([10, 0, 0, n], 80).into());
        let names = |name: Option<&str>| {
            let backends = (0..3).map(|index| named(&model, name, index, address(index as u8)));
            backends.map(|backend| format!("{} {}", backend.name, backend.weight)).collect::<Vec<_>>()
        };
        assert_eq!(names(Some("b")), ["b 7", "b-2 7", "b-3 7"]);
        assert_eq!(names(None), ["10.0.0.0:80 7", "10.0.0.1:80 7", "10.0.0.2:80 7"]);
    }
}
