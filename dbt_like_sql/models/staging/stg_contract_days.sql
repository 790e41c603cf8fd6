select
    id as contract_day_id,
    instrument,
    raw_symbol as contract,
    session_date,
    volume,
    open_interest,
    source_key,
    simulated,
    trace_id,
    created_at,
    row_number() over (partition by raw_symbol, session_date, source_key order by created_at desc, id desc) = 1 as is_latest
from {{ source('blaid', 'contract_days') }}
