//! What each answer of a nameserver makes of a source.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Semaphore;

use super::nameserver::Nameserver;
use crate::control::discovery::dns::{Answer, Asker, Client, parse_name};

fn asker(server: &Nameserver) -> Asker {
    Asker::new(Some(vec![server.address]), Arc::new(Semaphore::new(2)))
}

fn listed(answer: &Answer) -> Vec<String> {
    answer.backends.iter().map(|backend| backend.address.to_string()).collect()
}

#[tokio::test]
async fn all_addresses_of_both_families_are_found() {
    let server = Nameserver::start().await;
    server.addresses("chat.example.", 30, &["10.0.0.2", "2001:db8::1", "10.0.0.1"]);
    let answer = asker(&server).addresses("chat.example:9000").await.unwrap();
    assert_eq!(listed(&answer), ["10.0.0.1:9000", "10.0.0.2:9000", "[2001:db8::1]:9000"]);
    assert_eq!((answer.ttl, answer.fault), (Duration::from_secs(30), None));
    assert!(answer.backends.iter().all(|b| (b.weight, b.backup, b.drain) == (1, false, false)));
    assert!(answer.backends.iter().all(|b| b.name == b.address.to_string()));
}

#[tokio::test]
async fn one_family_is_enough() {
    let server = Nameserver::start().await;
    server.addresses("chat.example.", 0, &["2001:db8::1"]);
    let answer = asker(&server).addresses("chat.example:9000").await.unwrap();
    assert_eq!((listed(&answer), answer.ttl, answer.fault), (vec!["[2001:db8::1]:9000".into()], Duration::ZERO, None));
}

#[tokio::test]
async fn an_alias_holds_no_longer_than_its_ttl() {
    let server = Nameserver::start().await;
    server.alias("chat.example.", 7, "pod.example.", &["10.0.0.1"], 300);
    let answer = asker(&server).addresses("chat.example:9000").await.unwrap();
    assert_eq!((listed(&answer), answer.ttl), (vec!["10.0.0.1:9000".into()], Duration::from_secs(7)));
}

#[tokio::test]
async fn every_question_is_asked_anew() {
    let server = Nameserver::start().await;
    let mut asker = asker(&server);
    for ip in ["10.0.0.1", "10.0.0.2"] {
        server.addresses("chat.example.", 3600, &[ip]);
        assert_eq!(listed(&asker.addresses("chat.example:9000").await.unwrap()), [format!("{ip}:9000")]);
    }
}

#[tokio::test]
async fn no_answer_is_a_failure() {
    let server = Nameserver::start().await;
    let mut asker = asker(&server);
    assert_eq!(asker.addresses("chat.example:9000").await.unwrap_err().reason(), "there is no such name");
    assert_eq!(asker.services("_ws._tcp.chat.example").await.unwrap_err().reason(), "there is no such name");
    server.addresses("chat.example.", 30, &[]);
    assert_eq!(asker.addresses("chat.example:9000").await.unwrap_err().reason(), "the name has no such records");
    server.fail("chat.example.", &[RecordType::A, RecordType::AAAA, RecordType::SRV]);
    for fault in [asker.addresses("chat.example:9000").await, asker.services("chat.example").await] {
        assert_eq!(fault.unwrap_err().reason(), "DNS answers: Server Failure");
    }
    for target in ["chat.example", "chat.example:0", ":1", "a b:1"] {
        assert!(asker.addresses(target).await.is_err(), "{target}");
    }
}

#[tokio::test]
async fn silence_is_a_failure() {
    let server = Nameserver::start().await;
    server.silence();
    tokio::time::pause();
    assert_eq!(asker(&server).addresses("chat.example:9000").await.unwrap_err().reason(), "DNS does not answer");
}

#[tokio::test]
async fn a_family_that_cannot_be_asked_for_stays() {
    let server = Nameserver::start().await;
    let mut asker = asker(&server);
    server.addresses("chat.example.", 30, &["10.0.0.1", "2001:db8::1"]);
    asker.addresses("chat.example:9000").await.unwrap();
    server.addresses("chat.example.", 30, &["10.0.0.2"]);
    server.fail("chat.example.", &[RecordType::AAAA]);
    let answer = asker.addresses("chat.example:9000").await.unwrap();
    assert_eq!(listed(&answer), ["10.0.0.2:9000", "[2001:db8::1]:9000"]);
    assert_eq!(answer.fault.as_deref(), Some("DNS answers: Server Failure"));
}

