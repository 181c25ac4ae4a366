FROM golang:1.26.8-bookworm AS build
WORKDIR /src

# The Go that go.mod names, if the image above has an older one: a fix of Go's can be taken up without waiting for an image.
ENV GOTOOLCHAIN=auto

# The tag leaves out of Google's storage client what it has for gRPC between clouds, 13 MB that gs:// buckets don't use. With these
# flags and this Go, the same source gives the same binary anywhere: see `make verify`.
ENV CGO_ENABLED=0 GOFLAGS="-trimpath -tags=disable_grpc_modules"

# Dependencies come first: a change of our code neither fetches nor compiles them again. Those named are the large ones, which
# take most of the time; one that is missing here is compiled below. (A cache mount would do it all, with BuildKit only.)
COPY go.mod go.sum ./
RUN go mod download
RUN go build go.temporal.io/sdk/worker gocloud.dev/blob/azureblob gocloud.dev/blob/gcsblob gocloud.dev/blob/s3blob modernc.org/sqlite github.com/cockroachdb/pebble/v2

COPY . .
# Which build it is: `make up` and `make image` set these. Without them the program is "(devel)". CI and `make verify` run this very command.
ARG VERSION="" COMMIT="" DATE=""
RUN go build -buildvcs=false -ldflags="-s -w -X github.com/closeouthq/closeout/internal/buildinfo.version=$VERSION -X github.com/closeouthq/closeout/internal/buildinfo.commit=$COMMIT -X github.com/closeouthq/closeout/internal/buildinfo.date=$DATE" -o /out/closeout ./cmd/closeout

# The final image has no shell to make a folder with. A volume mounted on /data takes over this one's owner.
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

# Everything embedded is kept here, out of the container's own, throw-away layer.
ENV CLOSEOUT_DATA=/data
VOLUME /data

# As a number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/closeout"]
CMD ["serve"]
