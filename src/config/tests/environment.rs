//! The environment: options as variables, and variables and files in the file's texts.

use super::*;

#[track_caller]
fn faults_with(variables: &[(&str, &str)], text: &str, expected: &[&str]) {
    let found = read_with(variables, text, &[]).expect_err("accepted");
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn variables_win_over_the_file_and_flags_over_both() {
    let variables = [
        ("RINGWAY_WORKERS", "3"),
        ("RINGWAY_CPUS", "2"),
        ("RINGWAY_LOG_LEVEL", "debug"),
        ("RINGWAY_NAMESERVERS", "[\"192.0.2.53\"]"),
        ("RINGWAY_DEFAULT_POOL", "5"),
        ("RINGWAY_LIMITS_HEAD_BYTES_MAX", "64KiB"),
        ("RINGWAY_LIMITS_WINDOW_BYTES", "65536"),
        ("RINGWAY_LIMITS_HOPS_MAX", "off"),
        ("RINGWAY_LIMITS_INFORMATIONAL_MAX", "7"),
        ("RINGWAY_TIMEOUTS_DRAIN_SPREAD", "0"),
        ("RINGWAY_CLOSE_CODES_BACKEND_LOST", "1014"),
        // These say nothing.
        ("RINGWAY_BUFFERS_BULK_COUNT", ""),
        ("RINGWAY_NONSENSE", ""),
        ("RINGWAY_SERVICE_HOST", "10.0.0.1"),
        ("RINGWAY_LOG", "loud"),
        ("OTHER_WORKERS", "many"),
    ];
    let text = "workers = 2\ncpus = \"0\"\ndefault_pool = \"chat\"\nlimits.head_bytes_max = \"32KiB\"\n\
                limits.headers_max = 50\nbuffers.bulk_count = 9\n[[pools]]\nname = \"5\"\nbackends = [\"1.2.3.4:5\"]\n\
                [[routes]]\npool = \"5\"\n";
    let config = read_with(&variables, &format!("{text}{POOL}"), &["--workers=4"]).unwrap();
    assert_eq!((config.workers, config.cpus, config.log_level), (Some(4), Some(vec![2]), LogLevel::Debug));
    assert_eq!(config.nameservers, Some(vec!["192.0.2.53:53".parse().unwrap()]));
    assert_eq!(config.pools[config.default_pool.unwrap()].name, "5");
    let limits = &config.limits;
    assert_eq!((limits.head_bytes_max, limits.window_bytes, limits.headers_max), (64 << 10, 64 << 10, 50));
    assert_eq!((limits.hops_max, config.timeouts.drain_spread), (None, Duration::ZERO));
    assert_eq!((config.close_codes.backend_lost, config.buffers.bulk_count), (1014, 9));
    // A route begins with what is said for all, here too.
    assert_eq!(config.routes[0].limits.informational_max, 7);
}

#[test]
fn variables_at_fault() {
    faults_with(
        &[
            ("RINGWAY_WORKERS", "0"),
            ("RINGWAY_LOG_LEVEL", "wran"),
            ("RINGWAY_NAMESERVERS", "[\"192.0.2.53\"]\nworkers = 3"),
            ("RINGWAY_LIMITS_HEADERS_MAX", "many"),
            ("RINGWAY_TIMEOUTS_HEAD", "10"),
            ("RINGWAY_LIMITS_HEAD_BYTE_MAX", "1KiB"),
            ("RINGWAY_NONSENSE", "1"),
            ("RINGWAY_DEFAULT_POOL", "none"),
            ("RINGWAY_TIMEOUTS_DRAIN_SPREAD", "1m"),
        ],
        &format!("timeouts.idle = \"0s\"\n{POOL}"),
        &[
            "f:1:17: timeouts.idle: 0 is not allowed; write a time such as \"30s\" or \"off\"",
            "RINGWAY_DEFAULT_POOL: there is no pool of the name \"none\"",
            "RINGWAY_LIMITS_HEADERS_MAX: \"many\" is not allowed; write a whole number",
            "RINGWAY_LOG_LEVEL: \"wran\" is not known (did you mean \"warn\"?); write \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\"",
            "RINGWAY_NAMESERVERS: \"[\\\"192.0.2.53\\\"]\\nworkers = 3\" is not allowed; write a list of addresses such as [\"192.0.2.53:53\"] or \"auto\"",
            "RINGWAY_TIMEOUTS_DRAIN_SPREAD: 1m is not allowed; it may be no more than timeouts.drain, which is 25s",
            "RINGWAY_TIMEOUTS_HEAD: 10 is not allowed; write a time such as \"30s\"",
            "RINGWAY_WORKERS: 0 is not allowed; it may be 1 to 1024, or \"auto\"",
            "environment: RINGWAY_LIMITS_HEAD_BYTE_MAX: is not known (did you mean RINGWAY_LIMITS_HEAD_BYTES_MAX?); see `ringway --options`",
            "environment: RINGWAY_NONSENSE: is not known; see `ringway --options`",
        ],
    );
    // Without a file as well.
    let draft = draft::Draft::of(&Environment::of(&[("RINGWAY_WORKERS", "many"), ("RINGWAY_TCP_BACKLOG", "7")]));
    assert_eq!((draft.config.tcp.backlog, draft.faults.len()), (7, 1));
}

#[test]
fn texts_of_the_file_may_name_variables() {
    let text = "log_level = \"${LEVEL}\"\ntimeouts.head = \"${SECONDS}s\"\n[[pools]]\nname = \"a-${NAME}\"\n\
                backends = [\"10.0.0.1:${PORT}\", { address = \"10.0.0.2:${PORT}\", name = \"$$${NAME}\" }]\n\
                [[routes]]\npool = \"a-${NAME}\"\npath = \"/a$b\"\n\
                request_headers.set = { \"X-Price\" = \"$5\", \"X-Name\" = \"$${NAME}\" }\n";
    let variables = [("LEVEL", "trace"), ("SECONDS", "7"), ("NAME", "b"), ("PORT", "90")];
    let config = read_with(&variables, text, &[]).unwrap();
    assert_eq!((config.log_level, config.timeouts.head), (LogLevel::Trace, Duration::from_secs(7)));
    let pool = &config.pools[0];
    assert_eq!((pool.name.as_str(), pool.backends[0].name.as_str()), ("a-b", "10.0.0.1:90"));
    assert_eq!((pool.backends[1].name.as_str(), config.routes[0].pool), ("$b", 0));
    assert_eq!(config.routes[0].path, PathMatch::Exact("/a$b".into()));
    let set = [("X-Name".to_owned(), "${NAME}".to_owned()), ("X-Price".to_owned(), "$5".to_owned())];
    assert_eq!(config.routes[0].request_headers.set, set);
    // What is printed means the same, whatever the environment.
    assert_eq!(accepted(&print(&config, None), &[]), config);
}

#[test]
fn a_text_that_cannot_be_told_is_one_fault() {
    faults_with(
        &[],
        "default_pool = \"${POOL}\"\nlog_level = \"${LEVEL}\"\n[timeouts]\nhead = \"${\"\n[[pools]]\nname = \"a\"\n\
         backends = [\"${HOST}:80\", \"10.0.0.1:1\"]\n[[routes]]\npool = \"${POOL}\"\nheaders = { X-A = \"${A}*b*\" }\n",
        &[
            "f:1:16: default_pool: the environment has no POOL",
            "f:2:13: log_level: the environment has no LEVEL",
            "f:4:8: timeouts.head: \"${\" begins the name of a variable of the environment, as in ${NAME}; for the characters themselves, write $${",
            "f:7:13: pools[0].backends[0]: the environment has no HOST",
            "f:9:8: routes[0].pool: the environment has no POOL",
            "f:10:19: routes[0].headers.X-A: the environment has no A",
        ],
    );
}

#[test]
fn secrets_may_stand_in_files_and_are_not_shown() {
    let folder = std::env::temp_dir().join(format!("ringway-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("good");
    std::fs::write(&path, "0123456789abcdef$$\n").unwrap();
    std::fs::write(folder.join("short"), "hunter2\n").unwrap();
    let text = |secret: &str| format!("{POOL}sticky.cookie = \"c\"\nsticky.secret = {secret}\n");
    let secret = |name: &str| text(&format!("\"file:${{FOLDER}}/{name}\""));
    let variables = [("FOLDER", folder.to_str().unwrap())];
    let config = read_with(&variables, &secret("good"), &[]).unwrap();
    assert_eq!(config.pools[0].sticky.secret.as_deref(), Some("0123456789abcdef$$"));
    for (text, fault) in [
        (secret("short"), "is too short for a secret; it needs 16 characters".into()),
        (
            secret("none"),
            format!("\"{}/none\" cannot be read: No such file or directory (os error 2)", folder.display()),
        ),
        (
            text("\"file:hunter2\""),
            "needs the whole path of a file behind \"file:\", as in \"file:/run/secrets/ringway\"".into(),
        ),
    ] {
        faults_with(&variables, &text, &[&format!("f:5:17: pools[0].sticky.secret: {fault}")]);
    }
    let found = read(&text("1234567890123456"), &[]).unwrap_err();
    assert!(found.contains("sticky.secret: is no text; write a random text") && !found.contains("1234"), "{found}");
    // Elsewhere "file:" is nothing special: a host may be called so.
    let found = read("[[pools]]\nname = \"a\"\nbackends = [\"file:80\"]\n", &[]);
    assert!(found.is_ok(), "{found:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}
