{{ config(
    pre_hook="set variable trades_files = (select cast(cast(content as json) as varchar[]) from read_text('tables/trades_files.json'))"
) }}

select
    session_id || '/' || (file_row_number + 1) as trade_id,
    session_id,
    file_row_number + 1 as trade_number,
    entry_ts,
    exit_ts,
    side,
    contracts,
    entry_ticks,
    entry_price,
    exit_ticks,
    exit_price,
    exit_reason,
    gross_pnl_cents,
    commission_cents,
    slippage_cents,
    net_pnl_cents,
    target_first_net_pnl_cents,
    mae_cents,
    mfe_cents,
    bars_held,
    ambiguous,
    strptime(cast(session_date as varchar), '%Y%m%d')::date as session_date,
    contract
from {{ source('lake', 'trades') }}