#[tokio::test]
async fn services_have_weights_and_priorities() {
    let server = Nameserver::start().await;
    server.services(
        "_ws._tcp.chat.example.",
        40,
        &[(10, 1000, 9001, "a.example."), (10, 500, 9002, "b.example."), (20, 0, 9003, "a.example."), (5, 0, 1, ".")],
    );
    server.addresses("a.example.", 20, &["10.0.0.1"]);
    server.addresses("b.example.", 50, &["10.0.0.2", "2001:db8::2"]);
    let answer = asker(&server).services("_ws._tcp.chat.example").await.unwrap();
    let found: Vec<_> = answer.backends.iter().map(|b| (b.address.to_string(), b.weight, b.backup)).collect();
    let expected = [
        ("10.0.0.1:9001", 256, false),
        ("10.0.0.1:9003", 1, true),
        ("10.0.0.2:9002", 128, false),
        ("[2001:db8::2]:9002", 128, false),
    ];
    assert_eq!(found, expected.map(|(address, weight, backup)| (address.to_owned(), weight, backup)));
    assert_eq!((answer.ttl, answer.fault), (Duration::from_secs(20), None));
}

#[tokio::test]
async fn a_target_without_an_answer_keeps_its_last_one() {
    let server = Nameserver::start().await;
    let mut asker = asker(&server);
    server.services("chat.example.", 40, &[(1, 1, 1, "a.example."), (1, 1, 2, "b.example.")]);
    // The first fault that is met, whichever target it is.
    let fault = asker.services("chat.example").await.unwrap_err();
    assert!(fault.reason().ends_with(".example.: there is no such name"), "{fault:?}");

    server.addresses("b.example.", 40, &["10.0.0.2"]);
    let answer = asker.services("chat.example").await.unwrap();
    assert_eq!(listed(&answer), ["10.0.0.2:2"]);
    assert_eq!(answer.fault.as_deref(), Some("a.example.: there is no such name"));

    server.addresses("a.example.", 40, &["10.0.0.1"]);
    server.remove("b.example.");
    let answer = asker.services("chat.example").await.unwrap();
    assert_eq!(listed(&answer), ["10.0.0.1:1", "10.0.0.2:2"]);
    assert_eq!(answer.fault.as_deref(), Some("b.example.: there is no such name"));

    // A target that has gone from the records takes its last answer along.
    server.services("chat.example.", 40, &[(1, 1, 1, "a.example.")]);
    assert_eq!(listed(&asker.services("chat.example").await.unwrap()), ["10.0.0.1:1"]);
    server.services("chat.example.", 40, &[(1, 1, 1, "a.example."), (1, 1, 2, "b.example.")]);
    assert_eq!(listed(&asker.services("chat.example").await.unwrap()), ["10.0.0.1:1"]);
}

#[tokio::test]
async fn the_hosts_file_comes_first() {
    let mut server = Nameserver::start().await;
    let answer = asker(&server).addresses("localhost:9000").await.unwrap();
    assert!(listed(&answer).contains(&"127.0.0.1:9000".to_owned()), "{answer:?}");
    assert!(server.asked.try_recv().is_err());
}

#[tokio::test]
async fn an_address_needs_no_question() {
    let mut server = Nameserver::start().await;
    let answer = asker(&server).addresses("10.0.0.1:9000").await.unwrap();
    assert_eq!((listed(&answer), answer.ttl), (vec!["10.0.0.1:9000".into()], Duration::MAX));
    assert!(server.asked.try_recv().is_err());
}

/// As Kubernetes writes resolv.conf: a name of few dots is looked for below other names first.
#[tokio::test]
async fn a_name_with_a_dot_at_its_end_is_the_only_one_asked_for() {
    let mut server = Nameserver::start().await;
    let mut resolver = NameServerConfig::udp_and_tcp(server.address.ip());
    resolver.connections.iter_mut().for_each(|connection| connection.port = server.address.port());
    let search = vec![parse_name("svc.cluster.local.").unwrap(), parse_name("cluster.local.").unwrap()];
    let mut options = ResolverOpts::default();
    options.ndots = 5;
    let config = ResolverConfig::from_parts(None, search, vec![resolver]);
    let client = Client::new(config, options, [Arc::new(Semaphore::new(2)), Arc::new(Semaphore::new(2))]).unwrap();
    let mut asked_for = async |name: &str| {
        drop(client.families(&parse_name(name).unwrap()).await);
        let mut names: Vec<String> =
            std::iter::from_fn(|| server.asked.try_recv().ok()).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let below = ["chat.a.", "chat.a.cluster.local.", "chat.a.svc.cluster.local."];
    assert_eq!(asked_for("chat.a").await, below);
    assert_eq!(asked_for("chat.a.").await, ["chat.a."]);
}

#[tokio::test]
async fn whole_names_are_found_like_others() {
    let server = Nameserver::start().await;
    server.addresses("chat_1.example.", 30, &["10.0.0.1"]);
    server.services("_ws._tcp.example.", 30, &[(1, 1, 9000, "chat_1.example.")]);
    for name in ["chat_1.example:9000", "chat_1.example.:9000"] {
        assert_eq!(listed(&asker(&server).addresses(name).await.unwrap()), ["10.0.0.1:9000"], "{name}");
    }
    for name in ["_ws._tcp.example", "_ws._tcp.example."] {
        assert_eq!(listed(&asker(&server).services(name).await.unwrap()), ["10.0.0.1:9000"], "{name}");
    }
}
