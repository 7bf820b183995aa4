#!/bin/sh
# Puts the ONNX Runtime shared library for this machine into the user's cache
# folder, where the program looks for it. It does nothing when the right library
# is there already, and fetches it again when the file there is damaged.
#
#   sh models/fetch-runtime.sh            fetch if need be; prints the path
#   sh models/fetch-runtime.sh --path     only print the path, fetch nothing
#
# The library comes out of the npm package below: the package is checked against
# the integrity hash that npm publishes for it, and the library inside against
# its own hash. No script of the package is run. Needs npm and tar.
set -eu

version=1.30.0
package="onnxruntime-node@$version"
# sha512 of the package, as in npm's "dist.integrity".
integrity='twhs1C2C/BFkz1yc5OY0KIU2GUq6DURO7hD4bx5Q2Qy3nAMJwRXW8xU3NVczE29VA9lolLOYepoD8fjTGOfIqw=='

say() { printf '%s\n' "fetch-runtime: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# What this machine needs: the file in the package, and its sha256.
os=$(uname -s) arch=$(uname -m)
case "$os/$arch" in
Linux/x86_64 | Linux/amd64)
	member=linux/x64/libonnxruntime.so.1
	sha256=ffb75a925ba05e47b235bb66e3e3911714a80b328a9c9425539feb204aa32a23 ;;
Linux/aarch64 | Linux/arm64)
	member=linux/arm64/libonnxruntime.so.1
	sha256=1f549d46250b005580b597f4164984aaf75b3bcb9f3aeb07c7f8a8fe60b23c76 ;;
Darwin/arm64)
	member=darwin/arm64/libonnxruntime.$version.dylib
	sha256=685d2be5dba1309c89d3a5324b7fd06a5c42f1a61bfea32d14c4cc28d072121d ;;
*)
	die "there is no ONNX Runtime for $os on $arch in $package; install ONNX Runtime 1.24 or newer yourself and name the library with \$MENSHEN_ONNXRUNTIME" ;;
esac
name=${member##*/}

# The cache folder, as Go's os.UserCacheDir gives it.
case "$os" in
Darwin) cache=${HOME:?fetch-runtime: HOME is not set}/Library/Caches ;;
*) cache=${XDG_CACHE_HOME:-${HOME:?fetch-runtime: HOME is not set}/.cache} ;;
esac
case "$cache" in
/*) ;;
*) die "the cache folder $cache is not an absolute path; set XDG_CACHE_HOME to one" ;;
esac
dir=$cache/menshen/onnxruntime/$version
target=$dir/$name

if [ "${1-}" = --path ]; then
	printf '%s\n' "$target"
	exit 0
fi
[ $# -eq 0 ] || die "unknown argument $1; the only one is --path"

# sha256_of FILE prints the hash in hex.
sha256_of() {
	if have sha256sum; then
		sha256sum <"$1" | cut -d' ' -f1
	elif have shasum; then
		shasum -a 256 <"$1" | cut -d' ' -f1
	elif have openssl; then
		openssl dgst -sha256 -r <"$1" | cut -d' ' -f1
	elif have node; then
		node -e 'process.stdout.write(require("crypto").createHash("sha256").update(require("fs").readFileSync(process.argv[1])).digest("hex"))' "$1"
	else
		die "no way to compute a sha256: install coreutils, openssl or node"
	fi
}

# sha512_base64_of FILE prints the hash in base64, the way npm writes it.
sha512_base64_of() {
	if have node; then
		node -e 'process.stdout.write(require("crypto").createHash("sha512").update(require("fs").readFileSync(process.argv[1])).digest("base64"))' "$1"
	elif have openssl; then
		openssl dgst -sha512 -binary <"$1" | openssl base64 -A
	else
		die "no way to compute a sha512: install node or openssl"
	fi
}

if [ -f "$target" ]; then
	got=$(sha256_of "$target") || exit 1
	if [ "$got" = "$sha256" ]; then
		say "ONNX Runtime $version is here: $target"
		exit 0
	fi
	say "$target is damaged; fetching it again"
fi

have npm || die "npm is not installed, and ONNX Runtime comes through it: install node and npm, or name a library of your own with \$MENSHEN_ONNXRUNTIME"
have tar || die "tar is not installed; it unpacks the npm package"

mkdir -p "$dir" || die "cannot make $dir"
tmp=$(mktemp -d "$dir/fetch.XXXXXX") || die "cannot write in $dir"
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# fetch leaves the pinned package in $tarball, or says why it does not. npm gives
# a download five minutes where it is not told otherwise.
fetch() {
	rm -f "$tmp"/*.tgz
	(cd "$tmp" && npm pack "$package" --ignore-scripts --silent --fetch-timeout=1800000 >pack.out) || {
		say "npm pack $package failed; check the network and npm's registry setting"
		return 1
	}
	tarball=$(find "$tmp" -name '*.tgz' | head -n 1)
	[ -n "$tarball" ] || { say "npm pack left no package"; return 1; }
	got=$(sha512_base64_of "$tarball") || return 1
	[ "$got" = "$integrity" ] || {
		say "the package npm delivered is not the pinned one: expected sha512-$integrity, got sha512-$got"
		return 1
	}
}

say "fetching $package through npm (114 MB, once)"
fetch || { say "trying again"; sleep 5; fetch; } || { say "trying once more"; sleep 20; fetch; } ||
	die "nothing was installed; run this again when the reason above is mended"

tar -xzf "$tarball" -C "$tmp" "package/bin/napi-v6/$member" ||
	die "the package holds no bin/napi-v6/$member, or the disk is full"
new=$tmp/package/bin/napi-v6/$member
got=$(sha256_of "$new") || exit 1
[ "$got" = "$sha256" ] ||
	die "$member has sha256 $got, expected $sha256; nothing was installed"
chmod 644 "$new"
mv -f "$new" "$target"
say "ONNX Runtime $version is now here: $target"
