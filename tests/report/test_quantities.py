import pytest

from neuroexapt.report import quantities as q


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (q.in_count(12345), "12,345"),
        (q.in_change(936), "+936"),
        (q.in_percent(0.978), "97.8 %"),
        (q.in_relative_change(12, 100), "+12 %"),
        (q.in_relative_change(-1, 100), "-1.0 %"),
        (q.in_relative_change(5, 0), "+0.0 %"),
        (q.in_signed_percent(0.0784), "+7.8 %"),
        (q.in_signed_percent(-0.0005), "-0.05 %"),
        (q.in_signed_percent(0.314), "+31 %"),
        (q.in_interval(-0.004, 0.0999), "-0.40 to +10 %"),
        (q.in_flops(999), "999 FLOP"),
        (q.in_flops(1_250_000), "1.25 MFLOP"),
        (q.in_flops(999_900), "1 MFLOP"),
        (q.in_flops_range(1_250_000, 2_500_000), "1.25 → 2.5 MFLOP"),
        (q.in_flops_range(900_000, 2_500_000), "900 kFLOP → 2.5 MFLOP"),
        (q.in_bytes(296), "296 B"),
        (q.in_bytes(1_000), "1,000 B"),
        (q.in_bytes(1_536), "1.5 KiB"),
        (q.in_bytes(41 * 2**10), "41 KiB"),
        (q.in_bytes(2**20 - 1), "1.0 MiB"),
        (q.in_bytes(534 * 2**20), "534 MiB"),
        (q.in_bytes(3 * 2**29), "1.5 GiB"),
        (q.in_time(4.21), "4.2 s"),
        (q.in_time(59.97), "1 min 0 s"),
        (q.in_time(200), "3 min 20 s"),
        (q.in_time(7500), "2 h 5 min"),
        (q.in_time(float("nan")), "unknown time"),
        (q.in_gain(0.0351), "+0.035"),
        (q.in_gain(-2e-5), "-2.0e-05"),
        (q.in_gain(0.0), "0"),
        (q.in_magnitude(1.2e-7), "1.2e-07"),
        (q.in_magnitude(0.0), "0"),
        (q.in_number_of(1, "edit"), "1 edit"),
        (q.in_number_of(5, "edit"), "5 edits"),
    ],
)
def test_a_number_is_said_with_its_unit(said, expected):
    assert said == expected
