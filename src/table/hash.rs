//! Hashes on which several relays, and several versions of one, agree.

/// SplitMix64's increment: odd, and far from any small fraction of the circle.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// FNV-1a, and behind it [`mix`], as FNV leaves the high bits of short texts much alike.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    mix(bytes.iter().fold(0xCBF2_9CE4_8422_2325, fold))
}

/// SplitMix64's finaliser: every bit of the input reaches every bit of the output, and no two inputs share one.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The `number`th of the values that follow from this one; the first is the value itself.
pub fn nth(value: u64, number: u64) -> u64 {
    if number == 0 { value } else { mix(value.wrapping_add(number.wrapping_mul(STEP))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other versions of Ringway, and other relays beside this one, must send a key to the same backend.
    #[test]
    fn hashes_never_change() {
        assert_eq!(hash_bytes(b""), 0xF52A_15E9_A9B5_E89B);
        assert_eq!(hash_bytes(b"a"), 0x02C0_BDBF_4814_20F8);
        assert_eq!(hash_bytes(b"backend-7"), 0x1CA3_B40D_46AD_B7D5);
        assert_eq!(nth(7, 0), 7);
        // The first output of the reference SplitMix64 seeded with 0.
        assert_eq!(nth(0, 1), 0xE220_A839_7B1D_CDAF);
    }
}
