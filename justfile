# `just check` is what CI runs. Logic lives in xtask, not here.

# Both tiers: format, lints, docs, licences, purity, all tests; power cuts, machines, release builds.
check:
    cargo xtask test --prove

# The first tier alone.
test:
    cargo xtask test

# The second: power cuts, I/O faults, faulty variants, machines, release builds.
prove:
    cargo xtask prove

# What takes hours.
night:
    cargo xtask night

# The inner loop: no docs, no release build, unit tests only.
quick:
    cargo xtask test --quick

# The simulators: attacks, power cuts, whole updates.
sim:
    cargo test --package racklet-tests

# Property tests of every parser, with many more cases than in `check`.
fuzz-smoke:
    PROPTEST_CASES=20000 cargo test --release --package formats

# One release through everything, on a real Debian image.
demo *ARGS:
    cargo xtask demo {{ARGS}}

# Creates keys-example again, with its own recipe.
keys:
    rm -f keys-example/*.key keys-example/*.pub
    cargo run --package signer -- key example --out keys-example

# Debian and Python packages that the other recipes call.
setup:
    cargo xtask setup
