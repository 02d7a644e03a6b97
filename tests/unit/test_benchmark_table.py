"""What the benchmark of the model server makes of its measurements."""

from __future__ import annotations

import pytest

from benchmarks.serving.swaps import Swaps
from benchmarks.serving.table import CONSTANT, FRESH, OURS, UNMERGED, Measured, lines, swap_lines


def run(rate: float, p50_ms: float, failed: int = 0) -> Measured:
    return Measured(rate=rate, p50_ms=p50_ms, p99_ms=9.0, cpu_us=100.0, failed=failed)


def test_a_measurement_is_of_the_answered_calls():
    took_s = [number / 1000 for number in range(1, 102)]
    result = {"seconds": 2.0, "took_s": took_s, "calls": 200, "failures": ["a", "b"]}
    one = Measured.of(result, cpu_s=0.5)
    assert (one.rate, one.failed) == (50.5, 2)
    assert one.p50_ms == pytest.approx(51.0)
    assert one.p99_ms == pytest.approx(100.0)
    assert one.cpu_us == pytest.approx(2500.0)


def test_nothing_answered_is_no_number_and_no_crash():
    one = Measured.of({"seconds": 1.0, "took_s": [], "calls": 0, "failures": ["a"]}, 0.0)
    assert (one.rate, one.failed) == (0, 1)
    assert one.p50_ms != one.p50_ms


def test_ratios_are_taken_within_a_turn_and_by_the_better_constant_server():
    measured = {
        ("text", 32): {
            CONSTANT[0]: [run(1000, 1.0), run(4000, 1.0), run(1000, 1.0)],
            CONSTANT[1]: [run(500, 0.5), run(500, 2.0), run(2000, 2.0)],
            OURS: [run(500, 1.0, failed=1), run(1000, 3.0), run(1500, 2.0)],
            FRESH: [run(250, 2.0), run(500, 3.0), run(750, 4.0)],
            UNMERGED: [run(250, 1.0), run(1000, 1.0), run(500, 1.0)],
        }
    }
    table = lines(measured)
    assert "| text | 32 | tfmm serve | 1000 (500–1500) | 2.00 (1.00–3.00) |" in table[3]
    assert table[3].endswith("| 1 |")
    ours, fresh = (line.removeprefix("| text | 32 | ") for line in table[-2:])
    assert ours == "tfmm serve | 0.50 (0.25–0.75) | 2.00 (1.00–3.00) | 2.00 (2.00–3.00) |"
    assert fresh == "nothing repeated | 0.25 (0.12–0.38) | 1.00 (0.50–1.50) | 4.00 (3.00–4.00) |"


def test_memory_is_compared_with_that_after_the_first_swap():
    swaps = Swaps(
        before_mb=90.0,
        after_mb=[100.0, 120.0, 110.0],
        took_s=[1.0, 3.0, 2.0],
        calls=10,
        failures=["UNAVAILABLE: gone"],
        latencies_s=[0.001, 0.003],
    )
    text = "\n".join(swap_lines(swaps))
    assert "swaps under load: 3, each 2.0 (1.0–3.0) s" in text
    assert "memory in MB: 90 before, then 100 120 110" in text
    assert "last / first: 1.100, largest / first: 1.200" in text
    assert "calls meanwhile: 10, failed: 1 UNAVAILABLE: gone" in text
