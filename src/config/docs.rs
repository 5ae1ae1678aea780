//! `--options` and `--example`: docs/options.md and ringway.example.toml, from the declarations of the options.

use super::options::{
    BACKEND, BACKEND_KEYS, EDIT_KEYS, GLOBAL, Key, LISTENER_KEYS, POOL, POOL_KEYS, ROOT_KEYS, ROUTE, ROUTE_KEYS,
    Setting, outside, sections,
};
use super::{Backend, Config, PoolConfig, Route};

/// What stands before the tables of options.
const OPTIONS_HEAD: &str = include_str!("docs/options.md");
const EXAMPLE_HEAD: &str = include_str!("docs/example.txt");
/// Of a line of the example.
const COLUMNS: usize = 120;

/// Of two keys a route may have only one; the example shows the others in routes of their own.
const PATH_KEYS: [&str; 2] = ["path_segments", "path_prefix"];

/// Every option with its default, what is allowed and what it means, in Markdown.
pub fn options() -> String {
    let (config, pool, backend) = (Config::default(), PoolConfig::default(), Backend::default());
    let route = Route::catch_all("", 0, &config);
    let mut page = Page(OPTIONS_HEAD.to_owned());
    page.title("The root of the file", "");
    page.keys("", ROOT_KEYS);
    page.settings("", outside(&GLOBAL), &GLOBAL, &config);
    page.title("[[listeners]]", doc(ROOT_KEYS, "listeners"));
    page.keys("listeners.", LISTENER_KEYS);
    page.title("[[pools]]", doc(ROOT_KEYS, "pools"));
    page.keys("pools.", POOL_KEYS);
    page.settings("pools.", outside(&POOL), &POOL, &pool);
    page.title("[[pools.backends]]", BACKEND[0].about);
    page.keys("pools.backends.", BACKEND_KEYS);
    page.settings("pools.backends.", &BACKEND, &BACKEND, &backend);
    for section in sections(&POOL) {
        page.title(&format!("[pools.{}]", section[0].place().0), section[0].about);
        page.settings("pools.", section, &POOL, &pool);
    }
    page.title("[[routes]]", doc(ROOT_KEYS, "routes"));
    page.keys("routes.", ROUTE_KEYS);
    page.settings("routes.", outside(&ROUTE), &ROUTE, &route);
    page.title("[routes.request_headers] and [routes.response_headers]", doc(ROUTE_KEYS, "request_headers"));
    page.keys("routes.request_headers.", EDIT_KEYS);
    for section in sections(&ROUTE) {
        let name = section[0].place().0;
        let names: Vec<String> = section.iter().map(|setting| format!("`{}`", setting.place().1)).collect();
        let about = format!("In what a route may differ from what [{name}] says for all: {}.", names.join(", "));
        page.title(&format!("[routes.{name}]"), &about);
    }
    for section in sections(&GLOBAL) {
        page.title(&format!("[{}]", section[0].place().0), section[0].about);
        page.settings("", section, &GLOBAL, &config);
    }
    page.0
}

/// A file with every option at its default.
pub fn example() -> String {
    let (config, pool, backend) = (Config::default(), PoolConfig::default(), Backend::default());
    let route = Route::catch_all("", 0, &config);
    let mut file = Example { lines: vec![EXAMPLE_HEAD.trim_end().into()], is_off: false };
    file.settings(outside(&GLOBAL), &GLOBAL, &config);
    file.keys(ROOT_KEYS, |name| name == "default_pool");

    file.table("[[listeners]]", doc(ROOT_KEYS, "listeners"));
    file.off(|file| file.keys(LISTENER_KEYS, |name| name == "name"));
    file.keys(LISTENER_KEYS, |name| name == "address");
    file.off(|file| {
        file.table("[[listeners]]", "A unix socket, whose file may have rights of its own.");
        file.line("name = \"local\"");
        file.line("address = \"unix:/run/ringway.sock\"");
        file.keys(LISTENER_KEYS, |name| !["name", "address"].contains(&name));
    });

    file.table("[[pools]]", doc(ROOT_KEYS, "pools"));
    file.keys(POOL_KEYS, |name| name == "name");
    file.settings(outside(&POOL), &POOL, &pool);
    file.keys(POOL_KEYS, |name| name == "backends");
    for section in sections(&POOL) {
        file.table(&format!("[pools.{}]", section[0].place().0), section[0].about);
        file.settings(section, &POOL, &pool);
    }
    file.off(|file| {
        file.table("[[pools]]", "Another pool, with the longer form of backends. Each may have options of its own.");
        ["name = \"rooms\"", "balance = \"consistent-hash\"", "hash = \"query:room\"", "[[pools.backends]]"]
            .iter()
            .for_each(|line| file.line(line));
        file.keys(BACKEND_KEYS, |_| true);
        file.settings(&BACKEND, &BACKEND, &backend);

        file.table("[[routes]]", doc(ROOT_KEYS, "routes"));
        file.keys(ROUTE_KEYS, |name| !PATH_KEYS.contains(&name) && !name.ends_with("_headers"));
        file.settings(outside(&ROUTE), &ROUTE, &route);
        file.table("[routes.request_headers]", doc(ROUTE_KEYS, "request_headers"));
        file.keys(EDIT_KEYS, |_| true);
        file.table("[routes.response_headers]", doc(ROUTE_KEYS, "response_headers"));
        EDIT_KEYS.iter().for_each(|key| file.line(&format!("{} = {}", key.name, key.such_as)));
        file.comment("In these sections a route may differ from what is said for all.");
        for section in sections(&ROUTE) {
            file.line(&format!("[routes.{}]", section[0].place().0));
            section.iter().for_each(|setting| file.line(&assignment(setting, &route)));
        }
        for key in PATH_KEYS {
            file.table("[[routes]]", "");
            file.keys(ROUTE_KEYS, |name| name == key);
            file.line("pool = \"chat\"");
        }
    });
    for section in sections(&GLOBAL) {
        file.table(&format!("[{}]", section[0].place().0), section[0].about);
        file.settings(section, &GLOBAL, &config);
    }
    file.lines.push(String::new());
    file.lines.join("\n")
}

