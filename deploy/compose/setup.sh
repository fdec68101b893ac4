#!/bin/sh
# Make one cluster of three nodes, and unseal what is sealed. Safe to be run again: it does what is left to do.
set -eu
umask 077
keys=/conclave/keys/init.json

cat >&2 <<'WARNING'
**********************************************************************
*  THE UNSEAL KEY AND THE ROOT TOKEN ARE WRITTEN TO A VOLUME.        *
*  Whoever can read it owns every secret. This is for trying things  *
*  out; a real cluster's key shares belong to several people.        *
**********************************************************************
WARNING

use() { export VAULT_ADDR="http://$1:8200"; }

await() { # until the node answers: `status` says 1 as long as it does not
    use "$1"
    tries=0
    while conclave status >/dev/null 2>&1; [ $? = 1 ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || { echo "$1 does not answer" >&2; exit 1; }
        sleep 0.5
    done
}

unseal() { # and wait until it serves: a new member's state arrives behind the answer
    use "$1"
    conclave status >/dev/null 2>&1 || conclave operator unseal "$key" >/dev/null
    tries=0
    until conclave status >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || { echo "$1 stays sealed" >&2; exit 1; }
        sleep 0.5
    done
    echo "$1 is unsealed"
}

for node in node-1 node-2 node-3; do await "$node"; done
use node-1
if ! conclave operator init -status >/dev/null 2>&1; then
    conclave operator init -key-shares=1 -key-threshold=1 -format=json >"$keys.new"
    mv "$keys.new" "$keys"
    echo "node-1 has founded a cluster"
fi
key=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["unseal_keys_b64"][0])' "$keys")
unseal node-1
for node in node-2 node-3; do
    use "$node"
    conclave operator init -status >/dev/null 2>&1 || conclave operator raft join http://node-1:8200 >/dev/null
    unseal "$node"
done
use node-1
VAULT_TOKEN=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["root_token"])' "$keys")
export VAULT_TOKEN
conclave operator raft list-peers
