"""Dates in conditions: against arithmetic of their own, and where the clock is put on and back."""

import time
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchlib.catalog.conditions import Moment, Not, Or, Taken
from searchlib.errors import WhereError
from searchlib.search.where import parse_where
from searchlib.search.where.dates import from_bound, iso_bound

SATURDAY = datetime(2024, 6, 15, 10, 30)


def taken(text, now=SATURDAY):
    condition = parse_where(f"taken{text}", now=now)
    assert isinstance(condition, Taken)
    return condition.since, condition.before


def modified(text, now):
    condition = parse_where(f"modified{text}", now=now)
    assert isinstance(condition, Moment)
    return condition.since, condition.before


def mistake(text, now=SATURDAY):
    with pytest.raises(WhereError) as caught:
        parse_where(text, now=now)
    return text[caught.value.start : caught.value.end], caught.value.reason


@pytest.mark.parametrize(
    ("text", "since", "before"),
    [
        (":2024", "2024", "2025"),
        (":2024-06", "2024-06", "2024-07"),
        (":2024-12", "2024-12", "2025"),
        (":2024-02-29", "2024-02-29", "2024-03"),
        (":2024-06-15", "2024-06-15", "2024-06-16"),
        (":2024-06-15T10:30", "2024-06-15T10:30", "2024-06-15T10:31"),
        (":2024-06-15t23:59:59", "2024-06-15T23:59:59", "2024-06-16"),
        (":2024-06-15T10:30:00.5", "2024-06-15T10:30:00.500000", "2024-06-15T10:30:00.600000"),
        (':"2024-06-15 10:30"', "2024-06-15T10:30", "2024-06-15T10:31"),
        (":2024-06-15 10:30", "2024-06-15T10:30", "2024-06-15T10:31"),
        (">2024", "2025", None),
        (">=2024", "2024", None),
        ("<2024", None, "2024"),
        ("<=2024", None, "2025"),
        (":2024-06..2024-08", "2024-06", "2024-09"),
        (":2024-06..", "2024-06", None),
        (":..2024-06", None, "2024-07"),
        (":2024-06..2024", "2024-06", "2025"),
        (":2024-06..<2024-08", "2024-06", "2024-08"),
        (":..", None, None),
        (":today", "2024-06-15", "2024-06-16"),
        (":Yesterday", "2024-06-14", "2024-06-15"),
        (':"this week"', "2024-06-10", "2024-06-17"),
        (':"last week"', "2024-06-03", "2024-06-10"),
        (':"this month"', "2024-06", "2024-07"),
        (':"last month"', "2024-05", "2024-06"),
        (':"this year"', "2024", "2025"),
        (':"last year"', "2023", "2024"),
        (":last year", "2023", "2024"),
        (":last-month", "2024-05", "2024-06"),
        (":last_month..today", "2024-05", "2024-06-16"),
        (":'last month'..today", "2024-05", "2024-06-16"),
        (':"last 30 days"', "2024-05-16", "2024-06-16"),
        (":last 30 days", "2024-05-16", "2024-06-16"),
        (":Last 1 Day", "2024-06-14", "2024-06-16"),
        (":last 2 weeks", "2024-06", "2024-06-16"),
        (":last 6 months", "2023-12-15", "2024-06-16"),
        (":last 2 years", "2022-06-15", "2024-06-16"),
        ('<"last 10 years"', None, "2014-06-15"),
        ('>"last month"', "2024-06", None),
        (":2020..last year", "2020", "2024"),
    ],
)
def test_a_date_is_the_time_from_its_first_moment_to_its_last(text, since, before):
    assert taken(text) == (since, before)


def test_several_dates_are_either_of_them():
    both = Or((Taken("2020", "2021"), Taken("2022", "2023")))
    assert parse_where("taken:2020,2022") == both
    assert parse_where("taken!=2020,2022") == Not(both)


def test_a_month_back_from_a_day_that_the_month_does_not_have_is_its_last_day():
    assert taken(":last 1 month", datetime(2024, 3, 31))[0] == "2024-02-29"
    assert taken(":last 1 year", datetime(2024, 2, 29))[0] == "2023-02-28"
    assert taken(':"last month"', datetime(2024, 1, 31)) == ("2023-12", "2024")


