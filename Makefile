# make               set up .venv, train the three models, compare them
# make test          the tests
# make study         many seeds, few labels, every cut, every choice of new digits (two hours); resumes
# make summary       what the study's runs say, and its figures (seconds)
# make benchmark     how long training takes, and why (a few minutes)
# make report        report.md -> report.pdf, at most two pages
# make submission    everything to hand in -> submission.zip

PYTHON ?= python3
PY := .venv/bin/python
# A notebook that calls make sets its own backend for Matplotlib, which .venv does not have.
export MPLBACKEND := agg

.PHONY: all test study summary benchmark report submission

all: .venv/ready
	$(PY) train_base.py
	$(PY) finetune.py
	$(PY) train_fresh.py
	$(PY) compare.py

test: .venv/dev
	$(PY) -m pytest -q

study: .venv/ready
	$(PY) -m experiments.study
	$(PY) -m experiments.summary

summary benchmark: .venv/ready
	$(PY) -m experiments.$@

report: .venv/dev
	$(PY) tools/typeset.py

submission: report
	find experiments tests tools -name __pycache__ -prune -exec rm -r {} +
	$(PY) -m zipfile -c submission.zip report.pdf *.md *.py *.txt pyproject.toml Makefile \
		data experiments plots results tests tools

.venv/ready: requirements.txt
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	$(PY) -m pip install -q -r requirements.txt
	@touch $@

.venv/dev: .venv/ready requirements-dev.txt
	$(PY) -m pip install -q -r requirements-dev.txt
	@touch $@
