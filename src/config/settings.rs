//! Every option that is one value: its path in the file, what may stand there, and its place in [`Config`]. Reading a
//! file, printing the effective config and the tests of the documentation all walk this one table.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::units;
use super::{Balance, Config, ForwardMode, LogLevel, Watch};

/// A value of any option.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(u64),
    Time(Duration),
    Word(&'static str),
    Cpus(Vec<usize>),
    Absent,
}

/// What may stand behind an option.
pub(super) enum Kind {
    Count(RangeInclusive<u64>),
    Bytes(RangeInclusive<u64>),
    Time(RangeInclusive<Duration>),
    /// As `Time`, for what the kernel counts in whole seconds.
    Seconds(RangeInclusive<u64>),
    Words(&'static [&'static str]),
    Cpus,
}

pub(super) struct Setting {
    /// As in the file: `limits.head_bytes_max`.
    pub(super) path: &'static str,
    kind: Kind,
    /// The word for `None`: `off` if there is then no limit, `auto` if it is then derived.
    absent: Option<&'static str>,
    get: fn(&Config) -> &dyn Field,
    get_mut: fn(&mut Config) -> &mut dyn Field,
}

macro_rules! setting {
    ($path:literal, $($field:ident).+, $kind:expr, $absent:expr) => {
        Setting {
            path: $path,
            kind: $kind,
            absent: $absent,
            get: |config| &config.$($field).+,
            get_mut: |config| &mut config.$($field).+,
        }
    };
    ($path:literal, $($field:ident).+, $kind:expr) => { setting!($path, $($field).+, $kind, None) };
}

const AUTO: Option<&str> = Some("auto");
const OFF: Option<&str> = Some("off");

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every wait: neither zero, which would mean "never" or "at once" to different readers, nor beyond what a clock can add.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=DAYS_MAX;
const DAYS_MAX: Duration = Duration::from_secs(365 * 86_400);
/// The kernel's bound on keep-alive times (MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL in net/tcp.h).
const KEEPALIVE_SECONDS: RangeInclusive<u64> = 1..=32_767;
/// Buffers of one ring: ids are 16 bits wide, and io_uring takes at most half of them.
const RING_BUFFERS: RangeInclusive<u64> = 1..=32_768;

