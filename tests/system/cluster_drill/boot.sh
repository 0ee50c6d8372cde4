#!/bin/bash
# The init of a host that stands in for an EC2 instance: boot.sh HOST ADDRESS PYTHON SSHD FOLDER... Runs as root in
# namespaces of its own (network, mounts, processes, name). HOST is its folder: home, tmp and etc, which only it sees. The
# FOLDERs are those of this machine that it sees too, wherever they lie: the project may be below /tmp.
set -euo pipefail
host=$1 address=$2 python=$3 sshd=$4
shift 4

hostname "ip-${address//./-}"
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$address/16" dev eth0
ip link set eth0 up
ip address add 169.254.169.254/32 dev lo  # the instance metadata service

mkdir --parents "$host/home" "$host/tmp"
for folder in "$@"; do  # aside, before anything is mounted over them
    mkdir --parents "$host/seen$folder"
    mount --bind "$folder" "$host/seen$folder"
done
mount -t tmpfs -o mode=755 tmpfs /root  # what ubuntu could not read on a real machine; Python may live there
for name in passwd group hosts; do mount --bind "$host/etc/$name" "/etc/$name"; done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /home
mount -t tmpfs -o mode=755 tmpfs /opt
mount -t tmpfs -o mode=1777,size=1G tmpfs /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
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
mount --bind "$host/tmp" /tmp
for folder in "$@"; do
    mkdir --parents "$folder"
    mount --bind "$host/seen$folder" "$folder"
done
"$python" "$host/metadata_server.py" "$host" &
exec "$sshd" -D -e -f "$host/etc/sshd_config"
