#!/bin/sh
# stop_when_idle.sh MINUTES [SECONDS]: power this machine off once no sweep has been at work and nobody logged in on it
# for so many minutes, looking every so many seconds (60). Workers are gone by then: the autoscaler ends idle ones.
set -eu
exec 9>"${TMPDIR:-/tmp}/stop_when_idle.lock"
flock -n 9 || exit 0 # one of these is enough
idle=0
while [ "$idle" -lt "$1" ]; do
    sleep "${2:-60}"
    if pgrep -u "$(id -u)" -f '(/| -m )sweep (search|study|final|evaluate|resume|extend) ' >/dev/null || who | grep -q .; then
        idle=0
    else
        idle=$((idle + 1))
    fi
done
sudo shutdown -h now
