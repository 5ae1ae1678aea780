//! A configuration on its way to be a [`Config`]: from the file, changed by flags, then checked as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::address::{Address, Target};
use super::diagnostic::{Diagnostic, Place};
use super::environment::Environment;
use super::flags::Flags;
use super::{Backend, Config, ListenerConfig, Named, PoolConfig, Route};

#[derive(Default)]
pub(super) struct Draft {
    /// But for listeners, pools, routes and the default pool, which stand below until everything is checked.
    pub(super) config: Config,
    pub(super) listeners: Vec<Numbered<ListenerConfig>>,
    pub(super) pools: Vec<DraftPool>,
    pub(super) routes: Vec<DraftRoute>,
    pub(super) default_pool: Option<String>,
    /// Where each option that was given stands, by its path.
    pub(super) places: BTreeMap<String, Place>,
    /// Where what is missing is missing from: the file's beginning, if there is a file.
    pub(super) missing: Place,
    pub(super) faults: Vec<Diagnostic>,
    /// Of values of which nobody knows what they were to be, which was told.
    pub(super) unknown: BTreeSet<Place>,
    /// The file is no TOML somewhere, so that what is missing may be there after all.
    pub(super) broken: bool,
}

/// An element of a list, and its number in the file's list: a faulty one gives none, and a name may give several.
#[derive(Clone, Debug)]
pub(super) struct Numbered<T> {
    pub(super) number: usize,
    pub(super) value: T,
}

/// Kept even if it is at fault, so that others may name it.
pub(super) struct DraftPool {
    /// In the file.
    pub(super) number: usize,
    /// Without its backends.
    pub(super) pool: PoolConfig,
    pub(super) backends: Vec<Numbered<Backend>>,
}

pub(super) struct DraftRoute {
    /// In the file.
    pub(super) number: usize,
    /// To no pool yet.
    pub(super) route: Route,
    /// `None`: it is missing, which was told.
    pub(super) pool: Option<String>,
}

impl Draft {
    /// Without a file.
    pub(super) fn of(environment: &Environment) -> Self {
        let mut draft = Draft::default();
        environment.apply(&mut draft);
        draft
    }

    pub(super) fn fault(&mut self, place: Place, option: &str, message: impl Into<String>) {
        self.faults.push(Diagnostic { place, option: option.into(), message: message.into() });
    }

    /// Flags win over the file. `--listen` replaces its listeners, `--backend` the backends of its default pool.
    pub(super) fn apply(&mut self, flags: &Flags) {
        if !flags.listen.is_empty() {
            self.replace_listeners(&flags.listen);
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

    fn replace_listeners(&mut self, addresses: &[Address]) {
        self.places.retain(|path, _| !path.starts_with("listeners"));
        self.listeners.clear();
        for (number, address) in addresses.iter().enumerate() {
            self.places.insert(format!("listeners[{number}].address"), Place::Flag("--listen"));
            self.listeners.push(Numbered { number, value: address.clone().into() });
        }
    }

    /// Of the default pool, or of the first if there is no default.
    fn replace_backends(&mut self, targets: &[Target]) {
        let index = self.default_pool_index().unwrap_or(0);
        if self.pools.is_empty() {
            let name = self.default_pool.clone().unwrap_or_else(|| "default".into());
            self.pools.push(DraftPool { number: 0, pool: PoolConfig::named(name), backends: Vec::new() });
        }
        let prefix = format!("pools[{}].backends", self.pools[index].number);
        self.places.retain(|path, _| !path.starts_with(&prefix));
        let discovery = &mut self.pools[index].pool.discovery;
        discovery.names.clear();
        discovery.resolved.clear();
        let mut backends = Vec::new();
        for (number, target) in targets.iter().enumerate() {
            self.places.insert(format!("{prefix}[{number}]"), Place::Flag("--backend"));
            let named =
                Named { target: target.to_string(), name: None, model: Backend::default(), fault: String::new() };
            match self.pools[index].pool.discovery.resolve(target, named) {
                Ok(found) => backends.extend(found.into_iter().map(|value| Numbered { number, value })),
                Err(message) => self.fault(Place::Flag("--backend"), "backend", message),
            }
        }
        self.pools[index].backends = backends;
    }

    /// The pool that was named; without routes the first, if none was. `None` if there is none of that name.
    pub(super) fn default_pool_index(&self) -> Option<usize> {
        match &self.default_pool {
            Some(name) => self.pools.iter().position(|pool| pool.pool.name == *name),
            None => (!self.pools.is_empty() && self.routes.is_empty()).then_some(0),
        }
    }

    /// What was checked, as one.
    pub(super) fn finish(self) -> Config {
        let mut config = self.config;
        config.listeners = self.listeners.into_iter().map(|listener| listener.value).collect();
        config.pools = self.pools.into_iter().map(DraftPool::finish).collect();
        config.routes = self.routes.into_iter().map(|route| route.route).collect();
        // Stable: among equals the file's order decides.
        config.routes.sort_by_cached_key(Route::rank);
        config
    }
}

impl DraftPool {
    fn finish(self) -> PoolConfig {
        let backends = self.backends.into_iter().map(|backend| backend.value).collect();
        PoolConfig { backends, ..self.pool }
    }
}
