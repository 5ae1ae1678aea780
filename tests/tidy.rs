//! The repository's own rules, as a test. Each failure names the file and the rule.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const LINES_MAX: usize = 600;

/// Import rule: the module on the left may name those on the right, and itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("main", &["config", "control", "worker"]),
    ("control", &["config", "metrics", "table", "worker"]),
    ("worker", &["config", "engine", "io", "metrics", "op", "relay", "table"]),
    ("relay", &["config", "metrics", "op", "proto", "table"]),
    ("table", &["config", "proto"]),
    ("io", &["config", "engine", "op"]),
    ("engine", &["op"]),
    ("config", &["proto"]),
    ("metrics", &[]),
    ("op", &[]),
    ("proto", &[]),
];

/// Rows of the wire cases: the ids of each group.
const ROWS: &[(char, &[u32])] = &[
    (
        'h',
        &[
            1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 22, 23, 25, 26, 27, 28, 29, 30, 31, 32, 34, 35,
            36, 38, 39, 40, 42, 44, 45, 46, 47, 48, 50, 51, 52, 53, 54, 55, 58, 59, 60, 61, 62, 63, 64,
        ],
    ),
    ('b', &[1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 18, 19, 20, 21, 22, 24, 26]),
    (
        'f',
        &[
            1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 18, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
            35, 37,
        ],
    ),
    (
        'l',
        &[
            1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 33, 34,
            35, 36, 37,
        ],
    ),
];

/// Rows without an end-to-end test, and why. Whoever builds the feature moves the row out of here.
const NOT_YET: &[(&str, &str)] = &[
    ("h59", "an Origin allow-list comes with authentication"),
    ("h60", "authentication is not built"),
    ("h61", "authentication is not built"),
    ("h64", "PROXY protocol is not built"),
    ("f31", "heartbeats are not built: Ringway sends no pings"),
    ("f32", "heartbeats are not built"),
    ("f33", "heartbeats are not built"),
    ("f37", "65536 x 4 sessions are too many for sockets: src/proto/frame does it in memory"),
    ("l07", "a minimum rate takes minutes to judge: tests/sim plays them; no progress at all is l05"),
    ("l15", "what the kernel may answer is played by tests/sim"),
    ("l17", "what the kernel may answer is played by tests/sim"),
    ("l26", "binary upgrade is not built"),
    ("l27", "TLS is not built"),
    ("l30", "no test can hang a thread of the relay from outside; the watchdog is tested beside its code"),
    ("l32", "an admin endpoint is not built"),
    ("l36", "rate limits per client are not built"),
];

/// Faults that operators and attackers have met, each with tests of its name, `fn field_<id>_...`, wherever they fit best.
const FIELD: &[(char, &[u32])] = &[
    ('a', &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
    ('b', &[1, 2, 3, 4, 5]),
    ('c', &[1, 2, 3, 4, 5, 6, 7, 8]),
    ('l', &[1]),
    ('r', &[1, 5, 10, 12, 14, 18, 19, 21, 30, 37, 39, 41, 46, 47, 48]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files of ours, those not yet added included.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let listed =
        Command::new("git").current_dir(root()).args(["ls-files", "-co", "--exclude-standard"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let ours = listed.lines().filter(|f| endings.iter().any(|e| f.ends_with(e)) && root().join(f).exists());
    let files: Vec<_> = ours.map(PathBuf::from).collect();
    assert!(!files.is_empty(), "no file ends in {endings:?}");
    files
}

/// Fails with the whole list.
fn none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The lines of code, with their numbers and without comments. (A `//` inside a string hides what is behind it.)
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap()))
}

/// The words of a line, as identifiers.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty())
}

#[test]
fn unsafe_only_in_io() {
    let mut broken = Vec::new();
    for file in files(&[".rs"]).iter().filter(|f| !f.starts_with("src/io") && !f.ends_with("tidy.rs")) {
        let text = text(file);
        let lines = code(&text).filter(|(_, line)| is_unsafe(line));
        broken.extend(lines.map(|(n, line)| format!("{}:{n}: {line}", file.display())));
    }
    none("`unsafe` lives in src/io", broken);
}

/// The keyword, not `unsafe_code` or `'unsafe-inline'`.
fn is_unsafe(line: &str) -> bool {
    let mut found = line.match_indices("unsafe").map(|(at, word)| (&line[..at], &line[at + word.len()..]));
    found.any(|(before, after)| {
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '\'')
            && (after.is_empty() || after.starts_with([' ', '(', '{']))
    })
}

