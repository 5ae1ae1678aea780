//! The fields behind the options.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::kind::Value;
use crate::config::HashKey;

/// A field as a [`Value`]. Declarations pair fields with kinds that fit them, and `parse` gives only
/// values that fit the kind; so a mismatch here is our own fault.
pub(in crate::config) trait Field {
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

number_field!(u16, u32, u64, usize);

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

impl Field for Vec<SocketAddr> {
    fn read(&self) -> Value {
        Value::Servers(self.clone())
    }

    fn write(&mut self, value: Value) {
        let Value::Servers(servers) = value else { panic!("{value:?} for a list of servers") };
        *self = servers;
    }
}

impl Field for Vec<u16> {
    fn read(&self) -> Value {
        Value::Statuses(self.clone())
    }

    fn write(&mut self, value: Value) {
        let Value::Statuses(statuses) = value else { panic!("{value:?} for a list of statuses") };
        *self = statuses;
    }
}

impl Field for bool {
    fn read(&self) -> Value {
        Value::Flag(*self)
    }

    fn write(&mut self, value: Value) {
        let Value::Flag(flag) = value else { panic!("{value:?} for a flag") };
        *self = flag;
    }
}

impl Field for PathBuf {
    fn read(&self) -> Value {
        // It came from a file of UTF-8.
        Value::Text(self.display().to_string())
    }

    fn write(&mut self, value: Value) {
        let Value::Text(text) = value else { panic!("{value:?} for a path") };
        *self = text.into();
    }
}

/// Texts, and what is written as one.
macro_rules! text_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(&self) -> Value {
                Value::Text(self.to_string())
            }

            fn write(&mut self, value: Value) {
                let Value::Text(text) = value else { panic!("{value:?} for a text") };
                *self = text.parse().expect("the option's grammar is that of its type");
            }
        }
    )*};
}

text_field!(String, HashKey);

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
