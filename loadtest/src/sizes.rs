//! Message sizes: one, a range, or a weighted mix, as written on the command line.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A frame's head and a margin above it still fit in what one message may occupy.
pub const MESSAGE_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sizes {
    Fixed(u64),
    /// Uniform, both ends included.
    Range(u64, u64),
    /// Sizes and their weights.
    Mix(Vec<(u64, f64)>),
}

impl Sizes {
    pub fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        let bytes = match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::Range(low, high) => rng.u64(low..=high),
            Sizes::Mix(parts) => {
                let total: f64 = parts.iter().map(|(_, weight)| weight).sum();
                let mut left = rng.f64() * total;
                let found = parts.iter().find(|(_, weight)| {
                    left -= weight;
                    left < 0.0
                });
                found.or(parts.last()).map_or(0, |(bytes, _)| *bytes)
            }
        };
        bytes as usize
    }

    pub fn min(&self) -> u64 {
        match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::Range(low, _) => *low,
            Sizes::Mix(parts) => parts.iter().map(|(bytes, _)| *bytes).min().unwrap_or(0),
        }
    }

    pub fn max(&self) -> u64 {
        match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::Range(_, high) => *high,
            Sizes::Mix(parts) => parts.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0),
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        let sizes = if let Some((low, high)) = text.split_once("..") {
            let (low, high) = (parse_bytes(low)?, parse_bytes(high)?);
            if low > high {
                return Err(format!("{text:?}: the range begins above its end"));
            }
            Sizes::Range(low, high)
        } else if text.contains(':') {
            Sizes::Mix(text.split(',').map(parse_part).collect::<Result<_, _>>()?)
        } else {
            Sizes::Fixed(parse_bytes(text)?)
        };
        if sizes.max() > MESSAGE_BYTES_MAX {
            return Err(format!("{text:?}: messages go up to {}", ByteSize(MESSAGE_BYTES_MAX)));
        }
        Ok(sizes)
    }
}

fn parse_part(part: &str) -> Result<(u64, f64), String> {
    let (bytes, weight) = part.split_once(':').ok_or_else(|| format!("{part:?} is not SIZE:WEIGHT"))?;
    let weight: f64 = weight.trim().parse().map_err(|_| format!("{weight:?} is not a weight"))?;
    if !weight.is_finite() || weight <= 0.0 {
        return Err(format!("{weight} is not a weight above 0"));
    }
    Ok((parse_bytes(bytes)?, weight))
}

/// "64", "64B", "4KiB", "1MB".
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes: ByteSize = text.trim().parse().map_err(|_| format!("{text:?} is not a size"))?;
    Ok(bytes.as_u64())
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(bytes) => ByteSize(*bytes).fmt(f),
            Sizes::Range(low, high) => write!(f, "{}..{}", ByteSize(*low), ByteSize(*high)),
            Sizes::Mix(parts) => {
                for (i, (bytes, weight)) in parts.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{weight}", ByteSize(*bytes))?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        assert_eq!("64".parse(), Ok(Sizes::Fixed(64)));
        assert_eq!("4KiB".parse(), Ok(Sizes::Fixed(4096)));
        assert_eq!("64..1KiB".parse(), Ok(Sizes::Range(64, 1024)));
        assert_eq!("64:9,64KiB:1".parse(), Ok(Sizes::Mix(vec![(64, 9.0), (65536, 1.0)])));
        for bad in ["", "x", "9..1", "64:0", "64:x", "65MiB", "64:1,9"] {
            assert!(bad.parse::<Sizes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn draws_stay_inside_and_follow_the_weights() {
        let mut rng = fastrand::Rng::with_seed(1);
        let range = Sizes::Range(64, 100);
        assert!((0..1000).all(|_| (64..=100).contains(&range.draw(&mut rng))));
        let mix = Sizes::Mix(vec![(64, 9.0), (1000, 1.0)]);
        let large = (0..10_000).filter(|_| mix.draw(&mut rng) == 1000).count();
        assert!((800..1200).contains(&large), "{large}");
    }
}
