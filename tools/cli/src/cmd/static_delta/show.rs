//! `grove static-delta show`: ostree's lines, or JSON.

use std::io::Write;

use grove_engine::Repository;
use grove_engine::ops::static_delta::{self, DeltaInfo, PartInfo};
use serde::Serialize;

use super::find;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui;

/// Names of operations, in the order in which they are counted.
const OPERATIONS: [&str; 7] = [
    "openspliceclose",
    "open",
    "write",
    "setread",
    "unsetread",
    "close",
    "bspatch",
];

/// Say what a delta holds
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove static-delta show update\n  \
    grove static-delta show --json /srv/deltas/june-july")]
pub(super) struct Show {
    /// A delta of the repository, or a file or directory
    delta: String,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct ShowJson {
    name: String,
    from: Option<String>,
    to: String,
    signed: bool,
    endianness: &'static str,
    timestamp: u64,
    superblock_size: u64,
    total_size: u64,
    made_bytes: u64,
    fallbacks: u64,
    fallback_size: u64,
    fallback_made_bytes: u64,
    parts: Vec<PartJson>,
}

#[derive(Serialize)]
struct PartJson {
    objects: u64,
    size: u64,
    made_bytes: u64,
    modes: u64,
    xattrs: u64,
    blob_size: u64,
    operations_size: u64,
    operations: serde_json::Map<String, serde_json::Value>,
}

/// Runs the verb.
pub(super) fn run(args: &Show, repo: &Repository) -> Result<()> {
    let info = static_delta::show(repo, &find(&args.delta))?;
    if args.json.json {
        return json::print(&document(&info));
    }
    let mut out = ui::stdout();
    print(&mut out, &args.delta, &info)?;
    Ok(out.flush()?)
}

fn document(info: &DeltaInfo) -> ShowJson {
    let part = |part: &PartInfo| PartJson {
        objects: part.objects,
        size: part.size,
        made_bytes: part.made_size,
        modes: part.modes,
        xattrs: part.xattrs,
        blob_size: part.blob_size,
        operations_size: part.ops_size,
        operations: OPERATIONS
            .iter()
            .zip(part.ops)
            .map(|(name, count)| ((*name).to_owned(), count.into()))
            .collect(),
    };
    ShowJson {
        name: info.name.to_string(),
        from: info.name.from.map(|id| id.to_string()),
        to: info.name.to.to_string(),
        signed: info.signed,
        endianness: endianness(info),
        timestamp: info.timestamp,
        superblock_size: info.superblock_size,
        total_size: sum(info, |part| part.size) + info.fallback_size,
        made_bytes: sum(info, |part| part.made_size) + info.fallback_made_size,
        fallbacks: info.fallbacks,
        fallback_size: info.fallback_size,
        fallback_made_bytes: info.fallback_made_size,
        parts: info.parts.iter().map(part).collect(),
    }
}

fn endianness(info: &DeltaInfo) -> &'static str {
    if info.big_endian { "big" } else { "little" }
}

fn sum(info: &DeltaInfo, of: impl Fn(&PartInfo) -> u64) -> u64 {
    info.parts.iter().map(of).sum()
}

fn print(out: &mut impl Write, given: &str, info: &DeltaInfo) -> Result<()> {
    writeln!(out, "Delta: {given}")?;
    writeln!(out, "Signed: {}", if info.signed { "yes" } else { "no" })?;
    let from = info
        .name
        .from
        .map_or(" <scratch>".to_owned(), |id| format!(": {id}"));
    writeln!(out, "From{from}\nTo: {}", info.name.to)?;
    writeln!(out, "Endianness: {}", endianness(info))?;
    writeln!(out, "Timestamp: {}", info.timestamp)?;
    writeln!(out, "Number of parents: 0")?;
    writeln!(out, "Number of fallback entries: {}", info.fallbacks)?;
    writeln!(out, "Total Fallback Size: {}", twice(info.fallback_size))?;
    writeln!(
        out,
        "Total Fallback Uncompressed Size: {}",
        twice(info.fallback_made_size)
    )?;
    writeln!(out, "Number of parts: {}", info.parts.len())?;
    for (n, part) in info.parts.iter().enumerate() {
        let PartInfo {
            objects,
            size,
            made_size,
            modes,
            xattrs,
            blob_size,
            ops_size,
            ops,
        } = part;
        writeln!(
            out,
            "PartMeta{n}: nobjects={objects} size={size} usize={made_size}"
        )?;
        writeln!(
            out,
            "PartPayload{n}: nmodes={modes} nxattrs={xattrs} blobsize={blob_size} opsize={ops_size}"
        )?;
        let counts = OPERATIONS
            .iter()
            .zip(ops)
            .map(|(name, count)| format!("{name}={count}"));
        writeln!(
            out,
            "PartPayloadOps{n}: {}",
            counts.collect::<Vec<_>>().join(" ")
        )?;
    }
    let (size, made) = (
        sum(info, |part| part.size),
        sum(info, |part| part.made_size),
    );
    writeln!(out, "Total Part Size: {}", twice(size))?;
    writeln!(out, "Total Part Uncompressed Size: {}", twice(made))?;
    writeln!(out, "Total Size: {}", twice(size + info.fallback_size))?;
    writeln!(
        out,
        "Total Uncompressed Size: {}",
        twice(made + info.fallback_made_size)
    )?;
    Ok(())
}

/// Exact and for people.
fn twice(bytes: u64) -> String {
    format!("{bytes} ({})", ui::human(bytes))
}
