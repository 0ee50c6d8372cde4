#!/bin/bash
# Before an image is made of a node: end Ray and remove everything secret or of this cluster alone. The environment stays.
set -euo pipefail
ray stop > /dev/null
shred --force --remove "$HOME/.ray/auth_token" "$HOME/ray_bootstrap_key.pem" 2> /dev/null || true
rm --recursive --force "$HOME/.ray" "$HOME/ray_bootstrap_config.yaml" "$HOME/brats.env" "$HOME/.aws" "$HOME/.kaggle" \
    "$HOME/.bash_history" "$HOME/.ssh/known_hosts" "$HOME/scratch" /tmp/ray
for left in "$HOME/.ray/auth_token" "$HOME/ray_bootstrap_key.pem"; do
    [ ! -e "$left" ] || { echo "could not remove $left: make no image of this node" >&2; exit 1; }
done
sync
