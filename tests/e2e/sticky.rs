//! The cookie that brings a client back to its backend: when it is set, what it says, and what becomes of it when the
//! backend does not.

use crate::fleet::own_ip;
use crate::harness::{Ringway, Setup, close, peer, scratch, until};
use crate::plain::plain;
use crate::wire::*;

/// One pool of several backends that the test plays, named a, b and c.
struct StickyPool {
    relay: Ringway,
    backends: Vec<Backend>,
}

/// A session, and what its head said: which backend it reached, and the cookies that were set.
struct Opened {
    number: usize,
    set: Vec<String>,
    client: Wire,
    backend: Wire,
}

impl Opened {
    /// The one cookie that was set, as the client sends it back: `name=value`.
    fn cookie(&self) -> String {
        assert_eq!(self.set.len(), 1, "{:?}", self.set);
        self.set[0].split(';').next().unwrap().to_string()
    }

    fn close(mut self) {
        close(&mut self.client, &mut self.backend);
    }
}

const SECRET: &str = "sticky.secret = \"0123456789abcdef\"\n";

impl StickyPool {
    fn new(options: &str) -> StickyPool {
        // Where no other test's can take the place of one that is gone.
        let backends: Vec<_> = (0..3).map(|_| Backend::at((own_ip(), 0).into())).collect();
        StickyPool { relay: StickyPool::relay(&backends, options, ""), backends }
    }

    /// A relay in front of these. `last`: options of the last of them.
    fn relay(backends: &[Backend], options: &str, last: &str) -> Ringway {
        let mut settings = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[routes]]\npool = \"chat\"\nplain_http = \"forward\"\n\
             [[pools]]\nname = \"chat\"\nsticky.cookie = \"route\"\n{options}"
        );
        for (name, backend) in ["a", "b", "c"].iter().zip(backends) {
            settings += &format!("[[pools.backends]]\nname = \"{name}\"\naddress = \"{}\"\n", backend.address);
        }
        settings += last;
        Ringway::start(&Setup { settings, ..Setup::default() })
    }

    /// The session of a client that sends these cookies.
    fn open(&self, cookies: &str) -> Opened {
        self.open_through(&self.relay, cookies)
    }

    fn open_through(&self, relay: &Ringway, cookies: &str) -> Opened {
        let mut client = relay.client();
        client.send(if cookies.is_empty() { request(&[]) } else { request(&[&format!("Cookie: {cookies}")]) });
        let (number, mut backend) = self.accept();
        let seen = backend.head();
        // Like any other cookie it goes on to the backend.
        assert_eq!(seen.get("Cookie").unwrap_or_default(), cookies);
        backend.send(answer(&seen, &[]));
        let head = client.head();
        assert_eq!(head.status(), 101);
        Opened { number, set: head.all("Set-Cookie"), client, backend }
    }

    fn accept(&self) -> (usize, Wire) {
        let mut accepted = None;
        until("a backend is asked", || {
            let mut backends = self.backends.iter().enumerate();
            accepted = backends.find_map(|(number, backend)| Some((number, backend.accept_now()?)));
            accepted.is_some()
        });
        accepted.unwrap()
    }

    /// A client with these cookies always comes back to this backend, and hears of no other cookie.
    fn sticks(&self, cookies: &str, number: usize) {
        for _ in 0..5 {
            let opened = self.open(cookies);
            assert_eq!((opened.number, &opened.set), (number, &vec![]), "with {cookies}");
            opened.close();
        }
    }

    /// A client with these cookies is one like any other: it gets a new one.
    fn is_new(&self, cookies: &str) {
        let numbers: Vec<_> = (0..3)
            .map(|_| {
                let opened = self.open(cookies);
                assert!(!opened.cookie().is_empty());
                let number = opened.number;
                opened.close();
                number
            })
            .collect();
        assert!((0..3).all(|number| numbers.contains(&number)), "{numbers:?} with {cookies}");
    }
}

