#!/bin/sh
# Builds the eBPF object that the loader embeds: loader/redirect.bpf.o, and the note of the compiler beside it.
#
#   build.sh           build and replace the committed object
#   build.sh --check   build and compare with the committed object: exit 0 equal, 1 different, 2 another compiler
#
# The bytes depend on the compiler and the sources only: every path is mapped to a fixed one.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
committed=$here/loader/redirect.bpf.o
target=${CARGO_TARGET_DIR:-$here/kernel/target}
built=$target/redirect.bpf.o
note=$target/redirect.bpf.txt

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

# `-Z build-std` wants the sources of the standard library: Debian's rustc-web has them, and so has rustup's nightly
# with the component rust-src. Either may be older or newer than the toolchain of the workspace.
if [ -x /usr/bin/rustc ] && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    cargo=/usr/bin/cargo
elif RUSTC=$(rustup which --toolchain nightly rustc 2>/dev/null) &&
    [ -d "$("$RUSTC" --print sysroot)/lib/rustlib/src/rust/library" ]; then
    export RUSTC
    cargo=$(rustup which --toolchain nightly cargo)
else
    fail "expected a Rust compiler with the sources of its library, found none; see README.md"
fi
# cargo install puts the linker there, which is not always on the path.
export PATH="/usr/lib/llvm-22/bin:$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
command -v bpf-linker >/dev/null || fail "expected bpf-linker on the path, found none; see README.md"
command -v llvm-strip >/dev/null || fail "expected llvm-strip on the path, found none; see README.md"

cd "$here/kernel"
"$cargo" fetch --quiet --locked
sources=$("$RUSTC" --print sysroot)/lib/rustlib/src/rust
RUSTFLAGS="-C linker=bpf-linker -C link-arg=--btf -C debuginfo=2"
RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$here=/weir --remap-path-prefix=$sources=/rust"
RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$(readlink -f "$sources")=/rust"
# A directory for each registry, named after it.
for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$registry=/registry"
done
export RUSTFLAGS
"$cargo" build --quiet --locked --release --target bpfel-unknown-none -Z build-std=core --target-dir "$target"
llvm-strip --strip-debug -o "$built" "$target/bpfel-unknown-none/release/redirect"
{
    "$RUSTC" --version
    "$RUSTC" --version --verbose | grep '^LLVM'
    bpf-linker --version
    llvm-strip --version | grep -o 'LLVM version.*'
} >"$note"

if [ "${1:-}" = --check ]; then
    if ! diff "$here/loader/redirect.bpf.txt" "$note" >&2; then
        echo "build.sh: the committed object was made by another compiler; the one made here is $built" >&2
        exit 2
    fi
    cmp "$committed" "$built" || fail "the committed object is not what the sources give; run build.sh and commit"
    echo "$committed is what the sources give"
else
    mv "$built" "$committed"
    mv "$note" "$here/loader/redirect.bpf.txt"
    echo "$committed"
fi
