# Everything works from `make run` and `make test`; the rest is for developers.
.PHONY: help run test test-fast lint format setup install docs lock sbom release translations clean

PYTHON := .venv/bin/python
# Python keeps what it compiled: eight workers would compile all tests eight times.
export PYTHONDONTWRITEBYTECODE :=
TRANSLATED := reconnect_hook/dashboard zapwatch/setup
PYBABEL := $(CURDIR)/.venv/bin/pybabel
# Lines of a catalog's head that say nothing, or would change with each run.
NO_HEAD := '/^"(Project-Id|Report-Msgid|PO-Revision|Last-Transl|Language-Team|Generated-By)/d'
CODE := zapwatch exporter reconnect_hook demo tests benchmarks

help:
	@echo "make run     everything on this machine: asks for your gateway, or shows a demonstration"
	@echo "make test    install what the tests need and run them all"
	@echo "make test-fast  the unit tests, without servers, in half a minute"
	@echo "make install systemd services on this machine, as root (docs/install.md)"
	@echo "make setup   only the virtual environment .venv, with everything locked"
	@echo "make lint    ruff, mypy and the words of .banned-words"
	@echo "make format  let ruff rewrite the code"
	@echo "make translations  bring the page's translations up to date, and compile them"
	@echo "make docs    site/: the documentation as a site; fails on a dead link"
	@echo "make sbom    build/zapwatch.cdx.json: all that an installation brings along (CycloneDX)"
	@echo "make release  dist/: sdist, wheel, bill of materials and checksums of the last commit"
	@echo "make lock    make requirements.lock again from pyproject.toml (needs uv)"

run:
	@deploy/make-venv.sh requirements-run.lock
	@deploy/install-servers.sh prometheus prometheus-alertmanager
	@exec $(PYTHON) -m demo $(ARGS)

test: setup
	@deploy/install-servers.sh prometheus prometheus-alertmanager mariadb-server chromium \
	    systemd logrotate iproute2 curl nginx openssl
	$(PYTHON) -m pytest --numprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup
	$(PYTHON) -m pytest tests/unit --numprocesses 2 --dist loadfile --hypothesis-profile fast $(ARGS)

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy $(CODE)
	@! git grep -nwiIE -f .banned-words -- . ':!tests' ':!*/tests/*' ':!*.po' ':!docs/pt-BR' ':!.banned-words'

format: setup
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

setup:
	@deploy/make-venv.sh

install:
	@deploy/install.sh

# The second one is what an installation needs, in the versions of the first.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate pyproject.toml
lock:
	$(LOCK) --extra dev --extra docs --output-file requirements.lock
	$(LOCK) --extra build --constraint requirements.lock --output-file requirements-run.lock

docs: setup
	$(PYTHON) -m zensical build --clean --strict

sbom: setup
	@mkdir -p build
	.venv/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	    --output-file build/zapwatch.cdx.json requirements-run.lock

release: sbom
	@deploy/release.sh

translations: setup
	for folder in $(TRANSLATED); do (cd $$folder && \
	    $(PYBABEL) extract --no-location --no-wrap --sort-output --omit-header \
	        -F babel.cfg -o messages.pot . $$(ls -d ../gateways 2>/dev/null) && \
	    $(PYBABEL) update --no-wrap --ignore-obsolete --ignore-pot-creation-date --no-fuzzy-matching \
	        -i messages.pot -d translations && \
	    rm messages.pot && sed -i -E $(NO_HEAD) translations/*/LC_MESSAGES/messages.po && \
	    $(PYBABEL) compile -d translations) || exit 1; done

clean:
	rm -rf .venv .cache build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
