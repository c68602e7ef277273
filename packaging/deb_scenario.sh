#!/bin/bash
# An administrator of a bare Debian: install, setup, reload, upgrade, remove, purge. Runs in a booted root; /test has the
# packages in first/ and second/ and the simulated sound card in room.conf. Each result is a file in /test/results.
set -euo pipefail
cd /test
mkdir results

note() { # NAME COMMAND...: the command's output and status
    local name=$1 status=0
    shift
    "$@" >"results/$name" 2>&1 || status=$?
    echo "$status" >"results/$name.status"
}
state() { systemctl show apmpi --property=ActiveState,ConditionResult,UnitFileState,StatusText; }
sound_flows() { timeout 30 sh -c 'until [ -e /run/apmpi/sound ]; do sleep 0.1; done'; }

export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 HOME=/root
apt-get update
find / -xdev -iname '*apmpi*' >results/before
began=$EPOCHSECONDS
note install apt-get install --yes --no-install-recommends ./first/*.deb
echo $((EPOCHSECONDS - began)) >results/install_s
note installed state
note user id apmpi
note version apmpi --version
note catalog journalctl --list-catalog
note api python3 -c 'import apmpi; apmpi.AudioProcessingModule(echo_cancellation=True).process_stream(
    apmpi.AudioFrame.create(48000, 1, 480))'
note recordings apmpi process --mic call.wav -o /tmp/clean.wav

cp room.conf /etc/alsa/conf.d/99-room.conf
note setup apmpi setup --yes --device room
note running state
echo 'keep_learned: disk' >>/etc/apmpi/apmpi.yaml
note reload systemctl reload apmpi
systemctl restart apmpi
timeout 60 sh -c 'until [ -e /var/lib/apmpi/learned ]; do sleep 0.5; done' # saved after 10 s of sound
cp /etc/apmpi/apmpi.yaml results/configuration

note upgrade apt-get install --yes --no-install-recommends ./second/*.deb
note upgraded_sound sound_flows
note upgraded state
note upgraded_version dpkg-query --show apmpi
cp /etc/apmpi/apmpi.yaml results/configuration_upgraded
note continued journalctl --unit=apmpi --output=cat

note remove apt-get remove --yes apmpi
note removed systemctl is-active apmpi
note kept ls /etc/apmpi/apmpi.yaml /var/lib/apmpi/learned
note purge apt-get purge --yes apmpi
rm /etc/alsa/conf.d/99-room.conf
note user_left id apmpi
find / -xdev -iname '*apmpi*' >results/after
