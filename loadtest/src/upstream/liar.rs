//! A backend that errs on purpose: the proof that the load generator notices.

use std::str::FromStr;

/// Every n-th message of a connection suffers; 0: none does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    pub lose: u64,
    pub alter: u64,
    pub repeat: u64,
    pub swap: u64,
}

impl FromStr for Lies {
    type Err = String;

    /// "lose=10,alter=20,repeat=30,swap=40"
    fn from_str(text: &str) -> Result<Lies, String> {
        let mut lies = Lies::default();
        for part in text.split(',') {
            let (name, every) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=N"))?;
            let every = every.parse().map_err(|_| format!("{every:?} is not a number"))?;
            match name {
                "lose" => lies.lose = every,
                "alter" => lies.alter = every,
                "repeat" => lies.repeat = every,
                "swap" => lies.swap = every,
                _ => return Err(format!("{name:?} is not lose, alter, repeat or swap")),
            }
        }
        Ok(lies)
    }
}

/// One connection's liar.
pub struct Liar {
    lies: Lies,
    count: u64,
    held: Option<(bool, Vec<u8>)>,
}

impl Liar {
    pub fn new(lies: Lies) -> Liar {
        Liar { lies, count: 0, held: None }
    }

    /// Passes a message on through `tell`, or what becomes of it.
    pub fn pass(&mut self, text: bool, payload: &[u8], mut tell: impl FnMut(bool, &[u8])) {
        if self.lies == Lies::default() {
            return tell(text, payload);
        }
        self.count += 1;
        let due = |every: u64| every > 0 && self.count.is_multiple_of(every);
        if due(self.lies.lose) {
            // Nothing is told.
        } else if due(self.lies.alter) {
            let mut altered = payload.to_vec();
            if let Some(last) = altered.last_mut() {
                // Stays ASCII if it was, so that text remains text.
                *last ^= 1;
            }
            tell(text, &altered);
        } else if due(self.lies.swap) && self.held.is_none() {
            self.held = Some((text, payload.to_vec()));
            return;
        } else {
            tell(text, payload);
            if due(self.lies.repeat) {
                tell(text, payload);
            }
        }
        if let Some((text, payload)) = self.held.take() {
            tell(text, &payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lies: &str, count: u8) -> Vec<u8> {
        let mut liar = Liar::new(lies.parse().unwrap());
        let mut out = Vec::new();
        for i in 1..=count {
            liar.pass(false, &[2 * i], |_, payload| out.push(payload[0]));
        }
        out
    }

    #[test]
    fn each_lie_is_what_it_says() {
        assert_eq!(told("lose=2", 4), [2, 6]);
        assert_eq!(told("alter=3", 4), [2, 4, 7, 8]);
        assert_eq!(told("repeat=2", 3), [2, 4, 4, 6]);
        assert_eq!(told("swap=2", 4), [2, 6, 4]);
        assert!("lose".parse::<Lies>().is_err());
        assert!("x=1".parse::<Lies>().is_err());
    }
}
