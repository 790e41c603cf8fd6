select
    id as margin_id,
    symbol as instrument,
    effective_from,
    initial as initial_usd,
    maintenance as maintenance_usd,
    source
from {{ source('blaid', 'instrument_margins') }}
