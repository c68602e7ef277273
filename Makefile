# make run     the whole device on a simulated sound card, then figures, recordings and a picture in build/demo
# make test    everything that can be checked without hardware
# make test-agents  the tests of voice agents with LiveKit Agents and Pipecat; 0.9 GB the first time
# make test-assistants  the tests of voice assistants with wake words
# make bench   what a frame costs, compared with other modules if they are installed
# make bench-wake-word  wake words found while music plays, with apmpi and with WebRTC; a quarter of an hour
# make soak    a simulated day with random faults; two hours
# make fuzz    random bytes for everything that reads files or requests: an hour for each reader, a minute in make test
# make pipewire   the echo-cancel plugin for PipeWire, in build/pipewire
# make image   the image for an SD card, in build/image; 20 minutes and 4 GB, the second time five minutes
# make image-pi5   the same for a Pi 5, with a newer kernel, in build/image-pi5; not tried on a board
# make test-image  starts that image in virtual machines, cuts its power, updates it; 40 minutes
# make deb     Debian packages for Debian 12 and 13, in build/deb; 20 minutes, the second time ten
# make test-deb    installs, upgrades and removes them in bare roots with systemd; half an hour, needs root
# make wheels  wheels for `pip install` without a compiler, and the source archive, in build/wheels; half an hour
# make release     packages, wheels and image of this version, with checksums and notes, in build/release; hours
# make fresh   `make run` and `make test` in bare roots of Debian 12 and 13; an hour
# make lock    renews the locked versions of the Python packages
# make api     the Python interface as a page, and its differences from LiveKit's, in build/api
# make clean   removes all that was made, except signing-key
#
#   make run DEVICE=plughw:CARD=Device    the same on a real microphone and loudspeaker
#   make run SECONDS=60                   longer
#   make soak HOURS=2 SEED=7              shorter, and the faults of an earlier run
#   make fuzz HOURS=8 SEED=7              longer, other inputs; or SECONDS=10
#   make image RENEW=1                    with Debian's packages of today
#   make test-image CUTS=20               more power cuts
#   make release DOWNLOADS=https://example.org/apmpi    with the list by which Raspberry Pi Imager finds the image there
#   make deb RELEASE=trixie ARCHITECTURE=arm64    one package: bookworm or trixie, amd64 or arm64
#   make setup PYTHON=python3.13          another interpreter (Python 3.11 or newer)
#   make test PACKAGES=debian             numpy, PyYAML, pyalsaaudio and soundfile as Debian has them, and so the image

DEVICE  =
SECONDS = 30
PYTHON  = python3
HOURS   = 24
SEED    =
CUTS    = 10
PACKAGES =
RENEW   =
DOWNLOADS =
RELEASE =
ARCHITECTURE =

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c

given = $(filter command environment,$(firstword $(origin $(1))))

VENV   := .venv$(if $(PACKAGES),-$(PACKAGES))
# -qq prints errors only. All packages are locked, so pip resolves nothing and builds with nothing else.
PIP    := $(VENV)/bin/python -m pip -qq --disable-pip-version-check
LOCKED  = $(VENV)/bin/python .ci/locked.py $(1) | $(PIP) install --no-deps --no-build-isolation --require-hashes --requirement /dev/stdin
AGENTS := .venv-agents
PYTEST  = env -u MAKEFLAGS -u MAKELEVEL $(VENV)/bin/pytest
# With the directories, so that a deleted file counts as a change.
SOURCE := $(shell find apmpi native -name __pycache__ -prune -o -print)
PLUGIN := build/pipewire/spa-0.2/aec/libspa-aec-apmpi.so

.PHONY: run test test-agents test-assistants bench bench-wake-word soak fuzz pipewire image image-pi5 test-image fresh lock api setup setup-test setup-image deb test-deb wheels release release-is-possible clean
.DELETE_ON_ERROR:

run: setup
	@$(VENV)/bin/apmpi demo --folder build/demo --seconds $(SECONDS) $(if $(DEVICE),--device $(DEVICE))