#[test]
fn modules_import_what_they_may() {
    let mut broken = Vec::new();
    for file in files(&[".rs"]) {
        let Ok(path) = file.strip_prefix("src") else { continue };
        let module = path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let (_, allowed) =
            MAY_IMPORT.iter().find(|(m, _)| *m == module).unwrap_or_else(|| panic!("{module}: not in the import rule"));
        let text = text(&file);
        // The library's modules name each other through `crate`, the program names them through `ringway`.
        let prefix = if module == "main" { "ringway::" } else { "crate::" };
        for (number, line) in code(&text) {
            let named = line.match_indices(prefix).flat_map(|(at, _)| first_segments(&line[at + prefix.len()..]));
            for name in named.filter(|name| *name != module && !allowed.contains(name)) {
                if MAY_IMPORT.iter().any(|(m, _)| m == &name) {
                    broken.push(format!("{}:{number}: {module} may not import {name}", file.display()));
                }
            }
        }
    }
    none("import rule of src/lib.rs", broken);
}

/// Inside the relay imports go one way too: mod -> session -> stages -> what they stand on. A parent and its children may
/// name each other.
#[test]
fn the_relay_has_no_circles() {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let all = files(&[".rs"]);
    let parts = all.iter().filter_map(|file| Some((file, file.strip_prefix("src/relay").ok()?)));
    let part = |path: &Path| {
        let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
        first.trim_end_matches(".rs").to_string()
    };
    let parts: Vec<(&PathBuf, String)> = parts.map(|(file, path)| (file, part(path))).collect();
    let names: BTreeSet<&str> = parts.iter().map(|(_, part)| part.as_str()).filter(|part| *part != "mod").collect();
    for (file, part) in parts.iter().filter(|(_, part)| part != "mod") {
        let text = text(file);
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let prefix = if file.parent().unwrap().ends_with("relay") { "super::" } else { "crate::relay::" };
        for (_, line) in code(text) {
            let named = line.match_indices(prefix).flat_map(|(at, _)| first_segments(&line[at + prefix.len()..]));
            let named = named.filter(|name| names.contains(name) && name != part).map(str::to_string);
            imports.entry(part.clone()).or_default().extend(named);
        }
    }
    // Whoever imports only what is gone already goes; who is left is in a circle, or above one.
    let mut left = imports;
    loop {
        let here: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, imported| imported.iter().any(|name| here.contains(name)));
        if left.len() == before {
            break;
        }
    }
    none(
        "no circles inside src/relay",
        left.iter().map(|(part, imported)| format!("{part} imports {imported:?}")).collect(),
    );
    let stages = ["head", "dial", "answer", "tunnel", "exchange", "linger"];
    for (file, part) in parts.iter().filter(|(_, part)| stages.contains(&part.as_str())) {
        assert!(!text(file).contains("session::"), "{part}: a stage imports no session");
    }
}

#[test]
fn only_the_session_changes_its_state() {
    let mut broken = Vec::new();
    for file in files(&[".rs"]).iter().filter(|f| f.starts_with("src/relay") && !f.ends_with("session.rs")) {
        let text = text(file);
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code(text).filter(|(_, line)| line.contains("session.state") || line.contains("State::Tunnel"));
        broken.extend(lines.map(|(n, line)| format!("{}:{n}: {line}", file.display())));
    }
    none("only session.rs knows and changes a session's state", broken);
}

/// `a::B` gives a; `{a::B, c}` gives a and c.
fn first_segments(path: &str) -> Vec<&str> {
    let Some(list) = path.strip_prefix('{') else { return words(path).take(1).collect() };
    let mut depth = 0;
    let pieces = list.split(move |c| {
        depth += (c == '{') as i32 - (c == '}') as i32;
        depth == 0 && c == ','
    });
    pieces.filter_map(|piece| words(piece).next()).collect()
}

const PURE: &[&str] = &["src/proto", "src/relay", "src/table"];

