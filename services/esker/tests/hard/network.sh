#!/bin/sh
# The network that net.rs makes, inside `unshare -Urn`: one step of it, or, by `may`, all of them once, for
# who wants to know whether this system lets anybody.
set -eu

# Sets up this end.
bridge() {
    ip link set lo up
    ip link add esker0 type bridge
    ip addr add 10.9.0.1/24 dev esker0
    ip link set esker0 up
}

# A way from here to the namespace of a process.
link() { # number process
    ip link add "v$1" type veth peer name eth0 netns "$2"
    ip link set "v$1" master esker0 up
}

# What a host needs, there: its own addresses are looked up late, so that what is to be dropped is first.
host() { # address
    ip link set lo up
    ip addr add "$1/24" dev eth0
    ip link set eth0 up
    ip rule add pref 100 lookup local
    ip rule del pref 0
}

# Nothing comes from an address any more; it does again.
cut() { ip rule add pref 10 from "$1" blackhole; }
heal() { ip rule del pref 10 from "$1" blackhole; }

may() {
    bridge
    unshare -n sleep 60 >/dev/null 2>&1 &
    holder=$!
    trap 'kill "$holder"' EXIT
    tries=0
    while [ "$(readlink "/proc/$holder/ns/net")" = "$(readlink /proc/self/ns/net)" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 50 ]; then
            echo 'no namespace within one' >&2
            return 1
        fi
        sleep 0.1
    done
    link 2 "$holder"
    for step in 'host 10.9.0.2' 'cut 10.9.0.3' 'heal 10.9.0.3'; do
        # Its words are two.
        nsenter -t "$holder" -n sh "$0" $step
    done
}

"$@"
