//! The example file and the README tell every option.

use super::*;
use crate::config::file::{BACKEND_KEYS, EDIT_KEYS, POOL_KEYS, ROUTE_KEYS};
use crate::config::settings::{BACKEND, GLOBAL, POOL, ROUTE, Setting};

const EXAMPLE: &str = include_str!("../../../ringway.example.toml");
const README: &str = include_str!("../../../README.md");

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
    let given = file::read(EXAMPLE).places;
    let global = GLOBAL.iter().map(|setting| setting.path.to_owned());
    let pool = POOL.iter().map(|setting| format!("pools[0].{}", setting.path));
    for path in global.chain(pool) {
        assert!(given.contains_key(&path), "{path} is missing from ringway.example.toml");
    }
    // The same words as -T, so that one can be compared with the other.
    for line in print(&config).lines().filter(|line| line.contains(" = ")) {
        assert!(EXAMPLE.lines().any(|other| other == line), "ringway.example.toml has no {line}");
    }
}

#[test]
fn the_example_is_good_with_its_comments_in_effect() {
    let text = uncommented();
    let config = accepted(&text, &[]);
    assert_eq!((config.listeners[0].name.as_str(), config.pools.len(), config.routes.len()), ("public", 2, 3));
    let given = file::read(&text).places;
    let is_given = |list: &str, key: &str| {
        let suffix = format!(".{key}");
        given.keys().any(|path| path.starts_with(list) && path.split_once("].").is_some() && path.ends_with(&suffix))
    };
    let backend = BACKEND.iter().map(|setting| setting.path).chain(BACKEND_KEYS.iter().copied());
    let missing: Vec<&str> = backend
        .filter(|key| !is_given("pools[1].backends[0]", key))
        .chain(ROUTE.iter().map(|setting| setting.path).filter(|key| !is_given("routes[0]", key)))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are missing from ringway.example.toml");
    for key in POOL_KEYS.iter().chain(ROUTE_KEYS).chain(EDIT_KEYS) {
        assert!(
            text.lines().any(|line| line.starts_with(&format!("{key} = ")) || line == format!("[routes.{key}]")),
            "{key} is missing from ringway.example.toml"
        );
    }
    // What a backend does not say is what it says here.
    let usual = Backend { name: "b".into(), ..address("127.0.0.1:9001").into() };
    assert_eq!(config.pools[1].backends, [usual]);
    assert_eq!(accepted(&print(&config), &[]), config);
}

fn rows<'s, T>(prefix: &'s str, settings: &'s [Setting<T>], owner: &'s T) -> impl Iterator<Item = String> + 's {
    settings.iter().map(move |setting| {
        let value = setting.read(owner);
        let default = match setting.is_written(&value) {
            true => format!("`{}`", setting.print(&value).trim_matches('"')),
            false => "none".into(),
        };
        format!("| `{prefix}{}` | {default} | ", setting.path)
    })
}

#[test]
fn the_readme_tells_every_option_and_its_default() {
    let config = Config::default();
    let route = Route::catch_all("", 0, &config);
    let own = ROUTE.iter().position(|setting| setting.path.contains('.')).unwrap();
    let backend = address("127.0.0.1:9000").into();
    let pool = PoolConfig::named("");
    let mut expected: Vec<String> = rows("", GLOBAL, &config)
        .chain(rows("pools.", POOL, &pool))
        .chain(rows("pools.backends.", BACKEND, &backend))
        .chain(rows("routes.", &ROUTE[..own], &route))
        .collect();
    let others = [
        ("", &["default_pool"][..]),
        ("listeners.", file::LISTENER_KEYS),
        ("pools.", POOL_KEYS),
        ("pools.backends.", BACKEND_KEYS),
        ("routes.", ROUTE_KEYS),
        ("routes.", &["limits", "timeouts", "close_codes", "forward"]),
    ];
    for (prefix, keys) in others {
        expected.extend(keys.iter().map(|key| format!("| `{prefix}{key}` | ")));
    }
    for row in &expected {
        assert!(README.lines().any(|line| line.starts_with(row)), "README.md has no row {row}");
    }
    // And no others.
    let options = README.split("## Options").nth(1).unwrap().split("\n## ").next().unwrap();
    let known = |line: &str| expected.iter().any(|row| line.starts_with(row));
    let strange: Vec<&str> = options.lines().filter(|line| line.starts_with("| `") && !known(line)).collect();
    assert!(strange.is_empty(), "README.md tells options that there are not: {strange:#?}");
}

#[test]
fn the_readme_tells_in_what_a_route_may_differ() {
    for (section, setting) in ROUTE.iter().filter_map(|setting| setting.path.split_once('.')) {
        let start = format!("| `routes.{section}` | ");
        let row = README.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        assert!(row.contains(&format!("`{setting}`")), "README.md's row of routes.{section} lacks {setting}");
    }
}

#[test]
fn what_the_readme_writes_as_a_file_is_one() {
    let blocks: Vec<&str> = README.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let config = accepted(&blocks.concat(), &[]);
    assert_eq!((config.pools.len(), config.routes.len()), (1, 1));
}
