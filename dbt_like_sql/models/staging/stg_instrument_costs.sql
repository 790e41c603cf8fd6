select
    id as cost_id,
    symbol as instrument,
    effective_from,
    commission_per_side as commission_per_side_usd,
    fees_per_side as fees_per_side_usd,
    slippage_ticks,
    source
from {{ source('blaid', 'instrument_costs') }}
