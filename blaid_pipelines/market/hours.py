"""What the exchange calendar does not know: hours that held once, and single days it has wrong. Data and lookups only.

``pandas_market_calendars`` gives today's regular hours and the holidays by rule. Here, per group of calendars: dated
regimes (regular hours of the past), dated exceptions (closes that the rule misses, sessions that were cancelled or
held), each with its source, and the first session date from which all of that is established. What lies before is
refused by :func:`~blaid_pipelines.market.sessions.load_sessions`: nobody's hours are silently taken for another's.

The exceptions come from a comparison with QuantConnect LEAN's market-hours database (dated exchange notices since
2009): where it names another close than the rule of the calendar, the dated notice wins. Left as the calendar has
them: rates on 2011-05-30 (LEAN gives the equity close), and 2025-12-25 (LEAN opens on a holiday).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from types import MappingProxyType

REGULAR_CLOSE = time(16, 0)
"""The regular close of every calendar treated here, Chicago time; an override never touches a day that has another."""


@dataclass(frozen=True, slots=True)
class Regime:
    """Regular hours of sessions dated ``first`` to ``last``, Chicago wall-clock times.

    ``halts`` lie on the session's own date. ``evening_open``: a session whose previous day had a regular session
    opened then, not at 17:00, and ``evening_halts`` lie on that previous day.
    """

    first: date
    last: date
    close: time
    halts: tuple[tuple[time, time], ...]
    source: str
    evening_open: time | None = None
    evening_halts: tuple[tuple[time, time], ...] = ()


@dataclass(frozen=True, slots=True)
class Hours:
    """The history of one group of calendars. An exception of None: there was no session of that date."""

    established: date  # sessions dated earlier are refused
    source: str  # of ``established``, and of today's hours having held since the last regime
    regimes: tuple[Regime, ...] = ()
    exceptions: Mapping[date, time | None] = field(default_factory=lambda: MappingProxyType({}))

    def regime(self, day: date) -> Regime | None:
        """The regime that held for the session of ``day``; None where today's hours did."""
        return next((regime for regime in self.regimes if regime.first <= day <= regime.last), None)


def _exceptions(*groups: tuple[time | None, str]) -> Mapping[date, time | None]:
    found: dict[date, time | None] = {}
    for close, days in groups:
        for day in _days(days):
            if day in found:
                raise ValueError(f"{day} has two closes")
            found[day] = close
    return MappingProxyType(found)


def _days(text: str) -> Iterable[date]:
    return (date.fromisoformat(day) for day in text.split())


_HALT = ((time(15, 15), time(15, 30)),)

# Good Friday has a session only where the jobs report falls on it; the calendar assumes one in every year since 2023.
_CLOSED_GOOD_FRIDAYS = "2024-03-29 2025-04-18"

_EQUITY = Hours(
    established=date(2009, 1, 1),
    source="Hours of 15:30 to 15:15 CT announced by CME for 2003-09-29 and quoted by traders in March 2009",
    regimes=(
        Regime(
            date(2009, 1, 1),
            date(2012, 11, 16),
            time(15, 15),
            (),
            "CME, effective 2012-11-18: trade dates begin at 17:00 CT instead of 15:30 CT (Monday to Thursday), and "
            "end at 16:15 instead of 15:15; closed 16:30-17:00 CT before (CME, hours of 2003-09-29)",
            evening_open=time(15, 30),
            evening_halts=((time(16, 30), time(17, 0)),),
        ),
        Regime(
            date(2012, 11, 19),
            date(2015, 9, 18),
            time(16, 15),
            _HALT,
            "CME, effective 2012-11-18: halt 15:15-15:30 CT, close 16:15 CT, Fridays included; seen in ES trades of "
            "October to December 2013",
        ),
        Regime(
            date(2015, 9, 21),
            date(2021, 6, 25),
            time(16, 0),
            _HALT,
            "CME, effective 2015-09-21: close 16:00 CT instead of 16:15, the halt stays (NinjaTrader advisory 25); "
            "seen in ES trades of 2020-01-06; the halt ended with trade date 2021-06-28",
        ),
    ),
    exceptions=_exceptions(
        (None, _CLOSED_GOOD_FRIDAYS),  # LEAN: no session, the Thursday before is the last
        (time(8, 15), "2012-10-29 2012-10-30"),  # hurricane Sandy: CME Group, 2012-10-29
        (time(8, 30), "2018-12-05 2025-01-09"),  # days of mourning: CME Group, 2018-12-02 and 2024-12-30
    ),
)

