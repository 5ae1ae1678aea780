//! What may stand behind an option: reading it from the file's tree, printing it, and what is said about the rest.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::given::Given;
use crate::config::{hints, units};
use crate::proto::close;

/// A value of any option.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Value {
    Number(u64),
    Time(Duration),
    Word(&'static str),
    Flag(bool),
    Text(String),
    Cpus(Vec<usize>),
    Servers(Vec<SocketAddr>),
    Statuses(Vec<u16>),
    Absent,
}

impl Value {
    /// Of two numbers or two times.
    pub(in crate::config) fn size_cmp(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => Some(a.cmp(b)),
            (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(in crate::config) enum Kind {
    Count(RangeInclusive<u64>),
    Bytes(RangeInclusive<u64>),
    Time(RangeInclusive<Duration>),
    /// As `Time`, for what is counted in whole seconds.
    Seconds(RangeInclusive<u64>),
    Words(&'static [&'static str]),
    /// Of a Close that Ringway sends.
    CloseCode,
    Flag,
    Text(Grammar),
    Cpus,
    /// Of DNS.
    Servers,
    /// Of HTTP, those of errors.
    Statuses,
}

#[derive(Debug)]
pub(in crate::config) struct Grammar {
    /// For the end of a fault: `a path`.
    pub(in crate::config) what: &'static str,
    /// One that is allowed, and no default.
    pub(in crate::config) such_as: &'static str,
    pub(in crate::config) check: fn(&str) -> Result<(), String>,
}

const DNS_PORT: u16 = 53;

impl Kind {
    /// The value in the file's notation.
    pub(super) fn print(&self, value: &Value) -> String {
        match (value, self) {
            (Value::Number(n), Kind::Bytes(_)) => format!("\"{}\"", units::print_size(*n)),
            (Value::Number(n), _) => n.to_string(),
            (Value::Time(time), _) => format!("\"{}\"", units::print_time(*time)),
            (Value::Word(word), _) => format!("\"{word}\""),
            (Value::Flag(flag), _) => flag.to_string(),
            (Value::Text(text), _) => quote(text),
            (Value::Cpus(cpus), _) => format!("\"{}\"", units::print_cpus(cpus)),
            (Value::Servers(servers), _) => {
                let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
                format!("[{}]", servers.join(", "))
            }
            (Value::Statuses(statuses), _) => {
                let statuses: Vec<String> = statuses.iter().map(u16::to_string).collect();
                format!("[{}]", statuses.join(", "))
            }
            (Value::Absent, _) => unreachable!("the option prints its own word for none"),
        }
    }

    /// `absent` is the option's word for none, for the end of a fault.
    pub(super) fn parse(&self, value: &Given<'_>, absent: Option<&str>) -> Result<Value, String> {
        self.value(value).map_err(|wrong| {
            let or = absent.map(|word| format!(" or \"{word}\"")).unwrap_or_default();
            match wrong {
                Wrong::Form(what) => format!("{what} is not allowed; write {}{or}", self.expected()),
                Wrong::Word(what, hint) => format!("{what} is not known{hint}; write {}{or}", self.expected()),
                Wrong::Range(text) if absent.is_some() => format!("{text},{or}"),
                Wrong::Range(text) | Wrong::Text(text) => text,
            }
        })
    }

    fn value(&self, value: &Given<'_>) -> Result<Value, Wrong> {
        match (self, value) {
            (Kind::Count(range), Given::Number { number, .. }) => whole(*number, value, range, |n| n.to_string()),
            (Kind::Bytes(range), Given::Number { number, .. }) => whole(*number, value, range, units::print_size),
            (Kind::Bytes(range), Given::Text(text)) => {
                within(units::parse_size(text)?, range, units::print_size).map(Value::Number)
            }
            (Kind::Time(range), Given::Text(text)) => time(units::parse_time(text)?, range),
            (Kind::Time(range), Given::Number { number: 0, .. }) => time(Duration::ZERO, range),
            (Kind::Seconds(range), Given::Text(text)) => seconds(text, range),
            (Kind::Words(words), Given::Text(text)) => match words.iter().find(|word| *word == text) {
                Some(word) => Ok(Value::Word(word)),
                None => Err(Wrong::Word(value.describe(), hints::of_word(text, words))),
            },
            (Kind::CloseCode, Given::Number { number, .. }) => {
                let code = whole(*number, value, &(0..=u64::from(u16::MAX)), |n| n.to_string())?;
                match code {
                    Value::Number(n) if u16::try_from(n).is_ok_and(close::is_configurable) => Ok(code),
                    _ => Err(Wrong::Form(value.describe())),
                }
            }
            (Kind::Flag, Given::Flag(flag)) => Ok(Value::Flag(*flag)),
            (Kind::Text(_), Given::Text(text)) if text.is_empty() => Err(Wrong::Text("is empty".into())),
            (Kind::Text(grammar), Given::Text(text)) => {
                (grammar.check)(text)?;
                Ok(Value::Text(text.to_string()))
            }
            (Kind::Servers, Given::List(servers)) if !servers.is_empty() => {
                let servers: Result<_, _> = servers.iter().map(name_server).collect();
                Ok(Value::Servers(servers?))
            }
            (Kind::Statuses, Given::List(statuses)) => {
                let statuses: Result<_, _> = statuses.iter().map(error_status).collect();
                Ok(Value::Statuses(statuses?))
            }
            (Kind::Cpus, Given::Text(text)) => Ok(Value::Cpus(units::parse_cpus(text)?)),
            (_, other) => Err(Wrong::Form(other.describe())),
        }
    }

    /// What may stand there, for people.
    pub(super) fn allowed(&self) -> String {
        let range = |range: &RangeInclusive<u64>, print: fn(u64) -> String| {
            format!("{} to {}", print(*range.start()), print(*range.end()))
        };
        match self {
            Kind::Count(counts) => range(counts, |n| n.to_string()),
            Kind::Bytes(bytes) => range(bytes, |n| format!("\"{}\"", units::print_size(n))),
            Kind::Time(times) => {
                let print = |time| format!("\"{}\"", units::print_time(time));
                format!("{} to {}", print(*times.start()), print(*times.end()))
            }
            Kind::Seconds(seconds) => {
                let print = |n| format!("\"{}\"", units::print_time(Duration::from_secs(n)));
                format!("{}, in whole seconds", range(seconds, print))
            }
            Kind::Words(words) => match words {
                [others @ .., last] if !others.is_empty() => {
                    format!("\"{}\" or \"{last}\"", others.join("\", \""))
                }
                _ => self.expected(),
            },
            _ => self.expected(),
        }
    }

    /// What to write instead, for the end of a fault.
    pub(super) fn expected(&self) -> String {
        match self {
            Kind::Count(_) => "a whole number".into(),
            Kind::Bytes(_) => "a size such as \"64KiB\"".into(),
            Kind::Time(_) | Kind::Seconds(_) => "a time such as \"30s\"".into(),
            Kind::Words(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Kind::CloseCode => "1001, 1008, 1011 to 1014 or 3000 to 4999".into(),
            Kind::Flag => "true or false".into(),
            Kind::Text(grammar) => format!("{} such as \"{}\"", grammar.what, grammar.such_as),
            Kind::Cpus => "a list of CPUs such as \"0,2-5\"".into(),
            Kind::Servers => "a list of addresses such as [\"192.0.2.53:53\"]".into(),
            Kind::Statuses => "a list of statuses from 400 to 599 such as [502, 503, 504]".into(),
        }
    }

    /// A value that is allowed and not this one.
    #[cfg(test)]
    pub(super) fn another(&self, than: &Value) -> Value {
        match self {
            Kind::Count(range) | Kind::Bytes(range) => Value::Number(*range.end()),
            Kind::Time(range) => Value::Time(*range.end()),
            Kind::Seconds(range) => Value::Time(Duration::from_secs(*range.end())),
            Kind::Words(words) => Value::Word(words.iter().find(|word| Value::Word(word) != *than).unwrap()),
            Kind::CloseCode => Value::Number(4000),
            Kind::Flag => Value::Flag(*than == Value::Flag(false)),
            Kind::Text(grammar) => {
                assert_eq!((grammar.check)(grammar.such_as), Ok(()));
                Value::Text(grammar.such_as.into())
            }
            Kind::Cpus => Value::Cpus(vec![0]),
            Kind::Servers => Value::Servers(vec![([192, 0, 2, 53], DNS_PORT).into()]),
            Kind::Statuses => Value::Statuses(vec![500, 599]),
        }
    }
}

/// Why a value is refused.
enum Wrong {
    /// This value is of no form that the option takes.
    Form(String),
    /// This one is none of the option's words; and what may have been meant.
    Word(String, String),
    /// The whole message, up to the word for none.
    Range(String),
    /// The whole message.
    Text(String),
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Wrong::Text(text)
    }
}

fn whole(
    number: i128,
    given: &Given<'_>,
    range: &RangeInclusive<u64>,
    print: fn(u64) -> String,
) -> Result<Value, Wrong> {
    match u64::try_from(number) {
        Ok(number) => within(number, range, print).map(Value::Number),
        Err(_) => Err(Wrong::Form(given.describe())),
    }
}

fn time(time: Duration, range: &RangeInclusive<Duration>) -> Result<Value, Wrong> {
    if time.is_zero() && !range.contains(&time) {
        return Err(Wrong::Form("0".into()));
    }
    within(time, range, units::print_time).map(Value::Time)
}

fn seconds(text: &str, range: &RangeInclusive<u64>) -> Result<Value, Wrong> {
    let time = units::parse_time(text)?;
    if time.is_zero() {
        return Err(Wrong::Form("0".into()));
    }
    if time.subsec_millis() != 0 {
        return Err(Wrong::Text(format!("\"{text}\" is not allowed; this is counted in whole seconds")));
    }
    let print = |seconds| units::print_time(Duration::from_secs(seconds));
    within(time.as_secs(), range, print).map(|seconds| Value::Time(Duration::from_secs(seconds)))
}

fn name_server(value: &Given<'_>) -> Result<SocketAddr, Wrong> {
    let Given::Text(text) = value else { return Err(Wrong::Form(value.describe())) };
    let server = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT)));
    match server {
        Ok(server) if server.port() != 0 => Ok(server),
        _ => Err(Wrong::Form(value.describe())),
    }
}

fn error_status(value: &Given<'_>) -> Result<u16, Wrong> {
    let Given::Number { number, .. } = value else { return Err(Wrong::Form(value.describe())) };
    let status = u16::try_from(*number).ok();
    status.filter(|status| (400..=599).contains(status)).ok_or_else(|| Wrong::Form(value.describe()))
}

fn within<T: PartialOrd + Copy>(value: T, range: &RangeInclusive<T>, print: fn(T) -> String) -> Result<T, Wrong> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (value, first, last) = (print(value), print(*range.start()), print(*range.end()));
    Err(Wrong::Range(format!("{value} is not allowed; it may be {first} to {last}")))
}

/// A TOML basic string, as the file has it.
pub(in crate::config) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // Else it might begin the name of a variable.
            '$' => quoted.push_str("$$"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
