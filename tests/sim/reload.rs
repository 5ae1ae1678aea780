//! What the control plane does in the middle of a run: other tables, listeners that come and go, backends that are found
//! down and such that their sessions are to leave.

use std::sync::Arc;
use std::time::Duration;

use ringway::config::OnLoss;
use ringway::relay::Leave;
use ringway::table::state::Checked;
use ringway::table::{Found, Table};

use crate::causes::Cause;
use crate::configs;
use crate::world::World;

impl World {
    /// Between two batches, or with a batch handled and not yet reconciled.
    pub fn intervene(&mut self) {
        if self.draining || !self.dice.chance(self.setup.reloads) {
            return;
        }
        // Whatever is asked for before must be done before a listener's slot is used again.
        self.operate();
        match self.dice.below(4) {
            0 if !self.setup.frame.gentle => self.flip_health(),
            1 if !self.setup.frame.gentle => self.evacuate(),
            _ => self.reload(),
        }
    }

    fn reload(&mut self) {
        let mut config = (*self.ledger.table.config).clone();
        if self.dice.chance(800) {
            self.change_listeners();
            config = configs::roll(self.setup.frame, &self.listeners, &mut self.dice);
            config.buffers = self.setup.config.buffers.clone();
        }
        let table = self.ledger.table.next(Arc::new(config), &Found::new(), self.now);
        if self.kernel.trace {
            println!("{:#?}", table.config);
        }
        self.trace(&format!("reload, listeners {:?}", self.listeners));
        self.adopt(table);
    }

    pub fn adopt(&mut self, table: Arc<Table>) {
        self.note_config(&table.config);
        let limits = &table.config.limits;
        self.window_max = self.window_max.max(limits.window_bytes);
        self.head_max = self.head_max.max(limits.head_bytes_max + 1);
        for (id, slot) in self.relay.adopt(table.clone(), &self.listeners, self.now, &mut self.ops) {
            self.kernel.listen(slot, id);
        }
        self.ledger.adopt(table);
        self.operate();
    }

    fn change_listeners(&mut self) {
        let dice = &mut self.dice;
        self.listeners.retain(|_| dice.chance(700));
        if self.listeners.is_empty() || self.dice.chance(200) {
            self.next_listener += 1;
            let at = self.dice.below(self.listeners.len() + 1);
            self.listeners.insert(at, self.next_listener);
        }
    }

    fn flip_health(&mut self) {
        let pool = &self.ledger.table.pools[self.dice.below(self.ledger.table.pools.len())];
        let member = &pool.members[self.dice.below(pool.members.len())];
        let checked = self.dice.pick(&[Checked::Unknown, Checked::Up, Checked::Down]);
        member.state.set_checked(checked);
        pool.state.changed();
        self.trace(&format!("{} of {} is {checked:?}", member.backend.name, pool.config.name));
    }

    fn evacuate(&mut self) {
        let count = self.ledger.backends().count();
        let backend = self.ledger.backends().nth(self.dice.below(count)).expect("there is one").clone();
        let on_loss = self.dice.pick(&[OnLoss::Keep, OnLoss::Restart, OnLoss::GoingAway]);
        let spread = Duration::from_millis(self.dice.pick(&[0, 1, 1000]));
        self.trace(&format!("the sessions of a backend leave over {spread:?}"));
        match on_loss {
            OnLoss::Keep => {}
            OnLoss::Restart => self.left.push((backend.clone(), Cause::Restart)),
            OnLoss::GoingAway => self.left.push((backend.clone(), Cause::GoingAway)),
        }
        self.relay.move_away(&Leave { backend, on_loss, spread }, self.now, &mut self.ops);
        self.operate();
    }
}
