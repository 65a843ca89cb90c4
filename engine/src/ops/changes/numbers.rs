//! Numbers as deltas hold them: seven bits in a byte, the lowest first, the top bit set in all but the
//! last byte.

use super::fault::Fault;

/// Appends a number.
pub(in crate::ops) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number from the front.
pub(in crate::ops) fn take_number(bytes: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes
            .split_first()
            .ok_or_else(|| Fault::invalid("its numbers are cut short"))?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Fault::invalid("it has a malformed number"))
}

/// Appends a number that may be negative: the sign is the lowest bit.
pub(in crate::ops) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_number(out, (value << 1 ^ value >> 63) as u64);
}

/// The number that [`put_signed`] put as this one.
pub(in crate::ops) fn signed(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, other: i64) {
            let mut out = Vec::new();
            put_number(&mut out, value);
            put_signed(&mut out, other);
            let mut rest = &out[..];
            prop_assert_eq!(take_number(&mut rest).unwrap(), value);
            prop_assert_eq!(signed(take_number(&mut rest).unwrap()), other);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bytes in [&[][..], &[0x80], &[0xff; 11], &[0xff; 10]] {
            assert!(take_number(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