# Three parts, each with its own summary: tests that compute, on all processors; tests in real time, which mostly wait,
# two at a time, while the fuzzers use the idle processors; and tests that measure the machine, one at a time.
test: setup-test
	@failed=0; mkdir -p build; \
	$(PYTEST) --numprocesses auto -m 'not (fuzz or real_time or alone)' || failed=1; \
	chrt --idle 0 $(PYTEST) --numprocesses auto -m fuzz >build/fuzz.log 2>&1 & fuzz=$$!; \
	$(PYTEST) --numprocesses 2 -m real_time || failed=1; \
	wait $$fuzz || failed=1; cat build/fuzz.log; \
	$(PYTEST) --numprocesses 1 -m alone || failed=1; \
	exit $$failed

# With the warnings of those packages, which are not ours.
test-agents: $(AGENTS)/.installed
	@$(AGENTS)/bin/pytest -W default tests/test_agents.py

test-assistants: setup-test $(VENV)/.assistants
	@$(PYTEST) tests/test_voice_assistants.py

bench: setup-test
	@$(VENV)/bin/python tests/bench/bench.py

bench-wake-word: setup-test $(VENV)/.assistants
	@.ci/setup packages wake-word '$(PYTHON)'
	@nice $(VENV)/bin/python tests/bench/bench.py wake_word

soak: setup-test
	@$(VENV)/bin/python tests/soak.py --hours $(HOURS) $(if $(SEED),--seed $(SEED))

# HOURS and SECONDS have other defaults for other targets: here they count only if they were given.
fuzz: FUZZ_SECONDS = $(if $(call given,SECONDS),$(SECONDS),$(if $(call given,HOURS),$(HOURS),1)*3600)
fuzz: setup-test
	@nice $(VENV)/bin/pytest tests/fuzz -s --fuzz-seconds "$$(python3 -c 'print($(FUZZ_SECONDS))')" $(if $(SEED),--seed $(SEED))

pipewire: $(PLUGIN)
	@echo $(PLUGIN)

image: setup-image
	@nice $(VENV)/bin/python image/build.py $(CURDIR)/build/image $(if $(RENEW),--renew) $(if $(DOWNLOADS),--downloads '$(DOWNLOADS)')

image-pi5: setup-image
	@nice $(VENV)/bin/python image/build.py $(CURDIR)/build/image-pi5 --pi5 $(if $(RENEW),--renew)

# Does not depend on `image`: an image that was built elsewhere can be put into build/image.
test-image: setup-image setup-test
	@$(VENV)/bin/pytest --numprocesses 2 --override-ini=faulthandler_timeout=1800 image/test_machine.py --cuts $(CUTS) $(if $(SEED),--seed $(SEED))

api: setup-test
	@$(VENV)/bin/python .ci/api_page.py build/api
	@$(VENV)/bin/python tests/conformance.py > build/api/livekit.md
	@echo build/api/apmpi.html build/api/livekit.md

deb:
	@.ci/setup packages deb '$(PYTHON)'
	@nice $(PYTHON) packaging/deb.py build/deb $(addprefix --release ,$(RELEASE)) $(addprefix --architecture ,$(ARCHITECTURE))

test-deb: setup-test
	@.ci/setup packages deb '$(PYTHON)'
	@$(PYTEST) --override-ini=faulthandler_timeout=1800 packaging/test_deb.py

wheels:
	@.ci/setup packages deb '$(PYTHON)'
	@nice $(PYTHON) packaging/wheels.py build/wheels $(addprefix --architecture ,$(ARCHITECTURE))

release-is-possible:
	@$(PYTHON) packaging/release.py