_ENERGY_AND_METALS = Hours(
    established=date(2009, 1, 1),
    source="CME Group, 2007-08-20: NYMEX and COMEX products close at 16:15 CT, Globex resumes at 17:00 CT",
    regimes=(
        Regime(
            date(2009, 1, 1),
            date(2015, 9, 18),
            time(16, 15),
            (),
            "Close 17:15 ET until the maintenance period moved to 16:00 CT on 2015-09-21 (NinjaTrader advisory 25)",
        ),
    ),
    exceptions=_exceptions(
        (time(16, 15), "2009-01-19 2009-02-16"),
        (
            time(15, 15),
            "2009-05-22 2009-09-04 2009-10-09 2010-01-15 2010-02-12 2010-05-28 2010-07-02 2010-09-03 2010-10-08 "
            "2011-01-14",
        ),
        (time(12, 30), "2009-07-03"),
        (
            time(12, 15),
            "2009-05-25 2009-09-07 2009-11-26 2010-01-18 2010-02-15 2010-05-31 2010-07-05 2010-09-06 2010-11-25 "
            "2011-01-17 2011-02-21 2011-05-30 2011-07-04 2011-09-05 2011-11-24 2012-01-16 2012-02-20 2012-05-28 "
            "2012-07-04 2012-09-03 2012-11-22 2013-01-21 2013-02-18 2013-05-27 2013-07-04 2013-09-02 2013-11-28 "
            "2014-01-20 2014-02-17",
        ),
        (
            time(12, 45),
            "2009-12-24 2012-12-24 2013-12-24 2014-12-24 2015-12-24 2018-12-24 2019-12-24 2020-12-24 2024-12-24 "
            "2025-12-24",
        ),
        (time(13, 30), "2022-09-05 2023-09-04 2024-09-02 2025-09-01"),
        (time(12, 0), "2025-07-04 2027-06-18"),  # a holiday on a Friday ends the week
        (time(13, 45), "2025-11-28"),
    ),
)

_FX = Hours(
    established=date(2009, 1, 1),
    source="CME, 2003-09-29: foreign exchange closes at 16:00 CT and opens at 17:00 CT; the same in its hours of 2009",
    exceptions=_exceptions(
        (None, _CLOSED_GOOD_FRIDAYS),
        (
            time(15, 15),
            "2009-01-16 2009-02-13 2009-04-09 2009-05-22 2009-09-04 2009-10-09 2010-01-15 2010-02-12 2010-05-28 "
            "2010-07-02 2010-09-03 2010-10-08 2011-01-14 2011-02-18 2011-05-27 2011-07-01 2011-09-02 2011-10-07 "
            "2012-01-13 2012-02-17 2012-05-25 2012-08-31 2012-10-05 2013-01-18 2013-02-15 2013-05-24 2013-08-30 "
            "2014-01-17 2014-02-14 2014-05-23 2014-08-29 2015-01-16 2015-02-13 2015-05-22",
        ),
        (time(10, 15), "2010-04-02 2012-04-06 2015-04-03"),  # Good Fridays with the jobs report
        (time(12, 15), "2010-12-31"),
        (time(12, 0), "2025-07-04 2026-06-19 2026-07-03 2027-06-18"),
        (time(13, 45), "2025-11-28 2026-11-27"),
        (time(12, 45), "2025-12-24 2026-12-24"),
    ),
)

_RATES = Hours(
    established=date(2012, 10, 30),
    source="CME Group, 2012-10-29: Treasury futures reopen at 17:00 CT and resume normal hours. Earlier the opening "
    "time is not established (electronic trading at the CBOT opened later)",
    exceptions=_exceptions(
        (None, f"{_CLOSED_GOOD_FRIDAYS} 2018-12-05"),  # day of mourning: CME Group, 2018-12-02
        (time(12, 15), "2025-01-09"),  # day of mourning: CME Group, 2024-12-30
    ),
)

HOURS: Mapping[str, Hours] = MappingProxyType(
    {
        "CME Globex Equities": _EQUITY,
        "CMEGlobex_EnergyAndMetals": _ENERGY_AND_METALS,
        "CMEGlobex_FX": _FX,
        "CME Globex Fixed Income": _RATES,
    }
)
"""By a calendar's own name (``get_calendar(alias).name``)."""
