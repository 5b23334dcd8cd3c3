# A static binary in an image without a shell. Both base images can be replaced, e.g. by ones in a private registry.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /agent
COPY Cargo.toml Cargo.lock ./
COPY src src
# The target is named so that crt-static holds for the program and not for the procedural macros that help to build it.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" \
 && cp "target/$target/release/kserve-agent" /kserve-agent

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="kserve-agent" \
      org.opencontainers.image.description="Sidecar proxy for model servers: the KServe agent, thread-per-core" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /kserve-agent /kserve-agent
USER 65532:65532
EXPOSE 9081
ENTRYPOINT ["/kserve-agent"]
