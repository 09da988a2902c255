"""The report of a net: rows of its layers, and their totals."""

from __future__ import annotations

from tests.support.nets import graph_of
from vggc.analysis.report import report


def test_statistics_are_stored_and_are_no_parameters() -> None:
    totals = report(graph_of("conv3-8 bias=off norm=batch | fc-5")).totals
    assert totals.params == 3 * 8 * 9 + 2 * 8 + 8 * 13 * 11 * 5 + 5
    assert totals.weight_bytes == 4 * (totals.params + 2 * 8)


def test_a_join_has_a_row_and_its_paths_know_it() -> None:
    graph = graph_of("conv3-4 | outer: add(inner: concat(conv1-2, conv3-2), skip) | fc-5")
    rows = {row.name: (row.kind, row.path) for row in report(graph).rows}
    assert rows["outer"] == ("add", ())
    assert rows["inner"] == ("concat", ("outer",))
    assert [path for _, path in rows.values()].count(("outer", "inner")) == 2
