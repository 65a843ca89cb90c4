//! `security.capability` bytes are those that `setcap` makes the kernel store.

use std::process::Command;

use grove_compose::caps;

use crate::support::have;

#[test]
fn capability_bytes_equal_those_of_setcap() {
    if !have("setcap") || !have("getfattr") {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut compared = 0;
    for text in [
        "cap_net_raw+ep",
        "cap_net_raw,cap_sys_admin=ep",
        "=ep",
        "=",
        "cap_kill=eip",
        "all=p cap_kill-p",
        "40=p",
        "cap_net_raw=e",
        "cap_setuid=ep cap_setuid-e",
    ] {
        let set = Command::new("setcap")
            .arg(text)
            .arg(file.path())
            .output()
            .unwrap();
        if !set.status.success() {
            println!(
                "skipped: setcap {text}: {}",
                String::from_utf8_lossy(&set.stderr)
            );
            continue;
        }
        let got = Command::new("getfattr")
            .args([
                "--absolute-names",
                "--only-values",
                "-n",
                "security.capability",
            ])
            .arg(file.path())
            .output()
            .unwrap();
        assert_eq!(caps::to_xattr(text).unwrap().to_vec(), got.stdout, "{text}");
        compared += 1;
    }
    println!("{compared} texts compared");
}
