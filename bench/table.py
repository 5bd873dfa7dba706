# SPDX-License-Identifier: BSD-2-Clause
"""The table of a benchmark: medians over its rounds, ratios, and which rows are under their floor."""

import math
import statistics

from rows import MEANS


def medians(rounds):
    """{contestant: {key: median}} of [{contestant: {key: (value, result)}}]."""
    found = {}
    for one in rounds:
        for name, values in one.items():
            for key, (value, _) in values.items():
                found.setdefault(name, {}).setdefault(key, []).append(value)
    return {name: {key: statistics.median(values) for key, values in rows.items()}
            for name, rows in found.items()}


def differences(rounds, rows):
    """The rows in which contestants computed different results, as lines of text."""
    lines = []
    for row in rows:
        results = {}
        for one in rounds:
            for name, values in one.items():
                if values.get(row.key, (0, None))[1] is not None:
                    results.setdefault(values[row.key][1], set()).add(name)
        if len(results) > 1:
            said = "; ".join(f"{value} by {', '.join(sorted(names))}"
                             for value, names in sorted(results.items()))
            lines.append(f"{row.key}: results differ: {said}")
    return lines


def ratio(row, first, second):
    """How many times as good `first` is as `second`; None where one is missing."""
    if not first or not second:
        return None
    return second / first if row.less_is_better else first / second


def number(value, width, digits=None):
    """A value in a column, to about four digits; a dash where there is none."""
    if value is None:
        return f"{'-':>{width}}"
    if digits is None:
        digits = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 10 else 3
    return f"{value:{width}.{digits}f}"


def row_lines(row, values):
    """(key, title, unit, values, ratios, floor) of a row as the JSON has it."""
    skep, qemu, native = (values.get(name, {}).get(row.key)
                          for name in ("skep", "qemu", "native"))
    return {"key": row.key, "title": row.title, "unit": row.unit, "skep": skep, "qemu": qemu,
            "native": native, "skep_to_qemu": ratio(row, skep, qemu),
            "native_to_skep": ratio(row, native, skep), "floor": row.floor}


def mean_line(mean, lines):
    """The geometric mean over the rows of it; None unless all of them are there."""
    of_rows = {line["key"]: line for line in lines}
    if not all(key in of_rows for key in mean.keys):
        return None
    line = {"key": None, "title": mean.title, "unit": "", "skep": None, "qemu": None,
            "native": None, "floor": mean.floor}
    for column in ("skep_to_qemu", "native_to_skep"):
        values = [of_rows[key][column] for key in mean.keys]
        line[column] = math.prod(values) ** (1 / len(values)) if all(values) else None
    return line


def table_lines(rows, values):
    """All lines of a table; a mean comes after the last of its rows."""
    lines = []
    for row in rows:
        lines.append(row_lines(row, values))
        for mean in MEANS:
            if mean.keys[-1] == row.key:
                lines.append(mean_line(mean, lines))
    return [line for line in lines if line]


def is_under(line):
    """Whether a row is slower beside QEMU than it shall be."""
    return (line["floor"] is not None and line["skep_to_qemu"] is not None and
            line["skep_to_qemu"] < line["floor"])


def print_table(title, lines):
    """A row per measure: the ratios are how many times as fast."""
    print(f"\n{title:34}{'unit':>5}{'skep':>10}{'qemu':>10}{'native':>10}"
          f"{'skep/qemu':>11}{'native/skep':>13}  floor")
    for line in lines:
        floor = "" if line["floor"] is None else f"  {line['floor']:<5g}"
        print(f"{line['title']:34}{line['unit']:>5}{number(line['skep'], 10)}"
              f"{number(line['qemu'], 10)}{number(line['native'], 10)}"
              f"{number(line['skep_to_qemu'], 11, 2)}{number(line['native_to_skep'], 13, 2)}"
              f"{floor}{'under' if is_under(line) else ''}".rstrip())
