//! The page of `grove stats --html`, looked at by a browser.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::env::Env;

/// What a browser makes of a page at a width of so many pixels, and what it complains about.
fn browse(env: &Env, page: &str, width: u32) -> Option<(String, String)> {
    let page = format!("file://{}", env.path(page).display());
    let browser = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", env.path("browser").display()))
        .arg(format!("--window-size={width},900"))
        .args(["--virtual-time-budget=2000", "--dump-dom", &page])
        .stdin(Stdio::null())
        .output();
    let output = match browser {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: chromium: {error}");
            return None;
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let complaints = text(&output.stderr);
    let complaints = complaints.lines().filter(|line| line.contains(":CONSOLE"));
    Some((
        text(&output.stdout),
        complaints.collect::<Vec<_>>().join("\n"),
    ))
}

#[test]
fn a_browser_shows_the_page_without_complaint() {
    let env = Env::with_commits();
    env.ok(&["stats", "--html", "report.html"]);
    let source = std::fs::read_to_string(env.path("report.html")).expect("the page");
    assert!(!source.contains("http"), "it leads to nothing outside");
    for width in [1280, 400] {
        let Some((dom, complaints)) = browse(&env, "report.html", width) else {
            return;
        };
        assert_eq!(complaints, "", "at {width}");
        for part in [
            "2</b><span>commits",
            "os/main",
            "Second",
            "class=\"cell\"",
            "from \\ to",
        ] {
            assert!(dom.contains(part), "{part:?} at {width}: {dom}");
        }
    }
}

/// Tells the page around it how wide it is, and how wide its window.
const MEASURE: &str = "<script>onload = () => parent.postMessage(\
    document.documentElement.scrollWidth + ' in ' + innerWidth, '*')</script></body>";

#[test]
fn nothing_of_the_page_is_beside_a_window_of_either_width() {
    let env = Env::with_commits();
    // Names that are hard to find room for.
    let long = "very-long-name-without-a-place-to-break-it".repeat(4);
    env.file(&format!("two/{long}/{long}"), "x", 0o644);
    env.ok(&["commit", "-b", &format!("os/{}", &long[..90]), "two"]);
    env.ok(&["stats", "--html", "report.html"]);
    let page = std::fs::read_to_string(env.path("report.html")).expect("the page");
    let measured = page.replace("</body>", MEASURE);
    assert_ne!(page, measured);
    std::fs::write(env.path("measured.html"), measured).expect("a copy");
    for width in [1280, 400] {
        // In a frame, as windows of browsers have a least width.
        let around = format!(
            "<!doctype html><body><iframe src='measured.html' style='width:{width}px;height:900px;\
             border:0'></iframe><script>onmessage = event => document.title = event.data</script>"
        );
        std::fs::write(env.path("around.html"), around).expect("a page");
        let Some((dom, complaints)) = browse(&env, "around.html", 1400) else {
            return;
        };
        assert_eq!(complaints, "", "at {width}");
        let title = dom
            .split_once("<title>")
            .and_then(|(_, rest)| rest.split_once("</title>"));
        let (title, _) = title.unwrap_or_else(|| panic!("no measure at {width}: {dom}"));
        let (scrolls, window) = title.split_once(" in ").expect("two numbers");
        let number = |text: &str| text.parse::<u32>().expect("a number");
        assert_eq!(number(window), width);
        assert!(number(scrolls) <= width, "{title} at {width}");
    }
}

#[test]
fn the_page_of_an_empty_repository_says_so_little() {
    let env = Env::new();
    env.ok(&["stats", "--html", "report.html"]);
    if let Some((dom, complaints)) = browse(&env, "report.html", 1280) {
        assert_eq!(complaints, "");
        assert!(dom.contains("<section id=\"where\" hidden"), "{dom}");
    }
}

#[test]
fn the_page_goes_where_it_is_told_or_the_run_fails() {
    let env = Env::with_commits();
    let page = env.ok(&["stats", "--html", "-", "--rev", "os/main^"]);
    let first = env.ok(&["rev-parse", "os/main^"]);
    assert!(page.contains(&format!("\"tree_of\":\"{}\"", first.trim())));
    let failed = env.run(&["stats", "--html", "none/report.html"]);
    assert!(
        failed.contains("none/report.html") && failed.contains("exit code"),
        "{failed}"
    );
    let failed = env.run(&["stats", "--html", "report.html", "--rev", "none"]);
    assert!(failed.contains("none"), "{failed}");
    assert!(!env.path("report.html").exists());
}

#[test]
fn a_page_that_is_there_is_replaced_and_never_half_written() {
    let env = Env::with_commits();
    env.file("report.html", "the old page", 0o640);
    fs::hard_link(env.path("report.html"), env.path("old.html")).expect("a second name");
    symlink("report.html", env.path("link.html")).expect("a link");
    env.ok(&["stats", "--html", "link.html"]);
    let text = |name: &str| fs::read_to_string(env.path(name)).expect("a file");
    assert_eq!(text("old.html"), "the old page");
    assert!(
        text("report.html").contains("</html>"),
        "{}",
        text("report.html")
    );
    let meta = |name: &str| fs::symlink_metadata(env.path(name)).expect("an entry");
    assert!(meta("link.html").is_symlink());
    assert_eq!(meta("report.html").permissions().mode() & 0o7777, 0o640);
    assert!(
        env.ok(&["stats", "--html", "/dev/stdout"])
            .contains("</html>")
    );
    let left = fs::read_dir(env.path("")).expect("a directory");
    let mut left = left.map(|entry| entry.expect("an entry").file_name());
    assert!(left.all(|name| !name.to_string_lossy().ends_with(".tmp")));
}

#[test]
fn as_many_of_the_latest_commits_are_shown_as_wanted() {
    let env = Env::with_commits();
    let page = env.ok(&["stats", "--html", "-", "--last=1"]);
    assert!(page.contains("\"updates\":[[0]]"), "{page}");
    assert!(
        !env.ok(&["stats", "--html", "-"])
            .contains("\"updates\":[[0]]")
    );
    let table = env.ok(&["stats", "--last=1"]);
    assert!(
        table.contains("and 1 more; --commits lists them all\n"),
        "{table}"
    );
    assert!(!env.ok(&["stats", "--commits"]).contains(" more; "));
}
