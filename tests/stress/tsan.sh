#!/usr/bin/env bash
# Runs the stress test under ThreadSanitizer, as root on a Debian 12 (or in such a container). The folder that is given keeps
# the tools and the build; the environment is that of the stress test.
#
# The standard library has to be built with the sanitizer, too: with the one that rustup brings, each channel of std is reported. Its
# source comes with Debian's compiler, which is only unpacked, so that whatever version is installed stays as it is.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
mkdir -p "$1"
here="$(cd "$1" && pwd)"
llvm=22

if ! [ -x "$here/rust/usr/bin/rustc" ]; then
    apt-get update -q
    apt-get install -q -y --no-install-recommends "clang-$llvm" "libclang-rt-$llvm-dev" "libllvm$llvm"
    mkdir -p "$here/debs"
    newest() { apt-cache search --names-only "$1" | sort -V | tail -1 | cut -d' ' -f1; }
    (cd "$here/debs" && apt-get download rustc-web libstd-rust-web-dev rust-web-src "$(newest '^libstd-rust-web-[0-9.]+$')")
    rm -rf "$here/unpacked"
    for package in "$here"/debs/*.deb; do
        dpkg -x "$package" "$here/unpacked"
    done
    # The package points to where it would be installed.
    source=$(echo "$here"/unpacked/usr/src/rustc-*)
    mkdir -p "$here/unpacked/usr/lib/rustlib/src"
    ln -sfn "$source" "$here/unpacked/usr/lib/rustlib/src/rust"
    # Last, so that a half-made tool is made anew.
    mv "$here/unpacked" "$here/rust"
    ln -sfn "$here/rust${source#"$here/unpacked"}" "$here/rust/usr/lib/rustlib/src/rust"
fi

export RUSTC="$here/rust/usr/bin/rustc" RUSTC_BOOTSTRAP=1 LD_LIBRARY_PATH="$here/rust/usr/lib/$(uname -m)-linux-gnu"
# The sanitizer stops at its first report, and so does the script.
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 ${TSAN_OPTIONS:-}"
host="$("$RUSTC" -vV | sed -n 's/^host: //p')"
flags="-Zsanitizer=thread -Zexternal-clangrt -Clinker=clang-$llvm -Clink-arg=-fsanitize=thread"
RUSTFLAGS="$flags ${RUSTFLAGS:-}" cargo test --manifest-path "$root/Cargo.toml" --test stress -Zbuild-std \
    --target "$host" --target-dir "$here/target" \
    -- --nocapture "${@:2}"
