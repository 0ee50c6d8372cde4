#!/bin/bash
# Nothing bills when nobody works: `switch_off.sh head|worker`, started by aws.yaml before Ray, shuts this machine down once
# nobody has needed it for some minutes, and AWS terminates what shuts itself down (InstanceInitiatedShutdownBehavior).
# A worker is needed while its raylet lives: that ends by itself a minute after the head is gone. A head is needed while
# a job runs or waits, one of the project's commands runs, or a terminal is typed in or written to; where it goes, its
# workers follow. The minutes are those of ~/brats.env as it is then.
set -uo pipefail
kind=$1

has_job() {
    curl --silent --max-time 20 --header @<(printf 'Authorization: Bearer %s' "$(cat ~/.ray/auth_token)") \
        http://127.0.0.1:8265/api/jobs/ | grep --quiet --extended-regexp '"status": *"(PENDING|RUNNING)"'
}

has_visitor() {
    # By what goes over a terminal: the tunnel of `ray dashboard` has one too, for days.
    pgrep --full 'python.* ray_jobs/' > /dev/null ||
        find /dev/pts -name '[0-9]*' \( -mmin -1 -o -amin -1 \) 2> /dev/null | grep --quiet .
}

is_needed() {
    case $kind in
        head) has_job || has_visitor ;;
        worker) pgrep --exact raylet > /dev/null ;;
    esac
}

minutes() {
    local given usual
    # shellcheck disable=SC1090
    [ ! -f ~/brats.env ] || . ~/brats.env
    case $kind in
        head) given=${BRATS_HEAD_IDLE_MINUTES:-} usual=60 ;;
        worker) given=${BRATS_WORKER_ALONE_MINUTES:-} usual=10 ;;
    esac
    [[ $given =~ ^[1-9][0-9]{0,5}$ ]] && echo "$given" || echo "$usual"
}

[[ $kind =~ ^(head|worker)$ ]] || { echo "usage: switch_off.sh head|worker" >&2; exit 2; }
sudo --non-interactive shutdown -c || true  # aws.yaml's UserData let the machine end unless it came as far as this
needed=$SECONDS
while ((SECONDS - needed < $(minutes) * 60)); do
    sleep 10
    ! is_needed || needed=$SECONDS
done
echo "$(date --iso-8601=seconds) no need of this $kind for $(minutes) minutes: shutting down"
until sudo --non-interactive shutdown -h now; do sleep 60; done
