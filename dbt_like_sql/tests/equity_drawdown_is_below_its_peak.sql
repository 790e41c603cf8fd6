-- The peak is the highest session end so far, the capital at the start included; never deeper than trade by trade.
with peaks as (
    select
        equity.*,
        sessions.max_drawdown_pct,
        greatest(
            sessions.capital_cents,
            max(equity.equity_cents)
                over (partition by equity.session_id order by equity.session_date rows unbounded preceding)
        ) as highest_cents
    from {{ ref('equity') }} as equity
    inner join {{ ref('stg_backtest_sessions') }} as sessions on sessions.session_id = equity.session_id
)

select *
from peaks
where
    peak_cents <> highest_cents
    or drawdown_cents < 0
    or drawdown_pct > max_drawdown_pct + 1e-9
