//! The TOML file -> a [`Draft`]: values where they belong, a place for each, and everything that is wrong with them.
//!
//! It walks the parsed tree itself instead of deriving `Deserialize`, which would stop at the first fault and not know
//! where a value stood once it is checked against another.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::{Address, Target};
use super::draft::Draft;
use super::fault::Place;
use super::settings::{GLOBAL, describe};
use super::{Balance, Pool};

type Value<'a> = Spanned<DeValue<'a>>;

/// The keys of the root table that are no [`GLOBAL`].
const ROOT_KEYS: [&str; 3] = ["default_pool", "listeners", "pools"];
const LISTENER_KEYS: [&str; 1] = ["address"];
const POOL_KEYS: [&str; 3] = ["name", "balance", "backends"];

pub(super) fn read(text: &str) -> Draft {
    let mut reader = Reader { lines: Lines::new(text), draft: Draft::default() };
    reader.draft.missing = reader.place(0..0);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = reader.place(error.span().unwrap_or_default());
        reader.draft.fault(place, "", error.message().replace('\n', ", "));
    }
    reader.draft.broken = !errors.is_empty();
    // What a broken line leaves behind in the tree may be anything, so its values are not judged as well.
    let broken: Vec<Option<usize>> = reader.draft.faults.iter().map(|fault| line(fault.place)).collect();
    reader.root(table.get_ref());
    let mut index = 0;
    reader.draft.faults.retain(|fault| {
        index += 1;
        index <= broken.len() || !broken.contains(&line(fault.place))
    });
    reader.draft
}

fn line(place: Place) -> Option<usize> {
    match place {
        Place::File { line, .. } => Some(line),
        Place::Flag(_) | Place::Whole => None,
    }
}

/// A text by its lines, for the places of its bytes.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Lines {
            text,
            starts: [0].into_iter().chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect(),
        }
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        // Continuation bytes of UTF-8 begin no character.
        let before = &self.text.as_bytes()[self.starts[line - 1]..offset];
        Place::File { line, column: before.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1 }
    }
}

struct Reader<'t> {
    lines: Lines<'t>,
    draft: Draft,
}

