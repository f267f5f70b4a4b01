# make               set up .venv, train the three models, compare them
# make test          the tests
# make report        report.md -> report.pdf, at most two pages
# make submission    everything to hand in -> submission.zip
# make study         many seeds, few labels, every cut, every choice of new digits (two to three hours); resumes
# make benchmark     how long training takes, and why (ten minutes)
# make evidence      the study's and benchmark's runs -> results/evidence.md and its figures (seconds)
# For another Python: rm -rf .venv first, then make PYTHON=python3.12

PYTHON ?= python3
PY := .venv/bin/python
# A notebook sets a backend of its own for Matplotlib, which .venv lacks; with PIP_USER, pip refuses to install there.
export MPLBACKEND := agg
export PIP_USER := 0

.PHONY: all test report submission study benchmark evidence ready dev

all: ready
	$(PY) train_base.py
	$(PY) finetune.py
	$(PY) train_fresh.py
	$(PY) compare.py

test: dev
	$(PY) -m pytest -q

report: dev
	$(PY) tools/typeset.py

submission:
	$(PYTHON) tools/submission.py

study: dev
	$(PY) -m experiments.study && $(PY) -m experiments.evidence

benchmark: dev
	$(PY) -m experiments.times && $(PY) -m experiments.evidence

evidence: dev
	$(PY) -m experiments.evidence

NEEDS := import sys; sys.version_info < (3, 10) and exit("error: $(PYTHON) is older than 3.10: make PYTHON=python3.12")
INSTALL = [ .venv/$@ -nt $< ] || { echo "installing $<" && $(PY) -m pip install -q -r $< && touch .venv/$@; }

# .venv is made where there is none or its Python is gone (a dead link); any other is taken as it is.
ready: requirements.txt
	@if [ ! -e .venv ] || [ -L $(PY) -a ! -e $(PY) ]; then $(PYTHON) -c '$(NEEDS)' && $(PYTHON) -m venv --clear .venv; fi
	@[ -e $(PY) ] || { echo "error: .venv has no bin/python (is it of Windows?): rename or delete it" >&2; exit 2; }
	@$(PY) -m pip --version > /dev/null 2>&1 || $(PY) -m ensurepip --default-pip > /dev/null
	@$(INSTALL)

dev: requirements-dev.txt ready
	@$(INSTALL)
