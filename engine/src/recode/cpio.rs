//! Archives in front of an initial RAM disk: microcode comes first, uncompressed.

/// "newc", without and with checksums.
const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];
const HEADER: usize = 110;
const LAST: &[u8] = b"TRAILER!!!\0";

/// Is this the beginning of an archive?
pub(super) fn knows(bytes: &[u8]) -> bool {
    MAGICS.iter().any(|magic| bytes.starts_with(magic))
}

/// A field of eight hexadecimal digits.
fn field(header: &[u8], at: usize) -> Option<usize> {
    let digits = std::str::from_utf8(header.get(at..at + 8)?).ok()?;
    usize::from_str_radix(digits, 16).ok()
}

/// Length of the entry at `at`, and whether it is the last one of its archive.
fn entry(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let header = bytes.get(at..)?.get(..HEADER)?;
    if !knows(header) {
        return None;
    }
    let (size, name) = (field(header, 54)?, field(header, 94)?);
    let data = (at + HEADER)
        .checked_add(name)?
        .checked_next_multiple_of(4)?;
    let end = data.checked_add(size)?.checked_next_multiple_of(4)?;
    let name = bytes.get(at + HEADER..)?.get(..name)?;
    Some((end - at, name == LAST))
}

/// Length of the archives at the front with the zeroes after them; 0 if there are none.
pub(super) fn len(bytes: &[u8]) -> usize {
    let (mut at, mut end) = (0, 0);
    while let Some((len, last)) = entry(bytes, at) {
        at += len;
        if last {
            let rest = bytes.get(at..).unwrap_or_default();
            at += rest.iter().take_while(|byte| **byte == 0).count();
            end = at.min(bytes.len());
        }
    }
    end
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An archive of one file.
    pub(in crate::recode) fn archive(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, data) in [("microcode.bin", data), ("TRAILER!!!", b"")] {
            let fields = [
                0,
                0o100_644,
                0,
                0,
                1,
                0,
                data.len(),
                0,
                0,
                0,
                0,
                name.len() + 1,
                0,
            ];
            out.extend_from_slice(b"070701");
            for field in fields {
                out.extend_from_slice(format!("{field:08x}").as_bytes());
            }
            for bytes in [&[name.as_bytes(), &[0]].concat(), data] {
                out.extend_from_slice(bytes);
                out.resize(out.len().next_multiple_of(4), 0);
            }
        }
        out
    }

    #[test]
    fn archives_at_the_front_are_measured_with_their_padding() {
        let one = archive(b"12345");
        let padded = [one.clone(), vec![0; 300]].concat();
        let cases = [
            (b"".to_vec(), 0),
            (b"070701".to_vec(), 0),
            (one.clone(), one.len()),
            ([&padded[..], b"rest"].concat(), padded.len()),
            (
                [&padded[..], &one, b"rest"].concat(),
                padded.len() + one.len(),
            ),
            (one[..one.len() - 130].to_vec(), 0),
            ([b"070701".to_vec(), vec![b'f'; 200]].concat(), 0),
        ];
        for (bytes, expected) in cases {
            assert_eq!(len(&bytes), expected, "{} bytes", bytes.len());
        }
    }
}
