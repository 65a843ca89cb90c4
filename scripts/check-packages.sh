#!/bin/bash
# Installs packages into empty trees and tries what they bring.
#
#   check-packages.sh DEB RPM PROGRAM
#
# PROGRAM is what was built; the packages must have the same code. Root installs with dpkg and rpm,
# others unpack.
set -euo pipefail
deb=$1 rpm=$2 program=$3
work=$(mktemp -d)
mounted=
cleanup() {
  [ -z "$mounted" ] || "$work/deb/usr/bin/grove" umount --lazy "$mounted" || true
  rm -rf "$work"
}
trap cleanup EXIT

fail() { echo "check-packages: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null || { echo "skipped: $1 is not installed"; return 1; }; }
# Passes standard input on if a line of it matches.
expect() {
  local text
  text=$(cat)
  grep -qE -- "$1" <<<"$text" || fail "no line matches '$1' in: $text"
}

install_deb() {
  local root=$1
  mkdir -p "$root/var/lib/dpkg/"{info,updates}
  touch "$root/var/lib/dpkg/status"
  if [ "$(id -u)" = 0 ]; then
    dpkg --root="$root" --log=/dev/null --force-depends --path-include='/*' -i "$deb" >/dev/null 2>"$work/dpkg" ||
      fail "dpkg: $(cat "$work/dpkg")"
    dpkg --root="$root" -s grove | expect '^Status: install ok installed$'
  else
    dpkg-deb -x "$deb" "$root"
  fi
}

install_rpm() {
  local root=$1
  mkdir -p "$root"
  if [ "$(id -u)" = 0 ]; then
    rpm --root "$root" --dbpath /var/lib/rpm -i --nodeps "$rpm"
    rpm --root "$root" --dbpath /var/lib/rpm -q grove | expect '^grove-'
    rpm --root "$root" --dbpath /var/lib/rpm -V --nodeps grove || fail "rpm -V finds changes"
  else
    (cd "$root" && rpm2cpio "$rpm" | cpio --quiet -id)
  fi
}

# The code of a program, whatever else was stripped.
code() { objcopy -O binary --only-section=.text "$1" "$work/text" && sha256sum <"$work/text"; }

check_program() {
  local root=$1 grove=$1/usr/bin/grove
  "$grove" version -v | expect '^build: release'
  [ "$(code "$grove")" = "$(code "$program")" ] || fail "$grove has other code than $program"
  ! readelf -SW "$grove" | grep -q '\.debug_info' || fail "$grove has tables for debuggers"
  GROVE_REPO=$root/repo "$grove" init
  GROVE_REPO=$root/repo "$grove" commit -b main -s test --owner-uid=0 --owner-gid=0 "$root/usr" |
    expect '^[0-9a-f]{64}$'
  GROVE_REPO=$root/repo "$grove" cat main /bin/grove | cmp - "$grove"
}

check_man() {
  local root=$1 page verbs
  verbs=$("$root/usr/bin/grove" markdown-help | sed -n 's/^##* grove //p' | tr ' ' -)
  for page in grove $(sed 's/^/grove-/' <<<"$verbs"); do
    [ -e "$root/usr/share/man/man1/$page.1.gz" ] || fail "no manual page $page"
  done
  have man || return 0
  for page in "$root"/usr/share/man/man1/*; do
    LC_ALL=C man --warnings -l "$page" 2>"$work/man" </dev/null | cat >"$work/page"
    [ ! -s "$work/man" ] || fail "$page: $(cat "$work/man")"
    expect '^NAME$' <"$work/page"
  done
  LC_ALL=C man -l "$root/usr/share/man/man1/grove-commit.1.gz" </dev/null | expect '^EXAMPLES$'
}

check_completion() {
  local root=$1
  bash -euc '
    . "$1/usr/share/bash-completion/completions/grove"
    complete -p grove >/dev/null
    COMP_WORDS=(grove rev-) COMP_CWORD=1
    _grove grove rev- grove
    printf "%s\n" "${COMPREPLY[@]}"' bash "$root" | expect '^rev-parse$'
  local zsh=("$root"/usr/share/zsh/*/_grove)
  head -n 1 "${zsh[0]}" | expect '^#compdef grove$'
  expect '^complete -c grove' <"$root/usr/share/fish/vendor_completions.d/grove.fish"
}

check_units() {
  local root=$1
  if have systemd-analyze; then
    # The program is not yet where the unit expects it.
    sed "s,/usr/bin/grove,$root/usr/bin/grove," "$root/usr/lib/systemd/system/grove@.service" \
      >"$work/grove-check@.service"
    systemd-analyze --man=no verify "$work/grove-check@srv-repo.service" ||
      fail "the unit is not accepted"
  fi
  "$root/usr/sbin/mount.fuse.grove" "$root/repo#main" "$root/mnt" -f -o ro,nofail ||
    fail "the helper of mount(8) does not run"
  if [ "$(id -u)" = 0 ] && [ -w /dev/fuse ]; then
    mkdir "$root/mnt"
    mounted=$root/mnt
    "$root/usr/sbin/mount.fuse.grove" "$root/repo#main" "$root/mnt" -o ro
    cmp "$root/mnt/bin/grove" "$root/usr/bin/grove"
    "$root/usr/bin/grove" umount "$root/mnt"
    mounted=
  fi
}

dpkg-deb -I "$deb" >"$work/fields"
for field in 'Package: grove' 'Depends: .*libc6 ' 'Recommends: fuse3' 'Suggests: ostree' 'Section: admin'; do
  expect "^ $field" <"$work/fields"
done
rpm -qp --requires "$rpm" | expect '^libc\.so\.6'
rpm -qp --recommends "$rpm" | expect '^fuse3'
rpm -qp --suggests "$rpm" | expect '^ostree'

install_deb "$work/deb"
install_rpm "$work/rpm"
for root in "$work/deb" "$work/rpm"; do
  [ -s "$root/usr/share/doc/grove/README.md" ] && [ -s "$root/usr/share/doc/grove/docs/format.md" ] ||
    fail "$root: no documentation"
  check_program "$root"
  check_man "$root"
  check_completion "$root"
  check_units "$root"
done
expect 'MIT License' <"$work/deb/usr/share/doc/grove/copyright"
for licence in MIT APACHE; do
  [ -s "$work/deb/usr/share/doc/grove/LICENSE-$licence" ] || fail "no licence $licence"
  [ -s "$work/rpm/usr/share/licenses/grove/LICENSE-$licence" ] || fail "no licence $licence"
done
# Both bring the same, but for places that the distributions have for themselves.
files() { (cd "$1" && find usr ! -type d | grep -vE 'zsh|LICENSE|copyright|var/lib' | sort); }
diff <(files "$work/deb") <(files "$work/rpm") || fail "the packages differ"
size() { stat -c %s "$1"; }
printf '%s: %d bytes\n' "$(basename "$deb")" "$(size "$deb")" "$(basename "$rpm")" "$(size "$rpm")" \
  "the program as built" "$(size "$program")" "the program installed" "$(size "$work/deb/usr/bin/grove")"
