# A static binary in an image without a shell. `make image` builds it, for the processor of this machine or --platform's.
# Both base images can be replaced, e.g. by ones in a private registry.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /agent
COPY .ci/build .ci/build
COPY Cargo.toml Cargo.lock ./
# The dependencies, for an empty program: a layer that is made anew only when the files above have changed.
RUN mkdir src && echo '#![allow(missing_docs)] fn main() {}' >src/main.rs && touch src/lib.rs && .ci/build && rm -r src
COPY src src
# A copied file keeps its time, which may lie before the empty program's; cargo would take that one for the newer.
RUN find src -type f -exec touch {} + && .ci/build && cp target/*/release/kserve-agent /kserve-agent

FROM ${RUNTIME_IMAGE}
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="kserve-agent" \
      org.opencontainers.image.description="Sidecar proxy for model servers: the KServe agent, thread-per-core" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /kserve-agent /kserve-agent
# By number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
# Requests and probes; metrics. The status page on 9090 is on the loopback only.
EXPOSE 9081 9089
ENTRYPOINT ["/kserve-agent"]
