//! `-T`: the effective configuration as a file that, read back, gives the same [`Config`].

use std::fmt::Write;

use super::Config;
use super::settings::{GLOBAL, quote};

pub(super) fn print(config: &Config) -> String {
    let mut text = format!("# The effective configuration of ringway {}\n", env!("CARGO_PKG_VERSION"));
    let mut line =
        |line: std::fmt::Arguments<'_>| text.write_fmt(format_args!("{line}\n")).expect("a String takes all");
    // Root keys must come before the first table.
    for setting in GLOBAL.iter().filter(|setting| !setting.path.contains('.')) {
        line(format_args!("{} = {}", setting.path, setting.print(&setting.read(config))));
    }
    if let Some(pool) = config.default_pool.map(|pool| &config.pools[pool]) {
        line(format_args!("default_pool = {}", quote(&pool.name)));
    }
    for listener in &config.listeners {
        line(format_args!("\n[[listeners]]\naddress = {}", quote(&listener.address.to_string())));
    }
    for pool in &config.pools {
        let backends: Vec<String> = pool.backends.iter().map(|backend| quote(&backend.address.to_string())).collect();
        line(format_args!("\n[[pools]]\nname = {}\nbalance = \"{}\"", quote(&pool.name), pool.balance.word()));
        line(format_args!("backends = [{}]", backends.join(", ")));
    }
    let mut section_before = "";
    for setting in GLOBAL {
        let Some((section, key)) = setting.path.split_once('.') else { continue };
        if section != section_before {
            line(format_args!("\n[{section}]"));
            section_before = section;
        }
        line(format_args!("{key} = {}", setting.print(&setting.read(config))));
    }
    text
}
