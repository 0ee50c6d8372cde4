#!/bin/bash
# Prepare a node: scratch space, driver, environment. Run on every node by aws.yaml and local.yaml, as the user that will
# run Ray, after the project's files are in place. Run again, it does only what is missing.
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$HOME/venv
nvme=/opt/dlami/nvme  # where the Deep Learning AMIs mount the instance's own disks
least_driver=580      # CUDA 13 wants it

# The line that a waiting job looks for on the head, to end with it (ray_jobs/on_ray/failed_setups.py).
fail() {
    trap - ERR
    echo "set-up failed: $*" >&2
    exit 1
}
set -o errtrace
trap 'fail "$BASH_COMMAND (line $LINENO of setup.sh)"' ERR

# ~/scratch is the local disk that may be lost: decoded cases and spilled objects.
prepare_scratch() {
    local waited=0
    if compgen -G "/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage*" > /dev/null; then
        until mountpoint --quiet "$nvme" || ((waited++ >= 60)); do sleep 1; done
    fi
    if [ -d "$nvme" ]; then
        [ -w "$nvme" ] || sudo chown "$(id --user)" "$nvme"
        mkdir --parents "$nvme/scratch"
        ln --symbolic --force --no-dereference "$nvme/scratch" "$HOME/scratch"
    fi
    mkdir --parents "$HOME/scratch/cache" "$HOME/scratch/spill"
}

check_driver() {
    [ -e /dev/nvidia0 ] || command -v nvidia-smi > /dev/null || return 0
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null | head --lines 1) || driver=""
    # An image with a driver on a machine without a GPU, such as the head, has no version to tell.
    [[ $driver =~ ^[0-9]+ ]] || { [ ! -e /dev/nvidia0 ] && return 0; fail "wanted NVIDIA driver $least_driver or newer, \
nvidia-smi does not answer: take an image with a driver"; }
    ((BASH_REMATCH[0] >= least_driver)) || fail "wanted NVIDIA driver $least_driver or newer for CUDA 13, found $driver: \
take a newer image (python cluster/account.py image)"
}

find_python() {
    local name
    for name in python3.12 python3.11 python3; do
        if command -v "$name" > /dev/null && "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'; then
            echo "$name"
            return
        fi
    done
    fail "wanted Python 3.11 or 3.12, found $(python3 --version 2>&1 || true)"
}

# A new machine may have no package lists, and its own first update, whose lock `apt-get update` does not wait for.
install_venv() {
    local waited=0 apt=(sudo DEBIAN_FRONTEND=noninteractive apt-get --option DPkg::Lock::Timeout=300 --quiet --quiet)
    until "${apt[@]}" update || ((waited++ >= 30)); do sleep 10; done
    "${apt[@]}" install --yes python3-venv
}

# Built once: the mark holds what it was built from, and is written last.
build_environment() {
    local wanted python
    wanted=$(cat "$project/pyproject.toml" "$project/constraints.txt" | sha256sum | cut --delimiter ' ' --fields 1)
    [ "$(cat "$venv/.built" 2> /dev/null)" != "$wanted" ] || return 0
    python=$(find_python) || exit 1  # which it has said
    rm --force "$venv/.built"
    "$python" -m venv "$venv" || { install_venv && "$python" -m venv "$venv"; }
    # pip would compile every module of every package, for half of its CPU time; what a run imports is compiled here.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
        --constraint "$project/constraints.txt" --editable "$project[aws]"
    "$venv/bin/python" -c "import ray_jobs.training.job, ray_jobs.training.train_loop, ray.train.torch"
    echo "$wanted" > "$venv/.built"
}

# First in .bashrc: Ubuntu's own stops there for shells that nobody types into.
greet_shells() {
    local line="for f in ~/brats.env ~/venv/bin/activate; do [ ! -f \$f ] || . \$f; done"
    grep --quiet --fixed-strings --line-regexp "$line" "$HOME/.bashrc" 2> /dev/null && return
    [ -s "$HOME/.bashrc" ] || echo > "$HOME/.bashrc"
    sed --in-place "1i $line" "$HOME/.bashrc"
}

[ ! -f "$HOME/.ray/auth_token" ] || chmod 600 "$HOME/.ray/auth_token"
prepare_scratch
check_driver
build_environment
greet_shells
