//! Values with units as people write them: `"30s"`, `"64KiB"`, `"0,2-5"`, and back.

use std::time::Duration;

/// No machine that Linux runs on has more CPUs; bounds the list that a typing error can ask for.
const CPU_MAX: usize = 8191;

/// Largest first, so that the first unit that divides a value prints it shortest.
const TIME_UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `"500ms"`, `"30s"`, `"1h30m"`: whole numbers, each with its unit, units falling.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let fault =
        || format!("\"{text}\" is not a time; write it as \"500ms\", \"30s\", \"5m\", \"2h\", \"1d\" or \"1h30m\"");
    let mut rest = text;
    let mut unit_before = u128::MAX;
    let mut total: u128 = 0;
    while !rest.is_empty() || unit_before == u128::MAX {
        let (number, unit, behind) = number_and_unit(rest).ok_or_else(fault)?;
        // "0" needs no unit: it is the same in each.
        let scale = match TIME_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, scale)) => *scale,
            None if text == "0" => 1,
            None => return Err(fault()),
        };
        if scale >= unit_before {
            return Err(fault());
        }
        total = total.saturating_add(u128::from(number) * scale);
        (rest, unit_before) = (behind, scale);
    }
    Ok(Duration::from_millis(u64::try_from(total).unwrap_or(u64::MAX)))
}

/// In the largest unit that needs no fraction.
pub(super) fn print_time(time: Duration) -> String {
    let millis = time.as_millis();
    match TIME_UNITS.iter().find(|(_, scale)| millis != 0 && millis.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", millis / scale),
        None => "0s".into(),
    }
}

/// `"512B"`, `"64KiB"`, `"1MiB"`. Powers of 1024 only: a reader should not have to guess what `KB` means.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let fault = || format!("\"{text}\" is not a size; write it as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"");
    let (number, unit, behind) = number_and_unit(text).ok_or_else(fault)?;
    let scale = SIZE_UNITS.iter().find(|(name, _)| *name == unit && behind.is_empty());
    scale.and_then(|(_, scale)| number.checked_mul(*scale)).ok_or_else(fault)
}

/// In the largest unit that needs no fraction.
pub(super) fn print_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, scale)| bytes != 0 && bytes.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => "0B".into(),
    }
}

/// As the data plane counts time.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The leading digits, the letters behind them, and what follows.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start_matches(' ');
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..letters], &rest[letters..]))
}

/// `"0,2-5"` in the order given: the first worker gets the first CPU.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let fault = || format!("\"{text}\" is not a list of CPUs; write it as \"0\", \"0,2\" or \"0,2-5\"");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (cpu(first).ok_or_else(fault)?, cpu(last).ok_or_else(fault)?);
        if first > last {
            return Err(fault());
        }
        cpus.extend(first..=last);
    }
    for (index, cpu) in cpus.iter().enumerate() {
        if cpus[..index].contains(cpu) {
            return Err(format!("CPU {cpu} is listed twice"));
        }
    }
    Ok(cpus)
}

fn cpu(text: &str) -> Option<usize> {
    let text = text.trim();
    text.parse().ok().filter(|cpu| *cpu <= CPU_MAX && text.bytes().all(|b| b.is_ascii_digit()))
}

/// The shortest list that names the same CPUs in the same order.
pub(super) fn print_cpus(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let parts = runs.map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => unreachable!("a chunk has at least one element"),
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_and_print() {
        for (text, millis, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("30s", 30_000, "30s"),
            ("30 s", 30_000, "30s"),
            ("60s", 60_000, "1m"),
            ("90s", 90_000, "90s"),
            ("1h30m", 5_400_000, "90m"),
            ("1s500ms", 1500, "1500ms"),
            ("2d", 172_800_000, "2d"),
        ] {
            let time = parse_time(text).unwrap();
            assert_eq!((time, print_time(time).as_str()), (Duration::from_millis(millis), printed), "{text}");
            assert_eq!(parse_time(printed), Ok(time), "{text}");
        }
        for text in
            ["", "s", "30", "-1s", "1.5s", "30sec", "1m1h", "1s1s", "30S", "1s ", "1us", "99999999999999999999s"]
        {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
        assert!(parse_time("18446744073709551615d").is_ok_and(|time| time > Duration::from_secs(1 << 40)));
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, printed) in [
            ("0B", 0, "0B"),
            ("512B", 512, "512B"),
            ("1024B", 1024, "1KiB"),
            ("64KiB", 65536, "64KiB"),
            ("64 KiB", 65536, "64KiB"),
            ("1536KiB", 1536 << 10, "1536KiB"),
            ("3GiB", 3 << 30, "3GiB"),
        ] {
            assert_eq!((parse_size(text), print_size(bytes).as_str()), (Ok(bytes), printed), "{text}");
            assert_eq!(parse_size(printed), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64K", "64KB", "64kib", "1.5MiB", "-1B", "64KiBs", "1KiB1B", "99999999999TiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn cpu_lists_read_and_print() {
        for (text, cpus, printed) in [
            ("0", vec![0], "0"),
            ("0,2-5", vec![0, 2, 3, 4, 5], "0,2-5"),
            ("3,1,2", vec![3, 1, 2], "3,1-2"),
            ("0, 1", vec![0, 1], "0-1"),
            ("7-7", vec![7], "7"),
        ] {
            assert_eq!((parse_cpus(text), print_cpus(&cpus).as_str()), (Ok(cpus.clone()), printed), "{text}");
            assert_eq!(parse_cpus(printed), Ok(cpus), "{text}");
        }
        for text in ["", ",", "0,", "a", "-1", "1-", "5-2", "0-1-2", "+1", "0-4000000000", "8192"] {
            assert!(parse_cpus(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_cpus("0,1-3,2"), Err("CPU 2 is listed twice".into()));
    }
}
