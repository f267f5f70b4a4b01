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

.PHONY: all test report submission study summary benchmark ready dev

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
	$(PY) -m experiments.study
	$(PY) -m experiments.summary

summary benchmark: dev
	$(PY) -m experiments.$@

NEEDS := import sys; sys.exit(sys.version_info < (3, 10) and "error: $(PYTHON) is older than Python 3.10: \
	name a newer one, as in make PYTHON=python3.12")
INSTALL = [ .venv/$@ -nt $< ] || { echo "installing $<" && $(PY) -m pip install -q -r $< && touch .venv/$@; }

# An environment whose Python or pip is missing is made again; any other is taken as it is.
ready: requirements.txt
	@$(PY) -m pip --version > /dev/null 2>&1 || { $(PYTHON) -c '$(NEEDS)' && $(PYTHON) -m venv --clear .venv; }
	@$(INSTALL)

dev: requirements-dev.txt ready
	@$(INSTALL)
