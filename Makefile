# Shortcuts for commands that you can also type.

COMPOSE = docker compose
# As in the Dockerfile.
export PROGRAM = cmd/closeout
IMAGE = CGO_ENABLED=0 GOFLAGS="-trimpath -tags=disable_grpc_modules"
# The build's version, in program and image. The commit's date keeps the build reproducible.
export VERSION := $(shell git describe --tags --always --dirty=+dirty)
export COMMIT := $(shell git rev-parse HEAD)
export DATE := $(shell TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)
GO = $(shell sed -n 's/^toolchain //p' go.mod)

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

dev: ## run Temporal, its Web UI, the webhook and a worker in one process
	go run -C dev .

image: ## build the image closeout:local; with gs:// and azblob://: make image PROGRAM=clouds/cmd/closeout-clouds
	docker build --build-arg PROGRAM --build-arg VERSION --build-arg COMMIT --build-arg DATE -t closeout:local .

up: ## build the image and start the stack with Docker; see docs/compose.md
	$(COMPOSE) up --build --detach

down: ## stop the stack; its data stays
	$(COMPOSE) down

smoke: ## play a room on the running stack, and wait for its run, bill and manifest
	@session=$$(date +%s) && set -x && \
	$(COMPOSE) exec -T webhook /closeout send --room smoke --session $$session --recording && \
	$(COMPOSE) exec -T webhook /closeout status --wait 3m $$session && \
	$(COMPOSE) exec -T webhook /closeout bill show $$session

test: ## run the tests; dev and examples on a real Temporal
	go test ./... && go test -C clouds ./... && go test -C dev ./... && go test -C examples ./...

check: ## find nondeterministic code in Workflows
	go run go.temporal.io/sdk/contrib/tools/workflowcheck@v0.6.0 ./workflows/...

simulate: ## run a million seeds of the simulation, or SEEDS; with SEED, print the history of one
	go test ./internal/simulation -timeout 0 -v $(if $(SEED),-run '^TestReplay$$' -replay=$(SEED) -exact,-run '^TestSimulation$$' -simulate=$(SEEDS))
SEEDS = 1000000

chaos: ## kill every service while callbacks arrive, then audit; needs root, takes long
	go run -C dev ./chaos

bench: ## compare with the bare SDK, a naive handler and bare stores; needs a quiet machine, takes long
	go test ./internal/ledger -run '^$$' -bench . -benchtime 5x
	go run -C dev ./bench

verify: ## build the program here, and compare it with the image's
	@dir=$$(mktemp -d) && container=$$(docker create closeout:local) && \
	docker cp $$container:/closeout $$dir/image >/dev/null && docker rm -v $$container >/dev/null && \
	GOTOOLCHAIN=$(GO) $(IMAGE) sh -ec "$$(sed -n 's|^ *\(go build .*\) -o /out/closeout|\1 -o '$$dir/here'|p' Dockerfile)" && \
	sha256sum $$dir/image $$dir/here && cmp $$dir/image $$dir/here; \
	code=$$?; rm -rf $$dir; exit $$code

# Signs with GPG_FINGERPRINT if it is set, and pushes images to REGISTRY.
GORELEASER = go run github.com/goreleaser/goreleaser/v2@v2.15.1
REGISTRY = ghcr.io/closeouthq
release: ## publish the current tag: binaries, checksums, bills of materials, images; needs GITHUB_TOKEN and buildx
	$(GORELEASER) release --clean $(if $(GPG_FINGERPRINT),,--skip=sign)
	$(call push,cmd/closeout)
	$(call push,clouds/cmd/closeout-clouds)

snapshot: ## make a release without images, in dist, without publishing it
	$(GORELEASER) release --clean --snapshot $(if $(GPG_FINGERPRINT),,--skip=sign)

# zstd makes a pull a fifth smaller than gzip.
push = SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=true \
	--build-arg PROGRAM=$(1) --build-arg VERSION --build-arg COMMIT --build-arg DATE \
	--tag $(REGISTRY)/$(notdir $(1)):$(VERSION) --tag $(REGISTRY)/$(notdir $(1)):latest \
	--output type=image,push=true,rewrite-timestamp=true,oci-mediatypes=true,compression=zstd,compression-level=19,force-compression=true .

sbom: ## write closeout.cdx.json: the program's modules and licenses (CycloneDX)
	$(IMAGE) go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 app \
	  -json -licenses -main $(PROGRAM:clouds/%=%) -output closeout.cdx.json $(if $(filter clouds/%,$(PROGRAM)),clouds,.)

vuln: ## look for known vulnerabilities with the image's Go, in the database VULNDB
	@(for module in . clouds; do GOTOOLCHAIN=$(GO) go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -C $$module -db $(VULNDB) ./... || exit 1; done) || \
	{ echo "Not passed: either it lists vulnerabilities above, or it could not ask $(VULNDB) and has checked nothing."; exit 1; }
VULNDB = https://vuln.go.dev

ci: ## run all checks
	.ci/run

.PHONY: help dev image up down smoke test check simulate chaos bench verify release snapshot sbom vuln ci
