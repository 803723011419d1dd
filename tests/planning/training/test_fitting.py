"""What was fitted, and how far it carries to rows that it was not fitted on."""

from statistics import mean

import planning_fit
import pytest

from trimtab.planning.devices.efficiency import REACHED
from trimtab.planning.training.fitting import fit, leave_one_out, relative_error


def _sizes(errors):
    return [abs(error) for error in errors]


def test_the_constant_in_use_is_what_the_rule_gives():
    assert fit(planning_fit.sc21()).gemm == pytest.approx(REACHED.gemm, abs=0.005)


def test_rows_of_the_same_system_that_were_left_out():
    errors = _sizes(leave_one_out(planning_fit.sc21()))
    assert mean(errors) <= 0.04
    assert max(errors) <= 0.09


def test_korthikantis_full_and_selective_rows():
    errors = _sizes(relative_error(row, REACHED) for row in planning_fit.korthikanti())
    assert mean(errors) <= 0.04
    assert max(errors) <= 0.09


def test_another_system_and_its_order():
    rows = planning_fit.mt_nlg()
    errors = [relative_error(row, REACHED) for row in rows]
    predicted = [row.step_seconds * (1 + error) for row, error in zip(rows, errors, strict=True)]
    assert predicted == sorted(predicted, reverse=True)
    assert mean(_sizes(errors)) <= 0.25
