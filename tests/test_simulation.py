"""A hundred thousand schedules of faults against the truth; a judge that can object; many clients at once."""

import logging

import pytest

import simulate_load
from aisfast._delivery import Over, Want
from aisfast.resume import Resume, Single, Wait
from judging import Wrong
from simulate import run

SCHEDULES = 100_000
PARTS = 5


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(logging.getLogger("aisfast"), "disabled", True)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_batch_ends_whole_and_right_or_in_the_documented_exception(part):
    count = SCHEDULES // PARTS
    ends = set()
    for seed in range(part * count, (part + 1) * count):
        try:
            ends.add(run(seed))
        except Exception as error:
            pytest.fail(f"python -m tests.simulate --seed {seed}: {type(error).__name__}: {error}")
    assert {"whole", "IncompleteBatchError", "ErrObjNotFound", "ErrRangeNotSatisfiable", "WireError"} <= ends


def test_a_schedule_is_its_seed(capsys):
    told = []
    for _ in range(2):
        run(7, tell=True)
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] != ""


# ---------------------------------------------------------------------------------- machines that are broken on purpose


class DropsAnEntry(Resume):
    """Counts an entry as missing where an answer ended early."""

    def _ended(self, now):
        super()._ended(now)
        if self.delivery.over == Over.SHORT and not self.delivery.missing_raises:
            self.delivery.supply_missing("gone")


class TakesShortForWhole(Resume):
    """Hands out nothing for what an answer lacks."""

    def next(self, now):
        step = super().next(now)
        if self.delivery.over == Over.SHORT and self.delivery.want == Want.ANSWER and not self.delivery.supplied:
            self.delivery.supply(b"")
            return Wait(now)
        return step


class TrustsRanges(Resume):
    """Takes for the range what may be the whole object."""

    def next(self, now):
        step = super().next(now)
        if isinstance(step, Single) and step.kind == "size":
            self.delivery.settle()
            return Wait(now)
        return step


class Impatient(Resume):
    def _back_off(self, now, base):
        raise self._given_up(self._last)


class Patient(Resume):
    """Gives up late."""

    def _until(self):
        return super()._until() + 30.0


class Restless(Resume):
    def _back_off(self, now, base):
        super()._back_off(now, base)
        self._not_before = now


class BelievesMisses(Resume):
    """Does not wait for a target that is gone."""

    def on_redirect(self, targets, now):
        super().on_redirect(targets, now)
        self.delivery.hold_misses = False


class Miscounts(Resume):
    def _incomplete(self, cause):
        error = super()._incomplete(cause)
        error.missing = error.missing[1:]
        return error


class Leaks(Resume):
    """Lets a foreign exception out."""

    def on_lost(self, error, now):
        raise OSError(str(error))


class AsksForEach(Resume):
    """Asks for one entry at a time."""

    def _ask(self, *args):
        self._window = 1
        return super()._ask(*args)


@pytest.mark.parametrize(
    ("machine", "objection"),
    [
        (DropsAnEntry, "is there, and counts as missing"),
        (TakesShortForWhole, "is wrong"),
        (TrustsRanges, "is wrong"),
        (Impatient, "given up"),
        (Patient, "s of silence"),
        (Restless, "what happened explains"),
        (BelievesMisses, "out of reach"),
        (Miscounts, "the wrong ones are missing"),
        (Leaks, "OSError"),
        (AsksForEach, "for a clean batch"),
    ],
)
def test_the_judge_objects_to(machine, objection):
    objections = set()
    for seed in range(3_000):
        try:
            run(seed, make=machine)
        except Wrong as error:
            objections.add(str(error))
        except OSError as error:
            objections.add(f"OSError {error}")
        if any(objection in text for text in objections):
            return
    pytest.fail(f"{machine.__name__} goes unnoticed: {objections}")


# --------------------------------------------------------------------------------------------------------------- load


def test_clients_that_lose_a_target_take_what_the_others_can_serve_without_a_storm():
    """A twelfth of `python -m tests.simulate_load`, in the same proportions."""
    figures = simulate_load.measure(simulate_load.Load(clients=43, rate=800 / 12, admitted=21))
    assert figures.goodput >= 0.9
    assert figures.excess <= 1.1
    assert figures.peak <= 3.0
    assert figures.failed == 0
