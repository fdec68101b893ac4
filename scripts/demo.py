"""`make demo` and `make demo-stop`: a three-node cluster on this machine, and the walk through it.

    python scripts/demo.py start    starts three nodes, plays the walk, leaves the cluster running
    python scripts/demo.py stop     stops them and removes what they kept

Everything lives in `.demo/` of the repository: configuration, data, logs, process ids, and the unseal key and root token,
which nobody would keep like this outside a demonstration. Each step is our own command line, printed as one would type it.
Standard library only.
"""

import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / ".demo"
CONCLAVE: Final = Path(sys.executable).with_name("conclave")
NODES: Final = (1, 2, 3)
API_PORT: Final = 8200
CLUSTER_PORT: Final = 8210
START_SECONDS_MAX: Final = 20.0
STOP_SECONDS_MAX: Final = 15.0
POLL_SECONDS: Final = 0.02
CONFIG: Final = """\
cluster_name = "demo"
api_addr     = "http://127.0.0.1:{api}"
cluster_addr = "https://127.0.0.1:{cluster}"

storage "raft" {{
  path    = "{folder}/node-{node}"
  node_id = "node-{node}"
}}

listener "tcp" {{
  address         = "127.0.0.1:{api}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_disable     = true
}}
"""


class DemoError(Exception):
    """The demonstration cannot go on; the text says why and what to do."""


def main() -> int:
    """Run the command named on the command line."""
    commands = {"start": start, "stop": stop}
    command = commands.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if command is None:
        print("usage: demo.py start|stop", file=sys.stderr)
        return 1
    try:
        command()
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    return 0


# -- start --


def start() -> None:
    """Start the cluster and play the walk."""
    if running():
        raise DemoError("a demonstration is running already; stop it with: make demo-stop")
    for port in [*(API_PORT + i for i in range(3)), *(CLUSTER_PORT + i for i in range(3))]:
        require_free(port)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o700)
    began = time.monotonic()
    try:
        walk()
    except BaseException:
        say(f"\nThe logs are in {FOLDER.name}/node-*.log; the nodes are stopped, their files are kept.")
        stop_nodes()
        raise
    say(f"\nThe cluster part took {time.monotonic() - began:.1f} s.")
    farewell()


def walk() -> None:
    """Initialise, unseal, join, write, kill the leader, read everywhere, bring it back."""
    title("Three nodes start, each a process with its own data folder")
    for node in NODES:
        launch(node)

    title("The first one founds the cluster: one key share here, for brevity; five with a threshold of three elsewhere")
    made = json.loads(conclave(1, "operator init -key-shares=1 -key-threshold=1 -format=json", show=False))
    key, token = made["unseal_keys_b64"][0], made["root_token"]
    write_private(FOLDER / "init.json", json.dumps(made, indent=2) + "\n")
    say("Unseal Key 1: … (in .demo/init.json)\nInitial Root Token: … (the same)")
    conclave(1, "operator unseal {key}", key=key)

    title("The others join it, and prove with the unseal key that they belong to it")
    for node in (2, 3):
        conclave(node, f"operator raft join {address(1)}")
        conclave(node, "operator unseal {key}", key=key, quiet=True)
    for node in NODES:
        wait_unsealed(node)
    os.environ["VAULT_TOKEN"] = token
    wait_voters()
    conclave(1, "operator raft list-peers")

    title("A secret is written on one node and read on all of them")
    conclave(1, "secrets enable -path=secret kv-v2")
    conclave(1, "kv put secret/database/config username=rod.anami password=s3cret!")
    for node in NODES:
        conclave(node, "kv get -field=password secret/database/config")

    leader = find_leader()
    others = [node for node in NODES if node != leader]
    title(f"The leader, node-{leader}, is killed (SIGKILL)")
    kill(leader)
    seconds = first_write(others, token)
    say(f"The first write was accepted {seconds:.2f} s later.\n")
    for node in others:
        conclave(node, "kv get -field=password secret/database/config")

    title(f"node-{leader} comes back, sealed, and is unsealed")
    launch(leader)
    conclave(leader, "operator unseal {key}", key=key, quiet=True)
    wait_unsealed(leader)
    conclave(leader, "kv get -field=password secret/database/config")
    conclave(leader, "operator raft list-peers")


def farewell() -> None:
    """Say where everything is and what to type next."""
    lines = [f"export VAULT_ADDR={address(1)}", f"export VAULT_TOKEN={os.environ['VAULT_TOKEN']}"]
    write_private(FOLDER / "env", "\n".join([*lines, f'export PATH="{CONCLAVE.parent}:$PATH"']) + "\n")
    title("The cluster goes on running")
    for node in NODES:
        say(f"  node-{node}   {address(node)}   log: {FOLDER.name}/node-{node}.log")
    say("\nGo on with it in this shell:\n\n  . .demo/env\n  conclave status\n  conclave kv get secret/database/config")
    say("\nand end it:\n\n  make demo-stop")


# -- nodes --


def launch(node: int) -> None:
    """Start one node as a process of its own and wait until it answers."""
    config = FOLDER / f"node-{node}.hcl"
    config.write_text(CONFIG.format(api=API_PORT + node - 1, cluster=CLUSTER_PORT + node - 1, folder=FOLDER, node=node))
    command = [str(CONCLAVE), "server", f"-config={config}"]
    say(f"$ conclave server -config={config.relative_to(ROOT)} &")
    log_file = FOLDER / f"node-{node}.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )
    remember(node, process.pid)

    def answers() -> bool:
        if process.poll() is not None:
            tail = "\n".join(log_file.read_text().splitlines()[-5:])
            raise DemoError(f"node-{node} ended with exit code {process.returncode}:\n{tail}")
        return is_listening(API_PORT + node - 1)

    wait(answers, f"node-{node} listens")


