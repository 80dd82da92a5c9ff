#!/bin/sh
# Installs the programs that the tests drive, where this user may; says what is missing where not.
missing=""
command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ] || missing="$missing mosquitto"
command -v mosquitto_pub >/dev/null 2>&1 || missing="$missing mosquitto-clients"
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
if [ "$(node --version 2>/dev/null | sed 's/^v//; s/\..*//')" -ge 20 ] 2>/dev/null && command -v npm >/dev/null 2>&1; then
    aedes=$(dirname "$0")/../broker/aedes
    if [ ! "$aedes/node_modules/.package-lock.json" -nt "$aedes/package-lock.json" ]; then
        npm ci --prefix "$aedes" --no-audit --no-fund --loglevel=error >/dev/null || echo "missing: Aedes (npm ci --prefix broker/aedes); the tests that need it are skipped" >&2
    fi
else
    echo "missing: node 20 or newer, with npm (Debian 13: apt-get install nodejs npm; or nodejs.org); the tests of Aedes are skipped" >&2
fi
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    # the packaged service must not start: the tests run their own brokers on free ports
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq $missing >/dev/null && exit 0
fi
echo "missing:$missing (Debian: apt-get install$missing); the tests that need them are skipped" >&2