/// In the order in which they are documented and printed.
#[rustfmt::skip]
pub(super) static SETTINGS: &[Setting] = &[
    setting!("workers", workers, Kind::Count(1..=1024), AUTO),
    setting!("cpus", cpus, Kind::Cpus, AUTO),
    setting!("log_level", log_level, Kind::Words(LogLevel::WORDS)),
    setting!("config_watch", config_watch, Kind::Words(Watch::WORDS)),

    setting!("limits.sessions_max", limits.sessions_max, Kind::Count(1..=1 << 23), AUTO),
    setting!("limits.head_bytes_max", limits.head_bytes_max, Kind::Bytes(256..=MIB)),
    setting!("limits.headers_max", limits.headers_max, Kind::Count(8..=1000)),
    setting!("limits.target_bytes_max", limits.target_bytes_max, Kind::Bytes(1..=MIB)),
    setting!("limits.early_bytes_max", limits.early_bytes_max, Kind::Bytes(1..=GIB)),
    setting!("limits.informational_max", limits.informational_max, Kind::Count(0..=1000)),
    setting!("limits.response_body_bytes_max", limits.response_body_bytes_max, Kind::Bytes(0..=1 << 40)),
    setting!("limits.request_body_bytes_max", limits.request_body_bytes_max, Kind::Bytes(0..=1 << 50), OFF),
    // A control frame's payload may have 125 bytes (RFC 6455, 5.5), and control frames are not for this limit to forbid.
    setting!("limits.frame_bytes_max", limits.frame_bytes_max, Kind::Bytes(125..=1 << 50), OFF),
    setting!("limits.message_bytes_max", limits.message_bytes_max, Kind::Bytes(125..=1 << 50), OFF),
    setting!("limits.message_fragments_max", limits.message_fragments_max, Kind::Count(1..=u32::MAX as u64), OFF),
    setting!("limits.control_frames_per_second_max", limits.control_frames_per_second_max, Kind::Count(1..=1_000_000), OFF),
    setting!("limits.window_bytes", limits.window_bytes, Kind::Bytes(KIB..=GIB)),

    setting!("timeouts.head", timeouts.head, Kind::Time(WAIT)),
    setting!("timeouts.connect", timeouts.connect, Kind::Time(WAIT)),
    setting!("timeouts.answer", timeouts.answer, Kind::Time(WAIT)),
    setting!("timeouts.send_stall", timeouts.send_stall, Kind::Time(WAIT)),
    setting!("timeouts.idle", timeouts.idle, Kind::Time(WAIT), OFF),
    setting!("timeouts.close", timeouts.close, Kind::Time(WAIT)),
    setting!("timeouts.linger", timeouts.linger, Kind::Time(WAIT)),
    setting!("timeouts.drain", timeouts.drain, Kind::Time(WAIT)),
    setting!("timeouts.drain_spread", timeouts.drain_spread, Kind::Time(Duration::ZERO..=DAYS_MAX)),
    setting!("timeouts.plain_http", timeouts.plain_http, Kind::Time(WAIT)),

    setting!("forward.x_forwarded_for", forward.x_forwarded_for, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.x_forwarded_proto", forward.x_forwarded_proto, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.x_forwarded_host", forward.x_forwarded_host, Kind::Words(ForwardMode::WORDS)),
    setting!("forward.forwarded", forward.forwarded, Kind::Words(ForwardMode::WORDS)),

    setting!("tcp.backlog", tcp.backlog, Kind::Count(1..=65_535)),
    setting!("tcp.keepalive", tcp.keepalive, Kind::Seconds(KEEPALIVE_SECONDS), OFF),
    setting!("tcp.keepalive_interval", tcp.keepalive_interval, Kind::Seconds(KEEPALIVE_SECONDS)),
    setting!("tcp.keepalive_probes", tcp.keepalive_probes, Kind::Count(1..=127)),
    // The kernel takes it as a positive C int of milliseconds.
    setting!("tcp.user_timeout", tcp.user_timeout, Kind::Time(Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64)), OFF),
    setting!("tcp.notsent_bytes_max", tcp.notsent_bytes_max, Kind::Bytes(1..=GIB), OFF),
    setting!("tcp.send_buffer_bytes", tcp.send_buffer_bytes, Kind::Bytes(4 * KIB..=GIB), AUTO),
    setting!("tcp.receive_buffer_bytes", tcp.receive_buffer_bytes, Kind::Bytes(4 * KIB..=GIB), AUTO),

    setting!("buffers.small_bytes", buffers.small_bytes, Kind::Bytes(512..=MIB)),
    setting!("buffers.small_count", buffers.small_count, Kind::Count(RING_BUFFERS), AUTO),
    setting!("buffers.bulk_bytes", buffers.bulk_bytes, Kind::Bytes(512..=16 * MIB)),
    setting!("buffers.bulk_count", buffers.bulk_count, Kind::Count(RING_BUFFERS)),
];

impl Setting {
    pub(super) fn read(&self, config: &Config) -> Value {
        (self.get)(config).read()
    }

    pub(super) fn write(&self, config: &mut Config, value: Value) {
        (self.get_mut)(config).write(value);
    }

    /// The value in the file's notation.
    pub(super) fn print(&self, value: &Value) -> String {
        match (value, &self.kind) {
            (Value::Absent, _) => {
                format!("\"{}\"", self.absent.expect("an option without a word for none has a value"))
            }
            (Value::Number(n), Kind::Bytes(_)) => format!("\"{}\"", units::print_size(*n)),
            (Value::Number(n), _) => n.to_string(),
            (Value::Time(time), _) => format!("\"{}\"", units::print_time(*time)),
            (Value::Word(word), _) => format!("\"{word}\""),
            (Value::Cpus(cpus), _) => format!("\"{}\"", units::print_cpus(cpus)),
        }
    }

