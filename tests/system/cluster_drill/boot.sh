#!/bin/bash
# The init of a host that stands in for an EC2 instance: boot.sh HOST ADDRESS PYTHON SSHD. Runs as root in namespaces of its
# own (network, mounts, processes, name). HOST is its folder: home, tmp and etc, which only it sees.
set -euo pipefail
host=$1 address=$2 python=$3 sshd=$4

hostname "ip-${address//./-}"
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$address/20" dev eth0
ip link set eth0 up
ip address add 169.254.169.254/32 dev lo  # the instance metadata service

prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
mkdir --parents "$host/prefix" "$host/home" "$host/tmp"
mount --bind "$prefix" "$host/prefix"
mount -t tmpfs -o mode=755 tmpfs /root  # what ubuntu could not read on a real machine; Python may live there
mkdir --parents "$prefix"
mount --bind "$host/prefix" "$prefix"
for name in passwd group hosts; do mount --bind "$host/etc/$name" "/etc/$name"; done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /home
mount -t tmpfs -o mode=755 tmpfs /opt
mount -t tmpfs -o mode=1777,size=1G tmpfs /dev/shm
mkdir /run/sshd /home/ubuntu
mount --bind "$host/home" /home/ubuntu
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/shared
mount --bind "$(dirname "$host")/shared" /mnt/shared  # a disk that machines of one owner all mount
if [ -e "$host/nvme" ]; then
    mkdir --parents /opt/dlami/nvme
    chown ubuntu /opt/dlami/nvme
fi
chown --recursive ubuntu:ubuntu "$host/home"
chmod 1777 "$host/tmp"
"$python" "$host/metadata_server.py" "$host" &
mount --bind "$host/tmp" /tmp
exec "$sshd" -D -e -f "$host/etc/sshd_config"
