select
    id as bot_id,
    name as bot_name,
    instrument,
    symbol as series,
    strategy_family,
    cast(params as json) as params,
    params_hash,
    capital_cents,
    contracts,
    stage,
    created_at,
    reset_at
from {{ source('blaid', 'bots') }}
