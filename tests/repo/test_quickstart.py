"""The shell blocks of the quick start, run in order as a reader would, against development mode."""

import re
import signal
import subprocess
from pathlib import Path

from tests.processes.nodes import conclave, environment, free_ports, wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quickstart.md"
PORT_ON_THE_PAGE = "127.0.0.1:8200"


def test_the_quick_start_works_as_it_stands(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script = "\n".join(["set -eu", *blocks]).replace(PORT_ON_THE_PAGE, address)
    log = tmp_path / "log"
    with log.open("wb") as opened:
        server = subprocess.Popen(
            conclave("server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address={address}"),
            stdout=opened,
            stderr=opened,
            env=environment(tmp_path),
        )
    try:
        wait_until(lambda: "server started!" in log.read_text() or server.poll() is not None, "it has started")
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=False, env=environment(tmp_path), cwd=tmp_path
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)

    assert len(blocks) >= 3
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rod.anami" in done.stdout
