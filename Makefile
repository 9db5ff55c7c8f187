# The commands of this repository. `make` alone prints them; CI calls nothing else.
SHELL := bash
.DEFAULT_GOAL := help

# ARGS is handed to the program or the tests: make test ARGS=fencing, make load ARGS="--help".
ARGS ?=
FUZZ_SECONDS ?= 60
# A build on CI must not choose other versions than Cargo.lock names.
LOCKED := $(if $(CI),--locked)
NEED := @scripts/need.sh
# The variables by which tests find the programs that `make tools` installed.
FIND_TOOLS := eval "$$(scripts/tools.sh env)"

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## start a node without Kafka, messages kept in memory, MQTT on port 1883
	$(NEED) cargo
	cargo run $(LOCKED) --release -- dev $(ARGS)

.PHONY: check
check: ## format, lints, doc links and shell scripts, without running anything
	$(NEED) cargo
	cargo fmt --all --check
	cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --workspace --no-deps
	@if command -v shellcheck >/dev/null; then shellcheck -x scripts/*.sh .ci/run; \
	else echo "SKIPPED: shellcheck is not installed"; fi

.PHONY: test
test: tools ## every test, on a real Kafka of its own and with foreign clients
	$(NEED) cargo java mvn
	$(FIND_TOOLS) && scripts/with-kafka.sh cargo test $(LOCKED) --workspace $(ARGS)

.PHONY: test-quick
test-quick: ## the tests that need neither Kafka nor foreign clients
	$(NEED) cargo
	env -u MILLRACE_TEST_KAFKA cargo test $(LOCKED) --workspace $(ARGS)

.PHONY: test-kafka
test-kafka: tools ## only the tests in tests/kafka*.rs; KAFKA_VERSION=3.9.2 for another Kafka
	$(NEED) cargo java mvn
	$(FIND_TOOLS) && scripts/with-kafka.sh cargo test $(LOCKED) --test 'kafka*' $(ARGS)

.PHONY: test-faults
test-faults: tools ## faults of a real Kafka under load, the long ones too; TABLE=docs/benchmarks/journal-faults.md keeps the results
	$(NEED) cargo java mvn
	$(FIND_TOOLS) && MILLRACE_TEST_FAULTS=1 MILLRACE_FAULTS_TABLE=$(and $(TABLE),$(abspath $(TABLE))) \
		cargo test $(LOCKED) --test faults -- --include-ignored --nocapture --test-threads 1 $(ARGS)

.PHONY: sim
sim: ## play one seed of the simulation: make sim SEED=7; SIM_EVENTS=500 shows more, SIM_SCENE=name a scene, SIM_FEATURES=all all features
	$(NEED) cargo
	SEED=$(or $(SEED),0) cargo test $(LOCKED) --test sim -- --ignored --nocapture the_chosen_seed $(ARGS)

.PHONY: sim-swarm
sim-swarm: ## play N seeds of the simulation (100), from FROM (1000) on
	$(NEED) cargo
	N=$(or $(N),100) FROM=$(or $(FROM),1000) \
		cargo test $(LOCKED) --test sim -- --ignored --nocapture a_swarm_of_seeds $(ARGS)

.PHONY: sim-rules
sim-rules: ## take out each rule of the ledger and show the scene and the seed, of N (100), that notices
	$(NEED) cargo
	N=$(or $(N),100) cargo test $(LOCKED) --test sim -- --ignored --nocapture without_a_rule $(ARGS)

.PHONY: kafka
kafka: ## start a real Kafka at 127.0.0.1:9092 and leave it running; KAFKA_NODES=3 for three nodes
	$(NEED) java mvn
	@scripts/kafka.sh start

.PHONY: kafka-stop
kafka-stop: ## stop that Kafka and remove its data
	@scripts/kafka.sh stop --clean

.PHONY: bench
bench: ## benchmarks of the pure parts: codec, routing
	$(NEED) cargo
	cargo bench $(LOCKED) --workspace $(ARGS)

.PHONY: bench-journal
bench-journal: ## what a record costs between us and a real Kafka; ARGS="--quick", "--only a,c --nodes 1"
	$(NEED) cargo java mvn
	cargo bench $(LOCKED) --bench journal -- --kafka --write docs/benchmarks/journal.md $(ARGS)

.PHONY: bench-broker
bench-broker: ## latency, throughput and memory of a whole node, beside Kafka's tools and mosquitto
	$(NEED) cargo java mvn
	cargo build $(LOCKED) --workspace --release
	scripts/with-kafka.sh python3 scripts/bench_broker.py --write docs/benchmarks/broker.md $(ARGS)

.PHONY: bench-sessions
bench-sessions: ## what sessions cost in Kafka, and how fast they are back; ARGS="--only resume", ARGS="--debug"
	$(NEED) cargo java mvn
	cargo bench $(LOCKED) --no-run $(if $(findstring --debug,$(ARGS)),--profile dev) --bench sessions
	cargo build $(LOCKED) --workspace $(if $(findstring --debug,$(ARGS)),,--release)
	scripts/with-kafka.sh python3 scripts/bench_sessions.py --write docs/benchmarks/sessions.md $(ARGS)

.PHONY: load
load: ## loadsim, the load generator that proves loss, duplicates and order: make load ARGS="--help"
	$(NEED) cargo
	cargo run $(LOCKED) --release -p loadsim -- $(ARGS)

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZ_SECONDS (60)
	$(NEED) cargo nightly cargo-fuzz
	for target in $$(cargo +nightly fuzz list); do \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

.PHONY: doc
doc: ## build the API documentation; the map of the code is its first page
	$(NEED) cargo
	cargo doc $(LOCKED) --workspace --no-deps --document-private-items
	@echo "open target/doc/millrace/index.html"

.PHONY: fix
fix: ## format, and let clippy mend what it can
	$(NEED) cargo
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

.PHONY: tools
tools: ## install the foreign MQTT and Kafka clients that tests use; quick when they are there
	@scripts/tools.sh

.PHONY: ci
ci: ## what CI does: tools, check, test
	$(NEED) cargo java mvn python3 node npm
	$(MAKE) --no-print-directory tools
	$(MAKE) --no-print-directory check
	$(MAKE) --no-print-directory test
