# Two commands do everything on a machine with Python 3.11, make and gcc: `make train` and `make test`.
# `make check` is what to run while working: two minutes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
# Each of a hundred processes would compile the project and the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train check test test-system drill-metrics drill-cluster docs docs-check docs-links screenshots bench lint lock lock-check clean

train: $(VENV)/.installed
	$(BIN)/python ray_jobs/train.py --name demo-$$(date +%Y%m%d-%H%M%S)

# In two processes. A file's tests stay in one of them; tests/conftest.py gives the order.
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Without the tests that start Ray or any other process, and without those that train, score or convert whole cases.
check: lint
	$(PYTEST) -m "not system and not processes and not slow"

test: lint
	$(PYTEST) -m "not system"

# Tests that need Debian packages, and root for network namespaces; and those that kill and start again for minutes.
test-system: $(VENV)/.installed-docs
	$(MAKE) .prometheus/usr/bin/prometheus || echo "no Prometheus could be fetched: its test is skipped"
	$(MAKE) .triton/.installed || echo "no Triton could be fetched: the test of its kernels is skipped"
	command -v chromium > /dev/null || { apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes chromium; }
	command -v ip > /dev/null || { apt-get update --quiet --quiet && apt-get install --quiet --quiet --yes iproute2; }
	$(PYTEST) -m system

# Every query of the Grafana dashboard against a real Prometheus while a run trains.
drill-metrics: $(VENV)/.installed-dev .prometheus/usr/bin/prometheus
	$(BIN)/python -m pytest tests/system/test_live_metrics.py

# `ray up` to `ray down` of cluster/aws.yaml, offline: all that it starts and mounts ends with it. Needs root.
drill-cluster: $(VENV)/.installed-dev .drill/sshd/usr/sbin/sshd
	@unshare --net --mount --pid --fork true || { echo "the drill needs root, and namespaces of its own"; exit 1; }
	$(MAKE) .prometheus/usr/bin/prometheus || echo "no Prometheus could be fetched: the head does without"
	BRATS_DRILL=1 unshare --net --mount --pid --fork --kill-child --mount-proc $(BIN)/python -m pytest -x tests/system/cluster_drill

# Unpacked and not installed, for the same reason as Prometheus.
.drill/sshd/usr/sbin/sshd:
	mkdir -p .drill/sshd
	apt-get update --quiet --quiet
	apt-get install --quiet --quiet --yes iproute2 openssh-client rsync libwrap0
	cd .drill/sshd && apt-get download --quiet --quiet openssh-server && dpkg-deb --extract openssh-server_*.deb .

# Debian's, unpacked and not installed: its package would start a server that listens on every interface.
.prometheus/usr/bin/prometheus:
	mkdir -p .prometheus
	apt-get update --quiet --quiet
	cd .prometheus && apt-get download --quiet --quiet prometheus && dpkg-deb --extract prometheus_*.deb .

# It interprets the GPU's kernels on a CPU. Apart, as nothing else here needs its 700 MB; with CUDA torch brings it.
.triton/.installed: constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --upgrade \
		--constraint constraints.txt --target .triton triton
	touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every dependency of every dependency is held to the version in constraints.txt (see `make lock`). pip would compile
# every module of every package, for half of an installation's CPU time and 330 MB; whoever imports one compiles it.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

# What the packages bring and nothing opens, 330 MB: test suites and programs, Java, headers, bindings of other Pythons.
SURPLUS = torch/test torch/bin/*[tT]est* torch/bin/*Store* torch/bin/protoc* ray/jars nvidia/dali/include
DROP = cd $(VENV)/lib/python3*/site-packages && rm -rf $(SURPLUS) && find . -type d -name tests -prune -exec rm -r {} + \
	&& find . -name '*.cpython-3*.so' ! -name "*.cpython-$$(basename "$$(realpath ..)" | tr -dc 0-9)-*" -delete

