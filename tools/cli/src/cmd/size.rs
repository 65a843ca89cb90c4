//! `grove size`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use grove_engine::error::IoResultExt;
use grove_engine::ops::delta::{DeltaInfo, show};
use grove_engine::ops::ostree::{Planner, Pull, Transfer};
use grove_engine::{Error as Engine, ObjectId, Repository};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Say what a client transfers to get from one commit to another
///
/// These are the requests that 'ostree pull' makes of an exported repository, and the bytes of the
/// answers: with a static delta, where 'deltas' has one, and without. With one commit alone, the client
/// has nothing yet. The first time, files have to be compressed to know their sizes; these are
/// remembered, and from then on the answer comes at once. --delta adds what a client that runs Grove
/// gets: the file that 'grove delta create' made. Of a fleet, those take it that have the commit where
/// it begins.
///
/// A line of the fleet's file is a rev, or the version of a commit, and the number of clients that have
/// it; '-' stands for those that have nothing. What follows '#' is not read.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove size os/stable\n  grove size os/stable^ os/stable\n  \
    grove size --delta update.delta os/stable^ os/stable\n  \
    grove size --fleet clients.txt os/stable"
)]
pub struct Args {
    /// What the client has; without B, what it wants
    a: String,
    /// What the client wants
    #[arg(conflicts_with = "fleet")]
    b: Option<String>,
    /// Sum up for clients with the commits in FILE, which all want A
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Set the delta that 'grove delta create' made beside the others
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize, Clone, Copy, Default)]
struct JsonPull {
    requests: u64,
    bytes: u64,
}

impl From<Pull> for JsonPull {
    fn from(pull: Pull) -> Self {
        let Pull { requests, bytes } = pull;
        Self { requests, bytes }
    }
}

impl JsonPull {
    fn add(&mut self, other: Pull, times: u64) {
        self.requests = self
            .requests
            .saturating_add(other.requests.saturating_mul(times));
        self.bytes = self.bytes.saturating_add(other.bytes.saturating_mul(times));
    }
}

#[derive(Serialize)]
struct Row {
    from: Option<String>,
    to: String,
    without_delta: JsonPull,
    metadata: JsonPull,
    files: JsonPull,
    with_delta: Option<JsonPull>,
    grove_delta: Option<JsonPull>,
    disk_bytes: u64,
    allocated_bytes: u64,
}

/// What a client transfers in each way that there is.
struct Ways {
    stock: Transfer,
    /// By the delta of Grove, where the client can take it.
    grove: Option<Pull>,
}

impl Ways {
    /// What a client that takes any delta transfers.
    fn with_any_delta(&self) -> Pull {
        let Transfer { delta, loose, .. } = self.stock;
        self.grove.or(delta).unwrap_or(loose)
    }
}

impl From<&Ways> for Row {
    fn from(ways: &Ways) -> Self {
        let way = &ways.stock;
        Self {
            from: way.from.map(|id| id.to_string()),
            to: way.to.to_string(),
            without_delta: way.loose.into(),
            metadata: way.metadata.into(),
            files: way.files.into(),
            with_delta: way.delta.map(JsonPull::from),
            grove_delta: ways.grove.map(JsonPull::from),
            disk_bytes: way.disk_bytes,
            allocated_bytes: way.allocated_bytes,
        }
    }
}

#[derive(Serialize)]
struct FleetReport {
    clients: u64,
    without_deltas: JsonPull,
    with_deltas: JsonPull,
    with_grove_delta: Option<JsonPull>,
    versions: Vec<FleetRow>,
}

#[derive(Serialize)]
struct FleetRow {
    version: String,
    clients: u64,
    #[serde(flatten)]
    way: Row,
}

