{{ config(
    pre_hook="set variable equity_files = (select cast(cast(content as json) as varchar[]) from read_text('tables/equity_files.json'))"
) }}

select
    session_id || '/' || strptime(cast(session_date as varchar), '%Y%m%d')::date as equity_id,
    session_id,
    strptime(cast(session_date as varchar), '%Y%m%d')::date as session_date,
    net_pnl_cents,
    equity_cents,
    drawdown_cents,
    trades
from {{ source('lake', 'equity') }}
