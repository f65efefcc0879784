# shellcheck shell=bash
# Functions of the scripts in this directory; sourced, not run. The scripts install missing prerequisites, report what they
# install, and stop with one line when they cannot continue.

step() { printf '\n== %s\n' "$*"; }
say() { printf '   %s\n' "$*"; }
stop() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs a command as root, by sudo for other users.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        stop "needs root to run '$*', and there is no sudo: run it as root once, then start again"
    fi
}

# Installs the missing ones of the named Debian packages.
install_debs() {
    local missing=() package log
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || stop "these Debian packages are missing, and there is no apt-get to install them: ${missing[*]}"
    say "installing ${missing[*]}"
    log=$(mktemp)
    if ! { as_root apt-get -o DPkg::Lock::Timeout=180 update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=180 install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        if grep -q 'Could not get lock' "$log"; then
            rm -f "$log"
            stop "another apt has held the lock for more than three minutes: wait for it, then start again"
        elif grep -qE 'Could not resolve|Temporary failure|Could not connect|Failed to fetch|Unable to fetch' "$log"; then
            rm -f "$log"
            stop "apt cannot reach its mirrors: connect this machine, or install by hand: ${missing[*]}"
        fi
        rm -f "$log"
        stop "apt could not install ${missing[*]}"
    fi
    rm -f "$log"
}

# Requires a Rust toolchain that can build the program, and the named components.
# shellcheck disable=SC2120  # the demo needs no components
need_rust() {
    local wanted have component
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    command -v cargo >/dev/null ||
        stop "there is no Rust toolchain: get one with  curl https://sh.rustup.rs -sSf | sh -s -- -y  (Rust $wanted or newer; apt-get install curl), then start again"
    have=$(cargo --version | awk '{print $2}')
    [ "$(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
        stop "Rust $have is too old, $wanted or newer is needed: rustup update stable  (Debian's own cargo is too old for this), then start again"
    for component in "$@"; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || stop "cargo $component is missing, and there is no rustup to add it"
        say "adding cargo $component to the toolchain"
        rustup component add "${component/#fmt/rustfmt}" >/dev/null 2>&1 || stop "rustup could not add cargo $component: is the network up?"
    done
}

# Requires the standard library of Rust for the target $1.
need_target() {
    [ ! -d "$(rustc --print target-libdir --target "$1")" ] || return 0
    command -v rustup >/dev/null ||
        stop "the standard library of Rust for $1 is missing, and there is no rustup to add it (Debian: libstd-rust-dev of that architecture)"
    say "adding $1 to the toolchain"
    rustup target add "$1" >/dev/null 2>&1 || stop "rustup could not add the target $1: is the network up?"
}

# Makes cargo run each test program under scripts/test-runner, which ends a test that takes too long.
limit_tests() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=scripts/test-runner"
}

# Runs cargo test with the arguments from the second on. Its output also goes to the file $1, for test_results. Returns its
# status. A daemon that a failed test has left may keep the output open, so that a pipe into tee would not end.
run_tests() (
    log=$1 status=0
    shift
    : >"$log"
    sleep infinity &
    cargo_runs=$!
    trap 'kill "$cargo_runs" 2>/dev/null || true' EXIT
    tail -n +1 -s 0.2 --follow --pid="$cargo_runs" "$log" &
    shown=$!
    cargo test "$@" >>"$log" 2>&1 || status=$?
    kill "$cargo_runs"
    wait "$shown" || true
    exit "$status"
)

# Prints the output of the failed tests and the total results of all test programs, from the file that run_tests wrote.
test_results() {
    local log=$1
    step "Output of failed tests"
    # Each program repeats it between "failures:" and its result; of the output of one test, the first 80 lines.
    awk '/^failures:$/ { shown = 1 } /^test result:/ { shown = 0 } /^---- .* ----$/ { lines = 0 } shown && lines++ < 80' "$log"
    step "Results"
    awk '/^ +(Running|Doc-tests) / { program = $0; sub(/^ +/, "", program) }
         /^test result:|^test .* FAILED|^error: / { if (program != "") print program; program = ""; print }' "$log"
    awk '/^test result:/ { passed += $4; failed += $6; programs++ }
         END { printf "test result: %s. %d passed; %d failed; in %d test programs\n", failed ? "FAILED" : "ok", passed, failed, programs }' "$log"
}

# Tests synchronisation and caches under random schedules of their threads. Their build replaces the locks of the standard
# library.
test_schedules() {
    cargo test --profile quick -p dupfs-base -p dupfs-cache --features shuttle --test schedules
}

# Makes /dev/fuse accessible to every user, as on an ordinary machine: fusermount3 mounts for users, but they open the device
# themselves.
open_fuse() {
    if [ ! -e /dev/fuse ]; then
        say "/dev/fuse is missing: loading the module"
        as_root modprobe fuse 2>/dev/null || true
        [ -e /dev/fuse ] || as_root mknod -m 666 /dev/fuse c 10 229 ||
            stop "/dev/fuse is missing and cannot be made: in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
    fi
    if [ "$(stat -c %a /dev/fuse)" != 666 ]; then
        say "giving /dev/fuse its usual mode 0666 (it has $(stat -c %a /dev/fuse))"
        as_root chmod 0666 /dev/fuse || stop "/dev/fuse cannot be given its usual mode 0666"
    fi
    { : <>/dev/fuse; } 2>/dev/null || stop "/dev/fuse cannot be opened: this kernel or container has no FUSE (container: --device /dev/fuse --cap-add SYS_ADMIN)"
}
