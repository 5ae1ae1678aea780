//! Latency histograms: recorded in nanoseconds, three significant digits, summarised in microseconds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const NS_MIN: u64 = 100;
/// One hour: longer values are counted as this.
const NS_MAX: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

#[derive(Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Latency {
        // The bounds are constants that the library accepts.
        Latency(Histogram::new_with_bounds(NS_MIN, NS_MAX, DIGITS).expect("valid bounds"))
    }
}

/// The usual points of a distribution, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    pub count: u64,
    pub min_us: f64,
    pub mean_us: f64,
    pub stdev_us: f64,
    pub p50_us: f64,
    pub p75_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub p9999_us: f64,
    pub max_us: f64,
}

impl Latency {
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn merge(&mut self, other: &Latency) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Share of values above `ns`, for "how many waited longer than".
    pub fn share_above(&self, ns: u64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let within = self.0.count_between(0, ns);
        1.0 - within as f64 / self.0.len() as f64
    }

    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Points of the curve "latency by percentile": (quantile, microseconds).
    pub fn curve(&self) -> Vec<(f64, f64)> {
        self.0.iter_quantiles(5).map(|step| (step.quantile(), step.value_iterated_to() as f64 / 1e3)).collect()
    }

    pub fn summary(&self) -> Summary {
        if self.is_empty() {
            return Summary::default();
        }
        Summary {
            count: self.0.len(),
            min_us: self.0.min() as f64 / 1e3,
            mean_us: self.0.mean() / 1e3,
            stdev_us: self.0.stdev() / 1e3,
            p50_us: self.quantile_us(0.5),
            p75_us: self.quantile_us(0.75),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            p999_us: self.quantile_us(0.999),
            p9999_us: self.quantile_us(0.9999),
            max_us: self.0.max() as f64 / 1e3,
        }
    }

    /// The standard compressed form in base64, which HdrHistogram's tools in every language read.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        match V2DeflateSerializer::new().serialize(&self.0, &mut bytes) {
            Ok(_) => STANDARD.encode(bytes),
            Err(_) => String::new(),
        }
    }

    pub fn decode(text: &str) -> Option<Latency> {
        let bytes = STANDARD.decode(text).ok()?;
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).ok()?;
        let mut latency = Latency::default();
        latency.0.add(&read).ok()?;
        Some(latency)
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&if self.is_empty() { String::new() } else { self.encode() })
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Latency::default());
        }
        Latency::decode(&text).ok_or_else(|| serde::de::Error::custom("not an encoded histogram"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Within the histogram's three digits.
    fn near(actual: f64, expected: f64) -> bool {
        (actual - expected).abs() <= expected * 0.001 + 0.2
    }

    #[test]
    fn a_uniform_distribution_has_the_percentiles_of_one() {
        let mut latency = Latency::default();
        for us in 1..=10_000u64 {
            latency.record(us * 1000);
        }
        let summary = latency.summary();
        assert_eq!(summary.count, 10_000);
        assert!(near(summary.p50_us, 5_000.0), "{}", summary.p50_us);
        assert!(near(summary.p90_us, 9_000.0));
        assert!(near(summary.p99_us, 9_900.0));
        assert!(near(summary.p999_us, 9_990.0));
        assert!(near(summary.max_us, 10_000.0));
        assert!(near(summary.mean_us, 5_000.5));
        // Standard deviation of 1..=n: sqrt((n^2 - 1) / 12).
        assert!(near(summary.stdev_us, 2_886.75), "{}", summary.stdev_us);
        assert!((latency.share_above(9_000_000) - 0.1).abs() < 0.001);
    }

    #[test]
    fn one_outlier_in_a_thousand_shows_at_p9999_and_not_at_p99() {
        let mut latency = Latency::default();
        (0..9_990).for_each(|_| latency.record(100_000));
        (0..10).for_each(|_| latency.record(50_000_000));
        let summary = latency.summary();
        assert!(near(summary.p99_us, 100.0));
        assert!(near(summary.p9999_us, 50_000.0));
    }

    #[test]
    fn the_encoded_form_is_the_standard_one_and_comes_back_whole() {
        let mut latency = Latency::default();
        for ns in [100, 5_000, 1_000_000, u64::MAX] {
            latency.record(ns);
        }
        let text = latency.encode();
        // What every V2 compressed histogram begins with.
        assert!(text.starts_with("HISTF"), "{text}");
        let back = Latency::decode(&text).unwrap();
        assert_eq!(format!("{:?}", back.summary()), format!("{:?}", latency.summary()));
        assert!(Latency::decode("AAAA").is_none());
    }

    #[test]
    fn merging_is_recording_in_one() {
        let (mut a, mut b, mut both) = (Latency::default(), Latency::default(), Latency::default());
        for i in 1..1000u64 {
            let half = if i % 2 == 0 { &mut a } else { &mut b };
            half.record(i * 977);
            both.record(i * 977);
        }
        a.merge(&b);
        assert_eq!(format!("{:?}", a.summary()), format!("{:?}", both.summary()));
    }
}
