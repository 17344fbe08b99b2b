#!/bin/sh
# Builds every fuzz target with the stable toolchain and runs them all for some seconds: enough that none rots.
# For a long run: `cargo +nightly fuzz run TARGET` in tests/.
set -eu
cd "$(dirname "$0")"
seconds=${1:-20}
target=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# What cargo-fuzz sets, without the address sanitizer, which wants nightly.
export RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
 -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
 -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --locked --target "$host" --target-dir "$target"
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
running=
for name in client_hello request event_stream frames edits rewrite; do
    mkdir "$found/$name"
    "$target/$host/release/$name" -max_total_time="$seconds" -max_len=65536 -print_final_stats=1 \
        "$found/$name" ../../interceptor/core/tests/fixtures 2>"$found/$name.log" &
    running="$running $name=$!"
done
failed=0
for one in $running; do
    name=${one%=*}
    echo "fuzz target $name, $seconds s beside the others"
    if wait "${one#*=}"; then
        tail -n 8 "$found/$name.log"
    else
        cat "$found/$name.log"
        failed=1
    fi
done
exit "$failed"