@pytest.mark.parametrize(
    ("text", "word", "reason"),
    [
        ("taken:2024-02-30", "2024-02-30", "2024-02 has the days 01 to 29"),
        ("taken:2023-02-29", "2023-02-29", "2023-02 has the days 01 to 28"),
        ("taken:2024-06-00", "2024-06-00", "no such day"),
        ("taken:2024-13", "2024-13", "no month 13"),
        ("taken:2024-06-15T24:00", "2024-06-15T24:00", "00:00 to 23:59"),
        ("taken:2024-06-15T10:60", "2024-06-15T10:60", "00:00 to 23:59"),
        ("taken:2024-06-15T10:30:60", "2024-06-15T10:30:60", "00 to 59"),
        ("taken:0999", "0999", "between 1000 and 9998"),
        ("taken:9999", "9999", "between 1000 and 9998"),
        ("taken:24", "24", "not a date; write 2024"),
        ("taken:june", "june", "not a date"),
        ("taken:2024/6/5", "2024/6/5", "write the date as 2024-06-05"),
        ("taken:2024-6", "2024-6", "write the date as 2024-06"),
        (
            "taken:15.06.2024",
            "15.06.2024",
            "the year first, then the month, then the day: 2024-06-15",
        ),
        ("taken:2025..2024", "2025..2024", "write 2024..2025"),
        ('taken:"2025"..today', '"2025"..today', 'write today.."2025"'),
        ("modified:today..yesterday", "today..yesterday", "write yesterday..today"),
        ("taken:2024..<2024", "2024..<2024", "write 2024..2024"),
        ("taken:2024-06..2024-02-30", "2024-02-30", "01 to 29"),
        ("taken:last", "last", "last what?"),
        ('taken:"last 30 sols"', '"last 30 sols"', "no unit 'sol'"),
        ('taken:"last sol"', '"last sol"', "no unit 'sol'"),
        ('taken:"last day"', '"last day"', "write today or yesterday"),
        ("taken:last 0 days", "last 0 days", "write 1 or more"),
        ("taken:last 9999 years", "last 9999 years", "before the year 1000"),
        ("taken:last 999999999 days", "last 999999999 days", "before the year 1000"),
        ("taken:last 2 hours", "last 2 hours", "count in days"),
        ("taken:2024-06-15T10:30Z", "2024-06-15T10:30Z", "leave the zone out"),
        ("modified:2024-06-15T10:30+25:00", "2024-06-15T10:30+25:00", "no such time zone"),
        ("taken:@5", "@5", "seconds since 1970"),
        ("modified:@1e99", "@1e99", "no date"),
    ],
)
def test_a_date_that_does_not_exist_is_marked(text, word, reason):
    marked, said = mistake(text)
    assert marked == word
    assert reason in said


@given(st.dates(date(1000, 1, 1), date(9997, 12, 31)), st.sampled_from([4, 7, 10]))
@settings(max_examples=60)
def test_a_written_period_holds_its_days_and_no_others(day, length):
    word = day.isoformat()[:length]
    since, before = (from_bound(bound) for bound in taken(f":{word}"))
    first = since.date()
    following = before.date()
    assert first.isoformat()[:length] == word == (following - timedelta(1)).isoformat()[:length]
    if first > date(1000, 1, 1):
        assert (first - timedelta(1)).isoformat()[:length] != word
    assert following.isoformat()[:length] != word
    assert since.time() == before.time() == datetime.min.time()


@given(st.datetimes(datetime(1000, 1, 1), datetime(9998, 12, 31)))
@settings(max_examples=60)
def test_bounds_are_as_short_as_they_can_be_and_compare_as_the_moments_do(moment):
    bound = iso_bound(moment)
    assert from_bound(bound) == moment
    text = moment.isoformat()
    assert bound <= text
    if moment > datetime(1000, 1, 1):
        assert (moment - timedelta(microseconds=1)).isoformat(timespec="microseconds") < bound


UNITS = st.sampled_from(["day", "week", "month", "year"])


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), st.integers(1, 400), UNITS)
@settings(max_examples=80)
def test_the_last_so_many_days_agree_with_a_calendar_counted_day_by_day(now, count, unit):
    since, before = (from_bound(bound) for bound in taken(f":last {count} {unit}s", now))
    today = now.date()
    assert before == datetime.combine(today + timedelta(1), datetime.min.time())
    if unit in ("day", "week"):
        back = today
        for _ in range(count * (7 if unit == "week" else 1)):
            back -= timedelta(1)
    else:
        year, month = today.year, today.month
        for _ in range(count * (12 if unit == "year" else 1)):
            year, month = (year - 1, 12) if month == 1 else (year, month - 1)
        back = date(year, month, min(today.day, monthrange(year, month)[1]))
    assert since == datetime.combine(back, datetime.min.time())


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)), st.sampled_from("wmy"))
@settings(max_examples=60)
def test_this_and_last_are_neighbours_of_the_calendar_and_hold_today(now, letter):
    unit = {"w": "week", "m": "month", "y": "year"}[letter]
    this, last = (
        [from_bound(bound) for bound in taken(f":{which} {unit}", now)]
        for which in ("this", "last")
    )
    assert last[1] == this[0] <= now < this[1]
    for start, _ in (this, last):
        expected = {
            "w": start.weekday() == 0,
            "m": start.day == 1,
            "y": (start.month, start.day) == (1, 1),
        }
        assert expected[letter]
    if unit == "week":
        assert this[1] - this[0] == last[1] - last[0] == timedelta(7)


