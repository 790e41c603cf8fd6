select
    id as definition_id,
    raw_symbol as contract,
    instrument,
    instrument_id,
    activation,
    expiration,
    tick_size,
    currency,
    mic,
    cast(definition as json) as definition,
    source_key,
    simulated,
    trace_id,
    created_at,
    row_number() over (partition by raw_symbol, expiration order by created_at desc, id desc) = 1 as is_latest
from {{ source('blaid', 'contract_definitions') }}
