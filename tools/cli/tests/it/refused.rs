//! Checkouts of ordinary users: what they may not write to, and what they may not set.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use crate::env::Env;

const NOBODY: u32 = 65_534;

fn set_mode(env: &Env, name: &str, mode: u32) {
    fs::set_permissions(env.path(name), fs::Permissions::from_mode(mode)).expect("a mode");
}

/// What a run of somebody who is not root says on standard error.
fn errors(env: &Env, args: &[&str]) -> Option<String> {
    let mut command = env.command(args);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Ok(output) => Some(String::from_utf8(output.stderr).expect("UTF-8")),
        Err(error) => {
            println!("skipped: others cannot run the program where it is: {error}");
            None
        }
    }
}

#[test]
fn a_place_that_is_closed_is_named_and_what_was_left_half_done_is_to_be_removed() {
    let env = Env::with_commits();
    for (name, mode) in [(".", 0o755), ("closed", 0o555), ("open", 0o777)] {
        drop(fs::create_dir(env.path(name)));
        set_mode(&env, name, mode);
    }
    let closed = ["checkout", "os/main", "closed/out"];
    let denied = "error: closed/out\ncaused by: Permission denied (os error 13)\n";
    match errors(&env, &closed) {
        Some(said) => assert_eq!(said, denied),
        None => return,
    }
    assert_eq!(fs::read_dir(env.path("closed")).expect("it").count(), 0);

    // Owners are another matter, and a cache of others cannot note what is there now.
    let owners = errors(&env, &["checkout", "os/main", "open/out"]).expect("as before");
    let said = "caused by: Operation not permitted (os error 1)\nhint: only root can set any owner";
    assert!(owners.starts_with("error: open/out/"), "{owners}");
    assert!(owners.contains(said), "{owners}");
    let again = ["checkout", "-U", "os/main", "open/out"];
    let exists = errors(&env, &again).expect("as before");
    assert!(exists.contains("File exists (os error 17)"), "{exists}");
    let said = "what an interrupted checkout left there, remove first\n";
    assert!(exists.ends_with(said), "{exists}");
    fs::remove_dir_all(env.path("open/out")).expect("it");
    assert_eq!(errors(&env, &again).expect("as before"), "");
    assert_eq!(
        fs::read_to_string(env.path("open/out/hello")).expect("a file"),
        "hello, world\n"
    );
}
