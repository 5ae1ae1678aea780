//! `[[pools]]` and their backends.

use toml::de::DeValue;

use super::{Element, Reader, Value};
use crate::config::address::Target;
use crate::config::draft::{DraftPool, Numbered};
use crate::config::options::{BACKEND, BACKEND_KEYS, POOL, POOL_KEYS, describe};
use crate::config::{Backend, Discovery, Named, PoolConfig};

impl Reader<'_> {
    pub(super) fn pool(&mut self, element: Element<'_>) {
        let Element { number, path, span, table } = element;
        if !table.contains_key("name") {
            self.fault(span.clone(), &format!("{path}.name"), "is missing; write name = \"chat\"");
        }
        let mut pool = PoolConfig::named(self.name(&path, table).unwrap_or_default());
        self.options(&path, table, &POOL, POOL_KEYS, &mut pool);
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
                self.backends(&backends_path, list, &mut pool.discovery)
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

    fn backends(&mut self, path: &str, list: &[Value<'_>], discovery: &mut Discovery) -> Vec<Numbered<Backend>> {
        let mut backends = Vec::new();
        for (number, value) in list.iter().enumerate() {
            let path = format!("{path}[{number}]");
            self.draft.places.insert(path.clone(), self.place(value.span()));
            let found = self.backend(&path, value, discovery);
            backends.extend(found.into_iter().map(|value| Numbered { number, value }));
        }
        backends
    }

    /// Several if a name has several addresses, none if there is a fault, or if the name is to be looked up again.
    fn backend(&mut self, path: &str, value: &Value<'_>, discovery: &mut Discovery) -> Vec<Backend> {
        // The address and the name are others for each.
        let mut model = Backend::default();
        let (name, path, value) = match value.get_ref() {
            DeValue::String(_) => (None, path.to_owned(), value),
            DeValue::Table(table) => {
                self.options(path, table, &BACKEND, BACKEND_KEYS, &mut model);
                let name = self.name(path, table);
                let address_path = format!("{path}.address");
                let Some(address) = table.get("address") else {
                    self.fault(value.span(), &address_path, "is missing; write address = \"127.0.0.1:9000\"");
                    return Vec::new();
                };
                (name, address_path, address)
            }
            other => {
                let message = format!("{} is not allowed; write a string, or a table with address", describe(other));
                self.fault(value.span(), path, message);
                return Vec::new();
            }
        };
        let Some(text) = self.string(&path, value) else { return Vec::new() };
        let found = text.parse::<Target>().and_then(|target| {
            let named = Named { target: text.into(), name, model, fault: String::new() };
            discovery.resolve(&target, named)
        });
        found.unwrap_or_else(|message| {
            self.fault(value.span(), &path, message);
            Vec::new()
        })
    }
}