def remember(node: int, pid: int) -> None:
    """Note which process a node is."""
    (FOLDER / f"node-{node}.pid").write_text(str(pid))


def running() -> dict[int, int]:
    """Return the processes of a demonstration that are alive, by node; a pid used by another program does not count."""
    found = {}
    for file in FOLDER.glob("node-*.pid"):
        pid = int(file.read_text())
        with contextlib.suppress(OSError):
            if str(FOLDER).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found[int(file.stem.removeprefix("node-"))] = pid
    return found


def kill(node: int) -> None:
    """Kill a node as a power cut would."""
    pid = running()[node]
    say(f"$ kill -9 {pid}")
    os.kill(pid, signal.SIGKILL)
    wait(lambda: not is_listening(API_PORT + node - 1), f"node-{node} is gone")


def stop_nodes() -> None:
    """End every node, politely first."""
    alive = running()
    for pid in alive.values():
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while running() and time.monotonic() < deadline:
        reap()
        time.sleep(POLL_SECONDS)
    for node, pid in running().items():
        say(f"node-{node} did not stop within {STOP_SECONDS_MAX:.0f} s; killing it")
        os.kill(pid, signal.SIGKILL)


def reap() -> None:
    """Collect children of this very process that have ended, so that they do not count as running."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def stop() -> None:
    """Stop the cluster and remove its files."""
    count = len(running())
    stop_nodes()
    shutil.rmtree(FOLDER, ignore_errors=True)
    say(f"stopped {count} nodes and removed {FOLDER.name}/" if count else "no demonstration is running")


# -- talking to nodes --


def address(node: int) -> str:
    """Return the API address of a node."""
    return f"http://127.0.0.1:{API_PORT + node - 1}"


def conclave(node: int, line: str, *, key: str = "", show: bool = True, quiet: bool = False) -> str:
    """Run one command against a node, printed as one would type it, and return what it says.

    Args:
        node: 1 to 3.
        line: the arguments; `{key}` stands for the unseal key, which is not printed.
        key: the unseal key.
        show: print what the command says.
        quiet: print the command only.
    """
    say(f"$ VAULT_ADDR={address(node)} conclave {line.format(key='$UNSEAL_KEY')}")
    environment = {**os.environ, "VAULT_ADDR": address(node), "HOME": str(FOLDER), "NO_COLOR": "1"}
    for name in [name for name in environment if name.startswith("BAO_")]:
        del environment[name]  # a developer's own settings would go over ours
    arguments = [argument.format(key=key) for argument in shlex.split(line)]
    done = subprocess.run([CONCLAVE, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    if show and not quiet:
        say(done.stdout.rstrip() + "\n")
    return done.stdout


def request(node: int, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    """Send one plain HTTP request; status 0 means that nobody answered."""
    connection = http.client.HTTPConnection("127.0.0.1", API_PORT + node - 1, timeout=5)
    try:
        headers = {"X-Vault-Token": token} if token else {}
        connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    except (OSError, http.client.HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()


def wait_unsealed(node: int) -> None:
    """Wait until a node serves."""
    wait(lambda: request(node, "GET", "sys/health?standbyok=true")[0] == 200, f"node-{node} is unsealed")


def wait_voters() -> None:
    """Wait until all nodes vote."""

    def all_vote() -> bool:
        token = os.environ["VAULT_TOKEN"]
        status, answer = request(1, "GET", "sys/storage/raft/configuration", token=token)
        return status == 200 and sum(each["voter"] for each in answer["data"]["config"]["servers"]) == len(NODES)

    wait(all_vote, "all three nodes vote")


def find_leader() -> int:
    """Return the node that leads."""
    return next(node for node in NODES if request(node, "GET", "sys/health")[0] == 200)


def first_write(nodes: list[int], token: str) -> float:
    """Return after how many seconds one of these nodes has accepted a write."""
    began = time.monotonic()
    body = {"data": {"after": "the leader's death"}}
    wait(lambda: any(request(node, "POST", "secret/data/failover", body, token)[0] == 200 for node in nodes), "a write")
    return time.monotonic() - began


# -- small things --


def require_free(port: int) -> None:
    """See that nobody listens on a port.

    Raises:
        DemoError: somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} is in use ({error.strerror}); the demonstration needs 8200 to 8202 and 8210 to 8212.\n"
                f"Find out by whom with: ss -ltnp 'sport = :{port}'"
            ) from error


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait(condition: Callable[[], bool], what: str) -> None:
    """Poll until a condition holds.

    Raises:
        DemoError: it does not within `START_SECONDS_MAX`.
    """
    deadline = time.monotonic() + START_SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{START_SECONDS_MAX:.0f} s passed before {what}; see {FOLDER.name}/node-*.log")
        time.sleep(POLL_SECONDS)


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    file.touch(mode=0o600)
    file.write_text(text)


def title(text: str) -> None:
    """Print the heading of a step."""
    say(f"\n--- {text}\n")


def say(text: str) -> None:
    """Print at once, so that a demonstration is followed as it goes."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
