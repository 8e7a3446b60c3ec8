# kleidi with SoftHSM: the binary, the module, the libraries of both, and nothing else; no shell.
#
#   docker build --tag kleidi:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag kleidi:0.1.0 .
#   ci/image            the same where there is no image registry
#
# Runs as any user, with a read-only root file system; unless told otherwise as 65532. Mounts: /etc/kleidi
# (kleidi.yaml, softhsm2.conf, PIN), /var/lib/kleidi (tokens), /run/kleidi (the socket).
# configuration/static-pod.yaml shows them.

# Moved with each release of Debian's or Rust's that matters.
ARG BASE=debian:bookworm-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
ARG BUILDER=rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082

FROM ${BASE} AS softhsm
COPY ci/image-root /usr/local/sbin/
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends libsofthsm2 \
 && image-root /image /usr/lib/softhsm/libsofthsm2.so \
 && install -d /image/etc /own/etc/kleidi /own/run/kleidi /own/var/lib/kleidi/tokens \
 && echo 'root:x:0:0:root:/:/nonexistent\nkleidi:x:65532:65532:kleidi:/:/nonexistent' > /image/etc/passwd \
 && echo 'root:x:0:\nkleidi:x:65532:' > /image/etc/group
COPY configuration/softhsm2.conf /own/etc/kleidi/

# All but the binary.
FROM scratch AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kleidi" \
      org.opencontainers.image.description="Kubernetes KMS v2 plugin, with SoftHSM" \
      org.opencontainers.image.source="https://github.com/beezy-dev/kleidi" \
      org.opencontainers.image.documentation="https://github.com/beezy-dev/kleidi/blob/main/configuration/README.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=softhsm /image/ /
COPY --from=softhsm --chown=65532:65532 /own/etc/kleidi /etc/kleidi
COPY --from=softhsm --chown=65532:65532 /own/run/kleidi /run/kleidi
COPY --from=softhsm --chown=65532:65532 /own/var/lib/kleidi /var/lib/kleidi
ENV PATH=/usr/local/bin SOFTHSM2_CONF=/etc/kleidi/softhsm2.conf
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kleidi"]
CMD ["serve"]

FROM ${BUILDER} AS build
WORKDIR /source
COPY . .
COPY --from=softhsm /image/var/lib/dpkg/status.d /packages
RUN cargo build --release --locked --package kleidi --bin kleidi \
 && ci/sbom /packages > target/sbom.cdx.json

FROM runtime
COPY --from=build /source/target/release/kleidi /usr/local/bin/
COPY --from=build /source/target/sbom.cdx.json /usr/share/doc/kleidi/
