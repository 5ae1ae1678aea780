//! Routes: what a file may say of them, and what it may not.

use super::*;

/// A file with a route of these lines, which begin at line 5, at fault.
#[track_caller]
fn route_faults(lines: &str, expected: &[&str]) {
    faults(&format!("{POOL}[[routes]]\n{lines}\n"), &[], expected);
}

#[test]
fn a_route_may_say_everything() {
    let config = accepted(
        &(POOL.to_owned()
            + r#"
            [[pools]]
            name = "second"
            backends = ["10.0.0.6:9000"]
            [[listeners]]
            name = "public"
            address = "127.0.0.1:80"
            [[routes]]
            name = "beta"
            listeners = ["public"]
            host = "*.Example.com"
            path_segments = "/chat"
            headers = { X-Env = "beta", X-Any = "*" }
            subprotocol = "chat.v2"
            pool = "second"
            rewrite = "/new"
            plain_http = "forward"
            request_headers = { remove = ["X-A"], set = { X-B = "v" }, add = { X-C = "w" } }
            response_headers.set = { Server = "" }
            limits.frame_bytes_max = "1KiB"
            timeouts.idle = "1m"
            forward.forwarded = "append"
            [limits]
            informational_max = 3
            [timeouts]
            answer = "7s"
            "#),
        &[],
    );
    let mut expected = Route::catch_all("beta", 1, &config);
    expected.listeners = vec!["public".into()];
    expected.hosts = vec![HostMatch::Suffix(".example.com".into())];
    expected.path = PathMatch::Segments("/chat".into());
    expected.headers = vec![
        HeaderMatch { name: "X-Any".into(), value: ValueMatch::Any },
        HeaderMatch { name: "X-Env".into(), value: ValueMatch::Exact("beta".into()) },
    ];
    expected.subprotocol = Some("chat.v2".into());
    expected.rewrite = Some("/new".into());
    expected.plain_http = PlainHttp::Forward;
    expected.request_headers = HeaderEdits {
        remove: vec!["X-A".into()],
        set: vec![("X-B".into(), "v".into())],
        add: vec![("X-C".into(), "w".into())],
    };
    expected.response_headers.set = vec![("Server".into(), String::new())];
    expected.limits.frame_bytes_max = Some(1024);
    expected.timeouts.idle = Some(Duration::from_secs(60));
    expected.forward.forwarded = ForwardMode::Append;
    assert_eq!(config.routes, [expected]);
    // What it does not say is what is said for all, though that stands behind it.
    let route = &config.routes[0];
    assert_eq!((route.limits.informational_max, route.timeouts.answer), (3, Duration::from_secs(7)));
    assert_eq!((config.limits.frame_bytes_max, config.timeouts.idle), (None, None));
}

#[test]
fn only_a_default_that_is_named_takes_what_no_route_does() {
    let route = "[[routes]]\nhost = \"a\"\npool = \"chat\"\n";
    assert_eq!(accepted(POOL, &[]).default_pool, Some(0));
    assert_eq!(accepted(&format!("{POOL}{route}"), &[]).default_pool, None);
    assert_eq!(accepted(&format!("default_pool = \"chat\"\n{POOL}{route}"), &[]).default_pool, Some(0));
    // The flag is for the first pool then.
    let config = accepted(&format!("{POOL}{route}"), &["--backend", "10.0.0.9:1"]);
    assert_eq!((config.default_pool, config.pools[0].backends[0].address.to_string()), (None, "10.0.0.9:1".into()));
    let config = accepted("[[routes]]\nhost = \"a\"\npool = \"default\"\n", &["--backend", "10.0.0.9:1"]);
    assert_eq!((config.default_pool, config.routes[0].pool), (None, 0));
}

#[test]
fn the_most_specific_route_comes_first() {
    let conditions = [
        "",
        "path_prefix = \"/chat\"",
        "path_segments = \"/chat\"",
        "path = \"/chat\"",
        "headers = { X-A = \"1\" }",
        "headers = { X-A = \"2\" }",
        "headers = { X-A = \"1\" }\nsubprotocol = \"a\"",
        "host = \"*.example.com\"\npath = \"/chat\"",
        "host = \"*.chat.example.com\"",
        "host = \"example.com\"",
    ];
    let routes = conditions.map(|lines| format!("[[routes]]\n{lines}\npool = \"chat\"\n"));
    let config = accepted(&(POOL.to_owned() + &routes.concat()), &[]);
    let order: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    let expected = [9, 8, 7, 3, 2, 1, 6, 4, 5, 0].map(|number| format!("routes[{number}]"));
    assert_eq!(order, expected);
    let printed = print(&config, None);
    assert!(printed.starts_with(&format!(
        "# The effective configuration of ringway {}\n# Routes are in the order in which they are tried",
        env!("CARGO_PKG_VERSION")
    )));
    let names = printed.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    assert_eq!(names.skip(1).collect::<Vec<_>>(), expected);
    assert!(!printed.contains("[routes.limits]"), "it differs from the rest in nothing");
    assert_eq!(accepted(&printed, &[]), config);
}

#[test]
fn what_routes_name_has_to_be_there() {
    route_faults("pool = \"caht\"", &["f:5:8: routes[0].pool: there is no pool of the name \"caht\""]);
    route_faults("", &["f:4:1: routes[0].pool: is missing; write the name of a pool"]);
    let listeners = "pool = \"chat\"\nlisteners = [\"public\", \"127.0.0.1:8080\", 7, \"\"]";
    route_faults(
        listeners,
        &[
            "f:6:14: routes[0].listeners[0]: there is no listener of the name \"public\"",
            "f:6:42: routes[0].listeners[2]: 7 is not allowed; write a string",
            "f:6:45: routes[0].listeners[3]: is empty",
        ],
    );
    route_faults(
        "pool = \"chat\"\nlisteners = []",
        &["f:6:13: routes[0].listeners: is empty; leave it out for all listeners"],
    );
    faults(
        &format!(
            "[[listeners]]\nname = \"a\"\naddress = \"1.2.3.4:80\"\n{POOL}[[routes]]\npool = \"chat\"\nlisteners = [\"a\"]\n"
        ),
        &["--listen", "1.2.3.4:81"],
        &[
            "f:9:14: routes[0].listeners[0]: there is no listener of the name \"a\"; --listen has replaced those of the file",
        ],
    );
}

#[test]
fn conditions_that_no_request_meets() {
    route_faults(
        "pool = \"chat\"\nhost = \"a:80\"\npath = \"chat\"\nsubprotocol = \"a b\"\nheaders = { X_A = \"\", \"X B\" = \"1\", X-C = \"\\n\", X-D = \"1\", x-d = \"2\", X-E = 1 }",
        &[
            "f:6:8: routes[0].host: \"a:80\" is not a host; write it as chat.example.com, *.example.com or *, without a port",
            "f:7:8: routes[0].path: \"chat\" is no path; it has to begin with /",
            "f:8:15: routes[0].subprotocol: \"a b\" is no subprotocol; it has to be an HTTP token",
            "f:9:13: routes[0].headers.X_A: \"X_A\" has a character other than letters, digits and hyphens; such headers are dropped before anyone can look at them",
            "f:9:23: routes[0].headers.X B: \"X B\" is no header's name; it has to be an HTTP token",
            "f:9:42: routes[0].headers.X-C: \"\\n\" is no header's value; it may have visible ASCII, spaces and tabs",
            "f:9:59: routes[0].headers.x-d: is there twice; case does not count in a header's name",
            "f:9:76: routes[0].headers.X-E: 1 is not allowed; write a string",
        ],
    );
    route_faults(
        "pool = \"chat\"\npath = \"/a\"\npath_prefix = \"/b\"\nheaders = \"X\"",
        &[
            "f:7:15: routes[0].path_prefix: there is path as well; a route may have one of the two",
            "f:8:11: routes[0].headers: \"X\" is not allowed; write a table such as { \"X-Room\" = \"a\" }",
        ],
    );
    route_faults(
        "pool = \"chat\"\npath_segments = \"/a/\"\nrewrite = \"/b?c\"",
        &[
            "f:6:17: routes[0].path_segments: \"/a/\" ends with a slash; without it, it takes what is below it too",
            "f:7:11: routes[0].rewrite: \"/b?c\" has a query or a fragment; write the path alone",
        ],
    );
    route_faults(
        "pool = \"chat\"\nrewrite = \"/b\"",
        &[
            "f:6:11: routes[0].rewrite: needs a path that it stands in for; write path, path_segments or path_prefix too",
        ],
    );
}

#[test]
fn a_second_route_of_the_same_conditions_is_refused() {
    let routes = |first: &str, second: &str| {
        let route = |lines: &str| format!("[[routes]]\n{lines}\npool = \"chat\"\n");
        format!("{POOL}{}{}", route(first), route(second))
    };
    let fault =
        |line: usize| format!("f:{line}:1: routes[1]: has the conditions of \"routes[0]\", and so would never be used");
    faults(&routes("", ""), &[], &[&fault(7)]);
    let first =
        "host = \"A.b.\"\npath = \"/\"\nheaders = { X-A = \"1\", X-B = \"2\" }\nlisteners = [\"127.0.0.1:8080\"]";
    let second = "host = \"a.B\"\npath = \"/\"\nheaders = { x-b = \"2\", x-a = \"1\" }\nlisteners = [\"127.0.0.1:8080\", \"127.0.0.1:8080\"]";
    faults(&routes(first, second), &[], &[&fault(10)]);
    // Each of these is another condition.
    let others = [
        "",
        "host = \"a.b\"",
        "host = \"*.a.b\"",
        "path = \"/\"",
        "path_prefix = \"/\"",
        "path_segments = \"/\"",
        "headers = { X-A = \"1\" }",
        "headers = { X-A = \"*\" }",
        "headers = { X-B = \"1\" }",
        "subprotocol = \"a\"",
        "subprotocol = \"A\"",
        "listeners = [\"127.0.0.1:8080\"]",
    ];
    for (index, first) in others.iter().enumerate() {
        for second in &others[..index] {
            accepted(&routes(first, second), &[]);
        }
    }
    // One that was refused left no condition to compare.
    let found = read(&routes("host = \"a b\"", ""), &[]).unwrap_err();
    assert_eq!(found.lines().count(), 1, "{found}");
}

#[test]
fn names_of_routes_differ() {
    let route = |name: &str, host: &str| format!("[[routes]]\n{name}host = \"{host}\"\npool = \"chat\"\n");
    faults(
        &(POOL.to_owned() + &route("name = \"a\"\n", "a") + &route("name = \"a\"\n", "b") + &route("", "c")),
        &[],
        &["f:9:8: routes[1].name: \"a\" is the name of another route already"],
    );
    faults(
        &(POOL.to_owned() + &route("name = \"routes[1]\"\n", "a") + &route("", "b")),
        &[],
        &["f:5:8: routes[0].name: \"routes[1]\" is the name of another route already"],
    );
}

#[test]
fn headers_that_may_not_be_edited() {
    for name in
        ["Host", "connection", "UPGRADE", "Sec-WebSocket-Key", "sec-websocket-x", "Content-Length", "Transfer-Encoding"]
    {
        for edit in ["remove = [\"NAME\"]", "set = { NAME = \"1\" }", "add = { NAME = \"1\" }"] {
            for section in ["request_headers", "response_headers"] {
                let edit = edit.replace("NAME", name);
                let found = read(&format!("{POOL}[[routes]]\npool = \"chat\"\n[routes.{section}]\n{edit}\n"), &[]);
                assert!(
                    found.unwrap_err().ends_with("may not be edited; it belongs to the handshake"),
                    "{section} {edit}"
                );
            }
        }
    }
    route_faults(
        "pool = \"chat\"\n[routes.request_headers]\nremove = [\"X-Forwarded-For\", \"X A\", 7]\nset = { Forwarded = \"1\", X-A = \"\\r\\n\", X_B = \"1\" }\nadd = \"X\"\nreplace = {}\n[routes.response_headers]\nadd = { x-forwarded-proto = \"1\", X-Forwarded-Host = \"1\" }\nremove = \"X\"",
        &[
            "f:7:11: routes[0].request_headers.remove[0]: may not be edited; [routes.forward] is for it",
            "f:7:30: routes[0].request_headers.remove[1]: \"X A\" is no header's name; it has to be an HTTP token",
            "f:7:37: routes[0].request_headers.remove[2]: 7 is not allowed; write a string",
            "f:8:9: routes[0].request_headers.set.Forwarded: may not be edited; [routes.forward] is for it",
            "f:8:32: routes[0].request_headers.set.X-A: \"\\r\\n\" is no header's value; it may have visible ASCII, spaces and tabs",
            "f:9:7: routes[0].request_headers.add: \"X\" is not allowed; write a table such as { \"X-Room\" = \"a\" }",
            "f:10:1: routes[0].request_headers.replace: is not known here; known are remove, set, add",
            "f:12:9: routes[0].response_headers.add.x-forwarded-proto: may not be edited; [routes.forward] is for it",
            "f:12:34: routes[0].response_headers.add.X-Forwarded-Host: may not be edited; [routes.forward] is for it",
            "f:13:10: routes[0].response_headers.remove: \"X\" is not allowed; write a list such as [\"X-Debug\"]",
        ],
    );
    route_faults(
        "pool = \"chat\"\nrequest_headers = 1",
        &["f:6:19: routes[0].request_headers: 1 is not allowed; [routes.request_headers] is a table"],
    );
}

#[test]
fn a_route_may_not_differ_in_everything() {
    let route = known(&ROUTE, "", options::ROUTE_KEYS);
    let timeouts = known(&ROUTE, "timeouts", &[]);
    route_faults(
        "pool = \"chat\"\nhosts = \"a\"\n[routes.limits]\nhead_bytes_max = \"1KiB\"\n[routes.timeouts]\nhead = \"1s\"\ndrain = \"1s\"\n[routes.tcp]\nbacklog = 7",
        &[
            &format!("f:6:1: routes[0].hosts: is not known here (did you mean host?); {route}"),
            &format!("f:8:1: routes[0].limits.head_bytes_max: is not known here; {}", known(&ROUTE, "limits", &[])),
            &format!("f:10:1: routes[0].timeouts.head: is not known here; {timeouts}"),
            &format!("f:11:1: routes[0].timeouts.drain: is not known here; {timeouts}"),
            &format!("f:12:9: routes[0].tcp: is not known here; {route}"),
        ],
    );
}

#[test]
fn relations_with_what_is_said_for_all() {
    let small = "pool = \"chat\"\nlimits.message_bytes_max = \"1KiB\"";
    route_faults(
        &format!("{small}\n[limits]\nframe_bytes_max = \"2KiB\"\nmessage_bytes_max = \"4KiB\""),
        &[
            "f:8:19: limits.frame_bytes_max: 2KiB is not allowed; it may be no more than routes[0].limits.message_bytes_max, which is 1KiB",
        ],
    );
    route_faults(
        &format!("{small}\nlimits.frame_bytes_max = \"2KiB\""),
        &[
            "f:7:26: routes[0].limits.frame_bytes_max: 2KiB is not allowed; it may be no more than routes[0].limits.message_bytes_max, which is 1KiB",
        ],
    );
    // What is wrong for all is told once.
    route_faults(
        "pool = \"chat\"\n[limits]\nframe_bytes_max = \"2KiB\"\nmessage_bytes_max = \"1KiB\"",
        &[
            "f:8:21: limits.message_bytes_max: 1KiB is not allowed; it may be no less than limits.frame_bytes_max, which is 2KiB",
        ],
    );
}

/// A star where it would stand for itself: patterns of other programs, with what to write instead.
#[test]
fn field_b05_stars_that_would_match_nothing() {
    for (line, message) in [
        (
            "path = \"/a/*\"",
            "path: \"/a/*\" has a star, which stands for itself here; for what is below, write path_segments = \"/a\"",
        ),
        (
            "path = \"/a/*/b\"",
            "path: \"/a/*/b\" has a star, which stands for itself here; for what is below, write path_segments = \"/a\"",
        ),
        (
            "path_segments = \"/a*\"",
            "path_segments: \"/a*\" has a star, which stands for itself here; for what is below, write path_segments = \"/a\"",
        ),
        (
            "path_prefix = \"/*\"",
            "path_prefix: \"/*\" has a star, which stands for itself here; for every path, leave the condition out",
        ),
        ("path = \"/%61;x\"", "path: \"/%61;x\" is not how paths are compared; write \"/a\""),
        ("path_prefix = \"/a//b%2d\"", "path_prefix: \"/a//b%2d\" is not how paths are compared; write \"/a/b-\""),
    ] {
        let column = line.find('"').unwrap() + 1;
        route_faults(&format!("{line}\npool = \"chat\""), &[&format!("f:5:{column}: routes[0].{message}")]);
    }
    let inside = |value: &str, start: &str, end: &str| {
        let column = "headers = { Origin = ".len() + 1;
        route_faults(
            &format!("headers = {{ Origin = \"{value}\" }}\npool = \"chat\""),
            &[&format!(
                "f:5:{column}: routes[0].headers.Origin: \"{value}\" has a star inside, which would stand for itself; one may begin or end a value: \"{start}*\" or \"*{end}\""
            )],
        );
    };
    inside("https://*.example.com", "https://", ".example.com");
    inside("a*b*", "a", "b*");
    inside("**", "", "");
}

#[test]
fn field_b05_hosts_are_one_or_a_list() {
    let hosts = |text: &str| {
        accepted(&format!("{POOL}[[routes]]\nhost = {text}\npool = \"chat\"\n"), &[]).routes[0].hosts.clone()
    };
    let (exact, suffix) = (HostMatch::Exact("a.example".into()), HostMatch::Suffix(".b.example".into()));
    assert_eq!(hosts("\"A.example.\""), std::slice::from_ref(&exact));
    assert_eq!(hosts("[\"a.example\", \"*.B.example\"]"), [exact, suffix]);
    for (text, message) in [
        ("[]", "f:5:8: routes[0].host: is empty; leave it out for all hosts"),
        ("[\"a\", \"A.\"]", "f:5:14: routes[0].host[1]: is there twice"),
        ("[\"a\", 1]", "f:5:14: routes[0].host[1]: 1 is not allowed; write a string"),
        (
            "[\"a/b\"]",
            "f:5:9: routes[0].host[0]: \"a/b\" is not a host; write it as chat.example.com, *.example.com or *, without a port",
        ),
    ] {
        route_faults(&format!("host = {text}\npool = \"chat\""), &[message]);
    }
    // One of them that another route takes on the same conditions.
    let text = "host = [\"a\", \"b\"]\npool = \"chat\"\n[[routes]]\nhost = [\"c\", \"b\"]\npool = \"chat\"";
    route_faults(text, &["f:7:1: routes[1]: has the conditions of \"routes[0]\", and so would never be used"]);
}
