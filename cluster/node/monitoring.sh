#!/bin/bash
# Prometheus and Grafana on the head, both on loopback: `monitoring.sh install` once, `monitoring.sh start` after `ray start`.
# Ray writes what they should show below /tmp/ray/session_latest/metrics; its dashboard looks for them at ports 9090 and
# 3000 of localhost. A cluster without them works all the same, so what cannot be had is said and left out.
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
place=$HOME/monitoring
grafana_version=11.6.16
grafana_url=${GRAFANA_URL:-https://dl.grafana.com/oss/release/grafana-$grafana_version.linux-amd64.tar.gz}

leave_out() {
    echo "no $1: $2; the cluster works without it" >&2
}

# The distribution's, unpacked and not installed: its package would start a server that listens on every interface.
install_prometheus() {
    [ ! -x "$place/prometheus/usr/bin/prometheus" ] || return 0
    # Where the lists of packages cannot be brought up to date, those there are may do.
    sudo --non-interactive apt-get update --quiet --quiet || true
    mkdir --parents "$place/prometheus" && cd "$place/prometheus" &&
        apt-get download --quiet --quiet prometheus && dpkg-deb --extract prometheus_*.deb .
}

fetch() {
    curl --fail --silent --show-error --location "$1"
}

install_grafana() {
    [ ! -x "$place/grafana/bin/grafana" ] || return 0
    local archive=$place/grafana.tar.gz sum
    fetch "$grafana_url" > "$archive" && sum=$(fetch "$grafana_url.sha256") &&
        sha256sum --check --quiet <<< "${sum%% *}  $archive" && mkdir --parents "$place/grafana" &&
        tar --extract --gzip --file "$archive" --directory "$place/grafana" --strip-components 1 && rm "$archive"
}

# start NAME COMMAND...: in the background, once.
start() {
    local name=$1
    shift
    setsid --fork flock --nonblock "$place/$name.lock" "$@" < /dev/null >> "$place/$name.log" 2>&1
}

start_prometheus() {
    [ -x "$place/prometheus/usr/bin/prometheus" ] || return 0
    start prometheus "$place/prometheus/usr/bin/prometheus" --config.file="$1/prometheus/prometheus.yml" \
        --storage.tsdb.path="$place/data" --storage.tsdb.retention.time=30d --web.listen-address=127.0.0.1:9090
}

start_grafana() {
    [ -x "$place/grafana/bin/grafana" ] || return 0
    cp "$project/cluster/grafana/brats-stream.json" "$1/grafana/dashboards/"
    cd "$place/grafana"
    GF_SERVER_HTTP_ADDR=127.0.0.1 GF_SERVER_HTTP_PORT=3000 GF_ANALYTICS_REPORTING_ENABLED=false \
        GF_ANALYTICS_CHECK_FOR_UPDATES=false start grafana bin/grafana server --homepath "$place/grafana" \
        --config "$1/grafana/grafana.ini"
}

mkdir --parents "$place"
case ${1:-} in
    install)
        (install_prometheus) || leave_out Prometheus "its package could not be downloaded"
        (install_grafana) || leave_out Grafana "$grafana_url could not be downloaded"
        ;;
    start)
        metrics=$(realpath /tmp/ray/session_latest)/metrics
        start_prometheus "$metrics"
        start_grafana "$metrics"
        ;;
    *)
        echo "usage: monitoring.sh install|start" >&2
        exit 2
        ;;
esac
