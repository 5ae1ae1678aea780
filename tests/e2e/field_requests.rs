//! Cases from the field: requests that other proxies let pass, and those that none should.

use crate::fleet::free_address;
use crate::harness::{Ringway, Setup, Stage, close};
use crate::site::{Site, ask};
use crate::wire::*;

/// An open session for this target, which the backend gets byte for byte.
fn passes(stage: &Stage, target: &str) {
    let mut client = stage.client();
    client.send(request_with("GET", &format!("GET {target} HTTP/1.1")));
    let mut backend = stage.backend.accept();
    let head = backend.head();
    assert_eq!(head.start(), format!("GET {target} HTTP/1.1"));
    backend.send(answer(&head, &[]));
    assert_eq!(client.head().status(), 101, "{target}");
    close(&mut client, &mut backend);
}

const ODD: [&str; 9] = [
    "/cool/https%3A%2F%2Fhost%2Fx%3Fy=1/ws?WOPISrc=https%3A%2F%2Fhost%2Fwopi",
    "/a%2Fb%5Cc",
    "//ws",
    "/a//b///c",
    "/ws/../x",
    "/ws/.;x/y",
    "/%2e%2e/x",
    "/ws?a=[]{}|^`\\'&b=//..%2F%00%",
    "/a;jsessionid=1/b:c@d!$&'()*+,=~",
];

#[test]
fn field_r01_targets_go_on_as_they_came_where_no_path_is_guarded() {
    let stage = Stage::new();
    ODD.iter().for_each(|target| passes(&stage, target));
    // Hosts alone are no condition that a path could get around.
    let route =
        "[[pools]]\nname = \"p\"\nbackends = [\"127.0.0.1:9\"]\n[[routes]]\nhost = \"chat.example\"\npool = \"p\"\n";
    let stage = Stage::with(route);
    ODD.iter().for_each(|target| passes(&stage, target));
    // A route may say so, and the opposite.
    let stage = Stage::with(&format!("{route}path_segments = \"/cool\"\npaths = \"as-is\"\n"));
    passes(&stage, ODD[0]);
    let stage = Stage::with(&format!("{route}paths = \"strict\"\n"));
    for target in [ODD[0], ODD[1], ODD[2], ODD[4], ODD[5], ODD[6]] {
        stage.refused(request_with("GET", &format!("GET {target} HTTP/1.1")), &[400]);
    }
    passes(&stage, ODD[8]);
}

const ADMIN: &str = r#"
[[routes]]
path_segments = "/admin"
pool = "admin"
[[routes]]
pool = "chat"
"#;

#[test]
fn field_a12_other_spellings_of_a_path_are_that_path() {
    let site = Site::new(&["chat", "admin"], ADMIN);
    for target in
        ["/%61dmin", "/admin;x=1", "/a%64min/b", "/admin;x/;y", "/;x/admin", "/%61%64%6d%69%6E;v=1/x?y", "/admin//x"]
    {
        assert_eq!(site.goes_to("admin", ask("a", target, &[])).start(), format!("GET {target} HTTP/1.1"));
    }
    for target in ["/administrator", "/chat/admin", "/%2561dmin", "/admin%3Bx", "/admin%20", "/x;/admin"] {
        assert_eq!(site.goes_to("chat", ask("a", target, &[])).start(), format!("GET {target} HTTP/1.1"));
    }
    // What is left of a path that is rewritten is the rest of the very bytes.
    let site = Site::new(&["admin", "chat"], &ADMIN.replace("pool = \"admin\"", "pool = \"admin\"\nrewrite = \"/v2\""));
    for (target, rewritten) in [
        ("/%61dmin/b%41", "/v2/b%41"),
        ("/admin;x=1", "/v2"),
        ("/admin;x/b;y", "/v2/b;y"),
        ("/admin//b?c=//d", "/v2//b?c=//d"),
    ] {
        assert_eq!(site.goes_to("admin", ask("a", target, &[])).start(), format!("GET {rewritten} HTTP/1.1"));
    }
}