ZONES = ("Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "UTC")


@pytest.fixture(params=ZONES)
def zone(request, monkeypatch):
    """The time zone of this machine, for the test."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield ZoneInfo(request.param)
    monkeypatch.undo()
    time.tzset()


DAYS = (
    *(date(2024, 3, day) for day in (9, 10, 11, 30, 31)),
    *(date(2024, 4, day) for day in (1, 6, 7, 8)),
    *(date(2024, 10, day) for day in (5, 6, 7, 26, 27, 28)),
    *(date(2024, 11, day) for day in (2, 3, 4)),
    # In Brazil the clock was put on at midnight: these days began at 1 o'clock, or had 25 hours.
    *(date(2018, 11, day) for day in (3, 4, 5)),
    *(date(2018, 2, day) for day in (16, 17, 18)),
)


def test_a_day_is_all_that_a_calendar_on_the_wall_calls_so(zone):
    # The oracle goes through the instants and asks what day each is; the code asks when a day is.
    for day in DAYS:
        since, before = modified(f":{day.isoformat()}", None)
        start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() - 20 * 3600
        instants = [start + quarter * 900 for quarter in range(4 * 68)]
        there = [at for at in instants if datetime.fromtimestamp(at, zone).date() == day]
        assert (since, before) == (there[0], there[-1] + 900), day


def test_the_clock_of_this_machine_and_a_zone_that_is_given_agree(zone):
    for day in DAYS:
        at_noon = datetime(day.year, day.month, day.day, 12)
        for text in (
            f":{day}",
            f">{day}",
            f"<={day}",
            f":{day}T02:30",
            f":{day}T00:00..{day}T03:00",
            ":today",
            ":yesterday",
            ":this week",
            ":last month",
            ":last 3 days",
            ":last 1 year",
            ":last 5 hours",
        ):
            local = modified(text, at_noon)
            assert local == modified(text, at_noon.replace(tzinfo=zone)), (day, text)


def test_without_a_now_it_is_the_clock_of_this_machine(zone):
    before = datetime.now(zone).date()
    since, _ = modified(":today", None)
    after = datetime.now(zone).date()
    assert before <= datetime.fromtimestamp(since, zone).date() <= after


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_days_follow_each_other_without_gap_or_overlap_in_any_zone(data):
    zone = ZoneInfo(data.draw(st.sampled_from(ZONES)))
    day = data.draw(st.dates(date(1971, 1, 1), date(2037, 12, 30)))
    now = datetime(2024, 6, 15, 12, tzinfo=zone)
    since, before = modified(f":{day}", now)
    assert before == modified(f":{day + timedelta(1)}", now)[0]
    assert 22 * 3600 <= before - since <= 26 * 3600
    assert modified(f"<{day}", now) == (None, since)
    assert modified(f"<={day}", now) == (None, before)
    assert modified(f">{day}", now) == (before, None)
    assert modified(f">={day}", now) == (since, None)


def test_of_an_hour_that_comes_twice_the_first_is_meant_and_a_zone_tells_the_other():
    now = datetime(2024, 10, 27, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    first = datetime(2024, 10, 27, 0, 30, tzinfo=UTC).timestamp()
    assert modified(":2024-10-27T02:30", now) == (first, first + 60)
    assert modified(":2024-10-27T02:30+02:00", now) == (first, first + 60)
    assert modified(":2024-10-27T02:30+01:00", now) == (first + 3600, first + 3660)
    assert modified(":2024-10-27T01:30Z", now) == (first + 3600, first + 3660)
    assert modified(":2024-10-27T01:30Z..@1729999999.5", now) == (first + 3600, 1730000000.5)


def test_hours_are_counted_through_a_change_of_the_clock():
    now = datetime(2024, 3, 31, 4, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    since, _ = modified(":last 3 hours", now)
    assert now.timestamp() - since == 3 * 3600
    assert datetime.fromtimestamp(since, now.tzinfo).hour == 0


def test_added_and_modified_are_told_apart():
    now = datetime(2024, 6, 15, tzinfo=UTC)
    assert parse_where("added:2024", now=now) == Moment("added", 1704067200.0, 1735689600.0)
    assert parse_where("modified:2024", now=now) == Moment("modified", 1704067200.0, 1735689600.0)
