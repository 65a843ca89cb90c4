//! xz files: the settings that their header tells, and a preset that makes the same bytes.
//!
//! liblzma's encoder has not changed what it writes since 5.2, so nothing has to be corrected: either
//! a preset fits or the file stays as it is. Format: the .xz file format 1.1, sections 2 and 3.

use std::io::{Read, Write};

use liblzma::read::XzDecoder;
use liblzma::stream::{Check, Filters, LzmaOptions, MtStreamBuilder, Stream};
use liblzma::write::XzEncoder;

use super::recipe::Part;

const MAGIC: &[u8] = b"\xfd7zXZ\0";
const FOOTER_MAGIC: &[u8] = b"YZ";

/// Largest plain form. xz makes 3 to 5 MB each second, and a reader waits for all of it.
const MAX_PLAIN: usize = 4 << 20;
/// Largest dictionary, 8 MiB, as it is written in the header: an encoder takes eleven times as much.
const MAX_DICT: u8 = 22;
/// Presets by how often they are met: what `xz` does by itself, what packagers ask for, the rest.
const PRESETS: [u8; 8] = [6, 9, 6 | EXTREME, 9 | EXTREME, 5, 7, 8, 3];
/// `xz --extreme`.
const EXTREME: u8 = 1 << 5;
const LZMA_PRESET_EXTREME: u32 = 1 << 31;

/// How a file was compressed. As a number: dictionary, check, filter, threads, preset; eight bits,
/// four, one, one and six.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Settings {
    dict: u8,
    check: u8,
    x86: bool,
    threads: bool,
    preset: u8,
}

impl Settings {
    fn encode(self) -> u64 {
        u64::from(self.preset)
            | u64::from(self.threads) << 6
            | u64::from(self.x86) << 7
            | u64::from(self.check) << 8
            | u64::from(self.dict) << 12
    }

    fn decode(number: u64) -> Option<Self> {
        let settings = Self {
            dict: u8::try_from(number >> 12).ok()?,
            check: (number >> 8) as u8 & 15,
            x86: number >> 7 & 1 == 1,
            threads: number >> 6 & 1 == 1,
            preset: number as u8 & 63,
        };
        let known = settings.dict <= MAX_DICT && settings.preset & !EXTREME <= 9;
        (known && settings.check().is_some()).then_some(settings)
    }

    /// What the headers of stream and first block tell; the preset is left to be found.
    fn of(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(12..)?;
        let flags = *header.get(1)?;
        // The block's sizes are there when several threads were asked for.
        let threads = match flags & 0xc0 {
            0 => false,
            0xc0 => true,
            _ => return None,
        };
        let mut filters = header.get(2..)?;
        if threads {
            for _ in 0..2 {
                let len = filters.iter().position(|byte| byte & 0x80 == 0)? + 1;
                filters = filters.get(len..)?;
            }
        }
        let (x86, lzma) = match (flags & 3, filters) {
            (0, [0x21, 1, dict, ..]) => (false, *dict),
            (1, [4, 0, 0x21, 1, dict, ..]) => (true, *dict),
            _ => return None,
        };
        let settings = Self {
            dict: lzma,
            check: *bytes.get(7)? & 15,
            x86,
            threads,
            preset: 0,
        };
        Self::decode(settings.encode())
    }

    fn check(self) -> Option<Check> {
        Some(match self.check {
            0 => Check::None,
            1 => Check::Crc32,
            4 => Check::Crc64,
            10 => Check::Sha256,
            _ => return None,
        })
    }

    fn encoder(self) -> Option<Stream> {
        let extreme = self.preset & EXTREME != 0;
        let preset =
            u32::from(self.preset & !EXTREME) | if extreme { LZMA_PRESET_EXTREME } else { 0 };
        let mut options = LzmaOptions::new_preset(preset).ok()?;
        options.dict_size((2 | u32::from(self.dict & 1)) << (self.dict / 2 + 11));
        let mut filters = Filters::new();
        if self.x86 {
            filters.x86();
        }
        filters.lzma2(&options);
        let check = self.check()?;
        if !self.threads {
            return Stream::new_stream_encoder(&filters, check).ok();
        }
        let mut builder = MtStreamBuilder::new();
        builder.threads(1).filters(filters).check(check);
        builder.encoder().ok()
    }
}

