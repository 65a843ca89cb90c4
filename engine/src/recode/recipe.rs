//! The byte form of recipes.
//!
//! ```text
//! recipe  = version u8 (1), part*
//! part    = 0, length, bytes                          bytes as they are
//!         | 1, plain length                           plain bytes as they are
//!         | 2, plain length, length, corrections      a deflate stream
//!         | 3                                         CRC-32 and size of the last stream's plain bytes
//!         | 4, plain length, settings, length, corrections     a zstd frame
//!         | 5, plain length, settings               an xz file
//! ```
//!
//! Lengths are LEB128 numbers. A part is made from the plain bytes that follow those of the part
//! before it; the payload is the concatenation of what the parts make.

/// Version of the byte form and of the encoders behind it.
const VERSION: u8 = 1;

/// Parts of a recipe; a gzip member takes three.
const MAX_PARTS: usize = 1 << 16;

/// What is wrong with the bytes of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecipeError {
    /// The first byte is another version.
    #[error("recipe of an unknown version")]
    Version,
    /// The bytes end within a part.
    #[error("recipe cut short")]
    Short,
    /// A part has an unknown number.
    #[error("recipe with an unknown part")]
    Part,
    /// A number is not in its shortest form, or has more than 64 bits.
    #[error("recipe with a malformed number")]
    Number,
    /// More parts than any file needs.
    #[error("recipe of too many parts")]
    TooMany,
}

/// How a stretch of the payload is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// From these bytes.
    Verbatim(Vec<u8>),
    /// From this many plain bytes, unchanged.
    Plain(u64),
    /// A deflate stream of this many plain bytes.
    Deflate { plain: u64, corrections: Vec<u8> },
    /// CRC-32 and size, four bytes each, of the plain bytes of the part before it.
    Trailer,
    /// A zstd frame of this many plain bytes.
    Zstd {
        plain: u64,
        settings: u64,
        corrections: Vec<u8>,
    },
    /// An xz file of this many plain bytes.
    Xz { plain: u64, settings: u64 },
}

/// How a payload's bytes are made from plain ones: enough to redo the compression exactly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Recipe {
    pub(super) parts: Vec<Part>,
}

/// Appends a number in LEB128.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number in LEB128; only the shortest form is one.
pub(super) fn take(bytes: &mut &[u8]) -> Result<u64, RecipeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(RecipeError::Short)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if (shift > 0 && byte == 0) || (bits << shift) >> shift != bits {
            return Err(RecipeError::Number);
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(RecipeError::Number)
}

/// Takes a length and that many bytes.
fn take_bytes(bytes: &mut &[u8]) -> Result<Vec<u8>, RecipeError> {
    let len = usize::try_from(take(bytes)?).map_err(|_| RecipeError::Short)?;
    let (head, rest) = bytes.split_at_checked(len).ok_or(RecipeError::Short)?;
    *bytes = rest;
    Ok(head.to_vec())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Recipe {
    /// The byte form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for part in &self.parts {
            match part {
                Part::Verbatim(bytes) => {
                    out.push(0);
                    put_bytes(&mut out, bytes);
                }
                Part::Plain(len) => {
                    out.push(1);
                    put(&mut out, *len);
                }
                Part::Deflate { plain, corrections } => {
                    out.push(2);
                    put(&mut out, *plain);
                    put_bytes(&mut out, corrections);
                }
                Part::Trailer => out.push(3),
                Part::Zstd {
                    plain,
                    settings,
                    corrections,
                } => {
                    out.push(4);
                    put(&mut out, *plain);
                    put(&mut out, *settings);
                    put_bytes(&mut out, corrections);
                }
                Part::Xz { plain, settings } => {
                    out.push(5);
                    put(&mut out, *plain);
                    put(&mut out, *settings);
                }
            }
        }
        out
    }

    /// Reads the byte form; allocates no more than `bytes` are long.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecipeError> {
        let (&version, mut rest) = bytes.split_first().ok_or(RecipeError::Short)?;
        if version != VERSION {
            return Err(RecipeError::Version);
        }
        let mut parts = Vec::new();
        while let Some((&tag, after)) = rest.split_first() {
            if parts.len() == MAX_PARTS {
                return Err(RecipeError::TooMany);
            }
            rest = after;
            parts.push(match tag {
                0 => Part::Verbatim(take_bytes(&mut rest)?),
                1 => Part::Plain(take(&mut rest)?),
                2 => Part::Deflate {
                    plain: take(&mut rest)?,
                    corrections: take_bytes(&mut rest)?,
                },
                3 => Part::Trailer,
                4 => Part::Zstd {
                    plain: take(&mut rest)?,
                    settings: take(&mut rest)?,
                    corrections: take_bytes(&mut rest)?,
                },
                5 => Part::Xz {
                    plain: take(&mut rest)?,
                    settings: take(&mut rest)?,
                },
                _ => return Err(RecipeError::Part),
            });
        }
        Ok(Self { parts })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn parts() -> impl Strategy<Value = Part> {
        prop_oneof![
            vec(any::<u8>(), 0..40).prop_map(Part::Verbatim),
            any::<u64>().prop_map(Part::Plain),
            (any::<u64>(), vec(any::<u8>(), 0..40))
                .prop_map(|(plain, corrections)| Part::Deflate { plain, corrections }),
            Just(Part::Trailer),
            (any::<u64>(), any::<u64>()).prop_map(|(plain, settings)| Part::Xz { plain, settings }),
            (any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..40)).prop_map(
                |(plain, settings, corrections)| Part::Zstd {
                    plain,
                    settings,
                    corrections
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_recipe_comes_back_as_it_was(parts in vec(parts(), 0..6)) {
            let recipe = Recipe { parts };
            prop_assert_eq!(Recipe::decode(&recipe.encode()), Ok(recipe));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in vec(0u8..8, 0..40)) {
            let bytes = [vec![VERSION], bytes].concat();
            if let Ok(recipe) = Recipe::decode(&bytes) {
                prop_assert_eq!(recipe.encode(), bytes);
            }
        }
    }

    #[test]
    fn malformed_recipes_are_refused() {
        let cases: [(&[u8], RecipeError); 8] = [
            (&[], RecipeError::Short),
            (&[9], RecipeError::Version),
            (&[VERSION, 77], RecipeError::Part),
            (&[VERSION, 0, 3, 1, 2], RecipeError::Short),
            (&[VERSION, 1, 0x80], RecipeError::Short),
            (&[VERSION, 1, 0x80, 0], RecipeError::Number),
            (
                &[VERSION, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
                RecipeError::Number,
            ),
            (
                &[VERSION, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
                RecipeError::Short,
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(Recipe::decode(bytes), Err(error), "{bytes:?}");
        }
        let many = [vec![VERSION], vec![3; MAX_PARTS + 1]].concat();
        assert_eq!(Recipe::decode(&many), Err(RecipeError::TooMany));
    }
}
