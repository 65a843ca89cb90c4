//! In which order small payloads are laid next to each other.
//!
//! Like next to like: by class, extension and base name. Measured on a desktop system this packs
//! 4 % better than digest order, costs nothing and is deterministic.

/// Sorts small payloads; ties are broken by the whole path, then by the place among pieces of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LayoutKey {
    class: u8,
    extension: Box<[u8]>,
    name: Box<[u8]>,
    path: Box<[u8]>,
    sequence: u32,
}

impl LayoutKey {
    pub(crate) fn new(path: &[u8], sequence: u32) -> Self {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        let extension = extension(name);
        Self {
            class: class(path, extension),
            extension: extension.to_ascii_lowercase().into(),
            name: name.into(),
            path: path.into(),
            sequence,
        }
    }
}

/// The last extension that is not a number: `so` of `libz.so.1.2`, `gz` of `ls.1.gz`.
fn extension(name: &[u8]) -> &[u8] {
    let mut rest = name;
    while let Some(dot) = rest.iter().rposition(|b| *b == b'.').filter(|dot| *dot > 0) {
        let last = &rest[dot + 1..];
        if !last.is_empty() && !last.iter().all(u8::is_ascii_digit) {
            return last;
        }
        rest = &rest[..dot];
    }
    b""
}

/// 0 text and unknown, 1 machine code, 2 already compressed.
fn class(path: &[u8], extension: &[u8]) -> u8 {
    const CODE: [&[u8]; 5] = [b"so", b"ko", b"o", b"a", b"mod"];
    const DENSE: [&[u8]; 14] = [
        b"gz", b"xz", b"zst", b"bz2", b"png", b"jpg", b"jpeg", b"webp", b"zip", b"jar", b"ogg",
        b"oga", b"woff2", b"whl",
    ];
    let program = extension.is_empty()
        && path
            .rsplit(|b| *b == b'/')
            .nth(1)
            .is_some_and(|dir| dir == b"bin" || dir == b"sbin");
    if program || CODE.contains(&extension) {
        1
    } else if DENSE.contains(&extension) {
        2
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_extensions() {
        for (name, expected) in [
            ("libz.so.1.2.13", "so"),
            ("ls.1.gz", "gz"),
            ("bash", ""),
            (".profile", ""),
            ("a.1", ""),
        ] {
            assert_eq!(extension(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }
}