fn doc(keys: &[Key], name: &str) -> &'static str {
    keys.iter().find(|key| key.name == name).map_or("", |key| key.doc)
}

/// At its default; where that is to leave the option out, some value.
fn assignment<T>(setting: &Setting<T>, owner: &T) -> String {
    let default = setting.read(owner);
    let value = if setting.is_written(&default) { setting.print(&default) } else { setting.such_as() };
    format!("{} = {value}", setting.place().1)
}

/// Comments are wrapped where they are declared.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Page(String);

const COLUMN_TITLES: &str = "| option | default | allowed | meaning |\n|---|---|---|---|\n";

impl Page {
    fn title(&mut self, title: &str, about: &str) {
        self.0.push_str(&format!("\n## {title}\n\n"));
        if !about.is_empty() {
            self.0.push_str(&format!("{}\n\n", one_line(about)));
        }
    }

    fn keys(&mut self, prefix: &str, keys: &[Key]) {
        self.0.push_str(COLUMN_TITLES);
        for key in keys {
            self.row(&format!("{prefix}{}", key.name), key.default, &format!("such as `{}`", key.such_as), key.doc);
        }
    }

    /// Below the keys of the same table.
    fn settings<T>(&mut self, prefix: &str, settings: &[Setting<T>], all: &[Setting<T>], owner: &T) {
        if !settings.is_empty() && self.0.ends_with("\n\n") {
            self.0.push_str(COLUMN_TITLES);
        }
        for setting in settings {
            let value = setting.read(owner);
            let default =
                if setting.is_written(&value) { format!("`{}`", setting.print(&value)) } else { "none".into() };
            let path = format!("{prefix}{}", setting.path);
            self.row(&path, &default, &marked(&setting.allowed(all)), setting.doc);
        }
    }

    fn row(&mut self, path: &str, default: &str, allowed: &str, doc: &str) {
        let cells = [&format!("`{path}`"), default, allowed, &one_line(doc)].map(|cell| cell.replace('|', "\\|"));
        self.0.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// With backticks around what stands in quotes, but within others.
fn marked(text: &str) -> String {
    let mut is_code = false;
    let mut marked = String::new();
    for (number, piece) in text.split('"').enumerate() {
        let is_quoted = number % 2 == 1 && !piece.contains('`') && !is_code;
        marked.push_str(&match number % 2 {
            1 if is_quoted => format!("`\"{piece}\"`"),
            1 => format!("\"{piece}\""),
            _ => piece.into(),
        });
        is_code ^= piece.matches('`').count() % 2 == 1;
    }
    marked
}

struct Example {
    lines: Vec<String>,
    /// What follows is shown, and not in effect: its lines begin with a `#` and no blank.
    is_off: bool,
}

impl Example {
    fn off(&mut self, show: impl FnOnce(&mut Self)) {
        self.is_off = true;
        show(self);
        self.is_off = false;
    }

    fn line(&mut self, line: &str) {
        self.lines.push(format!("{}{line}", if self.is_off { "#" } else { "" }));
    }

    fn table(&mut self, header: &str, about: &str) {
        self.comment(about);
        self.line(header);
    }

    /// Behind an empty line.
    fn comment(&mut self, text: &str) {
        self.lines.push(String::new());
        let text = quoted(&one_line(text));
        let mut line = String::new();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
                self.lines.push(std::mem::take(&mut line));
            }
            line.push_str(if line.is_empty() { "# " } else { " " });
            line.push_str(word);
        }
        if !line.is_empty() {
            self.lines.push(line);
        }
    }

    fn keys(&mut self, keys: &[Key], wanted: impl Fn(&str) -> bool) {
        for key in keys.iter().filter(|key| wanted(key.name)) {
            self.comment(key.doc);
            self.line(&format!("{} = {}", key.name, key.such_as));
        }
    }

    fn settings<T>(&mut self, settings: &[Setting<T>], all: &[Setting<T>], owner: &T) {
        for setting in settings {
            let doc = setting.doc.trim_end();
            let is_told =
                setting.words().is_some_and(|words| words.iter().all(|word| doc.contains(&format!("\"{word}\""))));
            let more = if is_told { String::new() } else { format!(" Allowed: {}.", setting.allowed(all)) };
            self.comment(&format!("{doc}{more}"));
            self.line(&assignment(setting, owner));
        }
    }
}

/// Without the backticks around what stands in quotes.
fn quoted(text: &str) -> String {
    let is_quoted = |piece: &str| piece.len() > 1 && piece.starts_with('"') && piece.ends_with('"');
    let pieces = text.split('`').enumerate();
    pieces.map(|(n, piece)| if n % 2 == 0 || is_quoted(piece) { piece.into() } else { format!("`{piece}`") }).collect()
}
