# periscope alone, for `periscope compose`: QuestDB and Grafana run in containers of their own.
# Built from the repository: docker build -t periscope:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY assets ./assets
COPY dashboards ./dashboards
# The manifest names it; what is built does not need it.
COPY benches ./benches
COPY README.md ./
RUN cargo build --release --locked --bin periscope

FROM debian:bookworm-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/periscope periscope \
 && install -d -m 0700 -o periscope -g periscope /var/lib/periscope
COPY --from=build /build/target/release/periscope /usr/local/bin/periscope
USER 10001:10001
ENV STATE_DIRECTORY=/var/lib/periscope
VOLUME /var/lib/periscope
STOPSIGNAL SIGTERM
# Ends with 3 when a component or a daemon is not well; the answer itself is what counts here.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["periscope", "status", "--json"]
ENTRYPOINT ["periscope"]
CMD ["up", "--remote"]
