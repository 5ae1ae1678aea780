//! One run: the relay, the kernel, the peers, the time, and the oracles.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::config::{Config, HashKeep};
use ringway::metrics::Metrics;
use ringway::op::{Completion, ConnId, Op, Side};
use ringway::relay::Relay;
use ringway::table::Table;
use ringway::table::state::BackendState;

use crate::causes::{Asked, Cause, Shortest, judge_status};
use crate::configs::{COOKIE, PAGE, PATHS};
use crate::ledger::{Dialled, Ledger};
use crate::peer::{Peer, View};
use crate::script::Ask;
use crate::setup::Setup;
use crate::temper::{Dice, LATE_MAX, Tempered, UNHEARD_MAX, Wire, name};
use crate::track::{Track, body_in, body_out};

pub struct World {
    pub setup: Setup,
    pub dice: Dice,
    pub kernel: Tempered,
    pub relay: Relay,
    pub ledger: Ledger,
    metrics: Arc<Metrics>,
    pub ops: Vec<Op>,
    epoch: Instant,
    pub now: Instant,
    /// Ids of the listeners that the newest config has.
    pub listeners: Vec<u32>,
    pub next_listener: u32,
    /// The largest window of all configs, and the largest head.
    pub window_max: usize,
    pub head_max: usize,
    /// By wire.
    peers: Vec<Option<Peer>>,
    tracks: Vec<Track>,
    to_arrive: usize,
    pub draining: bool,
    /// SIGTERM, and not an end at once.
    drains: bool,
    /// Backends that were to be left, and how their sessions hear of it.
    pub left: Vec<(Arc<BackendState>, Cause)>,
    /// Some pool brings its sessions home.
    homes: bool,
    /// All that there have been.
    configs: Vec<Arc<Config>>,
    shortest: Shortest,
    /// Steps in a row in which nothing happened.
    idle: u32,
    /// Batches in a row after which the next deadline had passed already.
    overdue: u32,
    steps: u32,
}

/// Nothing has happened for so many steps: nothing will before a deadline comes.
const IDLE: u32 = 40;

impl World {
    pub fn new(seed: u64, trace: bool) -> World {
        let mut dice = Dice::new(seed);
        let setup = Setup::roll(&mut dice);
        let listeners = (0..setup.config.listeners.len() as u32).collect();
        let kernel = Tempered::new(Dice::new(dice.next()), setup.temper.clone(), setup.buffers(), trace);
        let metrics = Arc::new(Metrics::default());
        let now = Instant::now();
        let table = Table::first(Arc::new(setup.config.clone()), now);
        let relay = Relay::new(table.clone(), setup.plan, metrics.clone(), dice.next());
        if trace {
            println!("{:#?}\n{:#?}\n{:#?}", setup.config, setup.plan, setup.temper);
        }
        let to_arrive = setup.frame.clients;
        let (peers, tracks) = (Vec::new(), Vec::new());
        let mut world = World {
            setup,
            dice,
            kernel,
            relay,
            ledger: Ledger::new(table.clone()),
            metrics,
            ops: Vec::new(),
            epoch: now,
            now,
            listeners,
            next_listener: 100,
            window_max: 0,
            head_max: 0,
            peers,
            tracks,
            to_arrive,
            draining: false,
            drains: false,
            left: Vec::new(),
            homes: false,
            configs: Vec::new(),
            shortest: Shortest::NONE,
            idle: 0,
            overdue: 0,
            steps: 0,
        };
        world.adopt(table);
        world
    }

    pub fn run(mut self) {
        self.while_busy();
        if self.setup.frame.gentle {
            self.check_everything_arrived();
        }
        self.until_all_have_left();
        self.until_drained();
        self.check_nothing_is_left();
    }

    fn while_busy(&mut self) {
        for _ in 0..self.setup.steps {
            self.step();
            let all_ended = self.to_arrive == 0 && self.backlog() == 0 && self.metrics.sessions.get() == 0;
            if all_ended && self.kernel.pending() == 0 {
                return;
            }
            if !self.setup.frame.gentle && self.dice.chance(1) {
                self.drain_or_stop();
            }
        }
        assert!(!self.setup.frame.gentle, "not all sessions have ended");
    }

