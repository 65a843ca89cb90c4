#!/bin/bash
# Runs the file system test suite pjdfstest on an overlay above a mounted commit, and beside it on an
# overlay above a plain copy of the same tree. What both answer alike is the overlay's and the host's
# matter; any difference is ours, and fails.
#
# usage: scripts/pjdfstest.sh DIRECTORY_OF_PROGRAMS [TEST_PATTERN...]
# The suite: cargo install pjdfstest --version 0.2.2 --locked
set -euo pipefail

bin=$(realpath "${1:?the directory that holds grove and grove-fixtures, such as target/debug}")
shift
suite=${PJDFSTEST:-pjdfstest}
if ! command -v "$suite" >/dev/null; then
    echo "skipped: pjdfstest is not installed (cargo install pjdfstest, or name it in PJDFSTEST)"
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! [ -w /dev/fuse ]; then
    echo "skipped: takes root and /dev/fuse"
    exit 0
fi

work=$(mktemp -d)
cleanup() {
    cd /
    for dir in ours oracle second mnt; do
        mountpoint -q "$work/$dir" && umount -l "$work/$dir"
    done
    rm -rf "$work"
}
trap cleanup EXIT
# The suite changes to users who have to get there.
chmod 755 "$work"
cd "$work"
mkdir mnt ours ours-upper ours-work oracle oracle-upper oracle-work second

"$bin/grove-fixtures" tree tree >/dev/null
mkdir -m 755 tree/suite
"$bin/grove" init --repo repo
"$bin/grove" commit --repo repo -q -b tree --tree=dir=tree >/dev/null
"$bin/grove" mount --repo repo --allow-other --suid tree mnt
mount -t tmpfs second second
mount -t overlay -o lowerdir=mnt,upperdir=ours-upper,workdir=ours-work ours ours
mount -t overlay -o lowerdir=tree,upperdir=oracle-upper,workdir=oracle-work oracle oracle

# Users that every system has. Left out: flags and ACLs, which Linux has in another form. Remounts are
# left out, too: they would take the overlay from under the other tests. What a read-only file system
# refuses is tested elsewhere: tools/cli/tests/it/conformance/readonly.rs.
cat >suite.toml <<'TOML'
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
TOML

run() {
    "$suite" -c suite.toml -p "$1/suite" -s second "${@:2}" >"$1.out" 2>&1 || true
    grep -E '^[a-z_0-9:]+ +(ok|FAILED|skipped)' "$1.out" | sort >"$1.results"
    echo "$1: $(grep '^Summary' "$1.out" || echo 'no summary')"
}
run oracle "$@"
run ours "$@"

# Tests of character devices make one with the number 0:0, which every overlay keeps for its whiteouts.
echo "failing on both, so not because of what lies below:"
comm -12 ours.results oracle.results | grep -v ' ok$' | grep -v ' skipped$' || echo "  none"
echo "skipped: $(grep -c ' skipped$' ours.results || true), because:"
grep -A1 ' skipped$' ours.out | grep -P '^\t' | sort | uniq -c | sort -rn
if ! cmp -s ours.results oracle.results; then
    echo "different above a mount (right) than above a plain directory (left):"
    diff oracle.results ours.results | grep '^[<>]'
    exit 1
fi
echo "the same answer to $(wc -l <ours.results) tests"
# The suite must not have reached the commit.
"$bin/grove" fsck --repo repo -q >/dev/null
