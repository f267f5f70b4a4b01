# make               set up .venv, get MNIST, train the three models, compare them
# make MNIST=DIR     the same, with the four MNIST files (packed or not) from a folder that has them
# make test          the tests
# make study         many seeds, few labels, every place to cut (a quarter of an hour); resumes where it was stopped
# make benchmark     how fast, and why
# make report        report.md -> report.pdf, at most two pages
# make submission    everything to hand in -> submission.zip

PYTHON ?= python3
PY := .venv/bin/python
STAND_IN := data/rendered

.PHONY: all test study benchmark report submission

all: .venv/ready
ifdef MNIST
	@ls "$(MNIST)"/*-ubyte* >/dev/null 2>&1 || { echo "error: no MNIST files (*-ubyte, *-ubyte.gz) in $(MNIST)" >&2; exit 2; }
	@mkdir -p data/MNIST/raw
	@for file in "$(MNIST)"/*-ubyte*; do test -e "data/MNIST/raw/$${file##*/}" || cp "$$file" data/MNIST/raw/; done
endif
	@if $(PY) data.py; then set --; \
	elif ls data/MNIST/raw/*-ubyte* >/dev/null 2>&1; then exit 2; \
	else \
	  echo "going on with a stand-in that is not MNIST; everything it makes goes to $(STAND_IN)"; \
	  test -e $(STAND_IN)/dataset.json || $(PY) rendered_digits.py --data-dir $(STAND_IN) || exit; \
	  set -- --data-dir $(STAND_IN) --out $(STAND_IN); \
	fi; \
	for script in train_base finetune train_fresh compare; do echo; $(PY) $$script.py "$$@" || exit; done

test: .venv/dev
	$(PY) -m pytest -q

study benchmark: .venv/ready
	$(PY) $@.py

report: .venv/dev
	$(PY) typeset.py

submission: .venv/dev
	$(PY) typeset.py --submission

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -r requirements.txt
	@touch $@

.venv/dev: .venv/ready requirements-dev.txt
	$(PY) -m pip install -q -r requirements-dev.txt
	@touch $@
