"""Bots: creating one, finding one, and which are due for a LAB cycle. The only place that writes ``bots`` rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from blaid_pipelines.backtest.strategy import check_params, get_family, params_hash
from blaid_pipelines.jobs.machine import JobStatus, end_dead_jobs
from blaid_pipelines.lab.context import LabContext
from blaid_pipelines.market.bars import bar_nanos
from blaid_pipelines.market.instruments import get_instrument, instrument_root, margins_on
from blaid_pipelines.reasons import InvalidRequest, Reason, ReasonCode
from blaid_pipelines.store.tables import Bot, BotJob

# Far above any account, far below what a 64-bit number of cents or a float of dollars can no longer hold exactly.
MOST_CAPITAL_CENTS = 100_000_000_000
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class NewBot:
    """What a person says of a bot. ``instrument`` is a root (``MES``); a series symbol (``6EH4``) names both."""

    name: str
    instrument: str
    strategy: str
    params: Mapping[str, str]
    capital_cents: int
    contracts: int = 1
    symbol: str | None = None
    schema: str = "ohlcv-1m"


def create_bot(lab: LabContext, new: NewBot) -> Bot:
    """Check everything a bot names and write its row; stage LAB.

    Raises :class:`InvalidRequest` with every violation at once (name, strategy, parameters, instrument, quantity,
    margin, bars that the strategy cannot be kept on), or ALREADY_EXISTS.
    """
    root = instrument_root(new.instrument)
    symbol = new.symbol or (new.instrument if new.instrument != root else None)
    spec = get_instrument(lab.store, root)
    family = get_family(new.strategy)
    params = check_params(family, new.params)
    problems = _problems(lab, new, root, symbol, spec.min_qty, spec.max_qty)
    problems += family.unsuited(params, bar_nanos(new.schema))
    if problems:
        raise InvalidRequest(*problems)
    bot = Bot(
        name=new.name,
        instrument=root,
        symbol=symbol,
        schema=new.schema,
        strategy_family=family.name,
        params=dict(params),
        params_hash=params_hash(family.name, params),
        capital_cents=new.capital_cents,
        contracts=new.contracts,
        stage="LAB",
    )
    try:
        with lab.store.session() as session:
            session.add(bot)
            session.flush()
            session.refresh(bot)
            session.expunge(bot)
    except IntegrityError as error:
        if "uq_bots_name" not in str(error.orig):
            raise
        raise InvalidRequest(
            Reason(
                ReasonCode.ALREADY_EXISTS,
                f"there is a bot named {new.name} already",
                "Choose another name; `blaid bot list` shows those in use.",
                {"name": new.name},
            )
        ) from error
    return bot


def _problems(lab: LabContext, new: NewBot, root: str, symbol: str | None, low: int, high: int) -> list[Reason]:
    problems = []
    if not NAME_PATTERN.fullmatch(new.name):
        problems.append(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{new.name!r} is not a bot name",
                "Use up to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
            )
        )
    if symbol is not None and instrument_root(symbol) != root:
        problems.append(
            Reason(
                ReasonCode.INSTRUMENT_MISMATCH,
                f"the series {symbol} does not belong to the instrument {root}",
                f"Name a series of {root}, such as {root}.c.0.",
                {"symbol": symbol, "instrument": root},
            )
        )
    if not low <= new.contracts <= high:
        problems.append(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"{new.contracts} contracts is outside what {root} allows",
                f"Trade {low} to {high} contracts.",
                {"contracts": new.contracts, "min_qty": low, "max_qty": high},
            )
        )
    if new.capital_cents > MOST_CAPITAL_CENTS:
        problems.append(
            Reason(
                ReasonCode.INVALID_REQUEST,
                f"a capital of {new.capital_cents / 100:,.2f} USD is more than one bot may have",
                f"Give it at most {MOST_CAPITAL_CENTS / 100:,.0f} USD.",
                {"most_usd": MOST_CAPITAL_CENTS / 100},
            )
        )
    margin = margins_on(lab.store, root, lab.clock().date())
    needed_cents = margin.initial_cents * new.contracts
    if new.capital_cents < needed_cents:
        problems.append(
            Reason(
                ReasonCode.MARGIN_EXCEEDS_CAPITAL,
                f"{new.contracts} {root} need {needed_cents / 100:,.2f} USD of margin, the bot has "
                f"{new.capital_cents / 100:,.2f}",
                "Give the bot more capital, fewer contracts or a smaller instrument.",
                {"capital_cents": new.capital_cents, "margin_cents": needed_cents},
            )
        )
    return problems


def find_bot(session: Session, name: str) -> Bot:
    """The bot called ``name``; raises :class:`InvalidRequest` (NOT_FOUND)."""
    bot = session.scalar(select(Bot).where(Bot.name == name))
    if bot is None:
        raise InvalidRequest(
            Reason(
                ReasonCode.NOT_FOUND,
                f"there is no bot named {name}",
                "List bots with `blaid bot list`, make one with `blaid bot create`.",
                {"name": name},
            )
        )
    return bot


def list_bots(lab: LabContext) -> list[Bot]:
    """All bots by name, detached from their session."""
    with lab.store.session() as session:
        bots = list(session.scalars(select(Bot).order_by(Bot.name)))
        session.expunge_all()
    return bots


def due_bots(lab: LabContext, now: datetime, limit: int) -> list[str]:
    """Names of LAB bots whose last job began longer ago than the policy's cadence, the longest waiting first.

    A bot that never ran comes first; one with a job under way is not due. Jobs that died are ended first, so that they
    cannot hold a bot back for ever. At most ``limit`` names.
    """
    cadence = timedelta(seconds=lab.policy.stages.LAB.cadence.BACKTEST.every_s)
    last = (
        select(
            BotJob.bot_id,
            func.max(BotJob.created_at).label("last_at"),
            func.count().filter(BotJob.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])).label("open_jobs"),
        )
        .where(BotJob.bot_id.is_not(None))
        .group_by(BotJob.bot_id)
        .subquery()
    )
    query = (
        select(Bot.name)
        .outerjoin(last, last.c.bot_id == Bot.id)
        .where(Bot.stage == "LAB")
        .where((last.c.last_at.is_(None)) | ((last.c.last_at <= now - cadence) & (last.c.open_jobs == 0)))
        .order_by(last.c.last_at.asc().nulls_first(), Bot.name)
        .limit(limit)
    )
    with lab.store.session() as session:
        end_dead_jobs(session, now=now)
        return list(session.scalars(query))


def require_bots(lab: LabContext, names: Sequence[str]) -> None:
    """Raise :class:`InvalidRequest` (NOT_FOUND) unless every name is a bot's."""
    with lab.store.session() as session:
        for name in names:
            find_bot(session, name)
