# Convenience only: README and .ci/run use plain commands.
check:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    cargo test --lib --locked
test:
    scripts/test
golden:
    UPDATE_GOLDEN=1 cargo test --locked
bench:
    cargo bench --locked
deny:
    cargo deny check bans licenses sources advisories
run:
    cargo run --release --locked -- dev
