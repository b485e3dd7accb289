# The daily verbs. Those that need an environment make it in .venv, once, or mend it.
PYTHON ?= python3
TORCH ?=
# By path: the make that macOS ships does not look for programs in an exported PATH. The stages do, hence both.
BIN := .venv/bin
unexport CDPATH
# Not /var/tmp/dvc, which everybody may write to: DVC unpickles what lies there.
export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.dvc/tmp/site-cache
RUN = PATH="$$(cd "$(BIN)" && pwd):$$PATH" "$(BIN)/python" -m
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make requirements" $(RUN) uv pip compile --quiet --universal --python-version 3.11

.PHONY: help repro verify reader demo compare search lint test test-all release-check docs walk lock bench seeds cluster requirements setup setup-demo setup-search setup-dev

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: setup  ## set up, then run the workflow: download, train, evaluate, report
	@.ci/check-commit
	@$(RUN) src.pipeline.params
	$(RUN) dvc repro
	@$(RUN) src.summary

FULL ?=
VERIFY ?=
verify: setup  ## repeat the sample's committed run in a clone, and compare; FULL=1 the whole run; VERIFY="--keep DIR"
	@.ci/check-commit
	@$(RUN) reproductions $(if $(FULL),--full) $(VERIFY)

reader: setup  ## set up, then make what reads pictures, and before it whatever of the workflow it needs
	@.ci/check-commit
	$(RUN) dvc repro src/reader/dvc.yaml

# Where there is a model, the page is for this one: what has changed in params.yaml does not train another.
demo: setup-demo  ## set up, make the reader where it is missing or of another model, then serve a page to draw digits on
	@.ci/check-commit
	@$(RUN) dvc repro --quiet $(if $(wildcard models/model.safetensors),--single-item) src/reader/dvc.yaml
	@$(RUN) src.reader.page

compare: setup  ## show the experiments of the last commit in the columns that people choose by, the best first
	@$(RUN) experiments.compare

TRIALS ?= 20
search: setup-search  ## search search/space.yaml for the lowest validation loss, and go on after a kill; TRIALS=20 in all
	@.ci/check-commit
	@$(RUN) search --trials $(TRIALS)

lint: setup-dev  ## set up, then check format, code, types and the CI workflows
	$(RUN) ruff format --check
	$(RUN) ruff check
	$(RUN) pyrefly check
	$(RUN) pyrefly check --python-platform win32
	$(RUN) check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	"$(BIN)/zizmor" --offline --quiet .github

test: setup-dev  ## set up, then run the tests, two at a time
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: setup-dev  ## the same with the full campaign of faults
	$(RUN) pytest --all -n 2 --dist loadfile --no-loadscope-reorder

release-check: setup-dev  ## check that what is committed agrees with itself
	$(RUN) pytest -q release

docs: setup  ## fill in the numbers in README.md and docs/
	$(RUN) release.docs

walk: setup-dev  ## run the commands in README.md and docs/, and write what they print there; takes minutes
	$(RUN) pytest --all --write tests/tools/test_walk.py -k commands

lock: setup  ## bring each dvc.lock up to date where comments, docstrings or the layout changed
	$(RUN) release.lock

BENCH ?=
bench: setup  ## measure: one table, the same numbers in benchmarks/results.json; BENCH="--weights FILE random"
	$(RUN) dvc repro download
	$(RUN) benchmarks $(BENCH)

SEEDS ?=
seeds: setup  ## run the recipes over five seeds: SEEDS="--recipes default --weights random FILE --seeds 1 2"
	$(RUN) benchmarks.seeds $(SEEDS)

POINTS ?= cluster/points.txt
SBATCH ?=
cluster: setup  ## submit to Slurm an experiment for each line of POINTS=cluster/points.txt; SBATCH="--time 60"
	@.ci/check-commit
	PATH="$$(cd "$(BIN)" && pwd):$$PATH" sbatch --array=1-$$(grep -c '' $(POINTS)) $(SBATCH) cluster/job.sh \
		$$(git rev-parse HEAD) $$(git hash-object -w $(POINTS))

requirements: setup-dev  ## compile requirements*.txt from requirements*.in, for every system and every Python
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) -c requirements.txt requirements-demo.in -o requirements-demo.txt
	$(COMPILE) -c requirements-demo.txt requirements-search.in -o requirements-search.txt
	$(COMPILE) -c requirements-demo.txt -c requirements-search.txt requirements-dev.in -o requirements-dev.txt

setup:  ## make or mend .venv with what the workflow needs
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" .ci/setup requirements.txt

setup-demo:  ## the same with what the page needs
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" .ci/setup requirements-demo.txt

setup-search:  ## the same with what the search needs
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" .ci/setup requirements-search.txt

setup-dev:  ## the same with what the tests and the linters need
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" .ci/setup requirements-dev.txt
