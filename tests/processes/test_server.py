"""The server as a process: how it starts, what it says when it cannot, and how it ends."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conclave.core.store import WHAT_TO_DO_ABOUT_DAMAGE
from tests.processes.nodes import Cluster, Node, conclave, environment, free_ports, wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, "a")
    yield made
    if made.process is not None:
        made.end()


def refused(*arguments: str) -> str:
    """Run a server that cannot start, and return what it says."""
    done = subprocess.run(
        conclave("server", *arguments), capture_output=True, text=True, timeout=30, check=False, cwd="/"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_it_says_how_it_is_configured_before_its_first_log_line(node: Node) -> None:
    node.start()

    shown = node.log.read_text()
    assert shown.startswith("==> Conclave server configuration:\n")
    assert f"Api Address: {node.address}" in shown
    assert "==> Conclave server started! Log data will stream in below:" in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_it_is_told_to(node: Node, number: signal.Signals) -> None:
    node.start()

    code = node.end(number)

    assert code == 0
    assert node.log.read_text().rstrip().endswith("server: stopped")


def test_it_ends_cleanly_while_a_client_stays_connected(node: Node) -> None:
    node.start()

    with socket.create_connection(("127.0.0.1", node.api_port)):
        code = node.end(signal.SIGTERM)

    assert code == 0


def test_an_address_in_use_is_named(node: Node) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.api_port))
        taken.listen()

        said = refused(f"-config={node.config}")

    assert f"127.0.0.1:{node.api_port}" in said
    assert "in use" in said


def test_a_cluster_address_in_use_is_named(node: Node) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.cluster_port))
        taken.listen()

        said = refused(f"-config={node.config}")

    assert f"127.0.0.1:{node.cluster_port}" in said
    assert "in use" in said


def test_a_cluster_address_that_was_taken_meanwhile_is_told_and_can_be_had_later(node: Node) -> None:
    node.start()
    shares = {"secret_shares": 1, "secret_threshold": 1}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.cluster_port))
        taken.listen()

        assert node.request("PUT", "sys/init", shares) == (
            503,
            {"errors": ["cannot listen for the other nodes: Address already in use"]},
        )

    assert node.request("PUT", "sys/init", shares)[0] == 200


def test_a_node_that_could_not_listen_when_it_was_to_join_joins_later(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path)
        cluster.nodes = [Node(tmp_path, name) for name in ("a", "b")]
        first, second = cluster.nodes
        for each in cluster.nodes:
            stack.callback(each.end)
            each.start()
        cluster.initialize()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", second.cluster_port))
            taken.listen()
            assert second.request("PUT", "sys/storage/raft/join", {"leader_api_addr": first.address})[0] == 200
            assert second.request("PUT", "sys/unseal", {"key": cluster.key})[0] == 503

        cluster.unseal(second)

        wait_until(lambda: cluster.voters() == 2, "both nodes vote")


def test_a_data_folder_in_use_is_named(node: Node, tmp_path: Path) -> None:
    node.start()
    other = Node(tmp_path, "b")
    other.config.write_text(other.config.read_text().replace(str(other.data), str(node.data)))

    said = refused(f"-config={other.config}")

    assert str(node.data) in said
    assert "another process has this folder open" in said


def test_a_wrong_configuration_is_named_with_its_place(node: Node) -> None:
    node.config.write_text('storage "raft" {\n  path = "/d"\n}\nlog_level = "loud"\n')

    assert f"{node.config}:4: log_level: 'loud' is none of" in refused(f"-config={node.config}")


def test_no_configuration_at_all_is_refused() -> None:
    assert "-config=FILE" in refused()


def test_certificates_that_are_not_there_are_named(node: Node, tmp_path: Path) -> None:
    with_tls = f'tls_cert_file = "{tmp_path}/none.pem"\n  tls_key_file = "{tmp_path}/none.pem"'
    node.config.write_text(node.config.read_text().replace("tls_disable     = true", with_tls))

    assert f"{tmp_path}/none.pem" in refused(f"-config={node.config}")


def test_unknown_keys_are_warned_of_and_do_not_stop_it(node: Node) -> None:
    node.config.write_text(node.config.read_text() + '\nflavour = "mint"\n')

    node.start()

    assert "flavour: unknown key, ignored" in node.log.read_text()


def test_sighup_reads_the_log_level_anew(node: Node) -> None:
    node.config.write_text(node.config.read_text() + '\nlog_level = "error"\n')
    node.start()
    node.config.write_text(node.config.read_text().replace('"error"', '"info"'))

    node.send(signal.SIGHUP)

    wait_until(lambda: "reloaded" in node.log.read_text(), "it has reloaded")


def test_sighup_begins_audit_logs_anew(node: Node, tmp_path: Path) -> None:
    node.start()
    made = node.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})[1]
    node.request("PUT", "sys/unseal", {"key": made["keys"][0]})
    wait_until(lambda: node.health() == 200, "it leads")
    file = tmp_path / "audit.log"
    device = {"type": "file", "options": {"file_path": str(file)}}
    assert node.request("PUT", "sys/audit/file", device, made["root_token"])[0] == 204
    file.rename(tmp_path / "audit.log.1")

    node.send(signal.SIGHUP)
    wait_until(file.exists, "the log is begun anew")
    node.request("GET", "sys/mounts", token=made["root_token"])

    assert "sys/mounts" in file.read_text()


def test_a_damaged_log_is_refused_with_what_to_do(node: Node) -> None:
    node.start()
    node.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    node.end(signal.SIGTERM)
    segment = max(node.data.glob("log/*.log"))
    damaged = bytearray(segment.read_bytes())
    damaged[20] ^= 1  # in its head, which was durable before anything else
    segment.write_bytes(damaged)

    shown = refused(f"-config={node.config}")

    assert "cannot be opened" in shown
    assert WHAT_TO_DO_ABOUT_DAMAGE in shown


def test_the_pid_file_lives_as_long_as_the_process(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    node.config.write_text(node.config.read_text() + f'\npid_file = "{file}"\n')

    node.start()
    assert node.process is not None
    assert file.read_text() == f"{node.process.pid}\n"
    node.end(signal.SIGTERM)

    assert not file.exists()


def test_a_restarted_node_knows_who_it_is(node: Node) -> None:
    node.start()
    key = node.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})[1]["keys"][0]
    node.end(signal.SIGKILL)

    node.start()
    status = node.request("GET", "sys/seal-status")[1]
    node.request("PUT", "sys/unseal", {"key": key})
    wait_until(lambda: node.health() == 200, "it leads")

    assert (status["initialized"], status["sealed"]) == (True, True)


def test_a_data_folder_of_another_node_is_refused(node: Node) -> None:
    node.start()
    node.request("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    node.end(signal.SIGTERM)
    node.config.write_text(node.config.read_text().replace('node_id = "a"', 'node_id = "z"'))

    assert "belongs to node_id 'a'" in refused(f"-config={node.config}")


def test_development_mode_is_ready_at_once(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    command = conclave("server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address=127.0.0.1:{port}")
    log = tmp_path / "log"
    with log.open("wb") as opened:
        process = subprocess.Popen(command, stdout=opened, stderr=opened, env=environment(tmp_path), cwd=tmp_path)
    try:
        wait_until(lambda: "server started!" in log.read_text() or process.poll() is not None, "it has started")
        kept = (tmp_path / ".vault-token").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)

    assert (code, kept) == (0, "root"), log.read_text()
    assert "Root Token: root" in log.read_text()
    assert {file.name for file in tmp_path.iterdir()} == {".vault-token", "log"}
