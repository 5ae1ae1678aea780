//! A value as somebody wrote it, in whatever language: TOML, JSON, or a variable of the environment.

use std::borrow::Cow;

use toml::de::DeValue;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Given<'v> {
    Text(Cow<'v, str>),
    /// The largest where it is larger. `text`: as it was written.
    Number {
        number: i128,
        text: String,
    },
    Flag(bool),
    List(Vec<Given<'v>>),
    Table(Vec<(Cow<'v, str>, Given<'v>)>),
    /// What no option can be, in words.
    Other(String),
}

impl<'v> Given<'v> {
    pub(crate) fn of(value: &'v DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Given::Text(Cow::Borrowed(text)),
            DeValue::Integer(integer) => Given::Number {
                number: i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX),
                text: integer.to_string(),
            },
            DeValue::Boolean(flag) => Given::Flag(*flag),
            DeValue::Array(list) => Given::List(list.iter().map(|value| Given::of(value.get_ref())).collect()),
            DeValue::Table(table) => {
                let pair = |(key, value): (&'v toml::Spanned<Cow<'_, str>>, &'v toml::Spanned<DeValue<'_>>)| {
                    (Cow::Borrowed(key.get_ref().as_ref()), Given::of(value.get_ref()))
                };
                Given::Table(table.iter().map(pair).collect())
            }
            DeValue::Float(number) => Given::Other(number.to_string()),
            DeValue::Datetime(_) => Given::Other("a date".into()),
        }
    }

    /// In a fault: short ones as they are, others by their type.
    pub(crate) fn describe(&self) -> String {
        match self {
            Given::Text(text) => format!("\"{}\"", text.escape_debug()),
            Given::Number { text, .. } => text.clone(),
            Given::Flag(yes) => yes.to_string(),
            Given::List(_) => "a list".into(),
            Given::Table(_) => "a table".into(),
            Given::Other(what) => what.clone(),
        }
    }
}

pub(in crate::config) fn describe(value: &DeValue<'_>) -> String {
    match value {
        // Not looked into.
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
        value => Given::of(value).describe(),
    }
}
