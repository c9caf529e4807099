"""What learned thresholds promise, whatever the channel: properties, and some lives of channels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import cycle, islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.silence.model import Bounds, Learned, bounds_of, learn
from exporter.silence.profile import WEEK_HOURS, Measured, Profile, hour_of_week, level_for
from tests.support.examples import examples
from tests.support.hooks import hook_settings
from zapwatch.config import parse
from zapwatch.messages.history import DAYS, Gap, History

_ZONE = ZoneInfo("Europe/Lisbon")
_NOW = datetime(2026, 6, 1, tzinfo=_ZONE).timestamp()  # a Monday, 00:00
_DAY = 86400.0
_HOUR = 3600.0
_BOUNDS = Bounds(false_alarms=1, floor=600, ceiling=24 * _HOUR)

# Of 25 rates, so that no day is like another; a week of them takes long to draw.
_rates = st.lists(st.floats(0.001, 500), min_size=25, max_size=25)
_profiles = _rates.map(lambda rates: Profile([*islice(cycle(rates), WEEK_HOURS)]))
_hours_of_week = st.floats(0, WEEK_HOURS, exclude_max=True)
_levels = st.floats(0, 1000)


def _history(times: list[float], ends: float = _NOW) -> History:
    history = History(ends - 1)
    for at in times:
        history.note(at)
    return history


def _office(
    seed: int, per_hour: float = 12, begins: int = 9, days: int = DAYS, now: float = _NOW
) -> list[float]:
    """Messages by chance, on working days for nine hours from ``begins`` on."""
    chance = random.Random(seed)
    at = now - days * _DAY
    times = []
    while (at := at + chance.expovariate(per_hour / _HOUR)) < now:
        then = datetime.fromtimestamp(at, _ZONE)
        if then.weekday() < 5 and begins <= then.hour < begins + 9:
            times.append(at)
    return times


def _learn(times: list[float], bounds: Bounds = _BOUNDS, ends: float = _NOW) -> Learned:
    return learn({"one": _history(times, ends)}, bounds, _ZONE)["one"]


def _hours(learned: Learned, day: int, hour: float) -> float:
    """Return the threshold in hours after a message on a day (Monday 0) of the next week."""
    at = _NOW + day * _DAY + hour * _HOUR
    return learned.threshold(at, _BOUNDS, _ZONE) / _HOUR


@st.composite
def _histories(draw: st.DrawFn) -> dict[str, History]:
    histories = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        chance = random.Random(draw(st.integers(0, 2**32)))
        mean = draw(st.floats(300, 3 * _DAY))
        days = draw(st.floats(0.1, 40))
        times = []
        at = _NOW - days * _DAY
        while (at := at + chance.expovariate(1 / mean)) < _NOW:
            times.append(at)
        histories[name] = _history(times)
    return histories


@given(_profiles, _hours_of_week, st.floats(0, 1000))
def test_the_time_until_a_level_is_the_time_in_which_so_much_is_expected(
    profile: Profile, start: float, hours: float
) -> None:
    level = profile.expected(start, hours)
    assert level >= 0
    found = profile.hours_until(start, level)
    assert profile.expected(start, found) == pytest.approx(level, rel=1e-6, abs=1e-6)


@given(_profiles, _hours_of_week, _levels, _levels)
def test_a_higher_level_takes_no_less_time(
    profile: Profile, start: float, level: float, more: float
) -> None:
    until, later = profile.hours_until(start, level), profile.hours_until(start, level + more)
    assert 0 <= until <= later * (1 + 1e-9) + 1e-6


@given(_profiles, st.integers(0, WEEK_HOURS), _levels)
def test_nothing_jumps_at_the_hour_at_midnight_or_at_the_end_of_the_week(
    profile: Profile, hour: int, level: float
) -> None:
    least = min(profile.rates)
    before = profile.hours_until((hour - 1e-7) % WEEK_HOURS, level)
    after = profile.hours_until(hour % WEEK_HOURS, level)
    # A moment more or less of the busiest hour is made up for in the deadest.
    assert before == pytest.approx(after, abs=1e-7 * (1 + max(profile.rates) / least) + 1e-6)


def test_expectations_of_more_than_a_week_add_up() -> None:
    profile = Profile(range(1, WEEK_HOURS + 1))
    week = WEEK_HOURS * (WEEK_HOURS + 1) / 2
    assert profile.expected(0, WEEK_HOURS) == week
    assert profile.expected(100.5, 3 * WEEK_HOURS) == pytest.approx(3 * week)
    assert profile.expected(WEEK_HOURS - 0.5, 1) == pytest.approx(0.5 * WEEK_HOURS + 0.5)
    assert profile.hours_until(WEEK_HOURS - 0.5, 0.5 * WEEK_HOURS + 0.5) == pytest.approx(1)


def test_hours_of_the_week_are_local_ones_on_both_sides_of_a_clock_change() -> None:
    sunday = datetime(2026, 3, 29, 0, 30, tzinfo=_ZONE).timestamp()
    assert hour_of_week(sunday, _ZONE) == 6 * 24 + 0.5
    assert hour_of_week(sunday + _HOUR, _ZONE) == 6 * 24 + 2.5


_measured = st.lists(
    st.builds(Measured, st.floats(0, 1e4), st.floats(0.1, 5), st.floats(0, 672)), max_size=60
)
_knobs = st.floats(0.01, 100)


@given(_measured, _knobs, _knobs)
def test_more_false_alarms_never_mean_a_higher_level(
    measured: list[Measured], one: float, other: float
) -> None:
    few, many = sorted((one, other))
    assert level_for(measured, few) >= level_for(measured, many) - 1e-9
    assert level_for(measured, many) >= 0


@given(st.lists(st.floats(0, 100), min_size=40, max_size=40), st.sampled_from([1.0, 2.0]))
def test_one_huge_gap_in_a_month_hardly_moves_the_level(expected: list[float], knob: float) -> None:
    healthy = [Measured(value, 1.0) for value in expected]
    more = level_for([*healthy, Measured(1e9, 1.0)], knob)
    assert more <= 40 * max(expected)


@settings(max_examples=examples(25))
@given(_histories(), st.floats(0, 14), _knobs, _knobs)
def test_thresholds_stay_within_floor_and_ceiling_and_fall_as_the_knob_grows(
    histories: dict[str, History], days: float, one: float, other: float
) -> None:
    few, many = (Bounds(n, 600, 24 * _HOUR) for n in sorted((one, other)))
    patient, hasty = learn(histories, few, _ZONE), learn(histories, many, _ZONE)
    assert patient.keys() == hasty.keys()
    at = _NOW + days * _DAY
    for key in patient:
        longer = patient[key].threshold(at, few, _ZONE)
        shorter = hasty[key].threshold(at, many, _ZONE)
        assert 600 <= shorter <= longer + 1e-6 <= 24 * _HOUR + 1e-6


@settings(max_examples=examples(20))
@given(_histories())
def test_the_same_histories_teach_the_same(histories: dict[str, History]) -> None:
    one, other = learn(histories, _BOUNDS, _ZONE), learn(histories, _BOUNDS, _ZONE)
    assert [(k, v.level, v.profile.rates) for k, v in one.items()] == [
        (k, v.level, v.profile.rates) for k, v in other.items()
    ]


@given(st.floats(0, 7 * _DAY), st.floats(0, 60))
def test_two_messages_close_to_each_other_have_nearly_the_same_threshold(
    seconds: float, apart: float
) -> None:
    learned = _OFFICE
    at = _NOW + seconds
    first = learned.threshold(at, _BOUNDS, _ZONE)
    second = learned.threshold(at + apart, _BOUNDS, _ZONE)
    steepest = max(learned.profile.rates) / min(learned.profile.rates)
    assert abs(first - second) <= apart * steepest + 1e-3


_OFFICE = _learn(_office(1))


def test_nothing_is_learned_of_less_than_seven_days() -> None:
    young, old = _office(1, days=6), _office(1, days=11)
    assert learn({}, _BOUNDS, _ZONE) == {}
    learned = learn(
        {"never": _history([]), "young": _history(young), "old": _history(old)}, _BOUNDS
    )
    assert learned.keys() == {"old"}
    assert learned["old"].messages == len(old)


def test_opening_hours_stay_where_they_are_when_clocks_change() -> None:
    two_weeks_after = datetime(2026, 4, 13, tzinfo=_ZONE).timestamp()
    learned = _learn(_office(1, now=two_weeks_after), ends=two_weeks_after)
    tuesday = learned.profile.rates[24:48]
    # The hours beside those that are next to the first and the last one, which share in them.
    assert max(tuesday[7], tuesday[19]) < 0.05 * max(tuesday)


def test_an_office_may_be_silent_at_night_and_not_in_the_morning() -> None:
    assert _hours(_OFFICE, day=1, hour=10) < 2
    assert 15 < _hours(_OFFICE, day=1, hour=17.9) < 17
    assert _hours(_OFFICE, day=4, hour=17.9) == 24


@pytest.mark.parametrize("zombies", [0, 3])
def test_a_channel_that_never_rests_has_the_floor(zombies: int) -> None:
    begins = _NOW - DAYS * _DAY
    times = [begins + 30.0 * n for n in range(DAYS * 2880)]
    learned = _learn([at for at in times if not (at - begins) % (9 * _DAY) < zombies * 10 * _HOUR])
    assert {_hours(learned, day, hour) * _HOUR for day in range(7) for hour in range(24)} == {600}


@pytest.mark.parametrize("messages", [1, 500], ids=["single messages", "newsletters"])
@pytest.mark.parametrize(
    "days_ago",
    [
        range(DAYS, 0, -2),
        range(27, 0, -7),
        range(25, 0, -10),
        [26, 24, 22, 21, 20, 4, 1],
    ],
    ids=lambda days: ",".join(map(str, days)),
)
def test_a_channel_that_hardly_speaks_has_long_thresholds(
    days_ago: Sequence[int], messages: int
) -> None:
    chance = random.Random(3)
    starts = [_NOW - _DAY * (days - chance.random() / 2) for days in days_ago]
    learned = _learn([at + 10 * n for at in starts for n in range(messages)])
    assert {_hours(learned, day, hour) for day in range(7) for hour in range(0, 24, 4)} == {24}


@pytest.mark.parametrize("hours", [8, 30, 100])
def test_a_zombie_or_a_holiday_in_the_history_teaches_nothing(hours: int) -> None:
    begins = _NOW - 12 * _DAY + 9 * _HOUR  # on a Wednesday morning
    times = [at for at in _office(1) if not begins <= at < begins + hours * _HOUR]
    assert len(times) < len(_office(1))
    learned = _learn(times)
    for hour in (9, 10, 12, 15):
        for day in range(5):
            usual = _hours(_OFFICE, day, hour)
            assert _hours(learned, day, hour) == pytest.approx(usual, rel=0.25), (day, hour)


def test_a_channel_that_moved_to_other_hours_is_followed_within_two_weeks() -> None:
    moved = _NOW - 14 * _DAY
    times = [at for at in _office(1) if at < moved]
    times += [at for at in _office(2, begins=13) if at >= moved]
    learned = _learn(times)
    assert _hours(learned, day=1, hour=20) < 3
    assert 14 < _hours(learned, day=1, hour=21.9) < 24


def _day_hours(learned: Learned) -> list[float]:
    return [_hours(learned, 1, hour) for hour in (9, 10, 12, 14, 16)]


@pytest.mark.parametrize("days", [7, 16])
def test_what_has_been_silent_since_is_not_held_to_be_normal(days: int) -> None:
    learned = _learn([at for at in _office(1) if at < _NOW - days * _DAY])
    assert _day_hours(learned) == pytest.approx(_day_hours(_OFFICE), rel=0.2)


def test_the_time_before_the_first_message_is_not_held_to_be_silence() -> None:
    assert _day_hours(_learn(_office(1, days=12))) == pytest.approx(_day_hours(_OFFICE), rel=0.2)


@pytest.mark.parametrize("knob", [4, 16])
def test_the_knob_is_about_the_false_alarms_of_a_month(knob: int) -> None:
    bounds = Bounds(knob, 600, 48 * _HOUR)
    middle = _NOW - 28 * _DAY
    alarms = 0
    for seed in range(6):
        times = _office(seed, days=56)
        learned = _learn([at for at in times if at < middle], bounds, middle)
        alarms += sum(
            60 * _HOUR > following - at > learned.threshold(at, bounds, _ZONE)
            for at, following in pairwise(times)
            if at >= middle
        )
    assert knob / 4 < alarms / 6 < 1.5 * knob


@pytest.mark.parametrize("minutes", [2, 15, 40])
def test_one_message_a_day_hardly_ever_makes_an_alarm_with_the_usual_settings(
    minutes: float,
) -> None:
    bounds = bounds_of(parse(hook_settings("http://127.0.0.1:1")))
    chance = random.Random(1)
    days = [_NOW - _DAY * day + 9 * _HOUR for day in range(8 * DAYS, 0, -1)]
    times = [day + chance.gauss(0, 60 * minutes) for day in days]
    learned = _learn([at for at in times if at < _NOW - 7 * DAYS * _DAY], bounds, times[DAYS])
    later = pairwise(times[DAYS:])
    alarms = sum(after - at > learned.threshold(at, bounds, _ZONE) for at, after in later)
    assert alarms <= 7, "one a month"


def _with_long_nights(seed: int) -> list[float]:
    """Messages by chance by day, few at night, and none in three nights of the week until 16:00."""
    chance = random.Random(seed)
    at = _NOW - DAYS * _DAY
    times = []
    while (at := at + chance.expovariate(12 / _HOUR)) < _NOW:
        then = datetime.fromtimestamp(at, _ZONE)
        by_day = 8 <= then.hour < 20 or chance.random() < 0.03
        evening = (then - timedelta(hours=16)).weekday()
        long_night = evening in {0, 2, 4} and not 16 <= then.hour < 20
        if by_day and not long_night:
            times.append(at)
    return times


def test_gaps_that_the_ceiling_ends_do_not_make_the_others_long() -> None:
    learned = _learn(_with_long_nights(1), Bounds(1, 600, 12 * _HOUR))
    assert _hours(learned, day=1, hour=17) < 3


def test_a_history_keeps_minutes_and_knows_the_gaps_between_them() -> None:
    history = History(_NOW - 1)
    assert history.begins == _NOW - DAYS * _DAY
    assert history.span() is None
    assert list(history.gaps()) == []
    for minute in (0, 1, 59, 60, 61, 62, 200, 200, DAYS * 1440 - 1):
        history.note(history.begins + 60 * minute + 30)
    for at in (history.begins - 1, history.begins + DAYS * _DAY):
        history.note(at)
    assert history.messages == 9
    assert history.span() == Gap(0, DAYS * 1440 - 1)
    assert list(history.gaps()) == [Gap(1, 59), Gap(62, 200), Gap(200, DAYS * 1440 - 1)]
    assert history.busy_minutes()[:4] == [3, 3, 0, 1]


@given(st.sets(st.integers(0, DAYS * 1440 - 1), max_size=300), st.integers(0, DAYS * 24 - 2))
def test_gaps_are_where_no_minute_is(minutes: set[int], full: int) -> None:
    minutes |= set(range(full * 60, full * 60 + 120))  # two hours without a gap among them
    history = History(_NOW - 1)
    for minute in minutes:
        history.note(history.begins + 60 * minute)
    pairs = pairwise(sorted(minutes))
    assert list(history.gaps()) == [Gap(a, b) for a, b in pairs if b > a + 1]


@settings(max_examples=examples(20))
@given(st.integers(0, 1000), st.floats(0.5, 200))
def test_a_channel_is_suspect_before_it_is_silent(seed: int, per_hour: float) -> None:
    learned = _learn(_office(seed, per_hour))
    assert learned.suspect_level <= learned.level
    for hour in range(0, WEEK_HOURS, 5):
        at = _NOW + hour * _HOUR
        assert learned.suspicion(at, _BOUNDS, _ZONE) <= learned.threshold(at, _BOUNDS, _ZONE)
