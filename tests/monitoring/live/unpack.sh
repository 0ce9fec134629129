#!/usr/bin/env bash
# Debian's Prometheus, Alertmanager, Pushgateway and vmalert in a folder: nothing is installed, and no start-up script runs.
set -euo pipefail
mkdir -p "$1"
cd "$1"
if ! apt-get download --quiet prometheus prometheus-alertmanager prometheus-pushgateway victoria-metrics; then
    echo "apt knows no such packages: run \`apt-get update\` once, as root, on Debian 12 or later." >&2
    exit 1
fi
for package in ./*.deb; do
    dpkg -x "$package" .
    rm "$package"
done
# Alertmanager refuses to start without templates that it looks for where they would be installed. Its copy here
# looks for them beneath the folder that it is started in: a path of the same length, without the first slash.
sed -i 's#/usr/share/prometheus/alertmanager#usr//share/prometheus/alertmanager#g' usr/bin/prometheus-alertmanager
touch .ready
