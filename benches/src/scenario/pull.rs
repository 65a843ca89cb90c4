//! What a stock client transfers from an exported repository, beside what `grove size` said.

use std::path::Path;

use grove_fixtures::http::{Request, Server, total};
use serde_json::Value;

use super::Bench;
use super::commit::REF;
use super::pair::Pair;
use crate::error::{At, Error, Result};
use crate::measure::Invocation;
use crate::record::{DIFFERS, FIGURE, HOLDS};

impl Bench<'_> {
    /// The scenario.
    pub(super) fn pull(&mut self) -> Result<()> {
        let pair = self.pair()?;
        if !pair.grove.join("deltas").exists() {
            let make = self.grove(&pair.grove).args(["static-delta", "generate"]);
            let make = make.option("--from", &pair.from).option("--to", &pair.to);
            make.output()?;
        }
        let sizes = self.grove(&pair.grove).arg("size");
        let update = sizes.clone().args([&pair.from, &pair.to]);
        self.step("size of the update, asked first", "grove", &update)?;
        let (row, _) = self.step("size of the update, asked again", "grove", &update)?;
        let wall = self.row(row).wall_seconds;
        self.goal_below("wall seconds of asking again", wall, 1.0);
        let fresh = json(&sizes.clone().args(["--json", &pair.from]))?;
        let update = json(&update.arg("--json"))?;
        let www = self.work.join("www");
        let call = self.grove(&pair.grove).arg("export").arg(&www);
        let (row, _) = self.step("export of an archive", "grove", &call)?;
        self.weigh(row, &www)?;
        if self.tools.ostree.is_some() {
            self.pull_all(&pair, &www, &fresh, &update)?;
        }
        self.put_away(&[www])
    }

    fn pull_all(&mut self, pair: &Pair, www: &Path, fresh: &Value, update: &Value) -> Result<()> {
        let server = Server::start(www).at(www)?;
        let [client, other] = ["client", "other-client"].map(|name| self.work.join(name));
        let init = self.ostree(&client);
        init.args(["init", "--mode=bare-user"]).output()?;
        let remote = self.ostree(&client);
        let remote = remote.args(["remote", "add", "--no-gpg-verify", "o", server.url()]);
        remote.output()?;
        let plain = ["pull", "--disable-static-deltas", "o"];

        let first = format!("{REF}@{}", pair.from);
        let call = self.ostree(&client).args(plain).arg(first);
        self.step("pull of the first", "ostree", &call)?;
        // A commit that is named needs no summary; its detached metadata is asked for in vain.
        let asked = server.take();
        let objects = asked.iter().filter(|r| r.path.starts_with("objects/"));
        let objects: Vec<Request> = objects.cloned().collect();
        let (metadata, files) = (said(fresh, "metadata")?, said(fresh, "files")?);
        let wanted = (metadata.0 + files.0 + 1, metadata.1 + files.1);
        self.compare_transfer("objects of the first", total(&objects), wanted, false);

        // Objects are never written to again: links are as good as copies.
        let copy = Invocation::new("cp").arg("-al").arg(&client).arg(&other);
        copy.output()?;
        let call = self.ostree(&client).args(plain).arg(REF);
        self.step("pull of the next", "ostree", &call)?;
        let asked = total(&server.take());
        let wanted = said(update, "without_delta")?;
        self.compare_transfer("the next, without delta", asked, wanted, false);

        let call = self.ostree(&other).args(["pull", "o", REF]);
        self.step("pull of the next by static delta", "ostree", &call)?;
        let asked = server.take();
        let used = asked.iter().any(|r| r.path.ends_with("/superblock"));
        self.check(used, "the client took the static delta");
        let wanted = said(update, "with_delta")?;
        self.compare_transfer("the next, by delta", total(&asked), wanted, true);
        for repo in [&client, &other] {
            let call = self.ostree(repo).args(["rev-parse", &format!("o:{REF}")]);
            let found = call.output()?;
            self.check_same_checksum("what was pulled", &found, &pair.to);
            let clean = self.ostree(repo).arg("fsck").output().is_ok();
            self.check(clean, "ostree fsck of the client is clean");
        }
        self.put_away(&[client, other])
    }

    /// Writes down whether requests and bytes are what was said. Clients before 2023.6 ask for some
    /// objects beside the delta that brings them: `more` is no failure there.
    fn compare_transfer(&mut self, what: &str, found: (u64, u64), wanted: (u64, u64), more: bool) {
        let (requests, bytes) = found;
        let text = format!(
            "{what}: {requests} requests and {bytes} bytes were transferred, said were {} and {}",
            wanted.0, wanted.1
        );
        let (run, scenario) = (self.run, self.scenario);
        self.record
            .fact(FIGURE, format!("{scenario}, run {run}: {text}"));
        if found == wanted {
            self.verdict(HOLDS, &format!("{what}: transferred is what was said"));
        } else if more && requests >= wanted.0 && bytes >= wanted.1 {
            self.verdict(DIFFERS, &format!("{what}: an old client asks for more"));
        } else {
            self.check(false, &text);
        }
    }
}

fn json(call: &Invocation) -> Result<Value> {
    let text = call.output()?;
    serde_json::from_str(&text).map_err(|source| Error::NoMeasurement {
        command: call.to_string(),
        source,
    })
}

/// Requests and bytes of a part of the answer.
fn said(report: &Value, what: &str) -> Result<(u64, u64)> {
    let figure = |name: &str| report.get(what)?.get(name)?.as_u64();
    let both = figure("requests").zip(figure("bytes"));
    both.ok_or(Error::Client {
        what: "an answer of 'grove size --json' without requests and bytes",
    })
}
