#!/bin/sh
# Builds every fuzz target with the stable toolchain and runs each for a few seconds: enough that none rots.
# For a long run: `cargo +nightly fuzz run TARGET` in tests/.
set -eu
cd "$(dirname "$0")"
seconds=${1:-10}
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# What cargo-fuzz sets, without the address sanitizer, which wants nightly.
export RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
 -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
 -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --locked --target "$host" --target-dir "$target"
found=$(mktemp -d)
trap 'rm -rf "$found" "$found.log"' EXIT
for name in client_hello request event_stream frames edits rewrite; do
    echo "fuzz target $name, $seconds s"
    "$target/$host/release/$name" -max_total_time="$seconds" -max_len=65536 -print_final_stats=1 \
        "$found" ../../interceptor/core/tests/fixtures 2>"$found.log" || { cat "$found.log"; exit 1; }
    tail -n 8 "$found.log"
done
