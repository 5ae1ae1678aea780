//! A relay with routes to several pools. Each pool has one backend, which the test plays.

use std::net::SocketAddr;

use crate::harness::{Ringway, Setup, close, refusal, until};
use crate::wire::*;

pub struct Site {
    pub relay: Ringway,
    pools: Vec<(String, Backend)>,
}

impl Site {
    /// `settings` begin with what belongs to the file's root. Without listeners of their own there is one on any port.
    pub fn new(pools: &[&str], settings: &str) -> Site {
        Site::with_pools(pools, "", settings)
    }

    /// `options` are those of every pool.
    pub fn with_pools(pools: &[&str], options: &str, settings: &str) -> Site {
        let pools: Vec<_> = pools.iter().map(|name| (name.to_string(), Backend::new())).collect();
        let mut settings = format!("{settings}\n");
        if !settings.contains("[[listeners]]") {
            settings += "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
        }
        for (name, backend) in &pools {
            settings += &format!("[[pools]]\nname = \"{name}\"\nbackends = [\"{}\"]\n{options}\n", backend.address);
        }
        Site { relay: Ringway::start(&Setup { settings, ..Setup::default() }), pools }
    }

    /// Where the listeners are, in the file's order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let log = self.relay.process.log();
        let lines = log.iter().filter_map(|line| line.split("listening address=").nth(1));
        lines.map(|address| address.trim().parse().unwrap()).collect()
    }

    pub fn client(&self) -> Wire {
        self.relay.client()
    }

    pub fn backend(&self, pool: &str) -> &Backend {
        &self.pools.iter().find(|(name, _)| name == pool).expect("a pool of this site").1
    }

    /// This request becomes a session with this pool. Returns what its backend was sent.
    pub fn goes_to(&self, pool: &str, request: impl AsRef<[u8]>) -> Head {
        self.goes_from(self.relay.address, pool, request)
    }

    /// The same through another listener.
    pub fn goes_from(&self, listener: SocketAddr, pool: &str, request: impl AsRef<[u8]>) -> Head {
        let mut client = Wire::connect(listener);
        client.send(&request);
        let (reached, mut backend) =
            self.reached(&client).unwrap_or_else(|| panic!("refused: {}", client.head().text()));
        assert_eq!(reached, pool, "pool of {}", request.as_ref().escape_ascii());
        let head = backend.head();
        backend.send(answer(&head, &[]));
        assert_eq!(client.head().status(), 101);
        close(&mut client, &mut backend);
        self.is_quiet();
        head
    }

    /// An open session: both ends.
    pub fn open(&self, pool: &str, request: impl AsRef<[u8]>) -> (Wire, Wire) {
        let mut client = self.client();
        client.send(request);
        let backend = self.backend(pool).upgrade(&[]);
        assert_eq!(client.head().status(), 101);
        (client, backend)
    }

    /// This request is refused with one of these statuses, and no backend hears of it.
    pub fn refused(&self, request: impl AsRef<[u8]>, statuses: &[u16]) -> Head {
        let mut client = self.client();
        client.send_or_lose(&request);
        eprintln!("refused {}", request.as_ref()[..request.as_ref().len().min(200)].escape_ascii());
        let head = refusal(&mut client, statuses);
        self.is_quiet();
        head
    }

    /// The name of the pool that this client's request has reached, and the backend's end of the connection; `None` if it
    /// was answered without one.
    fn reached(&self, client: &Wire) -> Option<(&str, Wire)> {
        let mut reached = None;
        client.stream.set_nonblocking(true).unwrap();
        until("forwarded or refused", || {
            let mut pools = self.pools.iter();
            reached = pools.find_map(|(name, backend)| Some((name.as_str(), backend.accept_now()?)));
            reached.is_some() || client.stream.peek(&mut [0]).is_ok()
        });
        client.stream.set_nonblocking(false).unwrap();
        reached
    }

    /// No backend has been contacted of late.
    pub fn is_quiet(&self) {
        for (name, backend) in &self.pools {
            assert!(backend.accept_now().is_none(), "the backend of {name} was contacted");
        }
    }
}

/// An upgrade request.
pub fn ask(host: &str, target: &str, extra: &[&str]) -> String {
    let mut lines = good_lines();
    lines[0] = format!("GET {target} HTTP/1.1");
    lines[1] = format!("Host: {host}");
    lines.extend(extra.iter().map(|line| line.to_string()));
    join(&lines)
}
