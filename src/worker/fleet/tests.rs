//! Workers on the real kernel: started, told to end, and refused.

use super::*;
use crate::config::PoolConfig;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;

fn config(listener: &str) -> Config {
    let backend: Address = "127.0.0.1:9".parse().unwrap();
    let pool = PoolConfig { backends: vec![backend.into()], ..PoolConfig::named("echo") };
    let listener: Address = listener.parse().unwrap();
    let mut config = Config { pools: vec![pool], listeners: vec![listener.into()], ..Config::default() };
    config.workers = Some(2);
    config
}

fn table(config: Config) -> Arc<Table> {
    Table::first(Arc::new(config), Instant::now())
}

/// The workers, or `None` (and why) where io_uring is forbidden.
fn start(config: Config) -> Option<Result<Workers, StartError>> {
    match io::probe() {
        Ok(features) => Some(Workers::start(&table(config), features, |_| {})),
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}

fn port(workers: &Workers) -> std::net::SocketAddr {
    let Address::Inet(address) = &workers.addresses()[0] else { panic!() };
    *address
}

#[test]
fn workers_listen_and_stop_when_told() {
    for command in [Command::Stop, Command::Drain] {
        let exited = Arc::new(Mutex::new(Vec::new()));
        let tell = exited.clone();
        let Some(Ok(other)) = start(config("127.0.0.1:0")) else { return };
        stop(other);
        let exit = move |worker| tell.lock().unwrap().push(worker);
        let workers = Workers::start(&table(config("127.0.0.1:0")), io::probe().unwrap(), exit).unwrap();
        let address = port(&workers);
        assert_ne!(address.port(), 0);
        drop(TcpStream::connect(address).unwrap());
        workers.send(command.clone());
        workers.join().unwrap();
        exited.lock().unwrap().sort_unstable();
        assert_eq!(*exited.lock().unwrap(), [0, 1]);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}

/// A fault of one worker's is told, and the others go on until they are told to end.
#[test]
fn field_a18_one_workers_panic_leaves_the_others() {
    let (tell, told) = mpsc::channel();
    let Ok(features) = io::probe() else { return println!("SKIPPED: io_uring is forbidden") };
    let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config("127.0.0.1:0");
    config.pools[0].backends = vec![Address::Inet(backend.local_addr().unwrap()).into()];
    config.default_pool = Some(0);
    let exit = move |worker| tell.send(worker).unwrap();
    let workers = Workers::start(&table(config), features, exit).unwrap();
    let address = port(&workers);
    workers.workers[0].deliver(Message::Command(Command::Panic));
    assert_eq!(told.recv(), Ok(0));
    while !workers.workers[0].thread.is_finished() {
        std::thread::yield_now();
    }
    // Nobody is accepted by who is gone: its listening socket went with it.
    for _ in 0..20 {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 426");
    }
    workers.send(Command::Drain);
    assert_eq!(told.recv(), Ok(1));
    let ended = workers.join().unwrap_err().to_string();
    assert!(ended.contains("worker 0 panicked"), "{ended}");
}

fn stop(workers: Workers) {
    workers.send(Command::Stop);
    workers.join().unwrap();
}

/// Even by another Ringway, which would share the port if it were not asked first.
#[test]
fn an_address_in_use_is_told_and_leaves_nothing_behind() {
    let Some(first) = start(config("127.0.0.1:0")) else { return };
    let first = first.unwrap();
    let address = port(&first);
    let mut second = config("127.0.0.1:0");
    second.listeners.push(Address::Inet(address).into());
    let Some(Err(error)) = start(second) else { panic!("both listen on {address}") };
    let told = error.to_string();
    assert!(told.contains(&format!("cannot listen on {address}")) && told.contains("ss -ltnp"), "{told}");
    stop(first);
    stop(start(config(&address.to_string())).unwrap().unwrap());
}

#[test]
fn a_cpu_that_is_not_there_is_told_and_leaves_nothing_behind() {
    let mut wrong = config("127.0.0.1:0");
    wrong.cpus = Some(vec![io::cpus()[0], 1000]);
    let Some(result) = start(wrong) else { return };
    let told = result.err().expect("CPU 1000 was found").to_string();
    assert!(told.contains("CPU 1000"), "{told}");
}

#[test]
fn unix_sockets_are_shared_and_removed() {
    let path = std::env::temp_dir().join(format!("ringway-worker-{}.sock", std::process::id()));
    let Some(workers) = start(config(&format!("unix:{}", path.display()))) else { return };
    let workers = workers.unwrap();
    drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
    stop(workers);
    assert!(!path.exists());
}
