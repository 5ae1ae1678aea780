//! From config to config, and from answer to answer.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::nameserver::Nameserver;
use crate::config::{Config, PoolConfig};
use crate::control::discovery::{Discoveries, LOOK};

const NAME: &str = "chat.example.";
const HOUR: Duration = Duration::from_secs(3600);

/// A pool that is found under [`NAME`], asked for as often as can be.
fn config(server: &Nameserver) -> Config {
    let mut pool = PoolConfig::named("chat");
    pool.discovery.dns = Some("chat.example:9000".into());
    pool.discovery.interval_min = Duration::from_millis(1);
    pool.discovery.interval_max = Duration::from_millis(1);
    Config { pools: vec![pool], nameservers: Some(vec![server.address]), ..Config::default() }
}

fn discoveries() -> (Discoveries, UnboundedReceiver<()>) {
    let (found, news) = unbounded_channel();
    (Discoveries::new(found), news)
}

fn listed(discoveries: &Discoveries) -> Vec<String> {
    let found = discoveries.found();
    found.get("chat").into_iter().flatten().map(|backend| backend.address.to_string()).collect()
}

/// Until the server has answered both families again, from the first query on.
async fn asked_again(server: &mut Nameserver) {
    while server.asked.try_recv().is_ok() {}
    let mut waiting = vec![RecordType::A, RecordType::AAAA, RecordType::A, RecordType::AAAA];
    while !waiting.is_empty() {
        let (_, of) = server.asked.recv().await.unwrap();
        if let Some(index) = waiting.iter().position(|wanted| *wanted == of) {
            waiting.remove(index);
        }
    }
}

#[tokio::test]
async fn changes_are_told_and_repetitions_are_not() {
    let mut server = Nameserver::start().await;
    server.addresses(NAME, 30, &["10.0.0.1", "10.0.0.2"]);
    let (mut discoveries, mut news) = discoveries();
    discoveries.first(&Arc::new(config(&server)), HOUR).await;
    assert!(discoveries.has_news());
    assert_eq!(listed(&discoveries), ["10.0.0.1:9000", "10.0.0.2:9000"]);
    // Who has waited for it knows it already.
    assert_eq!((news.try_recv(), discoveries.has_news()), (Ok(()), false));

    server.addresses(NAME, 30, &["10.0.0.2", "10.0.0.1"]);
    asked_again(&mut server).await;
    assert!(news.try_recv().is_err());

    server.addresses(NAME, 30, &["10.0.0.3"]);
    news.recv().await.unwrap();
    assert!(discoveries.has_news());
    assert_eq!(listed(&discoveries), ["10.0.0.3:9000"]);
}

#[tokio::test]
async fn what_dns_cannot_say_leaves_the_last_answer() {
    let mut server = Nameserver::start().await;
    server.addresses(NAME, 30, &["10.0.0.1"]);
    let (mut discoveries, mut news) = discoveries();
    discoveries.first(&Arc::new(config(&server)), HOUR).await;
    news.recv().await.unwrap();
    server.remove(NAME);
    asked_again(&mut server).await;
    server.fail(NAME, &[RecordType::A, RecordType::AAAA]);
    asked_again(&mut server).await;
    assert_eq!(listed(&discoveries), ["10.0.0.1:9000"]);
    assert!(news.try_recv().is_err());
    // And when it can again, that is news.
    server.addresses(NAME, 30, &["10.0.0.2"]);
    server.fail(NAME, &[]);
    news.recv().await.unwrap();
    assert_eq!(listed(&discoveries), ["10.0.0.2:9000"]);
}

#[tokio::test]
async fn the_first_answer_may_be_a_failure() {
    let server = Nameserver::start().await;
    let (mut discoveries, mut news) = discoveries();
    discoveries.first(&Arc::new(config(&server)), HOUR).await;
    assert_eq!(listed(&discoveries), [""; 0]);
    assert!(news.try_recv().is_err());
}