    /// Every peer gives up; then no session may stay, whatever the timeouts must do for it.
    fn until_all_have_left(&mut self) {
        self.to_arrive = 0;
        for peer in self.peers.iter_mut().flatten() {
            peer.leave(&mut self.dice);
        }
        self.trace("all peers leave");
        for _ in 0..5000 {
            if self.metrics.sessions.get() == 0 && self.backlog() == 0 && self.kernel.pending() == 0 || self.draining {
                return;
            }
            self.step();
        }
        panic!("{} sessions do not end although their peers have left", self.metrics.sessions.get());
    }

    fn until_drained(&mut self) {
        if !self.draining {
            self.drain_or_stop();
        }
        for _ in 0..5000 {
            if self.relay.is_drained() {
                return;
            }
            self.step();
        }
        panic!("the relay does not drain");
    }

    fn drain_or_stop(&mut self) {
        self.draining = true;
        if self.dice.chance(700) {
            self.trace("drain");
            self.drains = true;
            self.relay.drain(self.now, &mut self.ops);
        } else {
            self.trace("stop");
            self.relay.stop(self.now, &mut self.ops);
        }
        self.relay.handle_timeout(self.now, &mut self.ops);
        self.operate();
    }

    fn step(&mut self) {
        self.steps += 1;
        let before = self.kernel.activity;
        self.arrive();
        self.let_peers_act();
        self.kernel.progress();
        self.link_backends();
        self.judge();
        self.batch();
        self.look_at_times();
        self.check();
        self.idle = if self.kernel.activity == before { self.idle + 1 } else { 0 };
        self.pass_time();
    }

    fn batch(&mut self) {
        let pending = self.kernel.pending();
        let count = if self.dice.chance(600) { pending } else { self.dice.within(0..=pending) };
        let due = self.relay.poll_timeout().is_some_and(|due| due <= self.now);
        if count == 0 && !due && !self.dice.chance(50) {
            return;
        }
        for _ in 0..count {
            self.kernel.hand_over(&mut self.relay, self.now, &mut self.ops);
        }
        self.intervene();
        if self.dice.chance(20) {
            self.relay.handle(Completion::Woken, self.now, &mut self.ops);
        }
        // After a stop the worker takes in what has come meanwhile, batch by batch, before any deadline counts.
        if self.dice.chance(50) {
            self.relay.flush(self.now, &mut self.ops);
        } else {
            self.relay.handle_timeout(self.now, &mut self.ops);
        }
        self.operate();
        self.check_books();
        self.overdue = if self.relay.poll_timeout().is_some_and(|due| due <= self.now) { self.overdue + 1 } else { 0 };
    }

    pub fn operate(&mut self) {
        for op in self.ops.drain(..) {
            self.kernel.operate(op);
        }
        for (conn, port) in std::mem::take(&mut self.kernel.log) {
            match port {
                Some(port) => self.dialled(conn, port),
                None => self.ledger.closed(conn),
            }
        }
        while self.peers.len() < self.kernel.wires.len() {
            self.peers.push(None);
            self.tracks.push(Track::new(Side::Backend, self.now - self.epoch));
        }
    }

    fn arrive(&mut self) {
        if self.to_arrive == 0 || !self.dice.chance(200) {
            self.kernel.activity += u64::from(self.to_arrive > 0);
            return;
        }
        self.to_arrive -= 1;
        self.kernel.activity += 1;
        let open: Vec<usize> = (0..self.kernel.listeners.len()).filter(|at| !self.kernel.is_closed(*at)).collect();
        if open.is_empty() {
            return;
        }
        let deflate = self.dice.chance(300);
        let ask = self.ask();
        self.peers.push(Some(Peer::client(&ask, self.setup.frame.gentle, deflate, &mut self.dice)));
        self.tracks.push(Track::new(Side::Client, self.now - self.epoch));
        let listener = &mut self.kernel.listeners[self.dice.pick(&open)];
        self.kernel.wires.push(Wire { listener: listener.id, ..Wire::default() });
        listener.backlog.push(self.kernel.wires.len() - 1);
    }

    fn ask(&mut self) -> Ask {
        let plain = self.dice.chance(300);
        let path = if plain && self.setup.frame.gentle { PAGE } else { self.dice.pick(&PATHS) };
        // One that an earlier client has been given, as far as it has come.
        let given = format!("Set-Cookie: {COOKIE}=");
        let heads = self.kernel.wires.iter().map(|wire| String::from_utf8_lossy(&wire.to_peer.bytes));
        let cookie = |head: std::borrow::Cow<'_, str>| Some(head.split_once(&given)?.1.split(';').next()?.to_owned());
        let cookies: Vec<String> = heads.filter_map(cookie).filter(|value| value.is_ascii()).collect();
        let cookie = if cookies.is_empty() { None } else { Some(cookies[self.dice.below(cookies.len())].clone()) };
        Ask { path, cookie: cookie.filter(|_| self.dice.chance(500)), plain }
    }

