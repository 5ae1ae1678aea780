//! Rooms across workers: every worker keeps its own listeners, a message visits every worker's inbox.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::net::outbox::Outbox;

/// A listener that lags by more than this is cut off, or it would eat the memory of all.
const LAG_BYTES_MAX: usize = 64 << 20;

/// A frame for a room. Encoded once, sent to many.
#[derive(Clone)]
pub struct Post {
    pub room: Arc<str>,
    pub frame: Arc<[u8]>,
}

pub type Inbox = mpsc::UnboundedReceiver<Post>;

/// The way to all workers.
#[derive(Clone)]
pub struct Hub {
    inboxes: Arc<[mpsc::UnboundedSender<Post>]>,
}

impl Hub {
    pub fn new(workers: usize) -> (Hub, Vec<Inbox>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        (Hub { inboxes: senders.into() }, inboxes)
    }

    /// The order of one publisher's messages holds for every listener: each inbox is a queue.
    pub fn publish(&self, post: &Post, own: usize, listeners: &Listeners) {
        for (number, inbox) in self.inboxes.iter().enumerate() {
            if number == own {
                listeners.deliver(post);
            } else {
                // A worker that has ended has no listeners.
                let _ = inbox.send(post.clone());
            }
        }
    }
}

/// One worker's listeners by room.
#[derive(Default)]
pub struct Listeners(RefCell<HashMap<Arc<str>, Vec<Weak<Outbox>>>>);

impl Listeners {
    pub fn join(&self, room: &Arc<str>, listener: &Rc<Outbox>) {
        self.0.borrow_mut().entry(room.clone()).or_default().push(Rc::downgrade(listener));
    }

    pub fn leave(&self, room: &Arc<str>, listener: &Rc<Outbox>) {
        let mut rooms = self.0.borrow_mut();
        if let Some(listeners) = rooms.get_mut(room) {
            listeners.retain(|other| !std::ptr::eq(other.as_ptr(), Rc::as_ptr(listener)));
            if listeners.is_empty() {
                rooms.remove(room);
            }
        }
    }

    pub fn deliver(&self, post: &Post) {
        let rooms = self.0.borrow();
        let Some(listeners) = rooms.get(&post.room) else {
            return;
        };
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.append(|out| out.extend_from_slice(&post.frame));
            if listener.queued_bytes() > LAG_BYTES_MAX {
                listener.close();
            }
        }
    }
}
