#!/bin/sh
# usage: dist.sh TARBALL
#
# Writes the release's tarball: what git has of HEAD, and the crates that Cargo.lock names, so that
# it builds without a network. The same commit gives the same bytes, wherever and by whomever it is
# made. What is changed and not committed is in it as well, and said.
set -eu
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/.."

output=$1
name=$(basename "$output" .tar.gz)
if ! commit=$(git rev-parse --verify --quiet HEAD); then
    echo "dist: takes the sources from git, and this is no checkout" >&2
    exit 1
fi
time=$(git log -1 --format=%ct "$commit")
changed=$(git stash create)
[ -z "$changed" ] || echo "dist: with changes that are not committed" >&2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 130' HUP INT TERM
mkdir "$directory/$name"
git archive "${changed:-$commit}" | tar -C "$directory/$name" -xf -

cd "$directory/$name"
# All crates: the tests and the fuzzing targets want to be built as well.
${CARGO:-cargo} vendor --quiet --locked --versioned-dirs --sync fuzz/Cargo.toml vendor >/dev/null
mkdir .cargo
cat >.cargo/config.toml <<'END'
[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "vendor"

[net]
offline = true
END
# 100 MB of libraries for Windows, which nothing here is linked with.
rm -rf vendor/winapi-*-pc-windows-gnu-*/lib
for sums in vendor/winapi-*-pc-windows-gnu-*/.cargo-checksum.json; do
    [ ! -e "$sums" ] || sed -i 's|"lib/[^"]*":"[0-9a-f]*",\{0,1\}||g' "$sums"
done
cd "$OLDPWD"

mkdir -p "$(dirname "$output")"
tar -C "$directory" --format=gnu --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX -cf "$directory/tar" "$name"
gzip -9n <"$directory/tar" >"$output.new"
mv "$output.new" "$output"
echo "dist: $output, of $(git rev-parse --short "$commit")"