    pub(super) fn parse(&self, value: &DeValue<'_>) -> Result<Value, String> {
        if let (Some(absent), DeValue::String(text)) = (self.absent, value)
            && text == absent
        {
            return Ok(Value::Absent);
        }
        match (&self.kind, value) {
            (Kind::Count(range), DeValue::Integer(_)) => self.number(value, range).map(Value::Number),
            (Kind::Bytes(range), DeValue::Integer(_)) => self.number(value, range).map(Value::Number),
            (Kind::Bytes(range), DeValue::String(text)) => units::parse_size(text)
                .and_then(|bytes| self.within(bytes, range, units::print_size))
                .map(Value::Number),
            (Kind::Time(range), DeValue::String(text)) => self.time(text, range),
            (Kind::Seconds(range), DeValue::String(text)) => self.seconds(text, range),
            (Kind::Words(words), DeValue::String(text)) => match words.iter().find(|word| *word == text) {
                Some(word) => Ok(Value::Word(word)),
                None => Err(format!("\"{text}\" is not known; write {}", self.expected())),
            },
            (Kind::Cpus, DeValue::String(text)) => units::parse_cpus(text).map(Value::Cpus),
            (Kind::Time(_) | Kind::Seconds(_), DeValue::Integer(number)) if number.as_str() == "0" => self.zero(),
            (_, other) => Err(format!("{} is not allowed; write {}", describe(other), self.expected())),
        }
    }

    fn number(&self, value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
        let DeValue::Integer(integer) = value else { unreachable!("only integers come here") };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        let print = if matches!(self.kind, Kind::Bytes(_)) { units::print_size } else { |n: u64| n.to_string() };
        match u64::try_from(number) {
            Ok(number) => self.within(number, range, print),
            Err(_) => Err(format!("{integer} is not allowed; write {}", self.expected())),
        }
    }

    fn time(&self, text: &str, range: &RangeInclusive<Duration>) -> Result<Value, String> {
        let time = units::parse_time(text)?;
        if time.is_zero() && !range.contains(&time) {
            return self.zero();
        }
        self.within(time, range, units::print_time).map(Value::Time)
    }

    fn seconds(&self, text: &str, range: &RangeInclusive<u64>) -> Result<Value, String> {
        let time = units::parse_time(text)?;
        if time.is_zero() {
            return self.zero();
        }
        if time.subsec_millis() != 0 {
            return Err(format!("\"{text}\" is not allowed; the kernel counts this in whole seconds"));
        }
        let seconds = self.within(time.as_secs(), range, |seconds| units::print_time(Duration::from_secs(seconds)))?;
        Ok(Value::Time(Duration::from_secs(seconds)))
    }

    fn zero(&self) -> Result<Value, String> {
        match (&self.kind, self.absent) {
            (Kind::Time(range), _) if range.contains(&Duration::ZERO) => Ok(Value::Time(Duration::ZERO)),
            _ => Err(format!("0 is not allowed; write {}", self.expected())),
        }
    }

    fn within<T: PartialOrd + Copy>(
        &self,
        value: T,
        range: &RangeInclusive<T>,
        print: fn(T) -> String,
    ) -> Result<T, String> {
        if range.contains(&value) {
            return Ok(value);
        }
        let off = self.absent.map(|word| format!(", or \"{word}\"")).unwrap_or_default();
        Err(format!(
            "{} is not allowed; it may be {} to {}{off}",
            print(value),
            print(*range.start()),
            print(*range.end())
        ))
    }

    /// What to write instead, for the end of a fault.
    fn expected(&self) -> String {
        let form = match &self.kind {
            Kind::Count(_) => "a whole number".into(),
            Kind::Bytes(_) => "a size such as \"64KiB\"".into(),
            Kind::Time(_) | Kind::Seconds(_) => "a time such as \"30s\"".into(),
            Kind::Words(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Kind::Cpus => "a list of CPUs such as \"0,2-5\"".into(),
        };
        match self.absent {
            Some(absent) => format!("{form} or \"{absent}\""),
            None => form,
        }
    }
}

/// A wrong value in a fault: short ones as they are, others by their type.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// A field of [`Config`] as a [`Value`]. The table above pairs fields with kinds that fit them, and `parse` gives only
/// values that fit the kind; so a mismatch here is our own fault.
trait Field {
    fn read(&self) -> Value;
    fn write(&mut self, value: Value);
}

macro_rules! number_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(&self) -> Value {
                Value::Number(*self as u64)
            }

            fn write(&mut self, value: Value) {
                let Value::Number(number) = value else { panic!("{value:?} for a number") };
                *self = number.try_into().expect("the option's range fits its type");
            }
        }
    )*};
}

