# nodeagent: `make help` says what there is.
SHELL := /bin/bash
GO    ?= go
LAB    = bin/lab-run
# What a package's tests may take: several times what they do on two slow cores.
PATIENCE = 60m

.PHONY: help build run down cluster test unit sim race e2e e2e-cluster conformance bench fuzz lint fmt install

help: ## say what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

build: ## build bin/nodeagent
	$(GO) build -trimpath -ldflags="-s -w" -o bin/nodeagent ./cmd/nodeagent

run: ## run the agent on manifests/examples, with a private containerd if none listens
	@hack/install runtime
	@$(MAKE) --no-print-directory build
	@$(GO) build -o $(LAB) ./e2e/lab/run
	@exec $(LAB)

down: ## stop what `make run` left running: pods and containerd
	@test ! -x $(LAB) || $(LAB) down

cluster: ## a control plane with the agent as its node, for hand work, until Ctrl-C
	@hack/install cluster
	@$(MAKE) --no-print-directory build
	@$(GO) build -o $(LAB) ./e2e/lab/run
	@exec $(LAB) cluster

test: ## everything: lint, unit, simulation, race, e2e on real containerd
	@hack/test

unit: ## unit tests and golden scripts
	NODEAGENT_SEEDS=100 $(GO) test -timeout $(PATIENCE) ./cmd/... ./pkg/... .

sim: ## the simulation: SEEDS=2000 runs of the loop against a faulty runtime
	NODEAGENT_SEEDS=$(or $(SEEDS),2000) $(GO) test ./pkg/syncloop -run TestSimulation -count=1 -timeout $(PATIENCE)

race: ## unit tests under the race detector
	NODEAGENT_SEEDS=200 $(GO) test -race -timeout $(PATIENCE) ./cmd/... ./pkg/...

e2e: ## the agent on real containerd, networks and images
	@hack/install test
	$(GO) test -count=1 -timeout $(PATIENCE) ./e2e/...

e2e-cluster: ## what the controllers make of pods, on node NODE of the cluster of KUBECONFIG (IMAGE=busybox)
	$(GO) test -count=1 -timeout 10m -tags anycluster -run TestAnyCluster -v ./e2e -node "$(NODE)" -image "$(or $(IMAGE),busybox)"

conformance: ## Kubernetes' own specs of a node, against docs/CONFORMANCE.md: CONFORMANCEFLAGS="-focus REGEXP -rewrite"
	@hack/install conformance
	@$(MAKE) --no-print-directory build
	@$(GO) build -o bin/conformance ./e2e/conformance
	@bin/conformance $(CONFORMANCEFLAGS)

bench: ## side by side with bare CRI calls: BENCHFLAGS="-kubelet PATH" adds the peer
	@hack/install test
	@$(GO) build -o bin/bench ./e2e/bench
	@bin/bench $(BENCHFLAGS)

fuzz: ## each fuzz target for FUZZTIME (10s)
	@hack/fuzz $(or $(FUZZTIME),10s)

lint: ## gofmt, go vet, staticcheck
	@hack/install lint
	@test -z "$$(gofmt -l cmd pkg e2e *.go)" || { echo "not formatted:"; gofmt -l cmd pkg e2e *.go; exit 1; }
	$(GO) vet -tags faults ./...
	"$$(hack/install dir lint)/staticcheck" ./...

fmt: ## format the code
	gofmt -w cmd pkg e2e *.go

install: ## install all that `make test` needs
	@hack/install runtime && hack/install test && hack/install lint