#[test]
fn field_a17_names_that_a_backend_may_fold_do_not_go_on() {
    let stage = Stage::new();
    for name in [
        "X_Forwarded_For",
        "X.Forwarded.For",
        "X-Forwarded_For",
        "X~Forwarded~For",
        "X!User",
        "X'A",
        "X|B",
        "A*",
        "X^C",
        "X`D",
        "X%20E",
        "X#F",
        "X$G",
        "X&H",
        "X+I",
    ] {
        let mut client = stage.client();
        client.send(request(&[&format!("{name}: 1"), "X-Kept: 1"]));
        let mut backend = stage.backend.accept();
        let head = backend.head();
        assert_eq!((head.get(name), head.get("X-Kept").as_deref()), (None, Some("1")), "{name}");
        backend.send(answer(&head, &[]));
        assert_eq!(client.head().status(), 101);
        close(&mut client, &mut backend);
    }
}

/// Two relays of which each is the other's backend: the request ends after as many of them as there may be.
#[test]
fn field_a15_relays_that_are_each_others_backends() {
    for (limits, hops) in [("", 8), ("[limits]\nhops_max = 3\n", 3), ("[limits]\nhops_max = 1\n", 1)] {
        let addresses = [free_address(), free_address()];
        let start = |own: usize| {
            Ringway::start(&Setup {
                settings: limits.into(),
                backends: vec![addresses[1 - own].to_string()],
                listen: vec![addresses[own].to_string()],
                ..Setup::default()
            })
        };
        let relays = [start(0), start(1)];
        let mut client = Wire::connect(addresses[0]);
        client.send(request(&[]));
        let head = client.head();
        assert_eq!(head.status(), 508, "{}", head.text());
        let mut accepted = 0;
        for relay in relays {
            relay.signal("TERM");
            let mut relay = relay;
            let line = relay.process.line(&[" stopped accepted="]);
            accepted += line.split("accepted=").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
            relay.ended();
        }
        assert_eq!(accepted, hops + 1, "the client's, and one for each hop");
    }
}

#[test]
fn field_a15_hops_are_counted_and_told() {
    let stage = Stage::new();
    for (sent, told) in [("7", "8"), ("0", "1"), ("x", "1"), ("-3", "1"), ("99999999999", "1"), ("", "1")] {
        let mut client = stage.client();
        client.send(request(&[&format!("X-Ringway-Hops: {sent}")]));
        let mut backend = stage.backend.accept();
        let head = backend.head();
        assert_eq!(head.all("X-Ringway-Hops"), [told], "{sent}");
        backend.send(answer(&head, &[]));
        assert_eq!(client.head().status(), 101);
        close(&mut client, &mut backend);
    }
    for sent in ["8", "9", "4294967295"] {
        stage.refused(request(&[&format!("X-Ringway-Hops: {sent}")]), &[508]);
    }
    let stage = Stage::with("[limits]\nhops_max = \"off\"\n");
    let mut client = stage.client();
    client.send(request(&["X-Ringway-Hops: 99"]));
    assert_eq!(stage.backend.accept().head().all("X-Ringway-Hops"), Vec::<String>::new());
}

/// Some libraries hang up on long lines: they hear of none.
#[test]
fn field_a02_header_lines_have_a_bound() {
    let stage = Stage::new();
    let line = |len: usize| format!("X-Long: {}", "a".repeat(len - "X-Long: ".len()));
    for len in [8193, 9000, 15_000] {
        stage.refused(request(&[&line(len)]), &[431]);
    }
    let (mut client, mut backend) = stage.open_with(&[&line(8192)], &[]);
    close(&mut client, &mut backend);
    // A backend's may be as long as its head.
    let (mut client, mut backend) = stage.open_with(&[], &[&line(15_000)]);
    close(&mut client, &mut backend);
    let stage = Stage::with("[limits]\nheader_bytes_max = 300\n");
    stage.refused(request(&[&line(301)]), &[431]);
    let (mut client, mut backend) = stage.open_with(&[&line(300)], &[]);
    close(&mut client, &mut backend);
}