# The image is built here, too, so that all is of one commit.
release: release-is-possible deb wheels image
	@$(PYTHON) packaging/release.py build/release build/deb/*/*.deb build/wheels/* build/image/apmpi-*.{img.xz,update,spdx.json} build/image/*.index \
	    $(if $(DOWNLOADS),build/image/apmpi-*.imager.json)

fresh:
	@.ci/setup packages fresh '$(PYTHON)'
	@$(PYTHON) .ci/fresh.py

# For a package without wheels uv runs its build, which needs the headers of pyalsaaudio's and systemd-python's libraries.
lock:
	@.ci/setup packages run '$(PYTHON)'
	@.ci/setup packages test '$(PYTHON)'
	@.ci/lock '$(PYTHON)'

setup: $(VENV)/.installed
setup-image: $(VENV)/.installed $(VENV)/.image-packages
setup-test: setup $(VENV)/.test-packages $(VENV)/.test-dependencies $(PLUGIN)

# The signing key is kept: without it no card can be updated. Earlier versions had it in build/.
clean:
	@for image in image image-pi5; do \
	    key=build/$$image/signing-key; kept=signing-key; \
	    [[ -e $$key ]] || continue; \
	    [[ ! -e $$kept ]] || kept=signing-key-$$image; \
	    [[ ! -e $$kept ]] || { echo "$$key: $$kept is there too, expected one of them" >&2; exit 1; }; \
	    mv "$$key" "$$kept"; mv "$$key.pub" "$$kept.pub"; echo "$$key is now $$kept: keep it"; \
	done
	rm -rf build .venv .venv-debian .venv-agents .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Each stamp is one step; a step runs again only when what it depends on has changed.

# An environment that was made in another folder, or whose interpreter is missing, is made anew.
ifneq ($(shell cat $(VENV)/.created 2>/dev/null && $(VENV)/bin/python -c '' 2>&1),$(CURDIR))
$(shell rm -f $(VENV)/.created)
endif

$(VENV)/.created: .ci/setup
	@.ci/setup packages run '$(PYTHON)'
ifeq ($(PACKAGES),debian)
	@.ci/setup packages debian-python '$(PYTHON)'
endif
	@.ci/setup venv '$(PYTHON)' $(VENV) $(if $(PACKAGES),--system-site-packages)
	@echo '$(CURDIR)' >$@

$(VENV)/.dependencies: .ci/locks/build.txt .ci/locks/run.txt $(VENV)/.created
	@echo 'setup: Python packages'
	@$(call LOCKED,.ci/locks/build.txt)
	@$(call LOCKED,.ci/locks/run.txt)
	@touch $@

# A plain install, not an editable one: the tests run on what a user installs. The build folder is kept,
# so that only changed C files are compiled again.
$(VENV)/.installed: pyproject.toml $(SOURCE) $(VENV)/.dependencies
	@echo 'setup: apmpi itself'
	@$(PIP) install --no-deps --no-build-isolation .
	@touch $@

$(VENV)/.test-packages: .ci/setup $(VENV)/.created
	@.ci/setup packages test '$(PYTHON)'
	@touch $@

# With the prefix /usr `cmake --install build/pipewire` finds PipeWire's folder of plugins.
$(PLUGIN): $(filter native native/%,$(SOURCE))
	@.ci/setup packages pipewire '$(PYTHON)'
	@echo 'setup: the plugin for PipeWire'; mkdir -p build
	@cmake -S native -B build/pipewire -DCMAKE_INSTALL_PREFIX=/usr -DAPMPI_PIPEWIRE=ON -DAPMPI_ROOM=OFF \
	    -DBUILD_TESTING=OFF >build/pipewire.log
	@cmake --build build/pipewire >>build/pipewire.log
	@touch $@

$(VENV)/.image-packages: .ci/setup $(VENV)/.created
	@.ci/setup packages image '$(PYTHON)'
	@touch $@

$(VENV)/.test-dependencies: .ci/locks/test.txt $(VENV)/.dependencies
	@echo 'setup: Python packages for the tests'
	@$(call LOCKED,.ci/locks/test.txt)
	@touch $@

$(VENV)/.assistants: .ci/locks/assistants.txt $(VENV)/.test-dependencies
	@echo 'setup: Python packages of voice assistants'
	@$(call LOCKED,.ci/locks/assistants.txt)
	@touch $@

$(AGENTS)/.dependencies: .ci/locks/build.txt .ci/locks/agents.txt $(VENV)/.created
	@.ci/setup venv '$(PYTHON)' $(AGENTS)
	@echo 'setup: Python packages of voice agents'
	@for lock in build agents; do \
	    $(AGENTS)/bin/python -m pip -qq --disable-pip-version-check install --no-deps --no-build-isolation --require-hashes \
	        --requirement .ci/locks/$$lock.txt; \
	done
	@touch $@

$(AGENTS)/.installed: $(VENV)/.installed $(AGENTS)/.dependencies
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir build/agents .
	@$(AGENTS)/bin/python -m pip -qq --disable-pip-version-check install --no-deps --force-reinstall build/agents/apmpi-*.whl
	@touch $@