# A version that does not do, and half an environment, as Debian's Python without python3-venv leaves it, would stay.
MAKE_VENV = { $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] in ((3, 11), (3, 12)) else \
	"wanted Python 3.11 or 3.12, $(PYTHON) is " + ".".join(map(str, sys.version_info[:3])) + ": type make PYTHON=python3.11 ...")' \
	&& { $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }; }

# What training imports is compiled here, once, not by ten processes that start at the same time.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(MAKE_VENV)
	$(INSTALL) --editable '.[train]'
	$(DROP)
	$(BIN)/python -c "import ray_jobs.training.job, ray_jobs.training.train_loop, ray.train.torch"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable ".[dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(INSTALL) --editable ".[docs]"
	touch $@

# An environment of its own: the peers bring a hundred packages that nothing else here needs.
$(VENV)-bench/.installed: pyproject.toml constraints.txt
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,bench]"
	touch $@

# Nor may what is not ours to import be near: brats-evaluation (AGPL) is run as a program beside ours.
$(VENV)-score/.installed:
	test -x $(VENV)-score/bin/python || $(PYTHON) -m venv $(VENV)-score
	$(VENV)-score/bin/python -m pip install --quiet --disable-pip-version-check brats-evaluation==0.0.10 panoptica==2.1.7
	touch $@

# Every command in the documents against the real parsers; `make test` does it too.
docs-check: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/test_documents.py

# docs/api.md from the docstrings; then the site, .site/html/index.html, offline. A link or an anchor that leads nowhere is
# an error. Its live examples, a minute or two, are run again when a source has changed.
SPHINX = $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env --conf-dir docs --doctree-dir .site/doctrees
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/reference.py
	$(SPHINX) --builder html . .site/html

# Every link that leads out of the project, asked for.
docs-links: $(VENV)/.installed-docs
	$(SPHINX) --builder linkcheck . .site/links

# Pictures for the documents: Ray's dashboard, TensorBoard and reports in a headless Chromium, after training as `make train` does.
screenshots: $(VENV)/.installed-dev
	$(BIN)/python -m docs.screenshots

# What a laptop can measure, peers beside ours, into benchmarks/records and BENCHMARKS.md: an hour or two on two cores.
# `make bench SOURCE=DIR` takes your scans instead of synthetic ones.
bench: $(VENV)-bench/.installed $(VENV)-score/.installed
	$(VENV)-bench/bin/python -m benchmarks laptop $(if $(SOURCE),--source $(SOURCE))

# One lock for machines without a GPU and with one. What a node with CUDA installs is resolved and not installed.
RESOLVE_GPU = .lock/bin/uv pip compile --quiet --no-header --no-annotate --constraint constraints.txt --extra aws \
	--python-version 3.12 --python-platform x86_64-unknown-linux-gnu --output-file .lock/gpu.txt pyproject.toml

# Resolve anew into a fresh environment, write down what came, and what a node with CUDA would get besides. torch stays
# until its line in constraints.txt is changed by hand: a newer one without a build for CPUs brings gigabytes of CUDA.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet uv
	grep '^torch==' constraints.txt > .lock/torch.txt
	.lock/bin/python -m venv .lock/all
	.lock/all/bin/python -m pip install --quiet --constraint .lock/torch.txt --editable ".[dev,docs]"
	.lock/bin/uv pip freeze --quiet --python .lock/all/bin/python --exclude-editable | sed 's/+cpu$$//' > constraints.txt
	$(RESOLVE_GPU)
	LC_ALL=C sort --unique --output constraints.txt constraints.txt .lock/gpu.txt
	rm -rf .lock

# Whether all that a node with CUDA installs is in the lock.
lock-check:
	test -x .lock/bin/uv || { $(PYTHON) -m venv .lock && .lock/bin/python -m pip install --quiet uv; }
	$(RESOLVE_GPU)
	! grep --invert-match --line-regexp --fixed-strings --file constraints.txt .lock/gpu.txt

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-score .lock .site .bench .prometheus .triton .drill .pytest_cache .mypy_cache .ruff_cache .hypothesis
