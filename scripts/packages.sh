#!/bin/bash
# Makes a Debian and an RPM package of the program in TARGET/release and tries them: make packages.
#
#   packages.sh TARGET
#
# What goes into them is gathered in TARGET/release/package, the tools that make them are built in
# TARGET/tools, the packages are left in TARGET/packages. Nothing is written anywhere else.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1
cargo=${CARGO:-cargo}
tools=$target/tools
stage=$target/release/package
packages=$target/packages
export PATH=$tools/bin:$PATH
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

# tool NAME VERSION: builds a tool unless that version of it is there.
tool() {
  grep -qs "^\"$1 $2 " "$tools/.crates.toml" ||
    "$cargo" install --quiet --locked --root "$tools" "$1@$2"
}

gather() {
  rm -rf "$stage"
  mkdir -p "$stage"/{completions,licences,doc/docs/decisions,doc/docs/plots}
  strip -o "$stage/grove" "$target/release/grove"
  cp tools/cli/dist/* "$stage/"
  "$stage/grove" man "$stage/man"
  gzip -9n "$stage"/man/*
  "$stage/grove" completion bash > "$stage/completions/grove.bash"
  "$stage/grove" completion zsh > "$stage/completions/_grove"
  "$stage/grove" completion fish > "$stage/completions/grove.fish"
  cp LICENSE-* "$stage/licences/"
  cp README.md CHANGELOG.md "$stage/doc/"
  cp docs/*.md "$stage/doc/docs/"
  cp docs/decisions/*.md "$stage/doc/docs/decisions/"
  cp docs/plots/*.svg "$stage/doc/docs/plots/"
}

tool cargo-deb 3.8.0
tool cargo-generate-rpm 0.21.1
gather
rm -rf "$packages"
mkdir -p "$packages"
"$cargo" deb --quiet --no-build --no-strip -p grove-cli --output "$packages/"
"$cargo" generate-rpm --target-dir "$target" -p tools/cli --output "$packages/"
scripts/check-packages.sh "$packages"/*.deb "$packages"/*.rpm "$target/release/grove"
