# Everything runs in .venv, which is made on first use: only Python >= 3.11, pip and make are needed.
# Another interpreter: make PYTHON=python3.12 setup

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup docs docs-links release-check demo serve-demo test test-lowest lint format dist bench bench-peers bench-peers-movies bench-peers-games bench-peers-turns clean

help:
	@echo "make demo    train, compare and explain recommenders on made data (a minute or two)"
	@echo "make serve-demo  serve the model of the demo on http://127.0.0.1:8000"
	@echo "make test    everything that has to pass: style, types, tests"
	@echo "make test-lowest  the tests with the oldest versions that pyproject.toml allows, in .venv-lowest"
	@echo "make lint    style and types only"
	@echo "make format  put the code into the one style"
	@echo "make bench   our speed and accuracy on public data in the folder SEGUE_TEST_DATA (twenty minutes on two cores)"
	@echo "make bench-peers  the same beside rivals, each in an environment of its own (an hour)"
	@echo "make docs    the site, with every notebook run, in docs/_build/html (a few minutes)"
	@echo "make docs-links  look whether the site's links to other sites lead somewhere (needs the internet)"
	@echo "make dist    the packages for an index, built and checked, in dist"
	@echo "make release-check  build both packages, install the wheel with the CPU build of torch, and run a small demo"
	@echo "make setup   the development environment in .venv"
	@echo "make clean   remove .venv and caches"

setup: .venv/.dev-ready

demo: .venv/.ready
	$(BIN)/segue demo

serve-demo: .venv/.dev-ready
	@test -d demo/runs/sasrec || $(BIN)/segue demo
	@echo "Look at http://127.0.0.1:8000/; stop with Ctrl-C."
	$(BIN)/segue serve demo/runs/sasrec --store sqlite:///demo/events.db

# Processes that share the tests: one per core, and each keeps to one thread. In one process: make WORKERS=0 test
# A file stays in one process, so that its trained models and servers are made once. Files with slow tests come first
# (tests/conftest.py); pytest-xdist would begin with the files of many tests, and end with one of a few long ones.
WORKERS ?= logical
TESTS := -n $(WORKERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 25

test: lint
	$(BIN)/pytest $(TESTS)

test-lowest: .venv-lowest/.ready
	.venv-lowest/bin/pytest $(TESTS)

lint: .venv/.dev-ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.dev-ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Timings beside rivals are of one core, as in the docs; more: make THREADS=2 bench-peers
THREADS ?= 1
ONE := OMP_NUM_THREADS=$(THREADS) $(BIN)/python benchmarks
PEERS := $(ONE)/peers/run.py
TURNS := $(ONE)/peers/turns.py

# All cores, as in the docs. What the README says of segue alone has SEEDS="0 1 2": three times as long.
SEEDS ?= 0
ALL := $(BIN)/python benchmarks

bench: .venv/.dev-ready
	$(ONE)/notebook.py
	$(ALL)/full_ranking.py --data ml-100k --model markov sasrec --seeds $(SEEDS)
	$(ALL)/full_ranking.py --data beauty --model markov sasrec --seeds $(SEEDS)
	$(ALL)/full_ranking.py --data games --model markov sasrec --seeds $(SEEDS)

# How good they are: two at a time, one core each, as the figures in the docs were made. How fast: by turns, alone.
bench-peers: .venv/.dev-ready
	$(PEERS) --install --peer rectools-bce replay-sasrec recommenders-sasrec
	$(MAKE) -j2 bench-peers-movies bench-peers-games
	$(MAKE) bench-peers-turns

bench-peers-movies: .venv/.dev-ready
	$(PEERS) --data ml-100k --peer segue segue-notebook rectools-bce rectools-softmax replay-sasrec recommenders-sasrec

# Where looking takes minutes the number of epochs is fixed, and nothing is chosen.
bench-peers-games: .venv/.dev-ready
	$(PEERS) --data games --peer segue-notebook rectools-bce
	$(PEERS) --data games --check 0 --epochs 10 --peer recommenders-sasrec

bench-peers-turns: .venv/.dev-ready
	$(TURNS) --data games
	$(TURNS) --data ml-100k

# A warning fails the build, links within the site among them. The one thread is for the notebooks: their models are small.
SPHINX := OMP_NUM_THREADS=1 $(BIN)/python -m sphinx

docs: .venv/.docs-ready
	$(SPHINX) -b html --fail-on-warning --keep-going docs docs/_build/html
	@echo "Open docs/_build/html/index.html in a browser."

docs-links: .venv/.docs-ready
	SEGUE_DOCS_NOTEBOOKS=off $(SPHINX) -b linkcheck docs docs/_build/links

dist: .venv-dist/.ready
	rm -rf dist
	.venv-dist/bin/python -m build
	.venv-dist/bin/twine check --strict dist/*

# What a stranger gets: the wheel alone in an empty environment, with the CPU build of torch and no CUDA.
CPU_TORCH ?= https://download.pytorch.org/whl/cpu

release-check: dist
	$(PYTHON) -m venv --clear .venv-wheel
	PIP_EXTRA_INDEX_URL=$(CPU_TORCH) .venv-wheel/bin/python -m pip install --quiet dist/segue-*.whl --constraint constraints.txt
	cd .venv-wheel && bin/segue --version && bin/segue demo --quiet --users 120 --sessions 6 --epochs 2 --out demo
	@.venv-wheel/bin/python -c 'import torch; print("torch", torch.__version__, "CUDA" if torch.version.cuda else "without CUDA")'
	@.venv-wheel/bin/python -m pip list --format=freeze | grep -i '^nvidia' && echo "warning: CUDA came along" || true
	@echo "dist/ is ready. Tag the version, such as v0.1.0, and push the tag: the workflow release.yml publishes it."

clean:
	rm -rf .venv .venv-lowest .venv-dist .venv-wheel .mypy_cache .ruff_cache .pytest_cache .hypothesis docs/_build build dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "segue needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# The interpreter is an order-only prerequisite: its date is that of the system's Python and says nothing.
.venv/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing segue and what it needs into .venv; the first time takes a few minutes."
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	@touch $@

.venv/.dev-ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing segue and its development tools into .venv; the first time takes a few minutes."
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch .venv/.ready $@

.venv/.docs-ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what the site is built with into .venv."
	$(BIN)/python -m pip install --quiet --editable '.[docs]' --constraint constraints.txt
	@touch .venv/.ready $@

# pip takes many minutes to find versions that fit the oldest ones; uv takes seconds.
.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet torch uv --constraint constraints-lowest.txt
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --editable '.[dev]' \
		--constraint constraints-lowest.txt
	@touch $@

.venv-dist/.ready: Makefile
	$(PYTHON) -m venv --clear .venv-dist
	.venv-dist/bin/python -m pip install --quiet build twine
	@touch $@