/// Clients that have the same.
struct Group {
    version: String,
    clients: u64,
    from: Option<ObjectId>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let (from, to) = match &args.b {
        Some(b) => (Some(repo.resolve_rev(&args.a)?), repo.resolve_rev(b)?),
        None => (None, repo.resolve_rev(&args.a)?),
    };
    let groups = match &args.fleet {
        Some(path) => read_fleet(&repo, path)?,
        None => {
            let (version, clients) = (String::new(), 1);
            vec![Group {
                version,
                clients,
                from,
            }]
        }
    };
    let base = args.fleet.is_none().then_some(from);
    let delta = args.delta.as_deref();
    let delta = delta.map(|path| read_delta(path, base, &to)).transpose()?;
    let progress = globals.progress();
    let mut planner = Planner::new(&repo)?;
    let mut ways = Vec::with_capacity(groups.len());
    for group in &groups {
        let taken = delta.filter(|delta| delta.from == group.from);
        ways.push(Ways {
            stock: planner.transfer(group.from.as_ref(), &to, &progress)?,
            grove: taken.map(|delta| Pull {
                requests: 1,
                bytes: delta.size,
            }),
        });
    }
    progress.finish();
    match (&args.fleet, ways.as_slice()) {
        (None, [ways]) if args.json.json => json::print(&Row::from(ways))?,
        (None, [ways]) => print(ways, args.sizes)?,
        _ => {
            let report = fleet(groups, &ways, delta.is_some());
            match args.json.json {
                true => json::print(&report)?,
                false => print_fleet(&report, args.sizes)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the delta, which must lead to `to`, and begin at `base` if there is one.
fn read_delta(path: &Path, base: Option<Option<ObjectId>>, to: &ObjectId) -> Result<DeltaInfo> {
    let delta = show(path)?;
    if delta.to == *to && base.is_none_or(|base| base == delta.from) {
        return Ok(delta);
    }
    let name = |id: Option<ObjectId>| id.map_or("nothing".to_owned(), |id| id.to_string());
    let wanted = base.map_or(String::new(), |base| format!("from {} ", name(base)));
    let (path, from) = (path.display(), name(delta.from));
    Err(Error::Failed {
        message: format!(
            "{path}: the delta goes from {from} to {}, not {wanted}to {to}",
            delta.to
        ),
        hint: Some("'grove delta create' makes one between two commits"),
    })
}

fn print(ways: &Ways, sizes: SizeSwitch) -> Result<()> {
    let way = &ways.stock;
    let mut out = ui::stdout();
    let mut line = |name: &str, pull: Pull| {
        let requests = ui::count(pull.requests, "request");
        writeln!(out, "{name:<18}{:>12}  {requests}", sizes.show(pull.bytes))
    };
    line("without a delta:", way.loose)?;
    line("  metadata:", way.metadata)?;
    line("  files:", way.files)?;
    match way.delta {
        Some(delta) => line("static delta:", delta)?,
        None => writeln!(out, "static delta:         none")?,
    }
    if let Some(delta) = ways.grove {
        let requests = ui::count(delta.requests, "request");
        let bytes = sizes.show(delta.bytes);
        writeln!(out, "{:<18}{bytes:>12}  {requests}", "grove delta:")?;
    }
    let (disk, allocated) = (sizes.show(way.disk_bytes), sizes.show(way.allocated_bytes));
    writeln!(
        out,
        "{:<18}{disk:>12}  {allocated} in whole blocks",
        "disk needed:"
    )?;
    out.flush()?;
    Ok(())
}

fn fleet(groups: Vec<Group>, ways: &[Ways], has_delta: bool) -> FleetReport {
    let mut report = FleetReport {
        clients: 0,
        without_deltas: JsonPull::default(),
        with_deltas: JsonPull::default(),
        with_grove_delta: has_delta.then(JsonPull::default),
        versions: Vec::with_capacity(groups.len()),
    };
    for (group, ways) in groups.into_iter().zip(ways) {
        let way = &ways.stock;
        let clients = group.clients;
        report.clients = report.clients.saturating_add(clients);
        report.without_deltas.add(way.loose, clients);
        report
            .with_deltas
            .add(way.delta.unwrap_or(way.loose), clients);
        if let Some(sum) = &mut report.with_grove_delta {
            sum.add(ways.with_any_delta(), clients);
        }
        report.versions.push(FleetRow {
            version: group.version,
            clients,
            way: ways.into(),
        });
    }
    report
}

fn print_fleet(report: &FleetReport, sizes: SizeSwitch) -> Result<()> {
    let mut out = ui::stdout();
    // The last column is there only where such a delta was named.
    let grove = |text: String| match report.with_grove_delta {
        Some(_) => format!("{text:>14}"),
        None => String::new(),
    };
    writeln!(
        out,
        "{:<24}{:>10}{:>14}{:>14}{:>10}{}",
        "version",
        "clients",
        "no delta",
        "delta",
        "requests",
        grove("grove delta".to_owned())
    )?;
    for row in &report.versions {
        let size =
            |pull: Option<JsonPull>| pull.map_or("-".to_owned(), |pull| sizes.show(pull.bytes));
        let delta = size(row.way.with_delta);
        let used = row.way.with_delta.unwrap_or(row.way.without_delta);
        writeln!(
            out,
            "{:<24}{:>10}{:>14}{delta:>14}{:>10}{}",
            ui::printable(&row.version),
            row.clients,
            sizes.show(row.way.without_delta.bytes),
            used.requests,
            grove(size(row.way.grove_delta)),
        )?;
    }
    writeln!(
        out,
        "{:<24}{:>10}{:>14}{:>14}{:>10}{}",
        "all",
        report.clients,
        sizes.show(report.without_deltas.bytes),
        sizes.show(report.with_deltas.bytes),
        report.with_deltas.requests,
        grove(
            report
                .with_grove_delta
                .map_or(String::new(), |pull| sizes.show(pull.bytes))
        ),
    )?;
    out.flush()?;
    Ok(())
}

fn read_fleet(repo: &Repository, path: &Path) -> Result<Vec<Group>> {
    let text = std::fs::read_to_string(path).at(path)?;
    let mut groups = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let line = line.replace(',', " ");
        let words: Vec<&str> = line.split_whitespace().collect();
        let refuse = |what: &str| {
            let place = format!("{}: line {number}", path.display());
            Error::failed(format!("{place}: {what}"))
        };
        let (version, clients) = match words.as_slice() {
            [] => continue,
            [version, clients] => (*version, *clients),
            _ => return Err(refuse("not a version and a number of clients")),
        };
        let clients = clients
            .parse()
            .map_err(|_| refuse("not a number of clients"))?;
        groups.push(Group {
            version: version.to_owned(),
            clients,
            from: find(repo, version).map_err(|error| match error {
                Error::Engine(Engine::RevNotFound { .. }) => refuse("no commit of this version"),
                other => other,
            })?,
        });
    }
    Ok(groups)
}

/// The commit that a rev names, or else the newest one of this version.
fn find(repo: &Repository, version: &str) -> Result<Option<ObjectId>> {
    if version == "-" {
        return Ok(None);
    }
    // A version may look like the beginning of a checksum: only whole names come before it.
    if version.parse::<ObjectId>().is_ok() || repo.refs()?.map.contains_key(version) {
        return Ok(Some(repo.resolve_rev(version)?));
    }
    let mut newest = None;
    for id in repo.commits()? {
        let commit = repo.commit(&id)?;
        let own = commit
            .metadata
            .get("version")
            .and_then(|value| value.as_str());
        if own == Some(version) {
            newest = newest.max(Some((commit.timestamp, id)));
        }
    }
    match newest {
        Some((_, id)) => Ok(Some(id)),
        None => Ok(Some(repo.resolve_rev(version)?)),
    }
}
