# Builds with BuildKit, which Docker has since version 23.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src

# Use go.mod's toolchain if the image's Go is older.
ENV GOTOOLCHAIN=auto

# The tag removes gRPC from Google's storage client in closeout-clouds: 13 MB that gs:// does not use. With these flags, the build is
# reproducible; see `make verify`.
ENV CGO_ENABLED=0 GOFLAGS="-trimpath -tags=disable_grpc_modules"

COPY . .
# clouds/cmd/closeout-clouds also has gs:// and azblob:// buckets.
ARG PROGRAM=cmd/closeout
# Set by `make up` and `make image`; without them the version is "(devel)". CI and `make verify` run this same command.
ARG VERSION="" COMMIT="" DATE=""
# The platform of the image, which BuildKit sets.
ARG TARGETOS TARGETARCH
ENV GOOS=$TARGETOS GOARCH=$TARGETARCH
# The cache mounts make a change of one file build in seconds.
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=cache,target=/go/pkg/mod \
    go build -C $PROGRAM -buildvcs=false -ldflags="-s -w -X github.com/closeouthq/closeout/internal/buildinfo.version=$VERSION -X github.com/closeouthq/closeout/internal/buildinfo.commit=$COMMIT -X github.com/closeouthq/closeout/internal/buildinfo.date=$DATE" -o /out/closeout .

# The final image has no shell to create a folder. A volume mounted on /data gets this folder's owner.
RUN mkdir /out/data

FROM gcr.io/distroless/static-debian13:nonroot
ARG VERSION="" COMMIT="" DATE=""
LABEL org.opencontainers.image.title="Closeout" \
      org.opencontainers.image.description="Runs post-close work when a ZEGOCLOUD room ends" \
      org.opencontainers.image.source="https://github.com/closeouthq/closeout" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.created="$DATE"
COPY --from=build /out/closeout /closeout
COPY --from=build --chown=65532:65532 /out/data /data

# Inbox and embedded stores.
ENV CLOSEOUT_DATA=/data
VOLUME /data

# A number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/closeout"]
CMD ["serve"]
