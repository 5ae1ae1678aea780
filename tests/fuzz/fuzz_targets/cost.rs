//! What a stranger's head costs: reading it, finding its route, looking up its cookies and building it anew take time in
//! proportion to its bytes, whatever is in it.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use ringway::config::{Address, Config, HeaderMatch, HostMatch, PathMatch, PoolConfig, Route, ValueMatch};
use ringway::proto::http::{HeadKind, HeadLimits, head_end};
use ringway::proto::upgrade::{Edit, Incoming, request};
use ringway::table::Table;

/// The defaults, so that everything that a stranger can send is among it.
const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 16 << 10, header_bytes_max: 8 << 10, headers_max: 100, target_bytes_max: 8 << 10 };

/// With the sanitizers, on a machine that is shared: about ten times what the dearest heads take. What grows faster than its
/// input, as looking up each of 7,800 labels did, is a hundred times beyond it.
const PER_BYTE: Duration = Duration::from_micros(2);
const PER_HEAD: Duration = Duration::from_millis(1);

static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| {
    let address: Address = "127.0.0.1:9".parse().unwrap();
    let pool = PoolConfig { backends: vec![address.into()], ..PoolConfig::named("p") };
    let mut config = Config { pools: vec![pool], default_pool: Some(0), ..Config::default() };
    for number in 0..50 {
        let mut route = Route::catch_all(number.to_string(), 0, &config);
        route.hosts = vec![HostMatch::Suffix(format!(".{}.example", "a.".repeat(number % 5) + "a"))];
        route.path = PathMatch::Segments(format!("/{number}"));
        route.headers = vec![HeaderMatch { name: "X-A".into(), value: ValueMatch::Prefix("a".into()) }];
        config.routes.push(route);
    }
    Table::first(Arc::new(config), Instant::now())
});

fuzz_target!(|bytes: &[u8]| {
    let bound = PER_HEAD + PER_BYTE * bytes.len() as u32;
    // What disturbs a run only ever makes it slower.
    let is_cheap = (0..20).any(|_| {
        let start = Instant::now();
        handle(bytes);
        start.elapsed() <= bound
    });
    assert!(is_cheap, "{} bytes take more than {bound:?}", bytes.len());
});

fn handle(bytes: &[u8]) {
    let Ok(Some(end)) = head_end(bytes, 0, HeadKind::Request, &LIMITS) else { return };
    let Ok(incoming) = request(&bytes[..end], &LIMITS) else { return };
    let head = match &incoming {
        Incoming::Upgrade(request) => &request.head,
        Incoming::Plain(request, _) => &request.head,
    };
    std::hint::black_box(TABLE.router.find(head, None));
    std::hint::black_box((head.cookie("sid"), head.query_value("room")));
    let edits = [
        Edit::Append { name: "X-Forwarded-For", value: "192.0.2.1".into() },
        Edit::Replace { name: "X-Forwarded-Host", value: "a".into() },
        Edit::Remove { name: "Cookie" },
    ];
    std::hint::black_box(incoming.forward(&edits, None));
}
