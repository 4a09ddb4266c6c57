"""What the engines are worth: `python -m bench.detection.compare hypothesis.json scout.json ...`.

Each file is what `python -m bench.detection --engine E --format json` printed, and is named after the engine.  Prints
for each how many bugs most of its searches found, and the median and the mean of the times to those of the harder half:
the rows that took the first file's engine longer than its median row.  A bug that was not found counts with the time of
its searches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

Rows = dict[tuple[str, str], dict[str, Any]]


def read(file: Path) -> Rows:
    rows = (json.loads(line) for line in file.read_text().splitlines())
    return {(row["kind"], row["name"]): row for row in rows}


def seconds(row: dict[str, Any]) -> float:
    if row["median_seconds"] is not None:
        return float(row["median_seconds"])
    return float(median(search["seconds"] for search in row["searches"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    files: list[Path] = parser.parse_args().files
    tables = {file.stem: read(file) for file in files}
    first = tables[files[0].stem]
    common = [key for key in first if all(key in rows for rows in tables.values())]
    ranked = sorted(common, key=lambda key: seconds(first[key]))
    hard = ranked[len(ranked) // 2 :]
    print(f"{len(common)} bugs, {len(hard)} of them the harder half for {files[0].stem}")
    print("engine        found  of the harder  median s   mean s  slowest s")
    for engine, rows in tables.items():
        found = [key for key in common if rows[key]["median_seconds"] is not None]
        times = [seconds(rows[key]) for key in hard]
        print(
            f"{engine:12} {len(found):6} {len(set(found) & set(hard)):14} {median(times):9.2f} {mean(times):8.2f}"
            f" {max(times):10.2f}"
        )


if __name__ == "__main__":
    main()