#[tokio::test]
async fn patience_with_the_first_answer_ends() {
    let server = Nameserver::start().await;
    server.silence();
    let (mut discoveries, _news) = discoveries();
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    discoveries.first(&Arc::new(config(&server)), Duration::from_millis(300)).await;
    // Of virtual time, with a tick of the timer on top.
    assert!((300..310).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
}

/// Its services have more targets than it may have queries under way, and nobody answers for them: they wait for each other, and another
/// pool's names for none of them.
#[tokio::test]
async fn field_a14_a_pool_whose_names_nobody_answers_delays_no_other() {
    let mut server = Nameserver::start().await;
    let targets: Vec<String> = (0..16).map(|number| format!("t{number}.bad.example.")).collect();
    let services: Vec<_> = targets.iter().map(|target| (1, 1, 9000, target.as_str())).collect();
    server.services("_ws._tcp.bad.example.", 30, &services);
    server.mute(targets);
    server.addresses(NAME, 30, &["10.0.0.1"]);
    let (mut discoveries, mut news) = discoveries();
    let mut config = config(&server);
    let mut bad = PoolConfig::named("bad");
    bad.discovery.srv = Some("_ws._tcp.bad.example.".into());
    config.pools.insert(0, bad);
    let alone = Config { pools: config.pools[..1].to_vec(), ..config.clone() };
    discoveries.follow(&Arc::new(alone));
    let mut unanswered = HashSet::new();
    while unanswered.len() < 8 {
        let asked = server.asked.recv().await.unwrap();
        unanswered.extend(Some(asked).filter(|(name, _)| name.ends_with(".bad.example.") && !name.starts_with('_')));
    }
    discoveries.follow(&Arc::new(config));
    news.recv().await.unwrap();
    assert_eq!(listed(&discoveries), ["10.0.0.1:9000"]);
    // None of them has had to be given up for that.
    while let Ok(asked) = server.asked.try_recv() {
        unanswered.extend(Some(asked).filter(|(name, _)| name.ends_with(".bad.example.")));
    }
    assert_eq!(unanswered.len(), 8, "{unanswered:?}");
}

#[tokio::test]
async fn without_sources_there_is_nothing_to_wait_for() {
    let (mut discoveries, _news) = discoveries();
    let config = Config { pools: vec![PoolConfig::named("chat")], ..Config::default() };
    discoveries.first(&Arc::new(config), HOUR).await;
    assert!(discoveries.found().is_empty());
}

#[tokio::test]
async fn sources_that_stay_are_not_asked_again_and_others_end() {
    let mut server = Nameserver::start().await;
    server.addresses(NAME, 30, &["10.0.0.1"]);
    let (mut discoveries, _news) = discoveries();
    let mut config = config(&server);
    config.pools[0].discovery.interval_min = HOUR;
    config.pools[0].discovery.interval_max = HOUR;
    discoveries.first(&Arc::new(config.clone()), HOUR).await;
    while server.asked.try_recv().is_ok() {}

    // Another pool in front, and a file beside it: the question stays the same, and its answer at hand.
    config.pools.insert(0, PoolConfig::named("other"));
    config.pools[1].discovery.file = Some(PathBuf::from("/nonexistent/ringway.toml"));
    discoveries.first(&Arc::new(config.clone()), HOUR).await;
    assert_eq!(listed(&discoveries), ["10.0.0.1:9000"]);
    assert_eq!(discoveries.running.len(), 2);
    assert!(server.asked.try_recv().is_err());

    // Another interval asks again, with the old answer still at hand.
    config.pools[1].discovery.interval_min = HOUR / 2;
    discoveries.follow(&Arc::new(config.clone()));
    assert_eq!(listed(&discoveries), ["10.0.0.1:9000"]);
    server.asked.recv().await.unwrap();

    config.pools[1].discovery = PoolConfig::named("chat").discovery;
    discoveries.follow(&Arc::new(config));
    assert!(discoveries.running.is_empty() && discoveries.found().is_empty());
}

/// By the real clock, as files are read on threads of their own.
#[tokio::test]
async fn a_file_is_watched() {
    let path = std::env::temp_dir().join(format!("ringway-discovery-watched-{}.json", std::process::id()));
    std::fs::write(&path, r#"{"backends": ["10.0.0.1:1"]}"#).unwrap();
    let mut pool = PoolConfig::named("chat");
    pool.discovery.file = Some(path.clone());
    let config = Arc::new(Config { pools: vec![pool], ..Config::default() });
    let (mut discoveries, mut news) = discoveries();
    discoveries.first(&config, HOUR).await;
    assert_eq!(listed(&discoveries), ["10.0.0.1:1"]);
    news.recv().await.unwrap();

    for text in ["{", r#"{"backends": [1]}"#] {
        std::fs::write(&path, text).unwrap();
        tokio::time::sleep(3 * LOOK).await;
        assert_eq!(listed(&discoveries), ["10.0.0.1:1"], "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(3 * LOOK).await;
    assert!(news.try_recv().is_err());

    std::fs::write(&path, r#"{"backends": ["10.0.0.1:1", "10.0.0.2:2"]}"#).unwrap();
    news.recv().await.unwrap();
    assert_eq!(listed(&discoveries), ["10.0.0.1:1", "10.0.0.2:2"]);
    std::fs::remove_file(&path).unwrap();
}

/// All other tests run on plain Tokio, which the control plane's runtime contains.
#[test]
fn the_control_planes_runtime_will_do() {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap();
    runtime.block_on(async {
        let server = Nameserver::start().await;
        server.addresses(NAME, 30, &["10.0.0.1"]);
        let (mut discoveries, mut news) = discoveries();
        discoveries.first(&Arc::new(config(&server)), HOUR).await;
        news.recv().await.unwrap();
        assert_eq!(listed(&discoveries), ["10.0.0.1:9000"]);
    });
}
