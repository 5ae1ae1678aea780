//! Another configuration while the relay runs: where it comes from, what of it has to wait for the next start, and when its
//! file has changed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::config::{self, Config, Diagnostics, Flags, Machine};

/// Where the configuration comes from, for the first time and each time it is read again.
#[derive(Clone, Debug)]
pub struct Source {
    file: Option<PathBuf>,
    flags: Flags,
    /// As it was at start: which CPUs there are for workers does not change when this thread is moved to others.
    machine: Machine,
}

impl Source {
    pub fn new(file: Option<PathBuf>, flags: Flags) -> Self {
        Source { file, flags, machine: Machine::this() }
    }

    /// For the log: the file's name, if there is one.
    pub fn name(&self) -> String {
        self.file.as_ref().map_or_else(|| "command line".into(), |path| path.display().to_string())
    }

    /// May block: names of backends are looked up.
    pub fn load(&self) -> Result<Config, Diagnostics> {
        config::load(self.file.as_deref(), &self.flags, &self.machine)
    }

    /// What changes when the file is written or replaced, by a symbolic link too. `None`: there is none to be read.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let file = std::fs::metadata(self.file.as_deref()?).ok()?;
        Some(Stamp((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp((u64, u64, u64, i64, i64));

/// Gives the new configuration the old one's values of what is sized or opened once, at start, and names those that it
/// had otherwise. So what is in effect is what a table says, and each reload tells again what still waits.
pub(super) fn keep_what_is_fixed(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let kept = [
        ("workers", keep(&old.workers, &mut new.workers)),
        ("cpus", keep(&old.cpus, &mut new.cpus)),
        ("limits.sessions_max", keep(&old.limits.sessions_max, &mut new.limits.sessions_max)),
        ("tcp", keep(&old.tcp, &mut new.tcp)),
        ("buffers", keep(&old.buffers, &mut new.buffers)),
    ];
    kept.into_iter().filter(|(_, differed)| *differed).map(|(option, _)| option).collect()
}

/// A name that could be resolved before keeps its addresses if it cannot be now. Returns what to tell of each.
pub(super) fn keep_addresses(old: &Config, new: &mut Config) -> Vec<String> {
    let mut kept = Vec::new();
    for pool in &mut new.pools {
        let Some(old) = old.pools.iter().find(|old| old.name == pool.name) else { continue };
        for named in std::mem::take(&mut pool.discovery.names) {
            match old.discovery.resolved.iter().find(|(target, _)| *target == named.target) {
                Some((_, addresses)) => {
                    pool.backends.extend(named.at(addresses));
                    kept.push(format!("pool \"{}\": {}; its last addresses stay", pool.name, named.fault));
                    pool.discovery.resolved.push((named.target, addresses.clone()));
                }
                None => pool.discovery.names.push(named),
            }
        }
    }
    kept
}

fn keep<T: Clone + PartialEq>(old: &T, new: &mut T) -> bool {
    let differed = old != new;
    new.clone_from(old);
    differed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_next_start_is_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.timeouts.close *= 2;
        assert!(keep_what_is_fixed(&old, &mut new).is_empty());
        new.workers = Some(3);
        new.limits.sessions_max = Some(10);
        new.tcp.backlog = 1;
        assert_eq!(keep_what_is_fixed(&old, &mut new), ["workers", "limits.sessions_max", "tcp"]);
        assert_eq!((new.workers, new.limits.sessions_max, &new.tcp), (old.workers, None, &old.tcp));
        assert_ne!(new.timeouts.close, old.timeouts.close);
    }

    /// DNS may be down when a reload asks it.
    #[test]
    fn field_r12_a_name_that_cannot_be_resolved_any_more_keeps_its_addresses() {
        let address = |last: u8| config::Address::Inet(([10, 0, 0, last], 9000).into());
        let mut old = Config {
            pools: vec![config::PoolConfig::named("chat"), config::PoolConfig::named("other")],
            ..Config::default()
        };
        old.pools[0].discovery.resolved = vec![("a:9000".into(), vec![address(1), address(2)])];
        let mut new = old.clone();
        new.pools[0].discovery.resolved.clear();
        new.pools[0].backends.push(address(9).into());
        let model = config::Backend { weight: 7, ..address(0).into() };
        let named = |target: &str| config::Named {
            target: target.into(),
            name: None,
            model: model.clone(),
            fault: "no".into(),
        };
        new.pools[0].discovery.names = vec![named("b:9000"), named("a:9000")];
        new.pools[1].discovery.names = vec![named("a:9000")];
        assert_eq!(keep_addresses(&old, &mut new), ["pool \"chat\": no; its last addresses stay"]);
        let backends = |pool: usize| {
            new.pools[pool].backends.iter().map(|backend| (&*backend.name, backend.weight)).collect::<Vec<_>>()
        };
        assert_eq!(backends(0), [("10.0.0.9:9000", 1), ("10.0.0.1:9000", 7), ("10.0.0.2:9000", 7)]);
        assert_eq!(new.pools[0].discovery.names, [named("b:9000")]);
        assert!(
            backends(1).is_empty() && new.pools[1].discovery.names == [named("a:9000")],
            "another pool's are its own"
        );
        // And at the next one.
        let mut next = new.clone();
        next.pools[0].discovery.names = vec![named("a:9000")];
        next.pools[0].discovery.resolved.clear();
        assert_eq!(keep_addresses(&new, &mut next).len(), 1);
    }

    #[test]
    fn a_stamp_changes_when_the_file_is_replaced() {
        let directory = std::env::temp_dir().join(format!("ringway-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("a.toml");
        let source = Source::new(Some(file.clone()), Flags::default());
        assert_eq!(source.stamp(), None);
        std::fs::write(&file, "one").unwrap();
        let first = source.stamp();
        assert!(first.is_some() && source.stamp() == first);
        std::fs::write(directory.join("b.toml"), "two").unwrap();
        std::fs::rename(directory.join("b.toml"), &file).unwrap();
        assert_ne!(source.stamp(), first);
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// The control plane's thread may have been moved to another CPU, so that the workers have theirs for themselves.
    #[test]
    fn the_cpus_are_those_of_the_start() {
        let cpus = Machine::this().cpus;
        let flags = Flags {
            backend: vec!["127.0.0.1:9".parse().unwrap()],
            cpus: Some(config::Cpus(cpus.clone())),
            ..Flags::default()
        };
        let mut source = Source::new(None, flags);
        assert_eq!(source.load().unwrap().cpus, Some(cpus));
        source.machine.cpus = vec![8000];
        assert!(source.load().unwrap_err().to_string().contains("may not use CPU"));
    }
}
