//! A configuration on its way to be a [`Config`]: from the file, changed by flags, then checked as a whole.

use std::collections::BTreeMap;

use super::address::{Address, Target};
use super::fault::{Fault, Place};
use super::flags::Flags;
use super::{Config, Pool};

#[derive(Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) default_pool: Option<String>,
    /// Where each option that was given stands, by its path.
    pub(super) places: BTreeMap<String, Place>,
    /// Where what is missing is missing from: the file's beginning, if there is a file.
    pub(super) missing: Place,
    pub(super) faults: Vec<Fault>,
    /// The file is no TOML somewhere, so that what is missing may be there after all.
    pub(super) broken: bool,
}

impl Draft {
    pub(super) fn fault(&mut self, place: Place, option: &str, message: impl Into<String>) {
        self.faults.push(Fault { place, option: option.into(), message: message.into() });
    }

    /// Flags win over the file. `--listen` replaces its listeners, `--backend` the backends of its default pool.
    pub(super) fn apply(&mut self, flags: &Flags) {
        if !flags.listen.is_empty() {
            self.places.retain(|path, _| !path.starts_with("listeners"));
            for index in 0..flags.listen.len() {
                self.places.insert(format!("listeners[{index}].address"), Place::Flag("--listen"));
            }
            self.config.listeners = flags.listen.iter().cloned().map(Into::into).collect();
        }
        if !flags.backend.is_empty() {
            self.replace_backends(&flags.backend);
        }
        if let Some(workers) = flags.workers {
            self.places.insert("workers".into(), Place::Flag("--workers"));
            self.config.workers = Some(workers);
        }
        if let Some(cpus) = &flags.cpus {
            self.places.insert("cpus".into(), Place::Flag("--cpus"));
            self.config.cpus = Some(cpus.0.clone());
        }
        if let Some(level) = flags.log_level {
            self.places.insert("log_level".into(), Place::Flag("--log-level"));
            self.config.log_level = level;
        }
    }

    fn replace_backends(&mut self, targets: &[Target]) {
        let mut backends: Vec<Address> = Vec::new();
        for target in targets {
            match target.resolve() {
                Ok(addresses) => backends.extend(addresses),
                Err(message) => self.fault(Place::Flag("--backend"), "backend", message),
            }
        }
        let index = self.default_pool_index().unwrap_or(0);
        if self.config.pools.is_empty() {
            let name = self.default_pool.clone().unwrap_or_else(|| "default".into());
            self.config.pools.push(Pool::named(name));
        }
        let prefix = format!("pools[{index}].backends");
        self.places.retain(|path, _| !path.starts_with(&prefix));
        for backend in 0..backends.len() {
            self.places.insert(format!("{prefix}[{backend}]"), Place::Flag("--backend"));
        }
        self.config.pools[index].backends = backends.into_iter().map(Into::into).collect();
    }

    /// The pool that was named, or the first. `None` if there is none of that name.
    pub(super) fn default_pool_index(&self) -> Option<usize> {
        match &self.default_pool {
            Some(name) => self.config.pools.iter().position(|pool| pool.name == *name),
            None => (!self.config.pools.is_empty()).then_some(0),
        }
    }
}
