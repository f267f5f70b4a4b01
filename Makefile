# make               set up .venv, train the three models, compare them
# make test          the tests
# make report        report.md -> report.pdf, at most two pages
# make submission    everything to hand in -> submission.zip
# make study         many seeds, few labels, every cut, every choice of new digits (two hours); resumes
# make summary       what the study's runs say, and its figures (seconds)
# make benchmark     how long training takes, and why (a few minutes)

PYTHON ?= python3
PY := .venv/bin/python
# A notebook that calls make sets its own backend for Matplotlib, which .venv does not have.
export MPLBACKEND := agg
# Where somebody has set it, pip refuses to install into .venv.
export PIP_USER := 0

.PHONY: all test report submission study summary benchmark

all: .venv/ready
	$(PY) train_base.py
	$(PY) finetune.py
	$(PY) train_fresh.py
	$(PY) compare.py

test: .venv/dev
	$(PY) -m pytest -q

report: .venv/dev
	$(PY) tools/typeset.py

submission: report
	$(PY) tools/submission.py

study: .venv/dev
	$(PY) -m experiments.study
	$(PY) -m experiments.summary

summary benchmark: .venv/dev
	$(PY) -m experiments.$@

NEEDS := import sys; sys.exit(sys.version_info < (3, 10) and "error: $(PYTHON) is older than Python 3.10: \
	name a newer one, as in make PYTHON=python3.12")

.venv/ready: requirements.txt
	@$(PY) -c "" 2> /dev/null || { $(PYTHON) -c '$(NEEDS)' && $(PYTHON) -m venv --clear .venv; }
	$(PY) -m pip install -q -r requirements.txt
	@touch $@

.venv/dev: .venv/ready requirements-dev.txt
	$(PY) -m pip install -q -r requirements-dev.txt
	@touch $@
