# The commands that are longer than their names. Nothing needs make: each can be
# typed as it stands here.

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

dev: ## run Temporal, its Web UI, the webhook and a worker in one process
	go run -C dev .

test: ## run the tests; the second half on a real Temporal
	go test ./... && go test -C dev ./... && go test -C examples ./...

check: ## find what in a workflow could not be replayed
	go run go.temporal.io/sdk/contrib/tools/workflowcheck@v0.6.0 ./workflows/...

chaos: ## break everything while callbacks come in, and audit what became of them; as root, and it takes long
	go run -C dev ./chaos

bench: ## measure against the bare SDK, the naive handler and bare stores; on a quiet machine, and it takes long
	go test ./internal/ledger -run '^$$' -bench Finalize -benchtime 5x
	go run -C dev ./bench

ci: ## check everything, as CI does
	.ci/run

.PHONY: help dev test check chaos bench ci
