//! The TOML file -> a [`Draft`]: values where they belong, a place for each, and everything that is wrong with them.
//!
//! It walks the parsed tree itself instead of deriving `Deserialize`, which would stop at the first fault and not know
//! where a value stood once it is checked against another.

mod lines;
mod pool;
mod route;
mod secret;

use std::borrow::Cow;
use std::ops::Range;

use nix::unistd::{Group, User};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::Address;
use super::diagnostic::Place;
use super::draft::{Draft, Numbered};
use super::environment::Environment;
use super::hints;
use super::options::{GLOBAL, Given, Key, LISTENER_KEYS, ROOT_KEYS, Setting, describe, join};
use super::{Account, Config, ListenerConfig, Rights};
pub(super) use lines::Lines;

type Value<'a> = Spanned<DeValue<'a>>;

pub(super) fn read(text: &str, environment: &Environment) -> Draft {
    let mut reader = Reader { lines: Lines::new(text), environment, draft: Draft::default() };
    reader.draft.missing = reader.place(0..0);
    let (mut table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = reader.place(error.span().unwrap_or_default());
        reader.draft.fault(place, "", error.message().replace('\n', ", "));
    }
    reader.draft.broken = !errors.is_empty();
    // What a broken line leaves behind in the tree may be anything, so its values are not judged as well.
    let broken: Vec<Option<usize>> = reader.draft.faults.iter().map(|fault| line(fault.place)).collect();
    reader.expand_table("", table.get_mut());
    let expanded = reader.draft.faults.len();
    reader.root(table.get_ref());
    let mut index = 0;
    let Draft { faults, unknown, .. } = &mut reader.draft;
    faults.retain(|fault| {
        index += 1;
        index <= broken.len()
            || !broken.contains(&line(fault.place)) && (index <= expanded || !unknown.contains(&fault.place))
    });
    reader.draft
}

fn line(place: Place) -> Option<usize> {
    match place {
        Place::File { line, .. } => Some(line),
        Place::Variable(_) | Place::Environment | Place::Flag(_) | Place::Whole => None,
    }
}

struct Reader<'t> {
    lines: Lines<'t>,
    environment: &'t Environment,
    draft: Draft,
}

/// A table of a list of tables: `[[pools]]`.
struct Element<'v> {
    number: usize,
    /// `pools[2]`
    path: String,
    /// Of its beginning.
    span: Range<usize>,
    table: &'v DeTable<'v>,
}

