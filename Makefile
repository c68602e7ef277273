# make run     the whole device on a simulated sound card, then figures, recordings and a picture in build/demo
# make test    everything that can be checked without hardware
# make bench   what a frame costs, beside others where they are installed
# make soak    a simulated day with random faults; two hours
# make image   the image for an SD card, in build/image; ten minutes and 2 GB, the second time two minutes
# make image-pi5   the same for a Pi 5, with a newer kernel, in build/image-pi5; not tried on a board
# make test-image  starts that image in a virtual machine, cuts its power, updates it; an hour
# make api     the Python interface as a page, and where it differs from LiveKit's, in build/api
# make clean   back to a fresh clone
#
#   make run DEVICE=plughw:CARD=Device    the same on a real microphone and loudspeaker
#   make run SECONDS=60                   longer
#   make soak HOURS=2 SEED=7              shorter, and the faults of an earlier run
#   make test-image CUTS=3                fewer power cuts
#   make setup PYTHON=python3.13          another interpreter (Python 3.11 or newer)

DEVICE  =
SECONDS = 30
PYTHON  = python3
HOURS   = 24
SEED    =
CUTS    = 20

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV   := .venv
# Quiet twice: errors only.
PIP    := $(VENV)/bin/pip -qq --disable-pip-version-check
# Directories too, so that a deleted file is noticed.
SOURCE := $(shell find apmpi native -name __pycache__ -prune -o -print)

.PHONY: run test bench soak image image-pi5 test-image api setup setup-test setup-image clean
.DELETE_ON_ERROR:

run: setup
	@$(VENV)/bin/apmpi demo --folder build/demo --seconds $(SECONDS) $(if $(DEVICE),--device $(DEVICE))

test: setup-test
	@env -u MAKEFLAGS -u MAKELEVEL $(VENV)/bin/pytest

bench: setup-test
	@$(VENV)/bin/python tests/bench/bench.py

soak: setup-test
	@$(VENV)/bin/python tests/soak.py --hours $(HOURS) $(if $(SEED),--seed $(SEED))

image: setup-image
	@nice $(VENV)/bin/python image/build.py $(CURDIR)/build/image

image-pi5: setup-image
	@nice $(VENV)/bin/python image/build.py $(CURDIR)/build/image-pi5 --pi5

# The image is built by itself: whoever has one built elsewhere can put it into build/image.
test-image: setup-image setup-test
	@$(VENV)/bin/pytest image/test_machine.py --cuts $(CUTS) $(if $(SEED),--seed $(SEED))

api: setup-test
	@$(VENV)/bin/python .ci/api_page.py build/api
	@$(VENV)/bin/python tests/conformance.py > build/api/livekit.md
	@echo build/api/apmpi.html build/api/livekit.md

setup: $(VENV)/.installed
setup-image: $(VENV)/.installed $(VENV)/.image-packages
setup-test: setup $(VENV)/.test-packages $(VENV)/.test-dependencies

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Each stamp is one step; a step runs again only when what it depends on has changed.

$(VENV)/.created: .ci/setup
	@.ci/setup packages run '$(PYTHON)'
	@.ci/setup venv '$(PYTHON)' $(VENV)
	@touch $@

$(VENV)/.dependencies: pyproject.toml $(VENV)/.created
	@echo 'setup: Python packages'
	@$(VENV)/bin/python .ci/requirements.py demo | $(PIP) install --requirement /dev/stdin
	@touch $@

# A plain install, not an editable one: what runs and is tested is what a user installs. The build folder is kept,
# so that only changed C files are compiled again.
$(VENV)/.installed: pyproject.toml $(SOURCE) $(VENV)/.dependencies
	@echo 'setup: apmpi itself'
	@$(PIP) install --no-deps --no-build-isolation .
	@touch $@

$(VENV)/.test-packages: .ci/setup $(VENV)/.created
	@.ci/setup packages test '$(PYTHON)'
	@touch $@

$(VENV)/.image-packages: .ci/setup $(VENV)/.created
	@.ci/setup packages image '$(PYTHON)'
	@touch $@

$(VENV)/.test-dependencies: pyproject.toml $(VENV)/.created
	@echo 'setup: Python packages for the tests'
	@$(VENV)/bin/python .ci/requirements.py test | $(PIP) install --requirement /dev/stdin
	@touch $@