#[test]
fn the_pure_parts_forbid_unsafe_and_do_no_input_or_output() {
    let mut broken = Vec::new();
    for module in ["proto", "relay", "table"] {
        let file = PathBuf::from(format!("src/{module}/mod.rs"));
        if !text(&file).contains("#![forbid(unsafe_code)]") {
            broken.push(format!("{}: #![forbid(unsafe_code)] is missing", file.display()));
        }
    }
    for file in files(&[".rs"]).iter().filter(|f| PURE.iter().any(|module| f.starts_with(module))) {
        // Tests may.
        if file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs") {
            continue;
        }
        let text = text(file);
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in code(text) {
            for name in
                ["Instant::now", "SystemTime::now", "TcpStream", "io_uring", "libc::", "std::fs", "std::thread::sleep"]
            {
                if line.contains(name) {
                    broken.push(format!("{}:{number}: {name}", file.display()));
                }
            }
        }
    }
    none("proto, relay and table read no clock and touch no kernel", broken);
}

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for file in files(&[".rs", ".py", ".js", ".sh", ".html"]) {
        let lines = text(&file).lines().count();
        if lines > LINES_MAX {
            broken.push(format!("{}: {lines} lines", file.display()));
        }
    }
    none("no file has more than 600 lines", broken);
}

#[test]
fn every_dependency_has_a_reason() {
    let mut broken = Vec::new();
    for file in files(&["Cargo.toml"]) {
        let text = text(&file);
        let mut in_dependencies = false;
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.contains("# ") && !line.contains("path =") {
                broken.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    none("every dependency has a comment that says why", broken);
}

#[test]
fn nothing_is_left_to_do() {
    let mut broken = Vec::new();
    for file in files(&[".rs"]).iter().filter(|f| !f.ends_with("tidy.rs")) {
        let text = text(file);
        for (number, line) in code(&text) {
            if ["todo!", "unimplemented!", "dbg!"].iter().any(|word| line.contains(word)) {
                broken.push(format!("{}:{number}: {line}", file.display()));
            }
        }
    }
    none("no unfinished code", broken);
}

/// What looks like a file of this repository in the README and in docs, in backticks or as a link, is one.
#[test]
fn the_documents_name_files_that_exist() {
    let looks_like_ours = |name: &&str| {
        let folders = ["src/", "tests/", "scripts/", "benches/", "loadtest/", "docs/"];
        let endings = [".md", ".toml", ".rs", ".sh"];
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
        plain && (folders.iter().any(|f| name.starts_with(f)) || endings.iter().any(|e| name.ends_with(e)))
    };
    let mut broken = Vec::new();
    for file in files(&[".md"]).iter().filter(|file| *file == Path::new("README.md") || file.starts_with("docs")) {
        let text = text(file);
        let linked = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        // A link starts where the document is, a name in backticks at the root.
        let here = file.parent().unwrap();
        let linked = linked.filter(looks_like_ours).map(|name| (name, here.join(name)));
        let quoted = backticked(&text).into_iter().filter(looks_like_ours).map(|name| (name, PathBuf::from(name)));
        let missing = quoted.chain(linked).filter(|(_, path)| !root().join(path).exists());
        // The file that a user writes.
        let missing = missing.filter(|(name, _)| *name != "ringway.toml");
        broken.extend(missing.map(|(name, _)| format!("{}: {name}", file.display())));
    }
    none("documents name files that exist", broken);
}

/// What stands in backticks, but for fenced blocks.
fn backticked(text: &str) -> Vec<&str> {
    let unfenced = text.split("\n```").step_by(2);
    unfenced.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

/// The string literals of some code, comments left out: lines that a backslash continues are joined.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let from = &rest[at..];
        rest = match from.as_bytes() {
            [b'/', b'/', ..] => from.split_once('\n').map_or("", |(_, behind)| behind),
            // A character that would begin or end a string.
            [b'\'', b'"', b'\'', ..] => &from[3..],
            [b'"', ..] => {
                let (mut literal, mut chars, mut end) = (String::new(), from[1..].char_indices(), from.len());
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' => {
                            end = at + 2;
                            break;
                        }
                        '\\' => match chars.next() {
                            Some((_, '\n')) => literal.push('\n'),
                            Some((_, escaped)) => literal.push(escaped),
                            None => {}
                        },
                        c => literal.push(c),
                    }
                }
                // The blanks that a continued line begins with are no part of it.
                found.push(literal.split('\n').map(str::trim_start).collect());
                &from[end..]
            }
            _ => &from[1..],
        };
    }
    found
}

/// The longest run of a message between its placeholders.
fn longest_run(message: &str) -> &str {
    let runs = message.split('{').map(|part| part.split_once('}').map_or(part, |(_, run)| run).trim());
    runs.max_by_key(|run| run.len()).unwrap_or_default()
}

#[test]
fn what_is_longest_between_placeholders() {
    assert_eq!(longest_run("{} is read, since {since:.0?}; again"), "is read, since");
    assert_eq!(longest_run("worker {worker} ended"), "worker");
    assert_eq!(literals("warn!(a, \"b \\\"c\\\" \\\n   d\"); // \"e\"\nx('\"', \"f\")"), ["b \"c\" d", "f"]);
}