#[test]
fn each_client_gets_a_cookie_and_comes_back_with_it() {
    let pool = StickyPool::new("");
    for _ in 0..4 {
        let opened = pool.open("");
        let [set] = &opened.set[..] else { panic!("{:?}", opened.set) };
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax", "no Secure on plain TCP");
        let value = pair.strip_prefix("route=").unwrap();
        assert!(value.len() == 24 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{value}");
        let (cookie, number) = (opened.cookie(), opened.number);
        opened.close();
        pool.sticks(&cookie, number);
        pool.sticks(&format!("a=1; {cookie}; b=\"2\""), number);
    }
    pool.is_new("");
}

#[test]
fn attributes_are_those_of_the_config() {
    for (options, attributes) in [
        ("sticky.secure = \"always\"\n", "Path=/; HttpOnly; SameSite=Lax; Secure"),
        ("sticky.same_site = \"strict\"\n", "Path=/; HttpOnly; SameSite=Strict"),
        ("sticky.same_site = \"none\"\nsticky.secure = \"always\"\n", "Path=/; HttpOnly; SameSite=None; Secure"),
    ] {
        let pool = StickyPool::new(options);
        let opened = pool.open("");
        assert!(opened.set[0].ends_with(&format!("; {attributes}")), "{:?}", opened.set);
        opened.close();
    }
}

#[test]
fn a_name_may_be_the_value() {
    let pool = StickyPool::new("sticky.value = \"name\"\n");
    for (number, cookie) in ["route=a", "route=b", "route=c"].iter().enumerate() {
        pool.sticks(cookie, number);
    }
    let opened = pool.open("route=d");
    assert_eq!(opened.cookie(), format!("route={}", ["a", "b", "c"][opened.number]));
    opened.close();
}

#[test]
fn cookies_that_are_not_ours_mean_nothing() {
    let pool = StickyPool::new("");
    let opened = pool.open("");
    let (good, number) = (opened.cookie(), opened.number);
    opened.close();
    let last = if good.ends_with('A') { 'B' } else { 'A' };
    let address = pool.backends[number].address;
    for forged in [
        format!("{}{last}", &good[..good.len() - 1]),
        good[..good.len() - 1].to_string(),
        format!("{good}A"),
        good.to_lowercase(),
        good.replace("route=", "Route="),
        good.replace("route=", "xroute="),
        format!("route={}", ["a", "b", "c"][number]),
        format!("route={address}"),
        format!("route={number}"),
        "route=".into(),
        "route".into(),
        format!("route=x; route={number}"),
    ] {
        pool.is_new(&forged);
    }
    pool.sticks(&good, number);
}

#[test]
fn a_client_whose_backend_is_gone_gets_another_and_its_cookie() {
    let mut pool = StickyPool::new("eject.failures = \"off\"\n");
    let opened = pool.open("");
    let (cookie, gone) = (opened.cookie(), opened.number);
    opened.close();
    let address = pool.backends[gone].address;
    pool.backends.remove(gone);
    let opened = pool.open(&cookie);
    let (next, number) = (opened.cookie(), opened.number);
    assert_ne!(next, cookie);
    opened.close();
    pool.sticks(&next, number);
    // It is back, and so is who still has the first cookie.
    pool.backends.push(Backend::at(address));
    pool.sticks(&cookie, 2);
}

#[test]
fn a_client_whose_backend_is_full_gets_another() {
    let pool = StickyPool::new("connections_max = 1\n");
    let first = pool.open("");
    let second = pool.open(&first.cookie());
    assert_ne!(second.number, first.number);
    assert_ne!(second.cookie(), first.cookie());
    let (cookie, number) = (first.cookie(), first.number);
    first.close();
    let third = pool.open(&cookie);
    assert_eq!((third.number, third.set.len()), (number, 0));
    third.close();
    second.close();
}

#[test]
fn a_client_whose_backend_is_drained_gets_another() {
    let pool = StickyPool::new(SECRET);
    let drained = StickyPool::relay(&pool.backends, SECRET, "drain = true\n");
    let cookies: Vec<_> = (0..3)
        .map(|_| {
            let opened = pool.open("");
            let found = (opened.number, opened.cookie());
            opened.close();
            found
        })
        .collect();
    for (number, cookie) in cookies {
        let opened = pool.open_through(&drained, &cookie);
        assert_eq!(opened.set.is_empty(), number != 2);
        assert_eq!(opened.number == number, number != 2);
        opened.close();
    }
}

#[test]
fn one_secret_makes_one_cookie_for_all_relays() {
    let pool = StickyPool::new(SECRET);
    let opened = pool.open("");
    let (cookie, number) = (opened.cookie(), opened.number);
    opened.close();
    // Another process: a second relay, or the first after a restart.
    let StickyPool { relay, backends } = pool;
    let second = StickyPool { relay: StickyPool::relay(&backends, SECRET, ""), backends };
    relay.signal("TERM");
    relay.ended();
    second.sticks(&cookie, number);
    // Other secrets, and none, make others.
    let StickyPool { backends, .. } = second;
    let other =
        StickyPool { relay: StickyPool::relay(&backends, "sticky.secret = \"another 16 letters\"\n", ""), backends };
    other.is_new(&cookie);
    let StickyPool { backends, .. } = other;
    let random = StickyPool { relay: StickyPool::relay(&backends, "", ""), backends };
    random.is_new(&cookie);
}

#[test]
fn pages_set_the_cookie_and_refusals_do_not() {
    let pool = StickyPool::new("");
    let ask = |request: String, answer: &str| {
        let mut client = pool.relay.client();
        client.send(request);
        let (number, mut backend) = pool.accept();
        backend.head();
        backend.send(answer);
        let head = client.head();
        client.rest();
        (number, head.all("Set-Cookie"))
    };
    // The backend's own cookies stay beside it.
    let page = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: route2=x\r\nContent-Length: 0\r\n\r\n";
    let (number, set) = ask(plain("GET /", &[], ""), page);
    assert_eq!((set.len(), &set[..2]), (3, &["a=1".to_string(), "route2=x".to_string()][..]));
    let cookie = set[2].split(';').next().unwrap();
    assert!(cookie.starts_with("route="));
    // Pages and sessions share it.
    pool.sticks(cookie, number);
    let line = format!("Cookie: {cookie}");
    assert_eq!(ask(plain("GET /", &[&line], ""), page), (number, set[..2].to_vec()));
    // Nobody has begun anything that could be come back to.
    let (_, set) = ask(request(&[]), "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(set.len(), 0);
    let (_, set) = ask(request(&[]), "nonsense\r\n\r\n");
    assert_eq!(set.len(), 0);
}

#[test]
fn a_browser_comes_back_with_the_cookie_of_a_101() {
    let mut servers: Vec<_> = (0..3).map(|n| peer("named_server.js", &[&format!("server-{n}")])).collect();
    let port = |server: &mut crate::harness::Process| server.line(&["port "]).split(' ').nth(1).unwrap().to_string();
    let ports: Vec<_> = servers.iter_mut().map(port).collect();
    let backends: Vec<_> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let settings = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[pools]]\nname = \"chat\"\nsticky.cookie = \"route\"\nbackends = [{}]\n\
         [[routes]]\npool = \"chat\"\n",
        backends.join(", ")
    );
    let relay = Ringway::start(&Setup { settings, ..Setup::default() });
    let profile = scratch("chromium");
    // The page is not the relay's: the cookie can only come from a 101.
    let page = format!("http://127.0.0.1:{}/", ports[0]);
    let socket = format!("ws://{}/", relay.address);
    let mut browser = peer("sticky_browser.js", &["/usr/bin/chromium", profile.to_str().unwrap(), &page, &socket]);
    browser.line_within(DEADLINE * 6, &["ok"]);
}
