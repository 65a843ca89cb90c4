#!/bin/bash
# The main job, from packages to a mounted commit, in a temporary directory: see `make demo`.
# The argument is the directory of the programs.
set -euo pipefail

PATH=$(realpath "${1:?where the programs are}"):$PATH

dir=$(mktemp -d)
mounted=
clean_up() {
  # A second Ctrl-C must not stop the cleaning.
  trap '' INT TERM
  if [ -n "$mounted" ]; then grove umount "$dir/mnt" || true; fi
  cd / && rm -rf --one-file-system "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$dir"

# Prints a command, then runs it. At most $lines lines of its output are shown.
lines=12
run() {
  local word line=
  for word in "$@"; do
    if [[ $word = *' '* ]]; then word="'$word'"; fi
    line+=" $word"
  done
  printf '\n$%s\n' "$line"
  "$@" | awk -v max="$lines" 'NR <= max { print } END { if (NR > max) print "  ... " NR - max " more lines" }'
}

can_mount() {
  [ -e /dev/fuse ] && { [ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null; }
}

run grove-fixtures mini release-1 --release 1
run grove-fixtures mini release-2 --release 2

export GROVE_REPO=repo
run grove init
run grove commit -b mini/stable -s 'Release 1' --tree=rpms=release-1
run grove commit -b mini/stable -s 'Release 2' --tree=rpms=release-2
run grove log mini/stable

if can_mount; then
  mkdir mnt
  mounted=yes
  run grove mount mini/stable mnt
  run ls -l mnt
  run ls -l mnt/usr/lib
  run cat mnt/usr/lib/os-release
  run grove umount mnt
  mounted=
else
  echo
  echo "mounting is left out: it needs /dev/fuse and root or fusermount3"
fi

run grove diff --stat mini/stable^ mini/stable
run grove diff --files mini/stable^ mini/stable
run grove stats
