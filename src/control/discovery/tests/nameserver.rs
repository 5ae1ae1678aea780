//! A nameserver on UDP that says what a test wants it to say.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::control::task::Task;

pub(super) struct Nameserver {
    pub(super) address: SocketAddr,
    /// One of each query, after it was answered.
    pub(super) asked: UnboundedReceiver<(String, RecordType)>,
    zone: Arc<Mutex<Zone>>,
    _task: Task,
}

#[derive(Default)]
struct Zone {
    /// A name without records of the wanted type has none; a name that is not here does not exist.
    names: HashMap<String, Vec<Record>>,
    failing: Vec<(String, RecordType)>,
    silent: bool,
    /// Questions for these are not answered.
    mute: Vec<String>,
}

impl Nameserver {
    pub(super) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let (told, asked) = unbounded_channel();
        let serving = zone.clone();
        let task = Task::spawn(async move {
            let mut bytes = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let query = Message::from_vec(&bytes[..length]).unwrap();
                let question = query.queries[0].clone();
                let answer = serving.lock().unwrap().answer(&query);
                if let Some(answer) = answer {
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
                let _ = told.send((question.name().to_utf8(), question.query_type()));
            }
        });
        Nameserver { address, asked, zone, _task: task }
    }

    /// From now on these are the addresses of that name.
    pub(super) fn addresses(&self, name: &str, ttl: u32, ips: &[&str]) {
        let data = ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap().into());
        self.set(name, ttl, data.collect());
    }

    /// Priority, weight, port and target of each.
    pub(super) fn services(&self, name: &str, ttl: u32, services: &[(u16, u16, u16, &str)]) {
        let data = services.iter().map(|(priority, weight, port, target)| {
            RData::SRV(SRV::new(*priority, *weight, *port, Name::from_ascii(target).unwrap()))
        });
        self.set(name, ttl, data.collect());
    }

    /// An alias, and the addresses behind it, as a recursive server answers.
    pub(super) fn alias(&self, name: &str, ttl: u32, target: &str, ips: &[&str], target_ttl: u32) {
        let target_name = Name::from_ascii(target).unwrap();
        self.set(name, ttl, vec![RData::CNAME(CNAME(target_name.clone()))]);
        let ips = ips
            .iter()
            .map(|ip| Record::from_rdata(target_name.clone(), target_ttl, ip.parse::<IpAddr>().unwrap().into()));
        self.zone.lock().unwrap().names.get_mut(name).unwrap().extend(ips);
    }

    fn set(&self, name: &str, ttl: u32, data: Vec<RData>) {
        let owner = Name::from_ascii(name).unwrap();
        let records = data.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)).collect();
        self.zone.lock().unwrap().names.insert(name.into(), records);
    }

    /// Silence for these names.
    pub(super) fn mute(&self, names: Vec<String>) {
        self.zone.lock().unwrap().mute = names;
    }

    pub(super) fn remove(&self, name: &str) {
        self.zone.lock().unwrap().names.remove(name);
    }

    /// SERVFAIL for these types.
    pub(super) fn fail(&self, name: &str, types: &[RecordType]) {
        self.zone.lock().unwrap().failing = types.iter().map(|of| (name.to_owned(), *of)).collect();
    }

    pub(super) fn silence(&self) {
        self.zone.lock().unwrap().silent = true;
    }
}

impl Zone {
    fn answer(&self, query: &Message) -> Option<Message> {
        let question = &query.queries[0];
        let (name, of) = (question.name().to_utf8(), question.query_type());
        let mut answer = Message::response(query.id, query.op_code);
        answer.add_query(question.clone());
        if self.failing.contains(&(name.clone(), of)) {
            answer.metadata.response_code = ResponseCode::ServFail;
        } else if let Some(records) = self.names.get(&name) {
            let wanted = |record: &&Record| [of, RecordType::CNAME].contains(&record.record_type());
            answer.add_answers(records.iter().filter(wanted).cloned());
        } else {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        (!self.silent && !self.mute.contains(&name)).then_some(answer)
    }
}