number_field!(u32, u64, usize);

impl Field for Duration {
    fn read(&self) -> Value {
        Value::Time(*self)
    }

    fn write(&mut self, value: Value) {
        let Value::Time(time) = value else { panic!("{value:?} for a time") };
        *self = time;
    }
}

impl Field for Vec<usize> {
    fn read(&self) -> Value {
        Value::Cpus(self.clone())
    }

    fn write(&mut self, value: Value) {
        let Value::Cpus(cpus) = value else { panic!("{value:?} for a list of CPUs") };
        *self = cpus;
    }
}

impl<T: Field + Default> Field for Option<T> {
    fn read(&self) -> Value {
        self.as_ref().map_or(Value::Absent, T::read)
    }

    fn write(&mut self, value: Value) {
        *self = (value != Value::Absent).then(|| {
            let mut field = T::default();
            field.write(value);
            field
        });
    }
}

macro_rules! word_field {
    ($type:ident { $($word:literal = $variant:ident),* $(,)? }) => {
        impl $type {
            pub(super) const WORDS: &'static [&'static str] = &[$($word),*];

            pub fn word(self) -> &'static str {
                match self {
                    $($type::$variant => $word,)*
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($type::$variant),)*
                    _ => Err(format!("\"{text}\" is not known; write one of: {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl Field for $type {
            fn read(&self) -> Value {
                Value::Word(self.word())
            }

            fn write(&mut self, value: Value) {
                let Value::Word(word) = value else { panic!("{value:?} for a word") };
                *self = word.parse().expect("a word of the option's own list");
            }
        }
    };
}

word_field!(LogLevel { "error" = Error, "warn" = Warn, "info" = Info, "debug" = Debug, "trace" = Trace });
word_field!(ForwardMode { "append" = Append, "replace" = Replace, "off" = Off });
word_field!(Watch { "off" = Off, "on" = On });
word_field!(Balance {
    "round-robin" = RoundRobin,
    "least-connections" = LeastConnections,
    "power-of-two" = PowerOfTwo,
    "random" = Random,
    "ip-hash" = IpHash,
    "consistent-hash" = ConsistentHash,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_may_be_written_in_the_file() {
        let config = Config::default();
        for setting in SETTINGS {
            let value = setting.read(&config);
            let text = format!("value = {}", setting.print(&value));
            let table = toml::de::DeTable::parse(&text).unwrap();
            assert_eq!(setting.parse(table.get_ref()["value"].get_ref()), Ok(value), "{}", setting.path);
        }
    }

    #[test]
    fn paths_name_the_fields_they_set() {
        let names = format!("{:?}", Config::default());
        for setting in SETTINGS {
            let field = setting.path.rsplit('.').next().unwrap();
            assert!(names.contains(&format!(" {field}: ")), "{}", setting.path);
            let (mut config, mut changed) = (Config::default(), Config::default());
            let other = match &setting.kind {
                Kind::Count(range) | Kind::Bytes(range) => Value::Number(*range.end()),
                Kind::Time(range) => Value::Time(*range.end()),
                Kind::Seconds(range) => Value::Time(Duration::from_secs(*range.end())),
                Kind::Words(words) => {
                    Value::Word(words.iter().find(|w| Value::Word(w) != setting.read(&config)).unwrap())
                }
                Kind::Cpus => Value::Cpus(vec![0]),
            };
            setting.write(&mut changed, other.clone());
            assert_ne!(changed, config, "{}", setting.path);
            assert_eq!(setting.read(&changed), other, "{}", setting.path);
            // Exactly the field of that name: what differs from the default is behind it and nothing before.
            let default = setting.read(&config);
            setting.write(&mut changed, default);
            assert_eq!(changed, config, "{}", setting.path);
            setting.write(&mut config, other);
            let debug = format!("{config:?}");
            let differs = names.bytes().zip(debug.bytes()).position(|(a, b)| a != b).unwrap();
            let before = &names[..differs];
            let last =
                before.rfind(&format!(" {field}: ")).unwrap_or_else(|| panic!("{} sets another field", setting.path));
            assert!(!before[last + 1..].contains(','), "{} sets another field", setting.path);
        }
    }
}
