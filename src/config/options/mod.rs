//! How an option is declared. One entry of [`options!`] is the struct's field, its default, what may stand in the file, whether
//! a route may say otherwise, and what the documents tell; reading a file, printing the effective config, `--options` and
//! `--example` all walk the tables that come of it.

mod fields;
mod given;
mod keys;
mod kind;
mod words;

use std::sync::LazyLock;
use std::time::Duration;

use super::{Backend, Config, PoolConfig, Route};
pub(super) use fields::Field;
pub(crate) use given::Given;
pub(super) use given::describe;
pub(super) use keys::{BACKEND_KEYS, EDIT_KEYS, Key, LISTENER_KEYS, POOL_KEYS, ROOT_KEYS, ROUTE_KEYS};
pub(super) use kind::{Grammar, Kind, Value, quote};
pub use words::*;

/// A struct whose fields are options.
pub(super) trait Options: Sized + 'static {
    /// The struct's comment, for the head of its section.
    const ABOUT: &'static str;
    const OPTIONS: &'static [Entry<Self>];
}

/// An option as it is declared: a field of an `S`.
pub(super) struct Entry<S> {
    name: &'static str,
    /// The field's comment, line by line.
    doc: &'static str,
    kind: Kind,
    absent: Option<&'static str>,
    is_per_route: bool,
    is_secret: bool,
    at_most: &'static [&'static str],
    get: fn(&S) -> &dyn Field,
    get_mut: fn(&mut S) -> &mut dyn Field,
}

