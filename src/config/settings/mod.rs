//! Every option that is one value: its path in the file, what may stand there, and the field it sets. Reading a file,
//! printing the effective config and the tests of the documentation all walk these tables.

mod fields;
mod global;
mod kind;
mod pool;
mod route;

use std::time::Duration;

use toml::de::DeValue;

use fields::Field;
pub(super) use global::GLOBAL;
use kind::Kind;
pub(super) use kind::{Value, describe, quote};
pub(super) use pool::{BACKEND, POOL};
pub(super) use route::ROUTE;

/// An option of a `T`.
pub(super) struct Setting<T: 'static> {
    /// As in the file, from the table of the `T` on: `limits.head_bytes_max`.
    pub(super) path: &'static str,
    kind: Kind,
    /// The word for `None`: `off` if there is then no limit, `auto` if it is then derived. Options that have none are left
    /// out of the file instead.
    absent: Option<&'static str>,
    get: fn(&T) -> &dyn Field,
    get_mut: fn(&mut T) -> &mut dyn Field,
}

macro_rules! setting {
    ($path:literal, $($field:ident).+, $kind:expr, $absent:expr) => {
        $crate::config::settings::Setting {
            path: $path,
            kind: $kind,
            absent: $absent,
            get: |owner| &owner.$($field).+,
            get_mut: |owner| &mut owner.$($field).+,
        }
    };
    ($path:literal, $($field:ident).+, $kind:expr) => { setting!($path, $($field).+, $kind, None) };
}
use setting;

const AUTO: Option<&str> = Some("auto");
const OFF: Option<&str> = Some("off");

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every wait: neither zero, which would mean "never" or "at once" to different readers, nor beyond what a clock can add.
const WAIT: Kind = Kind::Time(Duration::from_millis(1)..=DAYS_MAX);
/// Where zero has a meaning.
const WAIT_OR_ZERO: Kind = Kind::Time(Duration::ZERO..=DAYS_MAX);
const DAYS_MAX: Duration = Duration::from_secs(365 * 86_400);

impl<T> Setting<T> {
    pub(super) fn read(&self, owner: &T) -> Value {
        (self.get)(owner).read()
    }

    pub(super) fn write(&self, owner: &mut T, value: Value) {
        (self.get_mut)(owner).write(value);
    }

    /// Is there a way to write the value? If not, it is meant where the option is left out.
    pub(super) fn is_written(&self, value: &Value) -> bool {
        self.absent.is_some() || *value != Value::Absent
    }

    /// The value in the file's notation.
    pub(super) fn print(&self, value: &Value) -> String {
        match value {
            Value::Absent => format!("\"{}\"", self.absent.expect("an option without a word for none has a value")),
            value => self.kind.print(value),
        }
    }

    pub(super) fn parse(&self, value: &DeValue<'_>) -> Result<Value, String> {
        match (self.absent, value) {
            (Some(absent), DeValue::String(text)) if text == absent => Ok(Value::Absent),
            _ => self.kind.parse(value, self.absent),
        }
    }
}

/// Every option gets a value that is allowed and is not what it was.
#[cfg(test)]
pub(super) fn change_all<T>(settings: &[Setting<T>], owner: &mut T) {
    for setting in settings {
        let other = setting.kind.another(&setting.read(owner));
        setting.write(owner, other);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::config::{Address, Backend, Config, PoolConfig, Route};

    fn backend() -> Backend {
        "127.0.0.1:9000".parse::<Address>().unwrap().into()
    }

    #[test]
    fn every_default_may_be_written_in_the_file() {
        defaults_may_be_written(GLOBAL, &Config::default());
        defaults_may_be_written(POOL, &PoolConfig::named("chat"));
        defaults_may_be_written(BACKEND, &backend());
        defaults_may_be_written(ROUTE, &Route::catch_all("all", 0, &Config::default()));
    }

    fn defaults_may_be_written<T>(settings: &[Setting<T>], owner: &T) {
        for setting in settings {
            let value = setting.read(owner);
            if !setting.is_written(&value) {
                continue;
            }
            let text = format!("value = {}", setting.print(&value));
            let table = toml::de::DeTable::parse(&text).unwrap();
            assert_eq!(setting.parse(table.get_ref()["value"].get_ref()), Ok(value), "{}", setting.path);
        }
    }

    #[test]
    fn paths_name_the_fields_they_set() {
        paths_name_fields(GLOBAL, &Config::default());
        paths_name_fields(POOL, &PoolConfig::named("chat"));
        paths_name_fields(BACKEND, &backend());
        paths_name_fields(ROUTE, &Route::catch_all("all", 0, &Config::default()));
    }

    #[test]
    fn a_route_says_what_it_does_otherwise_as_the_rest_says_it() {
        let sections = ROUTE.iter().filter(|setting| setting.path.contains('.'));
        for setting in sections {
            let global = GLOBAL.iter().find(|global| global.path == setting.path).expect(setting.path);
            assert_eq!(format!("{:?}", setting.kind), format!("{:?}", global.kind), "{}", setting.path);
            assert_eq!(setting.absent, global.absent, "{}", setting.path);
        }
    }

    fn paths_name_fields<T: Clone + Debug + PartialEq>(settings: &[Setting<T>], owner: &T) {
        let names = format!("{owner:?}");
        for setting in settings {
            let field = setting.path.rsplit('.').next().unwrap();
            assert!(names.contains(&format!(" {field}: ")), "{}", setting.path);
            let default = setting.read(owner);
            let other = setting.kind.another(&default);
            let mut changed = owner.clone();
            setting.write(&mut changed, other.clone());
            assert_ne!(changed, *owner, "{}", setting.path);
            assert_eq!(setting.read(&changed), other, "{}", setting.path);
            // Exactly the field of that name: what differs from the default is behind it and nothing before.
            let debug = format!("{changed:?}");
            let differs = names.bytes().zip(debug.bytes()).position(|(a, b)| a != b).unwrap();
            let before = &names[..differs];
            let last =
                before.rfind(&format!(" {field}: ")).unwrap_or_else(|| panic!("{} sets another field", setting.path));
            assert!(!before[last + 1..].contains(','), "{} sets another field", setting.path);
            setting.write(&mut changed, default);
            assert_eq!(changed, *owner, "{}", setting.path);
        }
    }
}
