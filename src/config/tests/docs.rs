//! The documents are what the program prints, and tell every option.

use super::*;
use crate::config::options::{BACKEND, BACKEND_KEYS, EDIT_KEYS, GLOBAL, POOL, POOL_KEYS, ROUTE, ROUTE_KEYS};

const EXAMPLE: &str = include_str!("../../../ringway.example.toml");
const OPTIONS: &str = include_str!("../../../docs/options.md");
const README: &str = include_str!("../../../README.md");

#[test]
fn the_documents_are_what_the_program_prints() {
    // The first line that differs says more than both texts would.
    for (file, text, printed, flag) in [
        ("docs/options.md", OPTIONS, super::super::options(), "--options"),
        ("ringway.example.toml", EXAMPLE, example(), "--example"),
    ] {
        let differs = text.lines().zip(printed.lines()).find(|(old, new)| old != new);
        assert_eq!(differs, None, "cargo run -- {flag} > {file}");
        assert_eq!(text.len(), printed.len(), "cargo run -- {flag} > {file}");
    }
}

/// The example with its commented options in effect: they begin with a `#` and no blank.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_shows_every_option_at_its_default() {
    let config = accepted(EXAMPLE, &[]);
    let pool = PoolConfig { backends: vec![address("127.0.0.1:9000").into()], ..PoolConfig::named("chat") };
    let defaults = Config {
        listeners: vec![address(DEFAULT_LISTENER).into()],
        pools: vec![pool],
        default_pool: Some(0),
        ..Config::default()
    };
    assert_eq!(config, defaults);
    let given = file::read(EXAMPLE, &Environment::default()).places;
    let global = GLOBAL.iter().map(|setting| setting.path.clone());
    let pool = POOL.iter().map(|setting| format!("pools[0].{}", setting.path));
    for path in global.chain(pool) {
        assert!(given.contains_key(&path), "{path} is missing from ringway.example.toml");
    }
    // The same words as -T, so that one can be compared with the other.
    for line in print(&config, None).lines().filter(|line| line.contains(" = ")) {
        assert!(EXAMPLE.lines().any(|other| other == line), "ringway.example.toml has no {line}");
    }
}

#[test]
fn the_example_is_good_with_its_comments_in_effect() {
    let text = uncommented();
    let config = accepted(&text, &[]);
    assert_eq!((config.listeners[0].name.as_str(), config.pools.len(), config.routes.len()), ("public", 2, 3));
    let given = file::read(&text, &Environment::default()).places;
    let is_given = |list: &str, key: &str| {
        let suffix = format!(".{key}");
        given.keys().any(|path| path.starts_with(list) && path.split_once("].").is_some() && path.ends_with(&suffix))
    };
    let backend = BACKEND.iter().map(|setting| setting.path.as_str()).chain(BACKEND_KEYS.iter().map(|key| key.name));
    let missing: Vec<&str> = backend
        .filter(|key| !is_given("pools[1].backends[0]", key))
        .chain(ROUTE.iter().map(|setting| setting.path.as_str()).filter(|key| !is_given("routes[0]", key)))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are missing from ringway.example.toml");
    for key in POOL_KEYS.iter().chain(ROUTE_KEYS).chain(EDIT_KEYS).map(|key| key.name) {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("{key} = ")) || line == format!("[routes.{key}]")),
            "{key} is missing from ringway.example.toml"
        );
    }
    // What a backend does not say is what it says here.
    let usual = Backend { name: "b".into(), ..address("127.0.0.1:9001").into() };
    assert_eq!(config.pools[1].backends, [usual]);
    assert_eq!(accepted(&print(&config, None), &[]), config);
}

#[test]
fn what_the_documents_write_as_a_file_is_one() {
    for text in [README, OPTIONS] {
        let blocks: Vec<&str> =
            text.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
        let config = accepted(&blocks.concat(), &[]);
        assert_eq!((config.pools.len(), config.routes.len()), (1, 1));
    }
}

#[test]
fn every_option_has_a_row() {
    let paths = |prefix: &'static str, names: Vec<String>| names.into_iter().map(move |name| format!("{prefix}{name}"));
    let global = paths("", GLOBAL.iter().map(|setting| setting.path.clone()).collect());
    let pool = paths("pools.", POOL.iter().map(|setting| setting.path.clone()).collect());
    let backend = paths("pools.backends.", BACKEND.iter().map(|setting| setting.path.clone()).collect());
    for path in global.chain(pool).chain(backend) {
        assert_eq!(OPTIONS.matches(&format!("| `{path}` | ")).count(), 1, "{path}");
    }
    // Those of a route that are for all as well are named, not told again.
    for setting in ROUTE.iter() {
        let (section, name) = setting.place();
        let heading = if section.is_empty() { "[[routes]]".into() } else { format!("[routes.{section}]") };
        let told = OPTIONS.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        assert!(told.contains(&format!("`{name}`")) || told.contains(&format!("`routes.{name}`")), "{}", setting.path);
    }
}