    /// The relay connects a session to this backend: rightly, by what its client has asked for.
    fn dialled(&mut self, conn: ConnId, port: u16) {
        let client = self.kernel.wire_of(conn.peer()).expect("a session has a client");
        let wire = &self.kernel.wires[client];
        let request = String::from_utf8_lossy(&wire.to_relay.bytes[..wire.heard]);
        let path = request.split(' ').nth(1).expect("a whole request has come");
        let is_handshake = request.contains("Sec-WebSocket-Key: ");
        let Dialled { limits, rules, backend } = self.ledger.dialled(conn, port, path, wire.listener, is_handshake);
        let track = &mut self.tracks[client];
        (track.limits, track.rules, track.backend) = (limits, Some(rules), Some(backend));
    }

    fn let_peers_act(&mut self) {
        for at in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[at] else { continue };
            if !self.dice.chance(700) {
                continue;
            }
            let (wire, track) = (&mut self.kernel.wires[at], &self.tracks[at]);
            let read = wire.to_peer.read;
            let view = View {
                head: track.head_end.is_some_and(|end| read >= end),
                continued: track.continued > 0 && read >= track.continued
                    || track.head_end.is_some_and(|end| read >= end),
                body: track.head_end.map_or(0, |end| read.saturating_sub(end)),
                status: track.status,
                is_page: track.is_page,
                close: track.close_end.is_some_and(|end| read >= end),
            };
            self.kernel.activity += u64::from(peer.act(wire, &view, &mut self.dice));
        }
    }

    fn link_backends(&mut self) {
        for (conn, wire, port) in std::mem::take(&mut self.kernel.links) {
            let Some(client) = self.kernel.wire_of(conn.peer()) else { continue };
            let deflate = self.dice.chance(700);
            let asking = self.peers[client].as_ref().expect("every client is a peer");
            let backend = Peer::backend(asking, self.setup.frame.gentle, deflate, &mut self.dice);
            self.peers[wire] = Some(backend);
            self.tracks[wire].partner = Some(client);
            self.tracks[client].partner = Some(wire);
            self.tracks[wire].limits = self.tracks[client].limits;
            self.trace(&format!("{} reaches backend {port}: wire {wire}, of client wire {client}", name(conn)));
        }
    }

    /// There is another config.
    pub fn note_config(&mut self, config: &Arc<Config>) {
        self.homes |= config.pools.iter().any(|pool| pool.hash_keep == HashKeep::Home);
        self.shortest.add(config);
        self.configs.push(config.clone());
    }

    /// Looks at all bytes that the relay has got rid of.
    fn judge(&mut self) {
        for at in 0..self.tracks.len() {
            if let Err(fault) = crate::track::judge(at, &mut self.tracks, &self.kernel.wires, &self.peers) {
                panic!("wire {at}: {fault}");
            }
            self.judge_causes(at);
        }
    }

    /// What Ringway has said by itself on this wire follows from what has happened.
    fn judge_causes(&mut self, at: usize) {
        let track = &self.tracks[at];
        let own_close = track.output.closed.flatten().filter(|_| track.output.is_injected());
        let own_status = Some(track.status).filter(|status| *status > 101 && !track.is_page);
        if track.is_judged || own_close.is_none() && own_status.is_none() {
            return;
        }
        if let Some(code) = own_close {
            let side = track.side;
            let causes = self.causes(at);
            let allowed = causes.iter().any(|cause| cause.code(side) == Some(code));
            assert!(allowed, "wire {at}: the {side:?} hears {code}, and what has happened is {causes:?}");
        }
        if let Some(status) = own_status {
            let verdict = judge_status(status, &self.asked(at), &self.shortest);
            assert!(verdict.is_ok(), "wire {at} is told {status}: {}\n{}", verdict.unwrap_err(), self.said(at));
        }
        self.tracks[at].is_judged = true;
    }

    /// All that has happened to an open session, or by itself may have.
    fn causes(&self, at: usize) -> Vec<Cause> {
        let now = self.now - self.epoch;
        let partner = self.tracks[at].partner.expect("only an open session hears a Close");
        let (client, backend) = if self.tracks[at].side == Side::Client { (at, partner) } else { (partner, at) };
        let rules = self.tracks[client].rules.as_ref().expect("it has been routed");
        let mut causes = Vec::new();
        let mut add = |is: bool, cause: Cause| causes.extend(is.then_some(cause));
        add(self.drains, Cause::Drain);
        add(self.homes, Cause::Home);
        add(rules.is_idle(&self.tracks[client].times, &self.tracks[backend].times), Cause::Idle);
        let state = self.tracks[client].backend.as_ref().expect("it has a backend");
        for (_, cause) in self.left.iter().filter(|(left, _)| Arc::ptr_eq(left, state)) {
            add(true, *cause);
        }
        for (side, at) in [(Side::Client, client), (Side::Backend, backend)] {
            let (wire, track) = (&self.kernel.wires[at], &self.tracks[at]);
            add(wire.peer_fin || wire.peer_reset, Cause::Gone(side));
            add(rules.is_stalled(&track.times), Cause::Stalled(side));
            // Even if its Close is on the way.
            add(rules.is_overdue(&track.times, now), Cause::Silent(side));
            let Some(source) = &track.source else { continue };
            for code in source.faults() {
                add(true, Cause::Fault(side, code));
            }
            add(source.controls > rules.controls_max, Cause::Fault(side, 1008));
        }
        causes
    }

    fn asked(&self, at: usize) -> Asked {
        let peer = self.peers[at].as_ref().expect("only clients are answered");
        let wire = &self.kernel.wires[at];
        let request = String::from_utf8_lossy(&wire.to_relay.bytes);
        let path = request.split(' ').nth(1).unwrap_or_default();
        let lacks = |config: &Arc<Config>| crate::configs::routed(config, path, wire.listener).is_none();
        Asked {
            is_good: peer.well_behaved,
            is_plain: peer.plain,
            may_lack_route: self.configs.iter().any(lacks),
            has_backend: self.tracks[at].partner.is_some(),
            age: self.now - self.epoch - self.tracks[at].began_at,
            hangs: self.setup.temper.connect_hangs > 0,
            gentle: self.setup.frame.gentle,
        }
    }

    /// On this wire, as text.
    fn said(&self, at: usize) -> String {
        let wire = &self.kernel.wires[at];
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned();
        format!("{}\n{}", text(&wire.to_relay.bytes), text(&wire.to_peer.bytes))
    }

    /// How time goes by for each wire.
    fn look_at_times(&mut self) {
        let now = self.now - self.epoch;
        let mut sends = vec![false; self.tracks.len()];
        for socket in self.kernel.kernel.sockets.iter().flatten().filter(|socket| socket.send.is_some()) {
            if let Some(wire) = self.kernel.wire_of(socket.conn) {
                sends[wire] = true;
            }
        }
        for (at, wire) in self.kernel.wires.iter().enumerate() {
            crate::track::follow_both(at, &mut self.tracks, &self.kernel.wires, &self.peers);
            self.tracks[at].times.look(now, wire.heard + wire.to_peer.bytes.len(), sends[at]);
            let track = &self.tracks[at];
            let source = track.source.as_ref();
            let ends = wire.peer_fin
                || wire.peer_reset
                || track.output.is_injected()
                || track.rules.as_ref().is_some_and(|rules| rules.is_stalled(&track.times))
                || source.is_some_and(|source| source.closed || source.broken || !source.faults().is_empty());
            if ends {
                for at in [Some(at), track.partner].into_iter().flatten() {
                    self.tracks[at].times.closing_since.get_or_insert(now);
                }
            }
        }
    }

    fn pass_time(&mut self) {
        let mut jump = Duration::from_micros(self.dice.below(1000) as u64);
        if self.idle > IDLE {
            self.idle = 0;
            let due = self.relay.poll_timeout();
            let wait = due.map_or(Duration::from_secs(1), |due| due.saturating_duration_since(self.now));
            let stalled =
                self.setup.frame.gentle && self.metrics.sessions.get() > 0 && wait > Duration::from_millis(250);
            assert!(!stalled || self.draining, "stalled: nothing happens before a deadline in {wait:?}");
            jump = wait + Duration::from_micros(self.dice.pick(&[0, 0, 500, 5000]));
        } else if !self.setup.frame.gentle && self.dice.chance(10) {
            jump = Duration::from_millis(self.dice.pick(&[10, 1000, 100_000, 86_400_000]));
        }
        self.now += jump;
        if jump > Duration::from_millis(5) {
            self.trace(&format!("time jumps by {jump:?}"));
        }
    }

    fn backlog(&self) -> usize {
        if self.draining { 0 } else { self.kernel.listeners.iter().map(|listener| listener.backlog.len()).sum() }
    }

    fn check(&self) {
        assert_eq!(self.relay.leases(), self.kernel.kernel.lent, "leases");
        let counted = self.metrics.accepted.get() - self.metrics.ended.get();
        assert_eq!(self.metrics.sessions.get(), counted, "sessions");
        assert!(counted as usize <= self.setup.plan.sessions_max + self.setup.plan.refusals_max, "too many sessions");
        assert!(self.overdue < 10, "deadlines that have passed are never dealt with");
        assert!(self.kernel.starving < 1000, "receives are armed again and again although there is no buffer");
        let most = self.held_max();
        for (at, wire) in self.kernel.wires.iter().enumerate() {
            assert!(wire.held <= most, "wire {at}: {} bytes held, of {most}", wire.held);
        }
    }

    fn check_books(&mut self) {
        let now = self.now.duration_since(self.epoch).as_millis() as u64;
        let temper = &self.setup.temper;
        // Who has been at a backend in vain waits for another one.
        let queues = temper.connect_fails == 0 && temper.connect_hangs == 0 && !self.draining;
        self.ledger.check(now, queues);
    }

    /// Two windows, as the sink shows only afterwards that it is slow; one buffer that overshoots the credit, one that
    /// is nearly empty at either end. Without credit also what comes before the cancel does. A receive that was armed for
    /// a head goes on with its credit behind it.
    fn held_max(&self) -> usize {
        let buffers = &self.setup.config.buffers;
        let slack = if self.setup.temper.credit { 3 } else { 3 + UNHEARD_MAX + LATE_MAX };
        (2 * self.window_max).max(self.head_max) + slack * buffers.small_bytes.max(buffers.bulk_bytes)
    }

    fn check_everything_arrived(&self) {
        for (at, track) in self.tracks.iter().enumerate() {
            let Some(peer) = self.peers[at].as_ref().filter(|_| !self.kernel.wires[at].turned_away) else { continue };
            let partner = track.partner.expect("every client has got a backend");
            if peer.plain {
                let (out, whole) =
                    (body_out(track, at, &self.kernel.wires), body_in(partner, &self.kernel.wires, &self.peers));
                assert_eq!(out.len(), whole.len(), "wire {at}: not all of {partner}'s body has come");
                assert!(peer.side == Side::Backend || track.is_page, "wire {at}: {}", track.status);
                continue;
            }
            if peer.side == Side::Client {
                assert_eq!(track.status, 101, "wire {at}");
            }
            let source = self.tracks[partner].source.as_ref().expect("frames have been relayed");
            assert!(!track.output.is_injected(), "wire {at}: Ringway has ended a session in which all was well");
            assert_eq!(track.output.matched, source.bytes.len(), "wire {at}: not all of {partner}'s bytes have come");
            assert!(source.closed, "wire {partner} has not sent its Close");
            assert!(!self.kernel.wires[at].relay_reset, "wire {at} has been reset");
        }
    }

    fn check_nothing_is_left(&self) {
        assert_eq!(self.relay.leases(), 0);
        assert_eq!(self.kernel.pending(), 0, "completions nobody waits for");
        self.kernel.kernel.assert_at_rest();
        assert_eq!(self.metrics.sessions.get(), 0);
        assert_eq!(self.metrics.accepted.get(), self.metrics.ended.get());
        let waiting = |at| self.kernel.listeners.iter().any(|listener| listener.backlog.contains(&at));
        let open = self.kernel.wires.iter().enumerate().position(|(at, wire)| !wire.relay_closed && !waiting(at));
        assert_eq!(open, None, "a wire that was never closed");
        self.ledger.check_nothing_is_left();
    }

    pub fn trace(&self, what: &str) {
        if self.kernel.trace {
            println!("{:>8} ms, step {}: {what}", self.now.duration_since(self.epoch).as_millis(), self.steps);
        }
    }
}