/// ```text
/// options! {
///     /// Of what.
///     pub struct Limits {
///         /// Request or response head. More: 431.
///         head_bytes_max: usize = 16 << 10, Bytes(256..=MIB);
///         /// One header line.
///         header_bytes_max: usize = 8 << 10, Bytes(256..=MIB), at_most("limits.head_bytes_max");
///         /// Payload of one frame. `"off"`: no limit.
///         frame_bytes_max: Option<u64> = None, Bytes(125..=MIB), off, per_route;
///     }
///     fields {
///         /// What is no option of one value.
///         pub name: String = String::new(),
///     }
/// }
/// ```
///
/// An `Option` has the word that stands for `None`: `off`, `auto` or `pool`. One without a word is left out of the file.
/// In comments, what is written in the file stands in quotes and backticks: `` `"off"` ``.
macro_rules! options {
    (
        $(#[doc = $about:literal])*
        $(#[derive($($derive:ident),*)])?
        pub struct $owner:ident {
            $(
                $(#[doc = $doc:literal])*
                $name:ident: $type:ty = $default:expr, $kind:expr $(, $word:ident $(($($path:literal),+))?)*;
            )*
        }
        $(fields {
            $($(#[$field_about:meta])* pub $field:ident: $field_type:ty = $field_default:expr,)*
        })?
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq $(, $($derive),*)?)]
        pub struct $owner {
            $($($(#[$field_about])* pub $field: $field_type,)*)?
            $($(#[doc = $doc])* pub $name: $type,)*
        }

        impl Default for $owner {
            fn default() -> Self {
                $owner {
                    $($($field: $field_default,)*)?
                    $($name: $default,)*
                }
            }
        }

        impl $crate::config::options::Options for $owner {
            const ABOUT: &'static str = concat!($($about, "\n"),*);
            const OPTIONS: &'static [$crate::config::options::Entry<Self>] = &[
                $(
                    $crate::config::options::Entry::<Self>::new(
                        stringify!($name),
                        concat!($($doc, "\n"),*),
                        $kind,
                        |owner| &owner.$name,
                        |owner| &mut owner.$name,
                    )
                    $(.$word($(&[$($path),+])?))*,
                )*
            ];
        }
    };
}
pub(super) use options;

impl<S> Entry<S> {
    pub(super) const fn new(
        name: &'static str,
        doc: &'static str,
        kind: Kind,
        get: fn(&S) -> &dyn Field,
        get_mut: fn(&mut S) -> &mut dyn Field,
    ) -> Self {
        Entry { name, doc, kind, absent: None, is_per_route: false, is_secret: false, at_most: &[], get, get_mut }
    }

    /// `None` is no limit, or never.
    pub(super) const fn off(self) -> Self {
        Entry { absent: Some("off"), ..self }
    }

    /// `None` is derived from something else.
    pub(super) const fn auto(self) -> Self {
        Entry { absent: Some("auto"), ..self }
    }

    /// `None` is what the backend's pool says.
    pub(super) const fn pool(self) -> Self {
        Entry { absent: Some("pool"), ..self }
    }

    /// Never shown, and may be read from a file of its own.
    pub(super) const fn secret(self) -> Self {
        Entry { is_secret: true, ..self }
    }

    /// No more than these options are, which are named as in the file, from the table of the section's owner on.
    pub(super) const fn at_most(self, at_most: &'static [&'static str]) -> Self {
        Entry { at_most, ..self }
    }

    /// A route may say otherwise.
    pub(super) const fn per_route(self) -> Self {
        Entry { is_per_route: true, ..self }
    }
}

/// An option of a `T` as the file has it: a field of the `T`, or of one of its sections.
pub(super) struct Setting<T: 'static> {
    /// From the table of the `T` on: `limits.head_bytes_max`.
    pub(super) path: String,
    /// Of the environment, for an option of the root and its sections: `RINGWAY_LIMITS_HEAD_BYTES_MAX`.
    pub(super) variable: String,
    /// Of its section.
    pub(super) about: &'static str,
    pub(super) doc: &'static str,
    pub(super) kind: &'static Kind,
    /// The word for `None`. Options that have none are left out of the file instead.
    absent: Option<&'static str>,
    pub(super) is_secret: bool,
    /// Paths of others, which it may not be larger than.
    pub(super) at_most: &'static [&'static str],
    get: Box<dyn Send + Sync + Fn(&T) -> &dyn Field>,
    get_mut: Box<dyn Send + Sync + Fn(&mut T) -> &mut dyn Field>,
}

/// In the order in which they are documented and printed.
pub(super) type Settings<T> = LazyLock<Vec<Setting<T>>>;

macro_rules! sections {
    ($all:ident: $owner:ty, $wanted:expr, $($section:ident)*) => {
        $($all.extend(section(stringify!($section), $wanted, |of: &$owner| &of.$section, |of| &mut of.$section));)*
    };
}

/// Of the file's root and its sections.
pub(super) static GLOBAL: Settings<Config> = LazyLock::new(|| {
    let mut all = own();
    sections!(all: Config, |_| true, limits timeouts close_codes forward tcp buffers);
    all
});
/// Of a pool, but for its name and backends.
pub(super) static POOL: Settings<PoolConfig> = LazyLock::new(|| {
    let mut all = own();
    sections!(all: PoolConfig, |_| true, sticky admission health eject breaker sessions discovery);
    all
});
/// Of a backend, but for its name and address.
pub(super) static BACKEND: Settings<Backend> = LazyLock::new(own);
/// Of a route, but for its conditions and edits: some of its own, and those in which it may differ from the rest.
pub(super) static ROUTE: Settings<Route> = LazyLock::new(|| {
    let mut all = own();
    sections!(all: Route, |is_per_route| is_per_route, limits timeouts close_codes forward);
    all
});

fn own<T: Options>() -> Vec<Setting<T>> {
    section("", |_| true, |owner: &T| owner, |owner| owner).collect()
}

/// The options of the `S` in a `T`: those of which `wanted` says so, told whether a route may differ in them.
fn section<S: Options, T: 'static>(
    name: &'static str,
    wanted: fn(bool) -> bool,
    get: fn(&T) -> &S,
    get_mut: fn(&mut T) -> &mut S,
) -> impl Iterator<Item = Setting<T>> {
    S::OPTIONS.iter().filter(move |entry| wanted(entry.is_per_route)).map(move |entry| Setting {
        path: join(name, entry.name),
        variable: format!("RINGWAY_{}", join(name, entry.name).replace('.', "_").to_ascii_uppercase()),
        about: S::ABOUT,
        doc: entry.doc,
        kind: &entry.kind,
        absent: entry.absent,
        is_secret: entry.is_secret,
        at_most: entry.at_most,
        get: Box::new(move |owner| (entry.get)(get(owner))),
        get_mut: Box::new(move |owner| (entry.get_mut)(get_mut(owner))),
    })
}

/// Those in no section, which come first.
pub(super) fn outside<T>(settings: &[Setting<T>]) -> &[Setting<T>] {
    let end = settings.iter().position(|setting| !setting.place().0.is_empty());
    &settings[..end.unwrap_or(settings.len())]
}

/// The others, section by section.
pub(super) fn sections<T>(settings: &[Setting<T>]) -> impl Iterator<Item = &[Setting<T>]> {
    let rest = &settings[outside(settings).len()..];
    rest.chunk_by(|one, next| one.place().0 == next.place().0)
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Every wait: neither zero, which would mean "never" or "at once" to different readers, nor beyond what a clock can add.
pub(super) const WAIT: Kind = Kind::Time(Duration::from_millis(1)..=DAYS_MAX);
/// Where zero has a meaning.
pub(super) const WAIT_OR_ZERO: Kind = Kind::Time(Duration::ZERO..=DAYS_MAX);
const DAYS_MAX: Duration = Duration::from_secs(365 * 86_400);

impl<T> Setting<T> {
    /// The section that it is in, and its name there.
    pub(super) fn place(&self) -> (&str, &str) {
        self.path.split_once('.').unwrap_or(("", &self.path))
    }

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

    /// What may stand there, for people. `all`: those of the same owner.
    pub(super) fn allowed(&self, all: &[Setting<T>]) -> String {
        let or = self.absent.map(|word| format!(", or \"{word}\"")).unwrap_or_default();
        let above: Vec<String> = self.at_most.iter().map(|path| format!("`{path}`")).collect();
        let below = all.iter().filter(|other| other.at_most.contains(&self.path.as_str()));
        let below: Vec<String> = below.map(|other| format!("`{}`", other.path)).collect();
        let bound = |what: &str, paths: &[String]| match paths {
            [] => String::new(),
            paths => format!("; no {what} than {}", paths.join(" and ")),
        };
        format!("{}{or}{}{}", self.kind.allowed(), bound("more", &above), bound("less", &below))
    }

    /// Of an option that is one of a few.
    pub(super) fn words(&self) -> Option<&'static [&'static str]> {
        match self.kind {
            Kind::Words(words) => Some(words),
            _ => None,
        }
    }

    /// Some value, in the file's notation.
    pub(super) fn such_as(&self) -> String {
        match self.kind {
            Kind::Text(grammar) => quote(grammar.such_as),
            _ => self.kind.expected(),
        }
    }

    pub(super) fn parse(&self, value: &Given<'_>) -> Result<Value, String> {
        match (self.absent, value) {
            (Some(absent), Given::Text(text)) if text == absent => Ok(Value::Absent),
            // A secret without its quotes is a secret.
            (_, other) if self.is_secret && !matches!(other, Given::Text(_)) => {
                Err(format!("is no text; write {} in quotes", self.kind.expected()))
            }
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

    #[test]
    fn every_default_may_be_written_in_the_file() {
        defaults_may_be_written(&GLOBAL, &Config::default());
        defaults_may_be_written(&POOL, &PoolConfig::named("chat"));
        defaults_may_be_written(&BACKEND, &Backend::default());
        defaults_may_be_written(&ROUTE, &Route::catch_all("all", 0, &Config::default()));
    }

    fn defaults_may_be_written<T>(settings: &[Setting<T>], owner: &T) {
        for setting in settings {
            let value = setting.read(owner);
            if !setting.is_written(&value) {
                continue;
            }
            let text = format!("value = {}", setting.print(&value));
            let table = toml::de::DeTable::parse(&text).unwrap();
            assert_eq!(setting.parse(&Given::of(table.get_ref()["value"].get_ref())), Ok(value), "{}", setting.path);
        }
    }

    #[test]
    fn every_value_may_be_changed_and_changed_back() {
        change(&GLOBAL, &Config::default());
        change(&POOL, &PoolConfig::named("chat"));
        change(&BACKEND, &Backend::default());
        change(&ROUTE, &Route::catch_all("all", 0, &Config::default()));
    }

    /// That a kind fits its field, with its word for none.
    fn change<T: Clone + Debug + PartialEq>(settings: &[Setting<T>], owner: &T) {
        for setting in settings {
            let default = setting.read(owner);
            let other = setting.kind.another(&default);
            let mut changed = owner.clone();
            setting.write(&mut changed, other.clone());
            assert_ne!(changed, *owner, "{}", setting.path);
            assert_eq!(setting.read(&changed), other, "{}", setting.path);
            setting.write(&mut changed, if setting.absent.is_some() { Value::Absent } else { default.clone() });
            setting.write(&mut changed, default);
            assert_eq!(changed, *owner, "{}", setting.path);
        }
    }

    #[test]
    fn what_bounds_an_option_is_there() {
        fn bounds<T>(settings: &[Setting<T>], owner: &T) -> usize {
            let mut count = 0;
            for setting in settings {
                for bound in setting.at_most {
                    let other = settings.iter().find(|other| other.path == *bound).expect(bound);
                    let (low, high) = (setting.read(owner), other.read(owner));
                    assert_ne!(
                        low.size_cmp(&high),
                        Some(std::cmp::Ordering::Greater),
                        "{} is above {bound}",
                        setting.path
                    );
                    assert_eq!(std::mem::discriminant(setting.kind), std::mem::discriminant(other.kind), "{bound}");
                    count += 1;
                }
            }
            count
        }
        let (config, pool) = (Config::default(), PoolConfig::default());
        assert!(bounds(&GLOBAL, &config) > 0 && bounds(&POOL, &pool) > 0);
        assert!(bounds(&ROUTE, &Route::catch_all("all", 0, &config)) > 0);
    }

    #[test]
    fn every_option_has_words() {
        let docs = GLOBAL.iter().map(|setting| (&setting.path, setting.doc));
        let docs = docs.chain(POOL.iter().map(|setting| (&setting.path, setting.doc)));
        let docs = docs.chain(BACKEND.iter().map(|setting| (&setting.path, setting.doc)));
        for (path, doc) in docs.chain(ROUTE.iter().map(|setting| (&setting.path, setting.doc))) {
            assert!(doc.trim().ends_with('.'), "{path}: {doc}");
        }
    }
}
