select
    symbol as instrument,
    name,
    exchange,
    mic,
    tick_size,
    point_value,
    currency,
    session as calendar,
    is_active
from {{ source('blaid', 'instruments') }}