pub(super) fn knows(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Takes a file of one stream.
pub(super) fn undo(bytes: &[u8], plain: &mut Vec<u8>, parts: &mut Vec<Part>) -> Option<()> {
    let settings = Settings::of(bytes).filter(|_| bytes.ends_with(FOOTER_MAGIC))?;
    let mut text = Vec::new();
    let limit = MAX_PLAIN as u64 + 1;
    XzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut text)
        .ok()?;
    if text.len() > MAX_PLAIN || text.is_empty() {
        return None;
    }
    let settings = PRESETS
        .iter()
        .map(|preset| Settings {
            preset: *preset,
            ..settings
        })
        .find(|settings| begins_so(&text, *settings, bytes))?;
    parts.push(Part::Xz {
        plain: text.len() as u64,
        settings: settings.encode(),
    });
    plain.extend_from_slice(&text);
    Some(())
}

/// Whether these settings make these bytes; gives up at the first that differs.
fn begins_so(plain: &[u8], settings: Settings, wanted: &[u8]) -> bool {
    struct Comparison<'a>(&'a [u8]);
    impl Write for Comparison<'_> {
        fn write(&mut self, made: &[u8]) -> std::io::Result<usize> {
            match self.0.strip_prefix(made) {
                Some(rest) => self.0 = rest,
                None => return Err(std::io::ErrorKind::InvalidData.into()),
            }
            Ok(made.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let Some(stream) = settings.encoder() else {
        return false;
    };
    let mut encoder = XzEncoder::new_stream(Comparison(wanted), stream);
    let written = encoder.write_all(plain).is_ok();
    written && encoder.finish().is_ok_and(|rest| rest.0.is_empty())
}

/// Makes a file again; `None` if the settings are none that [`undo`] gives.
pub(super) fn redo(plain: &[u8], settings: u64) -> Option<Vec<u8>> {
    let settings = Settings::decode(settings).filter(|_| plain.len() <= MAX_PLAIN)?;
    let mut encoder = XzEncoder::new_stream(Vec::new(), settings.encoder()?);
    encoder.write_all(plain).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recode;
    use crate::recode::tests::text;

    #[test]
    fn files_of_every_usual_setting_come_back() {
        let plain = text(60_000);
        let usual = Settings {
            dict: 16,
            check: 1,
            x86: false,
            threads: false,
            preset: 6,
        };
        for settings in [
            usual,
            Settings {
                check: 4,
                dict: 22,
                ..usual
            },
            Settings {
                threads: true,
                ..usual
            },
            Settings {
                x86: true,
                preset: 9,
                ..usual
            },
            Settings {
                preset: 9 | EXTREME,
                check: 0,
                ..usual
            },
        ] {
            let packed = redo(&plain, settings.encode()).unwrap();
            let undone = recode::undo(&packed).unwrap();
            assert_eq!(undone.plain, plain, "{settings:?}");
            assert!(undone.recipe.encode().len() < 20);
            assert_eq!(
                recode::redo(&plain, &undone.recipe, packed.len()).unwrap(),
                packed
            );
        }
    }

    #[test]
    fn what_the_real_xz_writes_is_taken_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, text(60_000)).unwrap();
        for args in [
            &["-6"][..],
            &["--check=crc32", "--lzma2=dict=1MiB"],
            &["--check=crc32", "--x86", "--lzma2=dict=1MiB"],
            &["-e", "-T2"],
        ] {
            let mut xz = std::process::Command::new("xz");
            let Ok(output) = xz.args(args).arg("-c").arg(&path).output() else {
                return println!("skipped: xz is not installed");
            };
            assert!(recode::undo(&output.stdout).is_some(), "{args:?}");
        }
    }

    #[test]
    fn the_encoder_is_the_one_that_recipes_were_made_with() {
        let plain = text(20_000);
        let made = [
            Settings {
                dict: 16,
                check: 1,
                x86: false,
                threads: false,
                preset: 6,
            },
            Settings {
                dict: 22,
                check: 4,
                x86: true,
                threads: true,
                preset: 9 | EXTREME,
            },
        ]
        .map(|settings| xxhash_rust::xxh3::xxh3_64(&redo(&plain, settings.encode()).unwrap()));
        assert_eq!(made, [4029200872633645387, 7424628445990749750]);
    }

    #[test]
    fn other_files_stay_as_they_are() {
        let plain = text(30_000);
        let mut packed = redo(
            &plain,
            Settings {
                dict: 16,
                check: 1,
                x86: false,
                threads: false,
                preset: 6,
            }
            .encode(),
        )
        .unwrap();
        let twice = [&packed[..], &packed[..]].concat();
        assert!(recode::undo(&twice).is_none());
        assert!(recode::undo(&packed[..packed.len() - 5]).is_none());
        let middle = packed.len() / 2;
        packed[middle] ^= 1;
        assert!(recode::undo(&packed).is_none());
        for settings in [u64::MAX, 63, 23 << 12, 2 << 8] {
            assert!(redo(&plain, settings).is_none(), "{settings:x}");
        }
    }
}
