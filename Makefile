# The commands that are longer than their names. Nothing needs make: each can be
# typed as it stands here.

COMPOSE = docker compose
# As in the Dockerfile: with other flags it is another program.
IMAGE = CGO_ENABLED=0 GOFLAGS="-trimpath -tags=disable_grpc_modules"
# Which build it is, in the program and on the image. The date is the commit's, so that the same commit makes the same program.
export VERSION := $(shell git describe --tags --always --dirty=+dirty)
export COMMIT := $(shell git rev-parse HEAD)
export DATE := $(shell TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)
GO = $(shell sed -n 's/^toolchain //p' go.mod)

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

dev: ## run Temporal, its Web UI, the webhook and a worker in one process
	go run -C dev .

image: ## build the image closeout:local, labeled with version, commit and date
	docker build --build-arg VERSION --build-arg COMMIT --build-arg DATE -t closeout:local .

up: ## build the image and bring up the whole stack with Docker; see docs/compose.md
	$(COMPOSE) up --build --detach

down: ## take the stack down again; its data stays
	$(COMPOSE) down

smoke: ## close a room on the stack that is up, and wait for its run, bill and manifest
	@session=$$(date +%s) && set -x && \
	$(COMPOSE) exec -T webhook /closeout send --room smoke --session $$session && \
	$(COMPOSE) exec -T webhook /closeout status --wait 3m $$session

test: ## run the tests; the second half on a real Temporal
	go test ./... && go test -C dev ./... && go test -C examples ./...

check: ## find what in a workflow could not be replayed
	go run go.temporal.io/sdk/contrib/tools/workflowcheck@v0.6.0 ./workflows/...

chaos: ## break everything while callbacks come in, and audit what became of them; as root, and it takes long
	go run -C dev ./chaos

bench: ## measure against the bare SDK, the naive handler and bare stores; on a quiet machine, and it takes long
	go test ./internal/ledger -run '^$$' -bench Finalize -benchtime 5x
	go run -C dev ./bench

verify: ## build the image's program here, and compare it with the one in the image
	@dir=$$(mktemp -d) && container=$$(docker create closeout:local) && \
	docker cp $$container:/closeout $$dir/image >/dev/null && docker rm -v $$container >/dev/null && \
	GOTOOLCHAIN=$(GO) $(IMAGE) sh -ec "$$(sed -n 's|^RUN \(go build .*\) -o /out/closeout|\1 -o '$$dir/here'|p' Dockerfile)" && \
	sha256sum $$dir/image $$dir/here && cmp $$dir/image $$dir/here; \
	code=$$?; rm -rf $$dir; exit $$code

sbom: ## list the modules in the image's program, with their licenses, in closeout.cdx.json (CycloneDX)
	$(IMAGE) go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 app \
	  -json -licenses -main cmd/closeout -output closeout.cdx.json .

vuln: ## look for known vulnerabilities in what is called, with the image's Go; asks https://vuln.go.dev, or VULNDB
	@GOTOOLCHAIN=$(GO) go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -db $(VULNDB) ./... || \
	{ echo "Not passed: either it lists vulnerabilities above, or it could not ask $(VULNDB) and has checked nothing."; exit 1; }
VULNDB = https://vuln.go.dev

ci: ## check everything, as CI does
	.ci/run

.PHONY: help dev image up down smoke test check chaos bench verify sbom vuln ci
