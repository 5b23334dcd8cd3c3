#!/bin/sh
# An example model server with the agent in front of it: a few requests, their answers, a clean exit.
# usage: demo.sh FOLDER, which holds kserve-agent and examples/model_server
set -eu
folder=$1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
log=$(mktemp)
trap 'kill "$server" "$agent" 2>/dev/null || :; rm -f "$log"' EXIT

"$folder/examples/model_server" --port 0 >"$log" &
server=$!
until grep -q listening "$log"; do kill -0 "$server"; done
component=$(sed 's/.*://' "$log")

"$folder/kserve-agent" --port="$port" --component-port="$component" --metrics-port=0 --admin-port=0 --drain-period=0s &
agent=$!
agent_at=http://127.0.0.1:$port

ask() {
    printf '\n$ curl %s\n' "$*"
    curl --silent --show-error --fail-with-body --retry 20 --retry-connrefused --retry-delay 0 --no-buffer "$@"
    echo
}
ask "$agent_at/v1/models/iris"
ask -d '{"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}' "$agent_at/v1/models/iris:predict"
ask -d '{"id": "42", "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.9, 3.0, 4.2, 1.5]}]}' \
    "$agent_at/v2/models/iris/infer"
ask "$agent_at/stream?events=3&interval_ms=100"
ask -H 'User-Agent: kube-probe/1.31' -H 'K-Network-Probe: queue' "$agent_at/"

echo
kill -TERM "$agent"
wait "$agent"
echo "the agent has drained and exited with status $?"