/// An operator who reads a warning finds it, with its cause and its remedy.
#[test]
fn every_warning_and_error_is_in_the_operators_document() {
    let document = text(Path::new("docs/operations.md"));
    let mut broken = Vec::new();
    let mut told = 0;
    for file in files(&[".rs"]).iter().filter(|file| file.starts_with("src")) {
        if file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs") {
            continue;
        }
        let text = text(file);
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for call in text.split("warn!(").skip(1).chain(text.split("error!(").skip(1)) {
            let call = call.split(");").next().unwrap_or_default();
            // The last literal is the message: what its fields and arguments name is no literal.
            let messages = literals(call.split("),\n").next().unwrap_or_default());
            let Some(message) = messages.last().map(|message| longest_run(message)) else { continue };
            told += 1;
            if message.contains(char::is_alphabetic) && !document.contains(message) {
                broken.push(format!("{}: {message}", file.display()));
            }
        }
    }
    assert!(told > 30, "only {told} warnings and errors were found");
    none("every warning and error stands in docs/operations.md", broken);
}

/// Whoever reads a label in the log finds when it happens. Labels are what the tables' rows name in one word.
#[test]
fn every_label_is_in_the_protocol_document() {
    let document = text(Path::new("docs/protocol.md"));
    let documented: BTreeSet<&str> = backticked(&document).into_iter().collect();
    let mut broken = Vec::new();
    for file in ["src/relay/refusal.rs", "src/relay/notice.rs", "src/relay/outcome.rs", "src/proto/frame.rs"] {
        let text = text(Path::new(file));
        let table = text.split("fn row(").nth(1).and_then(|rest| rest.split("\n    }\n").next());
        let table = table.unwrap_or_else(|| panic!("{file}: no table"));
        let is_label = |literal: &String| {
            !literal.is_empty() && literal.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let labels: Vec<String> = literals(table).into_iter().filter(is_label).collect();
        assert!(labels.len() > 5, "{file}: {labels:?}");
        let missing = labels.iter().filter(|label| !documented.contains(label.as_str()));
        broken.extend(missing.map(|label| format!("{file}: {label}")));
    }
    none("every label stands in docs/protocol.md, in backticks", broken);
}

#[test]
fn every_wire_case_has_its_test() {
    let mut tests = BTreeSet::new();
    for file in files(&[".rs"]).iter().filter(|f| f.starts_with("tests/e2e")) {
        let text = text(file);
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn "));
        tests.extend(names.filter_map(|name| name.split('_').next().map(str::to_string)));
    }
    let rows = ROWS.iter().flat_map(|(group, ids)| ids.iter().map(move |id| format!("{group}{id:02}")));
    let mut broken = Vec::new();
    for row in rows {
        let reason = NOT_YET.iter().find(|(id, _)| *id == row);
        match (tests.contains(&row), reason) {
            (false, None) => broken.push(format!("{row}: no test has this name")),
            (true, Some(_)) => broken.push(format!("{row}: has a test, so it is no longer out of scope")),
            _ => {}
        }
    }
    none("every row of the wire cases has an end-to-end test of its name", broken);
}

#[test]
fn every_fault_from_the_field_has_its_test() {
    let mut tests = BTreeSet::new();
    for file in files(&[".rs"]) {
        let text = text(&file);
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn field_"));
        tests.extend(names.filter_map(|name| name.split('_').next().map(str::to_string)));
    }
    let rows: BTreeSet<_> =
        FIELD.iter().flat_map(|(group, ids)| ids.iter().map(move |id| format!("{group}{id:02}"))).collect();
    let broken = rows.symmetric_difference(&tests).cloned().collect();
    none("every fault from the field has a test of its name, and is listed", broken);
}

#[test]
fn scripts_are_executable_and_strict() {
    use std::os::unix::fs::PermissionsExt;
    let mut broken = Vec::new();
    // Those without a `#!` are parts of others.
    for file in files(&[".sh"]).into_iter().filter(|file| text(file).starts_with("#!")) {
        if !text(&file).contains("set -euo pipefail") {
            broken.push(format!("{}: no `set -euo pipefail`", file.display()));
        }
        if root().join(&file).metadata().unwrap().permissions().mode() & 0o100 == 0 {
            broken.push(format!("{}: not executable", file.display()));
        }
    }
    none("scripts stop at the first error", broken);
}
