"""Ordered tables: what is due comes first, and only what is due."""

from conclave.storage.barrier import Barrier
from conclave.storage.keyring import Keyring
from conclave.storage.tables import OrderedTable
from tests.storage.test_tree import DictView

TABLE = b"t" * 16


def test_rows_come_in_order_of_their_time() -> None:
    table = OrderedTable(DictView(), Barrier(Keyring.generate(0)), TABLE)
    for time_ns in (30, 10, 20):
        table.put(time_ns, b"lease", str(time_ns).encode())

    assert [(time_ns, value) for time_ns, _, value in table.due(25, 10)] == [(10, b"10"), (20, b"20")]
    assert table.next_time() == 10


def test_a_deleted_row_is_not_due() -> None:
    table = OrderedTable(DictView(), Barrier(Keyring.generate(0)), TABLE)
    table.put(10, b"a", b"")
    table.put(10, b"b", b"")

    table.delete(10, b"a")

    assert len(table.due(10, 10)) == 1