impl Reader<'_> {
    fn root(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "listeners" => self.tables("listeners", value, Self::listener),
                "pools" => self.tables("pools", value, Self::pool),
                "default_pool" => {
                    self.draft.default_pool = self.string("default_pool", value).map(str::to_owned);
                }
                section
                    if GLOBAL.iter().any(|setting| setting.path.split_once('.').is_some_and(|s| s.0 == section)) =>
                {
                    self.section(section, value);
                }
                name => self.setting(name, key.span(), value, &root_keys()),
            }
        }
    }

    fn section(&mut self, section: &str, value: &Value<'_>) {
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!("{} is not allowed; [{section}] is a table", describe(value.get_ref()));
            return self.fault(value.span(), section, message);
        };
        let keys: Vec<&str> = GLOBAL.iter().filter_map(|s| s.path.strip_prefix(section)?.strip_prefix('.')).collect();
        for (key, value) in table {
            self.setting(&format!("{section}.{}", key.get_ref()), key.span(), value, &keys);
        }
    }

    fn setting(&mut self, path: &str, key: Range<usize>, value: &Value<'_>, keys: &[&str]) {
        let Some(setting) = GLOBAL.iter().find(|setting| setting.path == path) else {
            return self.unknown(path, key, keys);
        };
        self.draft.places.insert(path.into(), self.place(value.span()));
        match setting.parse(value.get_ref()) {
            Ok(parsed) => setting.write(&mut self.draft.config, parsed),
            Err(message) => self.fault(value.span(), path, message),
        }
    }

    /// `[[name]]`: calls `each` with `name[0]`, `name[1]`, ... and their tables.
    fn tables(&mut self, name: &str, value: &Value<'_>, each: fn(&mut Self, &str, Range<usize>, &DeTable<'_>)) {
        let DeValue::Array(array) = value.get_ref() else {
            return self.fault(value.span(), name, format!("write it as [[{name}]], once for each"));
        };
        for (index, element) in array.iter().enumerate() {
            let path = format!("{name}[{index}]");
            self.draft.places.insert(path.clone(), self.place(element.span()));
            match element.get_ref() {
                DeValue::Table(table) => each(self, &path, element.span(), table),
                other => {
                    self.fault(
                        element.span(),
                        &path,
                        format!("{} is not allowed; write it as [[{name}]]", describe(other)),
                    );
                }
            }
        }
    }

    fn listener(&mut self, path: &str, span: Range<usize>, table: &DeTable<'_>) {
        self.only_keys(path, table, &LISTENER_KEYS);
        let address_path = format!("{path}.address");
        let Some(value) = table.get("address") else {
            return self.fault(span, &address_path, "is missing; write address = \"127.0.0.1:8080\"");
        };
        let Some(text) = self.string(&address_path, value) else { return };
        match text.parse::<Address>() {
            Ok(address) => {
                let path = format!("listeners[{}].address", self.draft.config.listeners.len());
                self.draft.places.insert(path, self.place(value.span()));
                self.draft.config.listeners.push(address.into());
            }
            Err(message) => self.fault(value.span(), &address_path, message),
        }
    }

    fn pool(&mut self, path: &str, span: Range<usize>, table: &DeTable<'_>) {
        self.only_keys(path, table, &POOL_KEYS);
        let name = match table.get("name") {
            Some(value) => self.string(&format!("{path}.name"), value).unwrap_or_default().to_owned(),
            None => {
                self.fault(span.clone(), &format!("{path}.name"), "is missing; write name = \"chat\"");
                String::new()
            }
        };
        let balance = match table.get("balance") {
            Some(value) => self.balance(&format!("{path}.balance"), value),
            None => Balance::default(),
        };
        let backends_path = format!("{path}.backends");
        let backends = match table.get("backends") {
            Some(value) => self.backends(&backends_path, value),
            None => {
                self.fault(span, &backends_path, "is missing; write backends = [\"127.0.0.1:9000\"]");
                Vec::new()
            }
        };
        // Faulty ones too, so that the numbers in paths stay the file's.
        let backends = backends.into_iter().map(Into::into).collect();
        self.draft.config.pools.push(Pool { backends, balance, ..Pool::named(name) });
    }

    fn balance(&mut self, path: &str, value: &Value<'_>) -> Balance {
        let parsed = self.string(path, value).map(str::parse);
        match parsed {
            Some(Ok(balance)) => balance,
            Some(Err(message)) => {
                self.fault(value.span(), path, message);
                Balance::default()
            }
            None => Balance::default(),
        }
    }

    fn backends(&mut self, path: &str, value: &Value<'_>) -> Vec<Address> {
        let DeValue::Array(array) = value.get_ref() else {
            let message =
                format!("{} is not allowed; write a list such as [\"127.0.0.1:9000\"]", describe(value.get_ref()));
            self.fault(value.span(), path, message);
            return Vec::new();
        };
        if array.is_empty() {
            self.fault(value.span(), path, "is empty; a pool needs at least one backend");
        }
        let mut backends = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let Some(text) = self.string(&format!("{path}[{index}]"), value) else { continue };
            match text.parse::<Target>().and_then(|target| target.resolve()) {
                Ok(addresses) => {
                    for address in addresses {
                        self.draft.places.insert(format!("{path}[{}]", backends.len()), self.place(value.span()));
                        backends.push(address);
                    }
                }
                Err(message) => self.fault(value.span(), &format!("{path}[{index}]"), message),
            }
        }
        backends
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

    fn only_keys(&mut self, path: &str, table: &DeTable<'_>, keys: &[&str]) {
        for (key, _) in table {
            if !keys.contains(&key.get_ref().as_ref()) {
                self.unknown(&format!("{path}.{}", key.get_ref()), key.span(), keys);
            }
        }
    }

    fn unknown(&mut self, path: &str, key: Range<usize>, keys: &[&str]) {
        // Behind a broken header a good key is in the wrong table.
        if self.draft.broken {
            return;
        }
        self.fault(key, path, format!("is not known here; known are {}", keys.join(", ")));
    }

    fn fault(&mut self, span: Range<usize>, path: &str, message: impl Into<String>) {
        let place = self.place(span);
        self.draft.fault(place, path, message);
    }

    fn place(&self, span: Range<usize>) -> Place {
        self.lines.place(span.start)
    }
}

/// Everything that may stand in the root table, sections included.
fn root_keys() -> Vec<&'static str> {
    let mut keys: Vec<&str> = Vec::new();
    for key in GLOBAL.iter().map(|setting| setting.path.split('.').next().unwrap_or_default()).chain(ROOT_KEYS) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}
