# Every target sets up what it needs: its own .venv, with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
TESTED := -n 2 --dist worksteal

export MPLBACKEND := Agg
unexport PYTHONDONTWRITEBYTECODE  # compiled tests are kept, also where the environment says otherwise

.PHONY: demo test check format faults exports bench growth coverage clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## grow a small network on real handwritten digits; leaves runs/demo/report.html
	rm -rf runs/demo
	OMP_NUM_THREADS=1 $(BIN)/neuroexapt grow --data digits --out runs/demo --seed 0

test: $(STAMP)  ## the default tests, under two minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTED)

check: $(STAMP)  ## format, lint, strict types, import direction
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/architecture

format: $(STAMP)
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

faults: $(STAMP)  ## slow: kill -9 at random moments, resume, compare to the bit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

exports: $(STAMP)  ## slow: a model grown by every kind of edit through torch.export and ONNX Runtime
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/surgery/test_exports.py

coverage: $(STAMP)  ## hours: 198 models traced, edited and trained, torch-pruning beside; resumable
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coverage.py

bench: $(STAMP)  ## slow: evidence against uniform placement on digits, over seeds
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/placement.py

growth: $(STAMP)  ## half an hour of one core: growth against training from scratch, gromo beside; resumable
	$(PYTHON) -m venv .venv-gromo
	.venv-gromo/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data]' gromo==0.1.0
	OMP_NUM_THREADS=1 .venv-gromo/bin/python benchmarks/growth_suites.py

clean:
	rm -rf .venv .venv-gromo .mypy_cache .ruff_cache .pytest_cache