impl Reader<'_> {
    fn root(&mut self, table: &DeTable<'_>) {
        let mut config = Config::default();
        self.options("", table, &GLOBAL, ROOT_KEYS, &mut config);
        self.draft.config = config;
        if let Some(value) = table.get("default_pool") {
            self.draft.default_pool = self.string("default_pool", value).map(str::to_owned);
        }
        // Routes begin with what it says.
        self.environment.apply(&mut self.draft);
        if let Some(value) = table.get("listeners") {
            self.tables("listeners", value, Self::listener);
        }
        if let Some(value) = table.get("pools") {
            self.tables("pools", value, Self::pool);
        }
        // Last, as they begin with what the rest of the file says.
        if let Some(value) = table.get("routes") {
            self.tables("routes", value, Self::route);
        }
    }

    /// Variables of the environment into all texts of the table and of what is in it, but its keys.
    fn expand_table(&mut self, path: &str, table: &mut DeTable<'_>) {
        for (key, value) in table.iter_mut() {
            self.expand(&join(path, key.get_ref()), value);
        }
    }

    fn expand(&mut self, path: &str, value: &mut Value<'_>) {
        let span = value.span();
        match value.get_mut() {
            DeValue::Table(table) => self.expand_table(path, table),
            DeValue::Array(list) => {
                let numbered = list.iter_mut().enumerate();
                numbered.for_each(|(number, value)| self.expand(&format!("{path}[{number}]"), value));
            }
            DeValue::String(text) if text.contains('$') => match self.environment.expand(text) {
                Ok(expanded) => *text = Cow::Owned(expanded),
                Err(message) => {
                    let place = self.place(span);
                    self.draft.unknown.insert(place);
                    self.draft.fault(place, path, message);
                }
            },
            _ => (),
        }
    }

    /// Reads what `table` says of the options of `owner`, sections included. Its keys `others` are left to the caller, all
    /// the rest is unknown.
    fn options<T>(&mut self, path: &str, table: &DeTable<'_>, options: &[Setting<T>], others: &[Key], owner: &mut T) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if others.iter().any(|key| key.name == name) {
                continue;
            }
            let full = join(path, name);
            if options.iter().any(|option| option.place().0 == name) {
                self.section(&full, name, value, options, owner);
            } else if let Some(option) = options.iter().find(|option| option.path == name) {
                self.option(&full, value, option, owner);
            } else {
                let sections = options.iter().map(|option| option.path.split('.').next().unwrap_or_default());
                self.unknown(path, key, sections.chain(others.iter().map(|key| key.name)));
            }
        }
    }

    fn section<T>(&mut self, path: &str, name: &str, value: &Value<'_>, options: &[Setting<T>], owner: &mut T) {
        let Some(table) = self.table(path, value) else { return };
        let inside = || options.iter().map(|option| (option, option.place())).filter(|(_, (of, _))| *of == name);
        for (key, value) in table {
            let full = join(path, key.get_ref());
            match inside().find(|(_, (_, name))| name == key.get_ref()) {
                Some((option, _)) => self.option(&full, value, option, owner),
                None => self.unknown(path, key, inside().map(|(_, (_, name))| name)),
            }
        }
    }

    fn option<T>(&mut self, path: &str, value: &Value<'_>, option: &Setting<T>, owner: &mut T) {
        self.draft.places.insert(path.into(), self.place(value.span()));
        let parsed = match value.get_ref() {
            DeValue::String(text) if option.is_secret && text.starts_with(secret::PREFIX) => {
                secret::read(text).and_then(|text| option.parse(&Given::Text(Cow::Owned(text))))
            }
            value => option.parse(&Given::of(value)),
        };
        match parsed {
            Ok(parsed) => option.write(owner, parsed),
            Err(message) => self.fault(value.span(), path, message),
        }
    }

    /// `[[name]]`: calls `each` with every one of its tables.
    fn tables(&mut self, name: &str, value: &Value<'_>, each: fn(&mut Self, Element<'_>)) {
        let DeValue::Array(array) = value.get_ref() else {
            return self.fault(value.span(), name, format!("write it as [[{name}]], once for each"));
        };
        for (number, element) in array.iter().enumerate() {
            let path = format!("{name}[{number}]");
            let span = element.span();
            self.draft.places.insert(path.clone(), self.place(span.clone()));
            match element.get_ref() {
                DeValue::Table(table) => each(self, Element { number, path, span, table }),
                other => {
                    self.fault(span, &path, format!("{} is not allowed; write it as [[{name}]]", describe(other)));
                }
            }
        }
    }

    fn listener(&mut self, element: Element<'_>) {
        let Element { number, path, span, table } = element;
        self.only_keys(&path, table, LISTENER_KEYS);
        let name = self.name(&path, table);
        let option = format!("{path}.address");
        let Some(value) = table.get("address") else {
            return self.fault(span, &option, "is missing; write address = \"127.0.0.1:8080\"");
        };
        let Some(text) = self.string(&option, value) else { return };
        match text.parse::<Address>() {
            Ok(address) => {
                let rights = self.rights(&path, table, matches!(address, Address::Unix(_)));
                let name = name.unwrap_or_else(|| address.to_string());
                self.draft.listeners.push(Numbered { number, value: ListenerConfig { name, address, rights } });
            }
            Err(message) => self.fault(value.span(), &option, message),
        }
    }

    fn rights(&mut self, path: &str, table: &DeTable<'_>, is_unix: bool) -> Rights {
        let mut rights = Rights::default();
        for key in ["mode", "owner", "group"] {
            let Some(value) = table.get(key) else { continue };
            let full = join(path, key);
            if !is_unix {
                self.fault(value.span(), &full, "is for unix sockets");
                continue;
            }
            let Some(text) = self.string(&full, value) else { continue };
            let found = match key {
                "mode" => mode(text).map(|mode| rights.mode = Some(mode)),
                "owner" => account(text, |name| User::from_name(name).map(|user| user.map(|user| user.uid.as_raw())))
                    .map(|owner| rights.owner = Some(owner)),
                _ => account(text, |name| Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw())))
                    .map(|group| rights.group = Some(group)),
            };
            if let Err(message) = found {
                self.fault(value.span(), &full, message);
            }
        }
        rights
    }

    /// The name that the table of `path` gives, if it does.
    fn name(&mut self, path: &str, table: &DeTable<'_>) -> Option<String> {
        table.get("name").and_then(|value| self.string(&format!("{path}.name"), value)).map(str::to_owned)
    }

    fn string<'v>(&mut self, path: &str, value: &'v Value<'_>) -> Option<&'v str> {
        self.draft.places.insert(path.into(), self.place(value.span()));
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => return Some(text),
            DeValue::String(_) => self.fault(value.span(), path, "is empty"),
            other => self.fault(value.span(), path, format!("{} is not allowed; write a string", describe(other))),
        }
        None
    }

    /// As `string`, and it has to pass `check`.
    fn text<'v>(&mut self, path: &str, value: &'v Value<'_>, check: fn(&str) -> Result<(), String>) -> Option<&'v str> {
        let text = self.string(path, value)?;
        check(text).map_err(|message| self.fault(value.span(), path, message)).ok().map(|()| text)
    }

    /// `such_as` is for the fault.
    fn array<'v>(&mut self, path: &str, value: &'v Value<'v>, such_as: &str) -> &'v [Value<'v>] {
        self.draft.places.insert(path.into(), self.place(value.span()));
        match value.get_ref() {
            DeValue::Array(array) => array,
            other => {
                let message = format!("{} is not allowed; write a list such as {such_as}", describe(other));
                self.fault(value.span(), path, message);
                &[]
            }
        }
    }

    fn table<'v>(&mut self, path: &str, value: &'v Value<'v>) -> Option<&'v DeTable<'v>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        // As a header names it: without numbers.
        let header: String = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
        self.fault(value.span(), path, format!("{} is not allowed; [{header}] is a table", describe(value.get_ref())));
        None
    }

    fn only_keys(&mut self, path: &str, table: &DeTable<'_>, keys: &[Key]) {
        for (key, _) in table {
            if !keys.iter().any(|known| known.name == key.get_ref()) {
                self.unknown(path, key, keys.iter().map(|key| key.name));
            }
        }
    }

    /// A key of the table of `path`.
    fn unknown<'k>(&mut self, path: &str, key: &Spanned<Cow<'_, str>>, known: impl Iterator<Item = &'k str>) {
        // Behind a broken header a good key is in the wrong table.
        if self.draft.broken {
            return;
        }
        let mut keys = Vec::new();
        for key in known {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let hint = hints::of_key(key.get_ref(), &keys);
        let message = format!("is not known here{hint}; known are {}", keys.join(", "));
        self.fault(key.span(), &join(path, key.get_ref()), message);
    }

    fn fault(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        let place = self.place(span);
        self.draft.fault(place, path, message);
    }

    fn place(&self, span: Range<usize>) -> Place {
        self.lines.place(span.start)
    }
}

/// As for chmod, in octal digits.
fn mode(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| format!("\"{}\" is no mode; write it as \"0660\"", text.escape_debug()))
}

/// A number, or a name that this machine knows.
fn account(text: &str, find: impl Fn(&str) -> nix::Result<Option<u32>>) -> Result<Account, String> {
    let known = match text.parse() {
        Ok(id) => Ok(Some(id)),
        Err(_) => find(text),
    };
    let name = text.escape_debug();
    match known {
        Ok(Some(id)) => Ok(Account { name: text.into(), id }),
        Ok(None) => Err(format!("\"{name}\" is not known on this machine")),
        Err(error) => Err(format!("\"{name}\" cannot be looked up: {error}")),
    }
}
